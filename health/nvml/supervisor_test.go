package nvml_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hostler-project/hostler/health/nvml"
)

func TestEveryShapeAnswers(t *testing.T) {
	t.Parallel()
	for shape, n := range map[string]int{"A100": 8, "H100": 1, "H200": 8, "B200": 16, "H100-PCIe": 2} {
		t.Run(shape, func(t *testing.T) {
			t.Parallel()
			w := watch(t, shape, n, nil)
			s := w.answering(t, n)
			if s.Driver.Version != "580.82.07" || s.Driver.Kernel != "580.82.07" || s.Driver.Inode == 0 || len(s.PCI) != n || s.Count.N != int64(n) {
				t.Errorf("driver %+v, %d in sysfs, count %s", s.Driver, len(s.PCI), s.Count)
			}
			// What is asked seldom is in every sample.
			s = w.until(t, "a later sample", func(n nvml.Sample) bool { return n.At.Sub(s.At) > 200*time.Millisecond })
			if len(s.Peers) != n*(n-1)*5/2 || !s.System["cuda"].OK() || s.GPUs[0].Values.Text("vbios") == "" || s.Took <= 0 {
				t.Errorf("a later sample has %d pairs, %v, VBIOS %q", len(s.Peers), s.System, s.GPUs[0].Values.Text("vbios"))
			}
		})
	}
}

// A change in the state is in the next sample: nothing is kept.
func TestSeesCountersMove(t *testing.T) {
	t.Parallel()
	w := watch(t, "H100", 2, nil)
	w.answering(t, 2)
	must(t, w.machine.Set(1, "ecc.volatile.uncorrected", "3", "remap.pending", "1", "field.230", "4", "temp.gpu", "91", "pcie.width", "8", "links.down", "3, 17", "clocks.reasons", "0x48"))
	s := w.until(t, "the changes", func(s nvml.Sample) bool { return at(s, w.machine.Bus(1)).Values["temp.gpu"].N == 91 })
	v, links := at(s, w.machine.Bus(1)).Values, at(s, w.machine.Bus(1)).Links["link.state"]
	for key, want := range map[string]int64{"ecc.volatile.uncorrected": 3, "remap.pending": 1, "recovery": 4, "pcie.width": 8, "clocks.reasons": 0x48} {
		if v[key].N != want {
			t.Errorf("%s is %s, want %d", key, v[key], want)
		}
	}
	for i, l := range links {
		if down := i == 3 || i == 17; (l.N == 0) != down {
			t.Errorf("link %d: %s", i, l)
		}
	}
	if at(s, w.machine.Bus(0)).Values["temp.gpu"].N != 34 {
		t.Error("the other GPU changed too")
	}
}

func TestOneLostGPUDoesNotStopTheOthers(t *testing.T) {
	t.Parallel()
	w := watch(t, "H100", 8, nil)
	before := w.answering(t, 8)
	bus := w.machine.Bus(3)
	must(t, w.machine.Lose(3))
	s := w.until(t, "a lost GPU", func(s nvml.Sample) bool { return at(s, bus).State == nvml.Lost })
	if g := at(s, bus); g.Serial != at(before, bus).Serial || g.Serial == "" || !strings.Contains(g.Err, "GPU is lost") || len(g.Values) != 0 {
		t.Errorf("the lost GPU: %+v", g)
	}
	s = w.until(t, "a shorter list", func(s nvml.Sample) bool { return s.Count.N == 7 })
	if count(s, nvml.Present) != 7 || s.Status.State != nvml.Answering {
		t.Errorf("%d answer, state %s", count(s, nvml.Present), s.Status.State)
	}
	// The places behind it shifted: nobody may be taken for another.
	for _, g := range s.GPUs {
		if o := at(before, g.Bus); o.UUID != g.UUID || o.Serial != g.Serial {
			t.Errorf("GPU %s was %s, is %s", g.Bus, o.Serial, g.Serial)
		}
	}
	must(t, w.machine.Unplug(3))
	s = w.until(t, "sysfs without it", func(s nvml.Sample) bool { return len(s.PCI) == 7 })
	if g := at(s, bus); g.State != nvml.Lost || g.Serial == "" {
		t.Errorf("forgotten after it left the bus: %+v", g)
	}
}

func TestAHungGPUIsNamedAndTheOthersGoOn(t *testing.T) {
	t.Parallel()
	w := watch(t, "H100", 8, nil)
	w.answering(t, 8)
	bus := w.machine.Bus(5)
	must(t, w.machine.Hang(5, "all"))
	s := w.until(t, "a stuck GPU", func(s nvml.Sample) bool { return at(s, bus).State == nvml.Stuck && len(s.Status.Evidence) > 0 })
	if s.Status.State != nvml.Answering || !strings.Contains(s.Status.Text, bus) {
		t.Errorf("status %+v", s.Status)
	}
	if e := s.Status.Evidence; len(e) != 2 || e[0].Bus != bus || e[1].Bus != bus || e[0].State == "" || e[0].PID == e[1].PID {
		t.Errorf("evidence %v", e)
	}
	then := time.Now()
	s = w.until(t, "samples of the other seven", func(s nvml.Sample) bool { return s.At.After(then) && count(s, nvml.Present) == 7 })
	if at(s, bus).State != nvml.Stuck || at(s, bus).Serial == "" {
		t.Errorf("the stuck GPU: %+v", at(s, bus))
	}
	must(t, w.machine.Hang(5, ""))
	w.answering(t, 8)
	w.signals(t, "G3/gpu@"+bus+" holds", "G3/gpu@"+bus+" ended")
}

// A call that hangs on one GPU alone, whichever it is: each is found by the page, not by luck.
func TestAnyCallMayHang(t *testing.T) {
	t.Parallel()
	for _, call := range []string{"nvmlDeviceGetFieldValues", "nvmlDeviceGetNvLinkState", "nvmlDeviceGetPowerUsage", "nvmlDeviceGetTemperatureV"} {
		t.Run(call, func(t *testing.T) {
			t.Parallel()
			w := watch(t, "H100", 2, nil)
			w.answering(t, 2)
			must(t, w.machine.Hang(1, call))
			s := w.until(t, "the call in the evidence", func(s nvml.Sample) bool {
				return slices.ContainsFunc(s.Status.Evidence, func(e nvml.Evidence) bool { return e.Call == call && e.Bus == w.machine.Bus(1) })
			})
			if s.Status.Text == "" {
				t.Errorf("status %+v", s.Status)
			}
			w.until(t, "a stuck GPU beside one that answers", func(s nvml.Sample) bool {
				return at(s, w.machine.Bus(1)).State == nvml.Stuck && at(s, w.machine.Bus(0)).State == nvml.Present && s.Status.State == nvml.Answering
			})
		})
	}
}

func TestAHungDriverIsToldFromAHungGPU(t *testing.T) {
	t.Parallel()
	w := watch(t, "H200", 4, nil)
	w.answering(t, 4)
	must(t, w.machine.HangDriver("all"))
	s := w.until(t, "a stuck driver", func(s nvml.Sample) bool { return s.Status.State == nvml.DriverStuck })
	if e := s.Status.Evidence; len(e) != 2 || e[1].Call != "nvmlInitWithFlags" || !strings.Contains(s.Status.Text, "the driver hangs") {
		t.Errorf("status %q, evidence %v", s.Status.Text, e)
	}
	if count(s, nvml.Stuck) != 0 {
		t.Error("a GPU is blamed for the driver")
	}
	must(t, w.machine.HangDriver(""))
	w.answering(t, 4)
	w.signals(t, "G3/stuck@node holds", "G3/stuck@node ended")
}

// Processes that hang in the kernel stay whatever is done. Two of them are enough: then nobody calls the driver again.
func TestTwoHeldProcessesAreTheLimit(t *testing.T) {
	t.Parallel()
	held := make(chan int, 1)
	held <- 0
	now := func() int { n := <-held; held <- n; return n }
	w := watch(t, "H100", 2, func(s *nvml.Supervisor) { s.Held = now })
	w.answering(t, 2)
	must(t, w.machine.HangDriver("all"))
	w.until(t, "a stuck driver", func(s nvml.Sample) bool { return s.Status.State == nvml.DriverStuck })
	<-held
	held <- 2
	s := w.until(t, "blind", func(s nvml.Sample) bool { return s.Status.State == nvml.Blind })
	if len(s.Status.Evidence) == 0 || s.Status.Held != 2 || !strings.Contains(s.Status.Text, "until this machine boots again") {
		t.Errorf("status %+v", s.Status)
	}
	if err := w.Release(t.Context(), "a reset", time.Hour); err == nil || !strings.Contains(err.Error(), "2 processes still hang") {
		t.Errorf("devices that are held cannot be released: %v", err)
	}
	must(t, w.Reopen(t.Context()))
	must(t, w.machine.HangDriver(""))
	time.Sleep(500 * time.Millisecond)
	if s := w.Sample(); s.Status.State != nvml.Blind {
		t.Errorf("state %s: the driver was called again", s.Status.State)
	}
	w.signals(t, "G3/blind@node holds", "G3/stuck@node holds")
}

// Workers of an agent that is gone count: what the kernel shows of them is a pending SIGKILL.
func TestHeldProcessesOfAnEarlierAgentCount(t *testing.T) {
	t.Parallel()
	proc := t.TempDir()
	for pid, status := range map[string]string{
		"100": "Name:\thostler-nvml\nState:\tD (disk sleep)\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000000100\n",
		"101": "Name:\thostler-nvml\nState:\tD (disk sleep)\nShdPnd:\t0000000000000100\n",
		"102": "Name:\tnvidia-smi\nState:\tD (disk sleep)\nShdPnd:\t0000000000000100\n",
		"103": "Name:\thostler-nvml\nState:\tS (sleeping)\nShdPnd:\t0000000000000000\n",
	} {
		must(t, os.MkdirAll(filepath.Join(proc, pid), 0o755))
		must(t, os.WriteFile(filepath.Join(proc, pid, "status"), []byte(status), 0o644))
	}
	w := watch(t, "H100", 1, func(s *nvml.Supervisor) { s.Proc = proc })
	s := w.until(t, "blind", func(s nvml.Sample) bool { return s.Status.State == nvml.Blind })
	if s.Status.Held != 2 {
		t.Errorf("held %d", s.Status.Held)
	}
}

// Slow is not stuck: no call is given up before its time, and the histogram shows it.
func TestASlowDriverIsNotStuck(t *testing.T) {
	t.Parallel()
	w := watch(t, "H100-PCIe", 1, nil)
	w.answering(t, 1)
	must(t, w.machine.Driver("slow", "15")) // a sample takes longer than any one call may
	then := time.Now()
	s := w.until(t, "a slow sample", func(s nvml.Sample) bool { return s.At.After(then) && s.Calls.Slowest > 12*time.Millisecond })
	if s.Status.State != nvml.Answering || s.Calls.Counts[3] == 0 || s.Calls.Call == "" {
		t.Errorf("state %s, calls %+v", s.Status.State, s.Calls)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.told {
		if s.Status.State != nvml.Starting && s.Status.State != nvml.Answering {
			t.Errorf("state %s: %s", s.Status.State, s.Status.Text)
		}
	}
}

func TestEventsArrive(t *testing.T) {
	t.Parallel()
	w := watch(t, "H100", 4, nil)
	w.answering(t, 4)
	must(t, w.machine.Event(2, 0x8, 79))
	must(t, w.machine.Event(1, 0x400, 0))
	must(t, w.machine.Event(0, 0x10, 0)) // a clock change: nobody asked for it
	var got []nvml.Event
	w.until(t, "two events", func(s nvml.Sample) bool { got = append(got, s.Events...); return len(got) >= 2 })
	if len(got) != 2 || got[0].Bus != w.machine.Bus(2) || got[0].Xid != 79 || got[0].Type != 0x8 || got[0].GI != nil || got[1].Bus != w.machine.Bus(1) || got[1].Type != 0x400 {
		t.Errorf("events %+v", got)
	}
	if s := w.Sample(); at(s, w.machine.Bus(0)).Values["events"].N != 0xfe8a {
		t.Errorf("registered %#x", at(s, w.machine.Bus(0)).Values["events"].N)
	}
}

// An old driver knows few events: asking for one that it does not know must not lose the others.
func TestEventsAreAskedForBitByBit(t *testing.T) {
	t.Parallel()
	w := watch(t, "A100", 1, nil)
	w.answering(t, 1)
	if n := w.Sample().GPUs[0].Values["events"].N; n != 0x8a {
		t.Errorf("registered %#x", n)
	}
	must(t, w.machine.Event(0, 0x8, 31))
	w.until(t, "an XID", func(s nvml.Sample) bool { return len(s.Events) == 1 && s.Events[0].Xid == 31 })
}

func TestReleaseLetsGo(t *testing.T) {
	t.Parallel()
	_, library := programs(t)
	own := filepath.Join(t.TempDir(), "libnvidia-ml.so.1")
	b, err := os.ReadFile(library)
	must(t, err)
	must(t, os.WriteFile(own, b, 0o755))
	w := watch(t, "H100", 2, func(s *nvml.Supervisor) { s.Args = []string{"--library", own} })
	w.answering(t, 2)
	if n := len(workers(t, own)); n != 1 {
		t.Fatalf("%d processes hold the library", n)
	}
	must(t, w.Release(t.Context(), "a reset of GPU 1", time.Hour))
	if n := workers(t, own); len(n) != 0 {
		t.Fatalf("processes %v still hold the library", n)
	}
	s := w.until(t, "released", func(s nvml.Sample) bool { return s.Status.State == nvml.Released })
	if !strings.Contains(s.Status.Text, "a reset of GPU 1") {
		t.Errorf("status %+v", s.Status)
	}
	must(t, w.Reopen(t.Context()))
	w.answering(t, 2)
	must(t, w.Release(t.Context(), "another", 50*time.Millisecond))
	w.until(t, "released", func(s nvml.Sample) bool { return s.Status.State == nvml.Released })
	w.answering(t, 2) // the time is over
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Release(ctx, "too late", time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled release: %v", err)
	}
}

func TestAnotherDriverMeansAnotherWorker(t *testing.T) {
	t.Parallel()
	_, library := programs(t)
	own := filepath.Join(t.TempDir(), "libnvidia-ml.so.1")
	b, err := os.ReadFile(library)
	must(t, err)
	must(t, os.WriteFile(own, b, 0o755))
	w := watch(t, "H100", 1, func(s *nvml.Supervisor) { s.Args = []string{"--library", own} })
	first := w.answering(t, 1)
	pid := workers(t, own)

	must(t, w.machine.Driver("version", "590.48.01"))
	must(t, w.machine.KernelModule("590.48.01"))
	s := w.until(t, "the new module", func(s nvml.Sample) bool { return s.Driver.Kernel == "590.48.01" && s.Driver.Version == "590.48.01" })
	if now := workers(t, own); len(now) != 1 || now[0] == pid[0] {
		t.Errorf("processes %v, were %v", now, pid)
	}
	if s.Status.State != nvml.Answering {
		t.Errorf("state %s", s.Status.State)
	}
	must(t, os.WriteFile(own+".new", b, 0o755))
	must(t, os.Rename(own+".new", own))
	w.until(t, "the new file", func(s nvml.Sample) bool {
		return s.Driver.Inode != first.Driver.Inode && s.Status.State == nvml.Answering
	})
}

// FieldFor follows NVIDIA's renumbering: 251 is the clock counter of old drivers and power smoothing in new ones.
func TestFieldsAreRenumbered(t *testing.T) {
	r, _ := nvml.Find("held.hw-thermal")
	for driver, want := range map[int]uint32{535: 252, 580: 252, 590: 270, 600: 270, 0: 270} {
		if got := nvml.FieldFor(r, driver); got != want {
			t.Errorf("driver %d: field %d, want %d", driver, got, want)
		}
	}
	if r, _ := nvml.Find("recovery"); nvml.FieldFor(r, 535) != 230 {
		t.Error("another field changed")
	}
}

func TestNoDriverIsAStateOfItsOwn(t *testing.T) {
	t.Parallel()
	w := watch(t, "H100", 2, func(s *nvml.Supervisor) { s.Args = []string{"--library", "libnvidia-ml.so.nowhere"} })
	s := w.until(t, "no driver", func(s nvml.Sample) bool { return s.Status.State == nvml.NoDriver })
	if !strings.Contains(s.Status.Text, "cannot be loaded") || s.Status.Evidence != nil {
		t.Errorf("status %+v", s.Status)
	}
}

func TestAMismatchIsNoFaultOfTheHardware(t *testing.T) {
	t.Parallel()
	w := watch(t, "H100", 2, nil)
	w.answering(t, 2)
	must(t, w.machine.Driver("init", "18"))
	must(t, w.machine.KernelModule("590.48.01"))
	s := w.until(t, "a mismatch", func(s nvml.Sample) bool { return s.Status.State == nvml.Mismatch })
	if !strings.Contains(s.Status.Text, "version mismatch") {
		t.Errorf("status %+v", s.Status)
	}
	must(t, w.machine.Driver("init", "0"))
	w.answering(t, 2)
}

// Whatever happens to the worker itself, another one goes on.
func TestTheWorkerMayDieOrStop(t *testing.T) {
	t.Parallel()
	_, library := programs(t)
	own := filepath.Join(t.TempDir(), "libnvidia-ml.so.1")
	b, err := os.ReadFile(library)
	must(t, err)
	must(t, os.WriteFile(own, b, 0o755))
	w := watch(t, "H100", 2, func(s *nvml.Supervisor) { s.Args = []string{"--library", own} })
	w.answering(t, 2)
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP, syscall.SIGSEGV} {
		pids := workers(t, own)
		if len(pids) != 1 {
			t.Fatalf("processes %v", pids)
		}
		pid, err := strconv.Atoi(pids[0])
		must(t, err)
		must(t, syscall.Kill(pid, sig))
		w.until(t, "another worker after "+sig.String(), func(s nvml.Sample) bool {
			now := workers(t, own)
			return s.Status.State == nvml.Answering && count(s, nvml.Present) == 2 && len(now) == 1 && now[0] != pids[0]
		})
	}
}

// The same with the deadlines of a real machine: from the moment of the hang, not of the first call that it blocks.
func TestVerdictInTenSeconds(t *testing.T) {
	if testing.Short() {
		t.Skip("takes ten seconds")
	}
	t.Parallel()
	for name, hang := range map[string]func(*watched) error{
		"driver": func(w *watched) error { return w.machine.HangDriver("all") },
		"gpu":    func(w *watched) error { return w.machine.Hang(6, "all") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := watch(t, "H100", 8, func(s *nvml.Supervisor) { s.Deadlines = nvml.Standard() })
			w.answering(t, 8)
			time.Sleep(300 * time.Millisecond) // somewhere between two beats
			begin := time.Now()
			must(t, hang(w))
			s := w.until(t, "a verdict", func(s nvml.Sample) bool { return s.Status.State == nvml.DriverStuck || count(s, nvml.Stuck) == 1 })
			took := time.Since(begin)
			if took > 10*time.Second || len(s.Status.Evidence) != 2 {
				t.Errorf("%s after the hang: %s, evidence %v", took, s.Status.State, s.Status.Evidence)
			}
			t.Logf("verdict %.1f s after the hang: %s %s; %v", took.Seconds(), s.Status.State, s.Status.Text, s.Status.Evidence)
		})
	}
}
