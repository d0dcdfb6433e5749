package nvml_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"debug/elf"

	"github.com/hostler-project/hostler/health/nvml"
	standin "github.com/hostler-project/hostler/internal/standin/nvml"
)

// once runs the worker by itself against a library and a machine.
func once(t *testing.T, library string, m *standin.Machine) (nvml.Sample, string, int) {
	t.Helper()
	worker, _ := programs(t)
	cmd := exec.Command(worker, "once", "--library", library)
	if m != nil {
		cmd.Env = append(os.Environ(), m.Env())
	}
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	_ = cmd.Run() // the code says it
	var s nvml.Sample
	if out.Len() > 0 {
		must(t, json.Unmarshal(out.Bytes(), &s))
	}
	return s, errOut.String(), cmd.ProcessState.ExitCode()
}

func machine(t *testing.T, shape string, n int) *standin.Machine {
	t.Helper()
	m, err := standin.New(filepath.Join(t.TempDir(), "state"), shape, n)
	must(t, err)
	return m
}

// Where there is no driver the worker starts all the same, says so at once, and is linked so that it can: a hardened
// distribution's flags would have it die before main.
func TestStartsWithoutADriver(t *testing.T) {
	t.Parallel()
	worker, _ := programs(t)
	_, said, code := once(t, "libnvidia-ml.so.nowhere", nil)
	if code != 3 || !strings.HasPrefix(said, "hostler-nvml: no driver: libnvidia-ml.so.nowhere cannot be loaded") {
		t.Errorf("exit code %d, %q", code, said)
	}
	f, err := elf.Open(worker)
	must(t, err)
	defer f.Close()
	for _, tag := range []elf.DynTag{elf.DT_FLAGS, elf.DT_FLAGS_1} {
		flags, err := f.DynValue(tag)
		must(t, err)
		for _, v := range flags {
			if tag == elf.DT_FLAGS && elf.DynFlag(v)&elf.DF_BIND_NOW != 0 || tag == elf.DT_FLAGS_1 && elf.DynFlag1(v)&elf.DF_1_NOW != 0 {
				t.Errorf("%s is %#x: every name would be looked up before main", tag, v)
			}
		}
	}
}

// symbolsOf are the names that the worker looks up.
func symbolsOf(t *testing.T) []string {
	t.Helper()
	worker, _ := programs(t)
	out, err := exec.Command(worker, "symbols").Output()
	must(t, err)
	return strings.Fields(string(out))
}

func TestStandInHasWhatTheWorkerLooksUp(t *testing.T) {
	t.Parallel()
	_, library := programs(t)
	f, err := elf.Open(library)
	must(t, err)
	defer f.Close()
	exported, err := f.DynamicSymbols()
	must(t, err)
	var have []string
	for _, s := range exported {
		if s.Section != elf.SHN_UNDEF && strings.HasPrefix(s.Name, "nvml") {
			have = append(have, s.Name)
		}
	}
	slices.Sort(have)
	want := symbolsOf(t)
	if len(want) < 60 || !slices.Equal(have, want) {
		t.Errorf("the stand-in exports %v\nthe worker looks up %v", have, want)
	}
}

// A library that lacks one name, whichever it is, costs the worker what needs that name and nothing else. Calling it
// would end the process: so this also finds a call that no lookup guards.
func TestLivesWithoutAnySymbol(t *testing.T) {
	t.Parallel()
	_, library := programs(t)
	lib, err := os.ReadFile(library)
	must(t, err)
	m := machine(t, "H200", 2)
	for i := range 2 { // what no shape has, so that every call has an answer to lose
		must(t, m.Set(i, "platform.slot", "3", "retired.pending", "1", "retired.single", "2", "retired.double", "1"))
	}
	must(t, m.Driver("cc.ready", "1"))
	whole, _, _ := once(t, library, m)
	if count(whole, nvml.Present) != 2 {
		t.Fatal("the whole library does not work")
	}
	// What a sample does not show: they have a second way, or are that way, or bring events.
	unseen := []string{"nvmlEventSetFree", "nvmlDeviceGetNvLinkErrorCounter", "nvmlDeviceGetTemperature", "nvmlDeviceGetTemperatureV",
		"nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"}
	dir := t.TempDir()
	names := make(chan string)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for name := range names {
				// Another name in the string table: the loader's hash no longer finds it.
				cut := bytes.ReplaceAll(lib, []byte("\x00"+name+"\x00"), []byte("\x00X"+name[1:]+"\x00"))
				path := filepath.Join(dir, name, "libnvidia-ml.so.1")
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Error(err)
					continue
				}
				if err := os.WriteFile(path, cut, 0o755); err != nil {
					t.Error(err)
					continue
				}
				s, said, code := once(t, path, m)
				switch {
				case code == 3 && strings.Contains(said, "too old, it lacks "+name):
				case code != 0 || count(s, nvml.Present) != 2:
					t.Errorf("without %s: exit code %d, %s", name, code, said)
				case fmt.Sprint(s.GPUs, s.System, s.Peers) == fmt.Sprint(whole.GPUs, whole.System, whole.Peers) && !slices.Contains(unseen, name):
					t.Errorf("without %s the sample is the same: is it looked up for nothing?", name)
				}
			}
		})
	}
	for _, name := range symbolsOf(t) {
		names <- name
	}
	close(names)
	wg.Wait()
}

// Every reading of every shape is answered or said to be unsupported; what the shape does not have is never a 0.
func TestNotSupportedIsKept(t *testing.T) {
	t.Parallel()
	_, library := programs(t)
	for _, c := range []struct {
		shape       string
		links       int
		has, hasNot []string
	}{
		{"A100", 12, []string{"link.replay", "link.crc", "remap.pending", "temp.gpu", "held.hw-thermal"}, []string{"fabric.state", "sram.threshold", "temp.margin", "repair.tpc", "link.ber", "gpm"}},
		{"H100", 18, []string{"link.replay", "fabric.state", "sram.threshold", "temp.margin"}, []string{"link.ber", "retired.double"}},
		{"H200", 18, []string{"link.replay", "fabric.state", "sram.threshold", "memory.unrepairable"}, []string{"link.ber", "retired.double"}},
		{"B200", 18, []string{"link.ber", "link.malformed", "fabric.summary"}, []string{"link.replay", "link.crc", "retired.double"}},
		{"H100-PCIe", 0, []string{"pcie.width", "sram.threshold"}, []string{"fabric.state", "nvlink.encrypted"}},
	} {
		s, said, code := once(t, library, machine(t, c.shape, 1))
		if code != 0 || len(s.GPUs) != 1 {
			t.Fatalf("%s: exit code %d, %s", c.shape, code, said)
		}
		g := s.GPUs[0]
		for _, r := range nvml.Readings {
			v, asked := g.Values[r.Key]
			if r.Link {
				asked = len(g.Links[r.Key]) == c.links && (c.links > 0) == (g.Links[r.Key] != nil)
			}
			if !asked || v.Err != "" {
				t.Errorf("%s: %s: asked %v, %s, %d links", c.shape, r.Key, asked, v, len(g.Links[r.Key]))
			}
		}
		get := func(key string) nvml.Value {
			if l := g.Links[key]; len(l) > 0 {
				return l[len(l)-1]
			}
			return g.Values[key]
		}
		for _, k := range c.has {
			if !get(k).OK() {
				t.Errorf("%s: %s is %s", c.shape, k, get(k))
			}
		}
		for _, k := range c.hasNot {
			if v := get(k); !v.Unsupported {
				t.Errorf("%s: %s is %s, and not: not supported", c.shape, k, v)
			}
		}
		if s.System["cc.feature"].Unsupported || !s.System["cc.ready"].Unsupported {
			t.Errorf("%s: confidential computing %v", c.shape, s.System)
		}
	}
}

func TestSixteenGPUs(t *testing.T) {
	t.Parallel()
	_, library := programs(t)
	s, said, code := once(t, library, machine(t, "B200", 16))
	if code != 0 || count(s, nvml.Present) != 16 || s.Count.N != 16 || len(s.Peers) != 16*15*2+16*15/2 {
		t.Fatalf("exit code %d, %s: %d GPUs, %d pairs", code, said, count(s, nvml.Present), len(s.Peers))
	}
	seen := map[string]bool{}
	for _, g := range s.GPUs {
		if seen[g.Key()] || seen[g.Serial] || g.Serial == "" || g.Bus == "" {
			t.Errorf("two GPUs are %s, serial %s", g.Key(), g.Serial)
		}
		seen[g.Key()], seen[g.Serial] = true, true
	}
}

func TestValuesKeepWhatTheyAre(t *testing.T) {
	for _, v := range []nvml.Value{nvml.Number(0), nvml.Number(-8), nvml.Number(1 << 62), nvml.Text("GPU-1"), nvml.NotSupported(), nvml.Failed("GPU is lost")} {
		b, err := json.Marshal(v)
		must(t, err)
		var got nvml.Value
		must(t, json.Unmarshal(b, &got))
		if got != v {
			t.Errorf("%s became %s (%s)", v, got, b)
		}
	}
	var none nvml.Values
	if _, ok := none.Number("temp.gpu"); ok {
		t.Error("what was never asked has a number")
	}
}

func TestFramesAreBounded(t *testing.T) {
	var b bytes.Buffer
	must(t, nvml.WriteFrame(&b, nvml.Request{ID: 7, Op: nvml.OpBeat}))
	whole := b.Bytes()
	var r nvml.Request
	must(t, nvml.ReadFrame(bytes.NewReader(whole), &r))
	if r.ID != 7 || r.Op != nvml.OpBeat {
		t.Errorf("got %+v", r)
	}
	for name, in := range map[string][]byte{"cut": whole[:len(whole)-1], "too long": {0xff, 0, 0, 0, 1}, "no JSON": {0, 0, 0, 1, '{'}, "half a head": whole[:2]} {
		if err := nvml.ReadFrame(bytes.NewReader(in), &r); err == nil {
			t.Errorf("%s: was read", name)
		}
	}
}

// FuzzFrame: nonsense from the pipe is an error, never a panic or a huge allocation.
func FuzzFrame(f *testing.F) {
	f.Add([]byte{0, 0, 0, 2, '{', '}'})
	f.Add([]byte{0, 0, 0, 30, '{', '"', 's'})
	f.Fuzz(func(t *testing.T, in []byte) {
		var a nvml.Answer
		_ = nvml.ReadFrame(bytes.NewReader(in), &a)
	})
}
