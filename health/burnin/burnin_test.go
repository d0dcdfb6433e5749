package burnin

import (
	"context"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/hostler-project/hostler/inventory"
)

// machine is one that passes: this one's processors, a little memory, two fake drives.
func machine(t *testing.T) (Machine, *fakeDrive) {
	t.Helper()
	m, err := ThisMachine()
	if err != nil {
		t.Fatal(err)
	}
	m.FreeMemory = 64 << 20
	bad, good := newDrive("nvme0"), newDrive("nvme1")
	m.Disks = []Disk{bad.disk(), good.disk()}
	return m, bad
}

// quick is the smoke profile in a fraction of its time.
func quick() []Profile {
	p := Profiles[0]
	p.Tests = append([]Test(nil), p.Tests...)
	for i := range p.Tests {
		p.Tests[i].Slow, p.Tests[i].Limit = 60*time.Millisecond, 60*time.Millisecond
	}
	return []Profile{p}
}

func slow(context.Context) bool { return false }

func TestASoundMachinePassesSmoke(t *testing.T) {
	m, drive := machine(t)
	var seen []inventory.Progress
	run, err := Runner{Machine: m, Rows: quick(), speed: slow, Progress: func(p inventory.Progress) { seen = append(seen, p) }}.Run(t.Context(), "smoke")
	if err != nil {
		t.Fatal(err)
	}
	if run.Verdict != inventory.Pass {
		t.Fatalf("verdict %s: %s", run.Verdict, Why(run))
	}
	if len(run.Results) != 6 { // cpu, memory, two drives, two logs
		t.Errorf("%d results: %+v", len(run.Results), run.Results)
	}
	for _, r := range run.Results {
		if r.Seconds <= 0 || len(r.Values) == 0 || r.Component == "" {
			t.Errorf("a pass without evidence: %+v", r)
		}
	}
	if len(seen) != 4 || seen[0].What != "testing processors" || seen[3].Done != 3 || seen[0].LeftS <= 0 {
		t.Errorf("progress %+v", seen)
	}
	if !drive.isZero() || !drive.wasWritten {
		t.Error("the drive is not as it was, or was not written at all")
	}
	if !run.Finished.After(run.Started) {
		t.Errorf("times %v %v", run.Started, run.Finished)
	}
}

func TestAFaultIsNamed(t *testing.T) {
	for name, c := range map[string]struct {
		break_  func(*Runner, *fakeDrive)
		verdict string
		why     string
	}{
		"a wrong bit on one processor": {func(r *Runner, _ *fakeDrive) {
			r.Machine.CPUs = []int{0, 7}
			r.pin = func(int) error { return nil }
			r.kernels = func(cpu int) []kernel {
				k := knownAnswers(cpu)
				if cpu == 7 {
					k[2].run = func() uint64 { return matrixInt() ^ 1<<40 }
				}
				return k
			}
		}, inventory.Fail, "cpu of cpu7: fail: matrix-integer gave"},
		"a processor that cannot be used": {func(r *Runner, _ *fakeDrive) {
			r.pin = func(int) error { return context.DeadlineExceeded }
		}, inventory.Inconclusive, "cannot run on it"},
		"no processors": {func(r *Runner, _ *fakeDrive) { r.Machine.CPUs = nil }, inventory.Inconclusive, "was not measured"},
		"a stuck bit in memory": {func(r *Runner, _ *fakeDrive) {
			r.settle = func(slabs [][]uint64) { slabs[0][12345] |= 1 << 33 }
		}, inventory.Fail, "word at offset 0x181c8 holds"},
		"no memory": {func(r *Runner, _ *fakeDrive) { r.Machine.FreeMemory = 1 << 20 }, inventory.Inconclusive, "nothing to test"},
		"a drive that returns other bytes": {func(_ *Runner, d *fakeDrive) { d.flip = true },
			inventory.Fail, "other bytes came back"},
		"a drive that loses writes": {func(_ *Runner, d *fakeDrive) { d.lose = true },
			inventory.Fail, "other bytes came back"},
		"a drive that cannot be read": {func(_ *Runner, d *fakeDrive) { d.unreadable = true },
			inventory.Fail, "input/output error"},
		"a drive that somebody holds": {func(r *Runner, _ *fakeDrive) {
			r.Machine.Disks[0].Open = func() (Device, error) { return nil, context.Canceled }
		}, inventory.Inconclusive, "open it"},
		"a drive of a few bytes": {func(_ *Runner, d *fakeDrive) { d.size = 4 << 20 }, inventory.Inconclusive, "too few"},
		"no drives":              {func(r *Runner, _ *fakeDrive) { r.Machine.Disks = nil }, inventory.Inconclusive, "no medium to test"},
		"a drive that warns": {func(_ *Runner, d *fakeDrive) { d.smart[0] = 1<<2 | 1<<3 },
			inventory.Fail, "reliability is degraded by media or internal errors, the medium is read-only"},
		"an empty log":  {func(_ *Runner, d *fakeDrive) { clear(d.smart) }, inventory.Inconclusive, "temperature_K is 0"},
		"no log":        {func(r *Runner, _ *fakeDrive) { r.Machine.Disks[0].LogPage = nil }, inventory.Inconclusive, "no way to ask"},
		"a refused log": {func(_ *Runner, d *fakeDrive) { d.smart = nil }, inventory.Inconclusive, "read its SMART log"},
		"a test vanishes": {func(r *Runner, _ *fakeDrive) {
			r.Rows[0].Tests[1].run = func(context.Context, Runner, time.Duration) []inventory.TestResult { return nil }
		}, inventory.Inconclusive, "not every test"},
		"a test says nothing": {func(r *Runner, _ *fakeDrive) {
			r.Rows[0].Tests[1].run = func(context.Context, Runner, time.Duration) []inventory.TestResult {
				return []inventory.TestResult{{Component: "x"}}
			}
		}, inventory.Inconclusive, "no verdict"},
		"a pass without a number": {func(r *Runner, _ *fakeDrive) {
			r.Rows[0].Tests[1].run = func(context.Context, Runner, time.Duration) []inventory.TestResult {
				return []inventory.TestResult{{Component: "x", Verdict: inventory.Pass, Values: map[string]float64{"covered_MB": math.NaN(), "write_MBps": 1, "verify_MBps": 1}}}
			}
		}, inventory.Inconclusive, "not a number"},
	} {
		t.Run(name, func(t *testing.T) {
			m, drive := machine(t)
			r := Runner{Machine: m, Rows: quick(), speed: slow}
			c.break_(&r, drive)
			run, err := r.Run(t.Context(), "smoke")
			if err != nil {
				t.Fatal(err)
			}
			if run.Verdict != c.verdict || !strings.Contains(Why(run), c.why) {
				t.Errorf("got %s: %s\nwant %s: %s", run.Verdict, Why(run), c.verdict, c.why)
			}
			if _, err := json.Marshal(run); err != nil {
				t.Errorf("the result cannot be sent: %v", err)
			}
		})
	}
}

func TestACancelledRunIsAbortedAndPutsBack(t *testing.T) {
	m, drive := machine(t)
	ctx, cancel := context.WithCancel(t.Context())
	drive.onWrite = cancel
	run, err := Runner{Machine: m, Rows: quick(), speed: slow}.Run(ctx, "smoke")
	if err != nil || run.Verdict != inventory.Aborted {
		t.Errorf("got %s %v: %s", run.Verdict, err, Why(run))
	}
	if !drive.wasWritten || !drive.isZero() {
		t.Error("the scratch region was not put back")
	}
}

func TestAProfileThatIsNotThereIsNamed(t *testing.T) {
	_, err := Runner{}.Run(t.Context(), "soak")
	if err == nil || !strings.Contains(err.Error(), `"soak"`) || !strings.Contains(err.Error(), "smoke") {
		t.Errorf("got %v", err)
	}
}

func TestAMachineWithoutDisksBySKUIsComplete(t *testing.T) {
	m, _ := machine(t)
	m.Disks, m.NoDisks = nil, true
	rows := quick()
	run, err := Runner{Machine: m, Rows: rows, speed: slow}.Run(t.Context(), "smoke")
	if err != nil || run.Verdict != inventory.Pass {
		t.Errorf("got %s %v: %s", run.Verdict, err, Why(run))
	}
}

// The limits that hand-over is promised: 6 s emulated, 60 s on a server.
func TestSmokeIsWithinItsPromise(t *testing.T) {
	p, err := find(Profiles, "smoke")
	if err != nil {
		t.Fatal(err)
	}
	if s := p.left(0, false); s > 6 {
		t.Errorf("slow: %v s", s)
	}
	if s := p.left(0, true); s > 60 {
		t.Errorf("fast: %v s", s)
	}
}
