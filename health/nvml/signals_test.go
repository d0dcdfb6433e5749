package nvml_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hostler-project/hostler/health"
	"github.com/hostler-project/hostler/health/nvml"
	standin "github.com/hostler-project/hostler/internal/standin/nvml"
)

// A scene is what the worker really reads from a stand-in, at moments that the test makes up.
type scene struct {
	t       *testing.T
	library string
	m       *standin.Machine
	e       nvml.Expect
	last    nvml.Sample
	at      time.Time
}

func newScene(t *testing.T, shape string, n int) *scene {
	t.Helper()
	_, library := programs(t)
	s := &scene{t: t, library: library, m: machine(t, shape, n), at: time.Date(2026, 11, 25, 7, 0, 0, 0, time.UTC)}
	first := s.read()
	s.e = nvml.ExpectOf(first)
	s.e.GPUs, s.e.Up = n, time.Hour
	return s
}

func (s *scene) read() nvml.Sample {
	s.t.Helper()
	n, said, code := once(s.t, s.library, s.m)
	if code != 0 {
		s.t.Fatalf("exit code %d: %s", code, said)
	}
	n.At, n.Status.Since, n.Driver.Kernel = s.at, s.at, "580.82.07"
	n.PCI = []string{}
	for i := range 16 {
		if i < s.e.GPUs {
			n.PCI = append(n.PCI, s.m.Bus(i))
		}
	}
	return n
}

// next goes on by some time and gives the signals of what is read then, as "G11@0000:1b:00.0 holds: value".
func (s *scene) next(after time.Duration) []string {
	s.t.Helper()
	s.at = s.at.Add(after)
	return s.signals(s.read())
}

func (s *scene) signals(n nvml.Sample) []string {
	var out []string
	for _, x := range nvml.Signals(s.last, &n, s.e) {
		if x.Reader != "nvml" || x.At.IsZero() || x.Part.Kind == health.GPU && x.Part.BDF == "" {
			s.t.Errorf("signal %+v", x)
		}
		out = append(out, fmt.Sprintf("%s %s: %s", x.Incident(), x.Mark, x.Value))
	}
	s.last = n
	return out
}

// settle takes samples for a while, so that every rate has had its minute.
func (s *scene) settle() {
	s.t.Helper()
	for range 8 {
		if got := s.next(10 * time.Second); len(got) > 0 {
			s.t.Fatalf("a healthy machine signals %v", got)
		}
	}
}

func p(n int64) *int64 { return &n }

// Every row of the table against what the real worker reads from a stand-in with that fault.
func TestFaultsBecomeSignals(t *testing.T) {
	t.Parallel()
	set := func(pairs ...string) func(*scene) {
		return func(s *scene) { must(s.t, s.m.Set(1, pairs...)) }
	}
	for _, c := range []struct {
		name    string
		shape   string // "" is H100
		expect  func(*nvml.Expect)
		fault   func(*scene)
		samples int           // 0: 1
		apart   time.Duration // 0: 10 s
		want    string        // of GPU 1, with what the value must contain: "G11 holds: set"; several separated by |
	}{
		{name: "recovery: reset", fault: set("field.230", "1"), want: "G5/reset holds: recovery action 1"},
		{name: "recovery: reboot", fault: set("field.230", "2"), want: "G5/reboot holds: recovery action 2"},
		{name: "recovery: drain P2P", fault: set("field.230", "3"), want: "G5/drain-p2p holds: recovery action 3"},
		{name: "recovery: drain and reset", fault: set("field.230", "4"), want: "G5/drain-and-reset holds: recovery action 4"},
		{name: "recovery: IMEX", fault: set("field.230", "5"), want: "G5/imex holds: recovery action 5"},
		{name: "recovery: bus reset", fault: set("field.230", "6"), want: "G5/reset holds: recovery action 6"},
		{name: "recovery: system reboot", fault: set("field.230", "7"), want: "G5/reboot holds: recovery action 7"},
		{name: "uncorrected", fault: set("ecc.volatile.uncorrected", "2", "ecc.volatile.uncorrected.dram", "2", "ecc.aggregate.uncorrected", "2"), want: "G7 event: 2 more, now 2; dram 2; sram 0|G8 event: 2 more"},
		{name: "corrected, many", fault: set("ecc.volatile.corrected", "20000001"), want: "G9 holds: 20000001 errors"},
		{name: "SRAM", fault: set("sram.volatile.parity", "1", "sram.sm", "1"), want: "G10/uncorrectable holds: parity 1, SECDED 0; L2 0, SM 1"},
		{name: "SRAM threshold", fault: set("sram.threshold", "1"), want: "G10/threshold holds: set"},
		{name: "remap pending", fault: set("remap.pending", "1"), want: "G11 holds: set"},
		{name: "remap failed", fault: set("remap.failure", "1"), want: "G12 holds: set"},
		{name: "bank used up", fault: set("remap.banks.none", "1", "remap.banks.low", "2"), want: "G13/none holds: 1 banks|G13/low holds: 2 banks"},
		{name: "remaps", fault: set("remap.uncorrectable", "3"), want: "G14/grew event: 3 more, now 3"},
		{name: "many remaps", fault: set("remap.correctable", "513"), want: "G14/many holds: 0 for uncorrectable errors, 513"},
		{name: "page retirement", shape: "A100", fault: set("retired.pending", "1", "retired.single", "0", "retired.double", "63"), want: "G15/pending holds: set|G15/many holds: 63 pages|G15/fast holds: 63 pages, 63 new in 7 days"},
		{name: "repairs", fault: set("repair.channel", "1", "repair.tpc", "1", "memory.unrepairable", "1"), want: "G16/channel holds: set|G16/tpc holds: set|G16/unrepairable holds: set"},
		{name: "hot for a moment", fault: set("temp.margin", "4", "temp.gpu", "86"), samples: 10, want: ""},
		{name: "hot for five minutes", fault: set("temp.margin", "4", "temp.gpu", "86"), samples: 31, want: "G17 holds: 4 °C to its limit, at 86 °C"},
		{name: "a negative margin and no slowdown", fault: set("temp.margin", "-50"), samples: 31, want: ""},
		{name: "a negative margin and slowdown", fault: set("temp.margin", "-1", "clocks.reasons", "0x20"), samples: 31, want: "G17 holds: -1 °C"},
		{name: "slowdown, two minutes", fault: set("clocks.reasons", "0x40"), samples: 12, want: ""},
		{name: "slowdown, six minutes", fault: set("clocks.reasons", "0x40"), samples: 31, want: "G18 holds: bits 0x40, in 6 of 10 minutes"},
		{name: "slowdown by the counter", fault: set("busy", "100", "field.252", "200000000", "clocks.reasons", "0"), want: "G18 holds: bits 0x0, in 0 of 10 minutes, 2.0 % of busy time"},
		{name: "software slowdown", fault: set("busy", "100", "field.251", "600000000", "clocks.reasons", "0x4"), want: "G19/thermal holds: 6.0 % of busy time"},
		{name: "power cap is normal", fault: set("busy", "100", "clocks.reasons", "0x4", "clock.sm", "1400", "pcie.gen", "5"), samples: 31, want: ""},
		{name: "power limit", fault: set("power.limit", "500000"), want: "G20/limit holds: 500 W of 700 W"},
		{name: "clocks", fault: set("busy", "100", "clock.sm", "1700", "clocks.reasons", "0", "pcie.gen", "5"), samples: 7, want: "G21 holds: 1700 MHz of 1980"},
		{name: "width", fault: set("pcie.width", "8"), want: "G22/width holds: x8 of x16"},
		{name: "speed while idle", fault: set("pcie.gen", "1"), samples: 10, want: ""},
		{name: "speed while busy", fault: set("busy", "60", "pcie.gen", "3"), samples: 4, want: "G22/speed holds: Gen3 of Gen5"},
		{name: "few replays", fault: set("pcie.replay", "30"), samples: 7, want: ""},
		{name: "replays", fault: set("pcie.replay", "90"), samples: 7, want: "G23 holds: * per minute, ceiling 30.7 at Gen5 x16"},
		{name: "PCIe errors", fault: set("field.180", "1", "field.179", "2"), want: "G24/aer-fatal event: 1 more|G24/aer-nonfatal event: 2 more"},
		{name: "links down", fault: set("links.down", "3,17"), want: "G25 holds: 16 of 18 are up; down: 3, 17"},
		{name: "no links on a card", shape: "H100-PCIe", fault: set("busy", "0"), want: ""},
		{name: "links not supported where the SKU has them", fault: set("links", "unsupported"), want: "G25 holds: 0 of 18 are up; down: not listed"},
		{name: "a slow link", fault: set("field.164.5", "20000"), want: "G26/link-5 holds: 20000 MB/s of 26562"},
		{name: "NVLink 4 replays", fault: set("field.161.7", "4"), samples: 7, want: "G27/link-7 holds: per minute: *"},
		{name: "old NVLink CRC", shape: "A100", fault: set("oldlink.crc.2", "20000"), samples: 7, want: "G27/link-2 holds: per minute: 0.0 replays"},
		{name: "NVLink 5 bit errors", shape: "B200", fault: set("field.220.4", "1291"), want: "G28/ber/link-4 holds: 5e-11"}, // 5<<8|11
		{name: "NVLink 5 errors", shape: "B200", fault: set("field.206.4", "2", "field.211.4", "1"), want: "G28/delta/link-4 event: malformed 2 more, integrity 1 more"},
		{name: "fabric not ready", fault: set("fabric.state", "2"), want: "G29/incomplete holds: state 2"},
		{name: "fabric not ready yet", expect: func(e *nvml.Expect) { e.Up = time.Minute }, fault: set("fabric.state", "2"), want: ""},
		{name: "route unhealthy", fault: set("fabric.mask", "410"), want: "G29/unhealthy holds: status 0, mask 0x19a"}, // 2|2<<2|1<<4|2<<6|1<<8
		{name: "fabric summary", fault: set("fabric.summary", "2"), want: "G29/unhealthy holds: status 0"},
		{name: "fabric configuration", fault: set("fabric.mask", "1450"), want: "G29/config holds: "}, // 5<<8
		{name: "reduced bandwidth", fault: set("fabric.mask", "425"), want: "G29/reduced holds: "},    // 1|…
		{name: "InfoROM", fault: set("inforom.valid", "0"), want: "G32 holds: corrupt"},
		{name: "VBIOS", expect: func(e *nvml.Expect) { e.VBIOS = []string{"96.00.A5.00.01"} }, fault: set("vbios", "96.00.30.00.01"), want: "G33 holds: VBIOS 96.00.30.00.01"},
		{name: "another GPU", expect: func(e *nvml.Expect) { e.Serials = map[string]string{"0000:43:00.0": "1650422001001"} }, fault: set("serial", "1650422009999"), want: "G34 holds: serial 1650422009999, was 1650422001001"},
		{name: "modes", expect: func(e *nvml.Expect) { e.HandOver, e.ECC, e.MIG = true, p(1), p(0) }, fault: set("mode.ecc", "0", "mode.mig", "1"), want: "G35 holds: ecc 0, policy 1; mig 1, policy 0"},
		{name: "left over", expect: func(e *nvml.Expect) { e.HandOver = true }, fault: set("processes", "2", "memory.used", "1073741824"), want: "G36 holds: 2 processes, 1024 MiB"},
		{name: "a tenant's processes", fault: set("processes", "2", "memory.used", "1073741824"), want: ""},
		{name: "peers", fault: set("p2p.nvlink", "5"), want: "G40 holds: no P2P over NVLink with 0000:1b:00.0 (status 5), 0000:52:00.0"},
		{name: "not supported is no fault", fault: set("ecc.volatile.uncorrected", "unsupported", "remap.pending", "unsupported", "temp.margin", "unsupported", "fabric.state", "unsupported", "field.230", "unsupported"), samples: 31, want: ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			shape := c.shape
			if shape == "" {
				shape = "H100"
			}
			s := newScene(t, shape, 3)
			if c.expect != nil {
				c.expect(&s.e)
			}
			if c.name == "page retirement" {
				must(t, s.m.Set(1, "retired.pending", "0", "retired.single", "0", "retired.double", "0"))
			}
			s.signals(s.read())
			s.next(10 * time.Second)
			c.fault(s)
			after := s.read()
			var got []string
			for range max(c.samples, 1) { // what is read does not change: it need not be read again
				s.at = s.at.Add(10 * time.Second)
				after.At, after.Status.Since = s.at, s.at
				got = append(got, s.signals(after)...)
			}
			var want []string
			if c.want != "" {
				want = strings.Split(c.want, "|")
			}
			checkSignals(t, got, want, s.m.Bus(1))
		})
	}
}

// checkSignals: each wanted one came, and nothing else did.
func checkSignals(t *testing.T, got, want []string, bus string) {
	t.Helper()
	met := map[string]bool{}
	for _, g := range got {
		ok := false
		for _, w := range want {
			head, value, _ := strings.Cut(w, " ")
			rule, unit, _ := strings.Cut(head, "/link-")
			id := rule + "@" + bus
			if unit != "" {
				id += "/link-" + unit
			}
			mark, value, _ := strings.Cut(value, ": ")
			value, _, loose := strings.Cut(value, "*")
			if strings.HasPrefix(g, id+" "+mark+": "+value) || loose && strings.HasPrefix(g, id+" "+mark+": ") {
				met[w], ok = true, true
			}
		}
		// The whole fabric of NVLinks is between GPUs: what one of a pair lacks, the other lacks too.
		if !ok && !strings.HasPrefix(g, "G1/driver@node") && !strings.HasPrefix(g, "G40@") {
			t.Errorf("unexpected: %s", g)
		}
	}
	for _, w := range want {
		if !met[w] {
			t.Errorf("missing: %s\ngot %v", w, got)
		}
	}
}

func TestHealthyMachinesAreQuiet(t *testing.T) {
	t.Parallel()
	for shape := range standin.Shapes {
		t.Run(shape, func(t *testing.T) {
			s := newScene(t, shape, 8)
			s.signals(s.read())
			s.settle()
		})
	}
}

// GPUs that do not answer are told as what they are, and their values are not looked at.
func TestGPUsThatDoNotAnswer(t *testing.T) {
	for state, want := range map[string]string{nvml.Lost: "G2@0000:1b:00.0", nvml.Stuck: "G3/gpu@0000:1b:00.0", nvml.Refused: "G1/init@0000:1b:00.0"} {
		now := nvml.Sample{At: time.Now(), Status: nvml.Status{State: nvml.Answering}, Count: nvml.Number(1),
			GPUs: []nvml.GPU{{Bus: "0000:1b:00.0", Serial: "1", State: state, Err: "it said so", Values: nvml.Values{"remap.failure": nvml.Number(1)}}}}
		got := nvml.Signals(nvml.Sample{}, &now, nvml.Expect{})
		if len(got) != 1 || got[0].Incident() != want || got[0].Value != "it said so" || got[0].Part.Serial != "1" {
			t.Errorf("%s: %+v", state, got)
		}
	}
}

// A state is told at each sample while it holds, and once when it has ended. While it cannot be read, nothing is told.
func TestStatesEnd(t *testing.T) {
	t.Parallel()
	s := newScene(t, "H100", 2)
	s.signals(s.read())
	const holds, ended = "G11@0000:43:00.0 holds: set", "G11@0000:43:00.0 ended: "
	for i, step := range []struct {
		value, want string
	}{{"0", ""}, {"1", holds}, {"1", holds}, {"unsupported", ""}, {"1", holds}, {"unsupported", ""}, {"0", ended}, {"0", ""}, {"1", holds}} {
		must(t, s.m.Set(1, "remap.pending", step.value))
		if got := strings.Join(s.next(10*time.Second), " "); got != step.want {
			t.Errorf("step %d, %s: got %q, want %q", i, step.value, got, step.want)
		}
	}
}

// Counters that fell were reset; what they show now is new. Without a sample before, nothing is new.
func TestCountersNeedASampleBefore(t *testing.T) {
	t.Parallel()
	s := newScene(t, "H100", 2)
	must(t, s.m.Set(1, "ecc.volatile.uncorrected", "5"))
	if got := s.next(0); len(got) > 0 {
		t.Errorf("the first sample: %v", got)
	}
	if got := s.next(10 * time.Second); len(got) > 0 {
		t.Errorf("nothing new: %v", got)
	}
	must(t, s.m.Set(1, "ecc.volatile.uncorrected", "2"))
	if got := s.next(10 * time.Second); len(got) != 1 || !strings.Contains(got[0], "G7@0000:43:00.0 event: 2 more, now 2") {
		t.Errorf("after a reset: %v", got)
	}
}

func TestEventsBecomeSignals(t *testing.T) {
	t.Parallel()
	s := newScene(t, "H100", 2)
	s.signals(s.read())
	n := s.read()
	gi := uint32(3)
	n.Events = []nvml.Event{{At: s.at, Bus: s.m.Bus(0), Type: 0x8, Xid: 79}, {At: s.at, Bus: s.m.Bus(1), Type: 0x8, Xid: 31, GI: &gi}}
	for _, bit := range []uint64{0x2, 0x80, 0x200, 0x400, 0x800, 0x1000, 0x2000, 0x4000, 0x8000} {
		n.Events = append(n.Events, nvml.Event{At: s.at, Bus: s.m.Bus(1), Type: bit})
	}
	got := strings.Join(s.signals(n), "\n")
	want := `xid/79@0000:1b:00.0 event: 
xid/31@0000:43:00.0/MIG-3 event: 
G38@0000:43:00.0 event: 
G9/storm@0000:43:00.0 event: 
G11@0000:43:00.0 event: 
G12@0000:43:00.0 event: 
G39/nonfatal@0000:43:00.0 event: 
G39/fatal@0000:43:00.0 event: `
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// What holds of the whole machine.
func TestTheMachineItself(t *testing.T) {
	t.Parallel()
	answering := nvml.Sample{Status: nvml.Status{State: nvml.Answering}, Count: nvml.Number(8), PCI: make([]string, 8), Driver: nvml.Driver{Version: "580.82.07", Kernel: "580.82.07"}}
	for _, c := range []struct {
		name   string
		change func(*nvml.Sample)
		expect nvml.Expect
		want   string
	}{
		{"well", func(*nvml.Sample) {}, nvml.Expect{GPUs: 8}, ""},
		{"one less on the bus", func(s *nvml.Sample) { s.PCI, s.Count = s.PCI[:7], nvml.Number(7) }, nvml.Expect{GPUs: 8}, "G1/pci@node"},
		{"none on the bus", func(s *nvml.Sample) { s.PCI, s.Count = []string{}, nvml.Number(0) }, nvml.Expect{GPUs: 8}, "G1/pci@node G1/driver@node"},
		{"one less with the driver", func(s *nvml.Sample) { s.Count = nvml.Number(7) }, nvml.Expect{GPUs: 8}, "G1/driver@node"},
		{"no sysfs", func(s *nvml.Sample) { s.PCI, s.Count = nil, nvml.Number(7) }, nvml.Expect{GPUs: 8}, "G1/driver@node"},
		{"nothing expected, nothing there", func(s *nvml.Sample) { s.PCI, s.Status.State = []string{}, nvml.NoDriver }, nvml.Expect{}, ""},
		{"no driver", func(s *nvml.Sample) { s.Status.State = nvml.NoDriver }, nvml.Expect{}, "G4/absent@node"},
		{"mismatch", func(s *nvml.Sample) { s.Status.State = nvml.Mismatch }, nvml.Expect{}, "G4/mismatch@node"},
		{"a newer module", func(s *nvml.Sample) { s.Driver.Kernel = "590.48.01" }, nvml.Expect{}, "G4/mismatch@node"},
		{"policy", func(*nvml.Sample) {}, nvml.Expect{Drivers: []string{"590.48.01"}}, "G4/policy@node"},
		{"stuck", func(s *nvml.Sample) { s.Status.State = nvml.DriverStuck }, nvml.Expect{}, "G3/stuck@node"},
		{"blind", func(s *nvml.Sample) { s.Status.State = nvml.Blind }, nvml.Expect{}, "G3/stuck@node G3/blind@node"},
		{"released", func(s *nvml.Sample) { s.Status.State = nvml.Released }, nvml.Expect{GPUs: 8}, ""},
		{"the worker is broken", func(s *nvml.Sample) { s.Status.State = nvml.Broken }, nvml.Expect{GPUs: 8}, ""},
		{"confidential", func(s *nvml.Sample) { s.System = nvml.Values{"cc.feature": nvml.Number(1)} }, nvml.Expect{Confidential: p(0)}, "G37@node"},
	} {
		now := answering
		now.Status.Since = time.Now()
		c.change(&now)
		var got []string
		for _, s := range nvml.Signals(nvml.Sample{}, &now, c.expect) {
			got = append(got, s.Incident())
		}
		slices.Sort(got)
		want := strings.Fields(c.want)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", c.name, got, want)
		}
	}
}

// Reader and judge must speak of the same rows.
func TestEveryRowHasARule(t *testing.T) {
	rules := health.Rules()
	for _, c := range nvml.Checks() {
		s := health.Signal{Check: c.Check, Code: c.Code}
		if c.Check == health.CheckXID {
			s.Code = "79"
		}
		if _, ok := rules[s.Rule()]; !ok {
			t.Errorf("no table of health has %s (%s)", s.Rule(), c.When)
		}
		if c.When == "" {
			t.Errorf("%s: its threshold is not said", s.Rule())
		}
	}
}
