package cmd

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// programs are what users run: their deepest dependencies too are a promise.
var programs = []struct {
	name string
	not  string // no dependency may match
	max  int64  // bytes, stripped; 0: no limit
}{
	{"hostler", `^(go\.etcd\.io/|runtime/cgo$|github\.com/NVIDIA/|google\.golang\.org/grpc)`, 0},
	{"hostlerd", `^(runtime/cgo$|github\.com/NVIDIA/)`, 0},
	{"hostler-agent", `^(go\.etcd\.io/|runtime/cgo$|github\.com/NVIDIA/|google\.golang\.org/grpc|net/http/pprof$|github\.com/danielgtaylor/huma)`, 20 << 20},
	{"hostler-rack", `^runtime/cgo$`, 0},
}

// build makes the programs as make build does, and gives their folder.
func build(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	args := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", dir + "/"}
	for _, p := range programs {
		args = append(args, "./cmd/"+p.name)
	}
	goRun(t, args...)
	return dir
}

func goRun(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir, cmd.Env = "..", append(os.Environ(), "CGO_ENABLED=0")
	var errOut strings.Builder
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, errOut.String())
	}
	return string(out)
}

// The programs are built once for all that is asked of them.
func TestPrograms(t *testing.T) {
	depend(t)
	bin := build(t)
	t.Run("AreWhatTheyPromise", func(t *testing.T) { promises(t, bin) })
	t.Run("DoWhatTheManualShows", func(t *testing.T) { manualShows(t, bin) })
}

// promises: the programs are static, and the agent is small and free of servers, because it is in every node's memory.
func promises(t *testing.T, bin string) {
	for _, p := range programs {
		t.Run(p.name, func(t *testing.T) {
			bad := regexp.MustCompile(p.not)
			for dep := range strings.FieldsSeq(goRun(t, "list", "-deps", "./cmd/"+p.name)) {
				if bad.MatchString(dep) {
					t.Errorf("%s contains %s", p.name, dep)
				}
			}
			file := filepath.Join(bin, p.name)
			st, err := os.Stat(file)
			if err != nil {
				t.Fatal(err)
			}
			if p.max > 0 && st.Size() > p.max {
				t.Errorf("%s is %.1f MB stripped, the limit is %d MB", p.name, float64(st.Size())/(1<<20), p.max>>20)
			}
			f, err := elf.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if libs, err := f.ImportedLibraries(); err != nil || len(libs) > 0 {
				t.Errorf("%s is not static: it loads %v (%v)", p.name, libs, err)
			}
		})
	}
}

// depend makes Go's test cache see what child processes of a test read.
func depend(t *testing.T) {
	t.Helper()
	sources(t)
	for _, f := range []string{"../go.mod", "../go.sum"} {
		if _, err := os.ReadFile(f); err != nil {
			t.Fatal(err)
		}
	}
}
