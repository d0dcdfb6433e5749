package nvml_test

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hostler-project/hostler/health/nvml"
	standin "github.com/hostler-project/hostler/internal/standin/nvml"
)

// built is the real worker and the stand-in library, made once for all tests.
var built struct {
	sync.Once
	dir     string
	library string
	err     error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// programs builds the worker and the library, or skips where there is no C compiler.
func programs(t *testing.T) (worker, library string) {
	t.Helper()
	built.Do(func() {
		// Reading the sources makes Go's test cache see their changes.
		for _, dir := range []string{"../../cmd/hostler-nvml", "../../internal/standin/nvml"} {
			built.err = errors.Join(built.err, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
				if err == nil && !d.IsDir() {
					_, err = os.ReadFile(p)
				}
				return err
			}))
		}
		if built.dir, built.err = os.MkdirTemp("", "hostler-nvml-test"); built.err != nil {
			return
		}
		if built.library, built.err = standin.Build(context.Background(), built.dir); built.err != nil {
			return
		}
		cmd := exec.Command("go", "build", "-buildvcs=false", "-ldflags", "-s -w -extldflags=-Wl,-z,lazy", "-o", filepath.Join(built.dir, "hostler-nvml"), "../../cmd/hostler-nvml")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=1", "CGO_CFLAGS=-O2 -Wno-deprecated-declarations")
		if out, err := cmd.CombinedOutput(); err != nil {
			built.err = errors.Join(err, errors.New(string(out)))
		}
	})
	if errors.Is(built.err, standin.ErrNoCompiler) {
		t.Skip("SKIPPED: no stand-in for NVML: ", built.err)
	}
	if built.err != nil {
		t.Fatal(built.err)
	}
	return filepath.Join(built.dir, "hostler-nvml"), built.library
}

// short are deadlines for tests: everything about twenty times faster than on a real machine.
func short() nvml.Deadlines {
	return nvml.Deadlines{
		Call: 400 * time.Millisecond, Init: time.Second, Suspect: 200 * time.Millisecond, Verdict: 800 * time.Millisecond,
		Beat: 40 * time.Millisecond, Poll: 120 * time.Millisecond, Slow: time.Second, Tick: 10 * time.Millisecond,
		Again: 30 * time.Millisecond, Longest: 300 * time.Millisecond,
	}
}

// A watched is a running supervisor, and everything that it told.
type watched struct {
	*nvml.Supervisor
	machine *standin.Machine
	mu      sync.Mutex
	told    []nvml.Sample
	came    chan struct{}
}

// watch starts a supervisor over n stand-ins of a shape.
func watch(t *testing.T, shape string, n int, change func(*nvml.Supervisor)) *watched {
	t.Helper()
	worker, library := programs(t)
	m, err := standin.New(filepath.Join(t.TempDir(), "state"), shape, n)
	if err != nil {
		t.Fatal(err)
	}
	w := &watched{machine: m, came: make(chan struct{}, 1)}
	w.Supervisor = &nvml.Supervisor{
		Program: worker, Args: []string{"--library", library}, Env: []string{m.Env()}, Sys: m.Sys(), VersionFile: m.VersionFile(),
		Deadlines: short(), Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Tell: func(s nvml.Sample) {
			w.mu.Lock()
			w.told = append(w.told, s)
			w.mu.Unlock()
			select {
			case w.came <- struct{}{}:
			default:
			}
		},
	}
	if change != nil {
		change(w.Supervisor)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case <-done:
		case <-time.After(30 * time.Second):
			t.Error("the supervisor does not end")
		}
	})
	return w
}

// until waits for a sample that is as wanted, told after this call.
func (w *watched) until(t *testing.T, what string, ok func(nvml.Sample) bool) nvml.Sample {
	t.Helper()
	w.mu.Lock()
	seen := len(w.told)
	if seen > 0 {
		seen-- // the present state counts too
	}
	w.mu.Unlock()
	deadline := time.After(25 * time.Second)
	for {
		w.mu.Lock()
		for ; seen < len(w.told); seen++ {
			if ok(w.told[seen]) {
				s := w.told[seen]
				w.mu.Unlock()
				return s
			}
		}
		w.mu.Unlock()
		select {
		case <-w.came:
		case <-deadline:
			s := w.Sample()
			t.Fatalf("never came: %s; the last state is %q (%s), %d GPUs", what, s.Status.State, s.Status.Text, len(s.GPUs))
		}
	}
}

// signals: what was told so far makes these signals, each at least once, and no others.
func (w *watched) signals(t *testing.T, want ...string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	var previous nvml.Sample
	got := map[string]bool{}
	for _, s := range w.told {
		for _, x := range nvml.Signals(previous, &s, nvml.Expect{GPUs: len(s.PCI)}) {
			got[x.Incident()+" "+string(x.Mark)] = true
			if x.Check == "G3" && x.Mark == "holds" && (!strings.Contains(x.Line, "blocked") || x.Value == "") {
				t.Errorf("%s without evidence: %+v", x.Incident(), x)
			}
		}
		previous = s
	}
	for _, x := range want {
		if !got[x] {
			t.Errorf("missing: %s", x)
		}
		delete(got, x)
	}
	if len(got) > 0 {
		t.Errorf("too many: %v", got)
	}
}

// answering waits until all GPUs answer.
func (w *watched) answering(t *testing.T, n int) nvml.Sample {
	t.Helper()
	return w.until(t, "all GPUs answer", func(s nvml.Sample) bool {
		return s.Status.State == nvml.Answering && s.Status.Text == "" && count(s, nvml.Present) == n
	})
}

func count(s nvml.Sample, state string) int {
	n := 0
	for _, g := range s.GPUs {
		if g.State == state {
			n++
		}
	}
	return n
}

func at(s nvml.Sample, bus string) nvml.GPU {
	for _, g := range s.GPUs {
		if g.Bus == bus {
			return g
		}
	}
	return nvml.GPU{}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// workers are the processes of this test's worker program that live.
func workers(t *testing.T, library string) []string {
	t.Helper()
	var pids []string
	dirs, err := os.ReadDir("/proc")
	must(t, err)
	for _, d := range dirs {
		b, err := os.ReadFile("/proc/" + d.Name() + "/maps")
		if err == nil && strings.Contains(string(b), library) && !slices.Contains(pids, d.Name()) {
			pids = append(pids, d.Name())
		}
	}
	return pids
}
