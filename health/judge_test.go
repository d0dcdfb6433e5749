package health

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hostler-project/hostler/inventory"
)

// A bench is a Judge with a clock of its own, and everything that it reported.
type bench struct {
	*testing.T
	j       *Judge
	now     time.Time
	seq     uint64
	options Options
	reports []Verdict
}

func newBench(t *testing.T, change func(*Options)) *bench {
	t.Helper()
	b := &bench{T: t, now: time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)}
	b.options = Options{Boot: "boot-1", Now: func() time.Time { return b.now }}
	if change != nil {
		change(&b.options)
	}
	b.start()
	return b
}

func (b *bench) start() {
	b.Helper()
	j, err := NewJudge(b.options)
	if err != nil {
		b.Fatal(err)
	}
	b.j = j
}

// restart is what an end of the program without warning leaves.
func (b *bench) restart() {
	b.Helper()
	b.reports = nil
	b.start()
}

func (b *bench) take(s Signal) []Verdict {
	if s.At.IsZero() {
		s.At = b.now
	}
	if s.Reader == "" {
		s.Reader = "kmsg"
	}
	if s.Mark == "" {
		s.Mark = Event
	}
	if s.Line == "" {
		s.Line = fmt.Sprintf("line of %s, record %d", s.Rule(), s.Seq)
	}
	out := b.j.Take(s)
	b.reports = append(b.reports, out...)
	return out
}

// xid is a new line of the log about a GPU; change may add to it.
func (b *bench) xid(code, bus string, change ...func(*Signal)) []Verdict {
	b.seq++
	s := Signal{Check: CheckXID, Code: code, Part: Part{Kind: GPU, BDF: BDF("0000:" + bus + ":00")}, Seq: b.seq}
	for _, c := range change {
		c(&s)
	}
	return b.take(s)
}

func (b *bench) hold(check, code, bus string, m Mark) []Verdict {
	return b.take(Signal{Check: check, Code: code, Part: Part{Kind: GPU, BDF: BDF("0000:" + bus + ":00")}, Mark: m, Reader: "nvml"})
}

// wait lets time pass, the Judge's clock ticking.
func (b *bench) wait(d time.Duration) {
	step := max(time.Second, d/100)
	for end := b.now.Add(d); b.now.Before(end); {
		b.now = b.now.Add(min(step, end.Sub(b.now)))
		b.reports = append(b.reports, b.j.Tick()...)
	}
}

// state is what stands: "xid/79 fatal drain-now+reboot", by name.
func (b *bench) state() string {
	var out []string
	for _, v := range b.j.Verdicts() {
		out = append(out, short(v))
	}
	slices.Sort(out)
	return strings.Join(out, "; ")
}

func short(v Verdict) string {
	s := v.ID + " " + string(v.Severity)
	if len(v.Actions) > 0 {
		s += " " + strings.Join(words(v.Actions), "+")
	}
	if v.Shadow {
		s += " in shadow"
	}
	if v.Cleared != "" {
		s += " cleared"
	}
	return strings.ReplaceAll(s, "@0000:", "@")
}

func (b *bench) want(what string) {
	b.Helper()
	if got := b.state(); got != what {
		b.Errorf("stands\n     %s\nwant %s", got, what)
	}
}

func unit(u string) func(*Signal) { return func(s *Signal) { s.Unit = u } }
func who(w string) func(*Signal)  { return func(s *Signal) { s.Who = w } }
func value(v string) func(*Signal) {
	return func(s *Signal) { s.Value = v }
}
func regs(w ...uint32) func(*Signal) { return func(s *Signal) { s.Words = w } }
func old(s *Signal)                  { s.Old = true }

// Every row of the XID and SXid tables, once, alone: the verdict is the row's.
func TestEachCodeAloneIsItsRow(t *testing.T) {
	for name, r := range Rules() {
		kind, code, ok := strings.Cut(name, "/")
		if !ok || kind != "xid" && kind != "sxid" {
			continue
		}
		b := newBench(t, nil)
		s := Signal{Check: CheckXID, Code: code, Part: Part{Kind: GPU, BDF: "0000:3b:00.0"}}
		if kind == "sxid" {
			s.Check, s.Part.Kind, s.Value = CheckSXid, NVSwitch, LineFatal
		}
		b.take(s)
		b.wait(3 * time.Second)
		v := b.j.Verdicts()
		if len(v) != 1 || v[0].Severity != r.Severity || !slices.Equal(v[0].Actions, r.Actions) || v[0].Rule != name || v[0].Source != r.Source {
			t.Errorf("%s: %+v, its row: %s %v", name, v, r.Severity, r.Actions)
			continue
		}
		if n := len(b.reports); n < 1 || n > 2 {
			t.Errorf("%s: %d reports", name, n)
		}
		if v[0].Severity == Fatal && v[0].Next == "" || v[0].What == "" || len(v[0].Evidence) != 1 {
			t.Errorf("%s says too little: %+v", name, v[0])
		}
	}
}

// Errors of programs, each alone, drain nobody.
func TestApplicationErrorsDrainNobody(t *testing.T) {
	for _, code := range []string{"13", "31", "43", "45", "68", "69", "94"} {
		b := newBench(t, nil)
		b.xid(code, "3b", who("pid 1 train"))
		b.wait(time.Hour)
		for _, a := range append(Alerts(b.reports), Alerts(b.j.Verdicts())...) {
			if slices.Contains(a.Classes, inventory.DrainNow) || slices.Contains(a.Classes, inventory.DrainWhenIdle) && code != "94" {
				t.Errorf("XID %s: %+v", code, a)
			}
		}
		for _, v := range b.reports {
			if v.Has(DrainNow) || v.Severity == Fatal || v.Has(DrainIdle) && code != "94" {
				t.Errorf("XID %s: %s", code, short(v))
			}
		}
	}
}

func TestSignalsGoTogether(t *testing.T) {
	day := 24 * time.Hour
	for _, c := range []struct {
		name string
		do   func(b *bench)
		want string
	}{
		{"48 alone waits, then resets", func(b *bench) { b.xid("48", "3b"); b.wait(3 * time.Second) }, "xid/48@3b:00.0 fatal drain-now+reset-gpu"},
		{"48 while it waits stops renting only", func(b *bench) { b.xid("48", "3b"); b.wait(time.Second) }, "xid/48@3b:00.0 degraded drain-idle"},
		{"48, then 94: contained", func(b *bench) { b.xid("48", "3b"); b.wait(time.Second); b.xid("94", "3b"); b.wait(3 * time.Second) },
			"xid/48@3b:00.0 degraded tell-tenant+drain-idle+reset-gpu; xid/94@3b:00.0 degraded tell-tenant+drain-idle+reset-gpu"},
		{"94, then 48", func(b *bench) { b.xid("94", "3b"); b.wait(time.Second); b.xid("48", "3b"); b.wait(3 * time.Second) },
			"xid/48@3b:00.0 degraded tell-tenant+drain-idle+reset-gpu; xid/94@3b:00.0 degraded tell-tenant+drain-idle+reset-gpu"},
		{"48 with 63 and 95: the worst", func(b *bench) { b.xid("48", "3b"); b.xid("63", "3b"); b.xid("95", "3b"); b.wait(3 * time.Second) },
			"xid/48@3b:00.0 fatal drain-now+reset-gpu; xid/63@3b:00.0 degraded drain-idle+reset-gpu; xid/95@3b:00.0 fatal drain-now+reset-gpu"},
		{"48 and 94 of another GPU", func(b *bench) { b.xid("48", "3b"); b.xid("94", "86"); b.wait(3 * time.Second) },
			"xid/48@3b:00.0 fatal drain-now+reset-gpu; xid/94@86:00.0 degraded tell-tenant+drain-idle+reset-gpu"},
		{"48, and 94 too late", func(b *bench) { b.xid("48", "3b"); b.wait(3 * time.Second); b.xid("94", "3b") },
			"xid/48@3b:00.0 fatal drain-now+reset-gpu; xid/94@3b:00.0 degraded tell-tenant+drain-idle+reset-gpu"},
		{"details belong to the 48", func(b *bench) { b.xid("48", "3b"); b.xid("171", "3b"); b.wait(3 * time.Second) }, "xid/48@3b:00.0 fatal drain-now+reset-gpu"},
		{"details alone", func(b *bench) { b.xid("171", "3b") }, "xid/171@3b:00.0 info"},
		{"159 belongs to its neighbour", func(b *bench) { b.xid("46", "3b"); b.xid("159", "3b") }, "xid/46@3b:00.0 fatal drain-now+reset-gpu"},
		{"ECC counter explained by a 94", func(b *bench) { b.xid("94", "3b"); b.wait(20 * time.Second); b.hold("G7", "", "3b", Event); b.wait(3 * time.Second) },
			"G7@3b:00.0 degraded tell-tenant+drain-idle+reset-gpu; xid/94@3b:00.0 degraded tell-tenant+drain-idle+reset-gpu"},
		{"ECC counter alone", func(b *bench) { b.hold("G7", "", "3b", Event); b.wait(3 * time.Second) }, "G7@3b:00.0 fatal drain-now+reset-gpu"},
		{"163, then 162: a pair", func(b *bench) { b.xid("163", "3b"); b.xid("162", "3b") }, "xid/162@3b:00.0 info"},

		{"45 five times by one process", func(b *bench) {
			for range 5 {
				b.xid("45", "3b", who("pid 7 a"))
				b.wait(time.Minute)
			}
		}, "xid/45@3b:00.0 degraded drain-idle"},
		{"45 five times by five processes", func(b *bench) {
			for i := range 5 {
				b.xid("45", "3b", who(fmt.Sprint("pid ", i)))
				b.wait(time.Minute)
			}
		}, "xid/45@3b:00.0 info"},
		{"45 many times within another error", func(b *bench) {
			for range 10 {
				b.xid("45", "3b", who("pid 7 a"))
				b.xid("43", "3b")
				b.wait(30 * time.Second)
			}
		}, "xid/43@3b:00.0 info; xid/45@3b:00.0 info"},
		{"13 twice in one unit", func(b *bench) { b.xid("13", "3b", unit("GPC 1 TPC 2")); b.wait(time.Minute); b.xid("13", "3b", unit("GPC 1 TPC 2")) },
			"xid/13@3b:00.0/GPC-1-TPC-2 degraded drain-idle"},
		{"13 in a burst", func(b *bench) {
			for range 30 {
				b.xid("13", "3b", unit("GPC 1 TPC 2"))
				b.wait(5 * time.Second)
			}
		}, "xid/13@3b:00.0/GPC-1-TPC-2 info tell-tenant"},
		{"13 spread over units", func(b *bench) {
			for i := range 3 {
				b.xid("13", "3b", unit(fmt.Sprintf("GPC %d TPC 0", i)))
				b.wait(time.Minute)
			}
		}, "xid/13@3b:00.0/GPC-0-TPC-0 info tell-tenant; xid/13@3b:00.0/GPC-1-TPC-0 info tell-tenant; xid/13@3b:00.0/GPC-2-TPC-0 info tell-tenant"},
		{"13 twice, more than a day apart", func(b *bench) { b.xid("13", "3b", unit("GPC 1 TPC 2")); b.wait(25 * time.Hour); b.xid("13", "3b", unit("GPC 1 TPC 2")) },
			"xid/13@3b:00.0/GPC-1-TPC-2 info tell-tenant"},
		{"31 by two processes", func(b *bench) { b.xid("31", "3b", who("pid 1 a")); b.wait(5 * time.Minute); b.xid("31", "3b", who("pid 2 b")) }, "xid/31@3b:00.0 degraded drain-idle"},
		{"31 by one process", func(b *bench) { b.xid("31", "3b", who("pid 1 a")); b.wait(5 * time.Minute); b.xid("31", "3b", who("pid 1 a")) }, "xid/31@3b:00.0 info tell-tenant"},
		{"109 once", func(b *bench) { b.xid("109", "3b") }, "xid/109@3b:00.0 degraded reset-gpu"},
		{"109 twice in a day", func(b *bench) { b.xid("109", "3b"); b.wait(time.Hour); b.xid("109", "3b") }, "xid/109@3b:00.0 fatal drain-now+reset-gpu"},
		{"62 twice in a month", func(b *bench) { b.xid("62", "3b"); b.wait(10 * day); b.xid("62", "3b") }, "xid/62@3b:00.0 fatal drain-now+quarantine-rma"},
		{"62 twice in two months", func(b *bench) { b.xid("62", "3b"); b.wait(40 * day); b.xid("62", "3b") }, "xid/62@3b:00.0 fatal drain-now+reset-gpu"},
		{"119 the third time", func(b *bench) {
			for range 3 {
				b.xid("119", "3b")
				b.wait(day)
			}
		}, "xid/119@3b:00.0 fatal drain-now+firmware"},
		{"119 the fourth time", func(b *bench) {
			for range 4 {
				b.xid("119", "3b")
				b.wait(day)
			}
		}, "xid/119@3b:00.0 fatal drain-now+quarantine-rma"},
		{"74, ECC of one link twice in a day", func(b *bench) { b.xid("74", "3b", unit("link 4"), regs(1<<4)); b.wait(time.Hour); b.xid("74", "3b", unit("link 4"), regs(1<<4)) },
			"xid/74@3b:00.0/link-4 fatal drain-now+quarantine-rma"},
		{"74, ECC of two links", func(b *bench) { b.xid("74", "3b", unit("link 4"), regs(1<<4)); b.wait(time.Hour); b.xid("74", "3b", unit("link 5"), regs(1<<4)) },
			"xid/74@3b:00.0/link-4 fatal drain-now+reset-gpu; xid/74@3b:00.0/link-5 fatal drain-now+reset-gpu"},
		{"149, first mild, then worse", func(b *bench) {
			b.xid("149", "3b", unit("link 4 NETIR_LINK_EVT"), value(LineFatal), regs(0x26<<20, 0))
			b.xid("149", "3b", unit("link 4 NETIR_LINK_EVT"), value(LineFatal), regs(0x21<<20, 0))
			b.xid("149", "3b", unit("link 4 NETIR_LINK_EVT"), value(LineFatal), regs(0x26<<20, 0))
		}, "xid/149@3b:00.0/link-4-NETIR_LINK_EVT fatal drain-now+reset-gpu"},
		{"five fatal errors in a day", func(b *bench) {
			for _, c := range []string{"46", "62", "64", "95", "140"} {
				b.xid(c, "3b")
				b.wait(time.Hour)
			}
		}, "K/many-fatal@3b:00.0 fatal drain-now+quarantine-rma; xid/140@3b:00.0 fatal drain-now+reset-gpu; xid/46@3b:00.0 fatal drain-now+reset-gpu; xid/62@3b:00.0 fatal drain-now+reset-gpu; xid/64@3b:00.0 fatal drain-now+reset-gpu; xid/95@3b:00.0 fatal drain-now+reset-gpu"},
		{"one fatal error that goes on", func(b *bench) {
			for range 300 {
				b.xid("95", "3b")
				b.wait(time.Second)
			}
		}, "xid/95@3b:00.0 fatal drain-now+reset-gpu"},

		{"NVIDIA's word is first: reboot", func(b *bench) { b.xid("119", "3b"); b.hold(CheckRecovery, RecoveryReboot, "3b", Holds) },
			"G5/reboot@3b:00.0 fatal reboot; xid/119@3b:00.0 fatal reboot"},
		{"its word came before", func(b *bench) { b.hold(CheckRecovery, RecoveryDrainAndReset, "3b", Holds); b.xid("79", "3b") },
			"G5/drain-and-reset@3b:00.0 fatal drain-now+reset-gpu; xid/79@3b:00.0 fatal drain-now+reset-gpu"},
		{"its word is of another GPU", func(b *bench) { b.hold(CheckRecovery, RecoveryReboot, "86", Holds); b.xid("119", "3b") },
			"G5/reboot@86:00.0 fatal reboot; xid/119@3b:00.0 fatal drain-now+reset-gpu"},
		{"it changes its mind", func(b *bench) { b.hold(CheckRecovery, RecoveryDrainAndReset, "3b", Holds); b.xid("46", "3b"); b.hold(CheckRecovery, RecoveryReboot, "3b", Holds) },
			"G5/drain-and-reset@3b:00.0 fatal drain-now+reset-gpu; G5/reboot@3b:00.0 fatal reboot; xid/46@3b:00.0 fatal reboot"},
		{"it is content again", func(b *bench) { b.hold(CheckRecovery, RecoveryReboot, "3b", Holds); b.xid("46", "3b"); b.hold(CheckRecovery, "", "3b", Ended) },
			"G5/reboot@3b:00.0 fatal reboot; xid/46@3b:00.0 fatal drain-now+reset-gpu"},
		{"what repeats stays out of the house", func(b *bench) { b.xid("62", "3b"); b.wait(day); b.xid("62", "3b"); b.hold(CheckRecovery, RecoveryReset, "3b", Holds) },
			"G5/reset@3b:00.0 fatal reset-gpu; xid/62@3b:00.0 fatal drain-now+quarantine-rma"},

		{"a switch's word agrees with the fabric", func(b *bench) {
			b.take(Signal{Check: CheckSXid, Code: "20034", Part: Part{Kind: NVSwitch, BDF: "0000:c1:00.0"}, Value: LineNonfatal})
			b.hold("G29", "incomplete", "3b", Holds)
		}, "G29/incomplete@3b:00.0 fatal drain-now+reboot; sxid/20034@c1:00.0 fatal drain-now+reset-gpu"},
		{"details of a switch", func(b *bench) {
			b.take(Signal{Check: CheckSXid, Code: "20034", Part: Part{Kind: NVSwitch, BDF: "0000:c1:00.0"}, Unit: "link 3", Value: LineFatal})
			b.take(Signal{Check: CheckSXid, Code: "20034", Part: Part{Kind: NVSwitch, BDF: "0000:c1:00.0"}, Value: LineDetail})
		}, "sxid/20034@c1:00.0/link-3 fatal drain-now+reset-gpu"},

		{"NVML tells the same", func(b *bench) { b.xid("79", "3b"); b.take(Signal{Check: CheckXID, Code: "79", Part: Part{Kind: GPU, BDF: "0000:3b:00.0", UUID: "GPU-1"}, Reader: "nvml"}) },
			"xid/79@3b:00.0 fatal drain-now+reboot"},
		{"NVML was first, the log knows the unit", func(b *bench) {
			b.take(Signal{Check: CheckXID, Code: "13", Part: Part{Kind: GPU, BDF: "0000:3b:00.0"}, Reader: "nvml"})
			b.xid("13", "3b", unit("GPC 1 TPC 2"))
			b.take(Signal{Check: CheckXID, Code: "13", Part: Part{Kind: GPU, BDF: "0000:3b:00.0"}, Reader: "nvml"})
		}, "xid/13@3b:00.0/GPC-1-TPC-2 info tell-tenant"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, nil)
			c.do(b)
			b.Helper()
			got := b.state()
			if got != c.want {
				t.Errorf("stands\n     %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestNVLinkErrorsOfMachinesWithout(t *testing.T) {
	b := newBench(t, nil)
	b.j.Know(Machine{NoNVLink: true})
	b.xid("74", "3b", unit("link 0"), regs(1<<8))
	b.want("xid/74@3b:00.0/link-0 info")
}

func TestPartsAreKnown(t *testing.T) {
	b := newBench(t, nil)
	b.take(Signal{Check: "H7", Code: "aer-fatal", Part: Part{Kind: PCI, BDF: "0000:3b:00.0"}})
	b.j.Know(Machine{Parts: []Part{{Kind: GPU, BDF: "0000:3b:00.0", UUID: "GPU-1", Serial: "165", Slot: "GPU 5"}}})
	if w := b.j.Verdicts()[0].Part.Where(); w != "gpu, slot GPU 5, serial 165, at 0000:3b:00.0" {
		t.Errorf("it is at %q", w)
	}
	b.take(Signal{Check: "H7", Code: "aer-fatal", Part: Part{Kind: PCI, BDF: "0000:3b:00.0"}})
	b.want("G24/aer-fatal@3b:00.0 fatal drain-now+reboot; H7/aer-fatal@3b:00.0 fatal drain-now+reboot")
	// The past of a part goes where its serial goes.
	b.xid("62", "3b")
	b.j.Know(Machine{Parts: []Part{{Kind: GPU, BDF: "0000:86:00.0", Serial: "165"}, {Kind: GPU, BDF: "0000:3b:00.0", Serial: "999"}}})
	b.j.Passed(b.now.Add(time.Second), "burn-in")
	b.wait(time.Hour)
	b.xid("62", "3b")
	b.xid("62", "86")
	b.want("xid/62@3b:00.0 fatal drain-now+reset-gpu; xid/62@86:00.0 fatal drain-now+quarantine-rma")
}

// What is first or worse goes out at once; what is only counted, once a minute.
func TestReportsAreFew(t *testing.T) {
	b := newBench(t, nil)
	if out := b.xid("95", "3b"); len(out) != 1 {
		t.Fatalf("first: %d reports", len(out))
	}
	b.reports = nil
	for range 600 { // ten minutes, ten lines a second
		for range 10 {
			b.xid("95", "3b")
		}
		b.wait(time.Second)
	}
	if n := len(b.reports); n < 9 || n > 10 {
		t.Errorf("%d reports in ten minutes", n)
	}
	if v := b.j.Verdicts()[0]; v.Count != 6001 || len(v.Evidence) != maxEvidence || !strings.HasSuffix(v.Evidence[maxEvidence-1], "record 6001") || !strings.HasSuffix(v.Evidence[0], "record 1") {
		t.Errorf("%+v", v)
	}
	b.reports = nil
	b.wait(10 * time.Minute)
	if n := len(b.reports); n > 1 {
		t.Errorf("%d reports of nothing new", n)
	}
	b.reports = nil
	b.wait(time.Minute)
	b.hold("G11", "", "86", Holds)
	for range 300 { // a state that is seen again and again
		b.wait(time.Second)
		b.hold("G11", "", "86", Holds)
	}
	if n := len(b.reports); n != 1 {
		t.Errorf("%d reports of a state that holds", n)
	}
	if v := b.j.Verdicts()[1]; v.Count != 1 {
		t.Errorf("counted %d times: %+v", v.Count, v)
	}
}

// A line that was judged is not judged again, and a line of before the start acts only if the present state agrees.
func TestOldLines(t *testing.T) {
	gpu := Part{Kind: GPU, BDF: "0000:3b:00.0"}
	for _, c := range []struct {
		name string
		do   func(b *bench)
		want string
	}{
		{"while it is asked", func(b *bench) { b.xid("79", "3b", old) }, "xid/79@3b:00.0 info"},
		{"nobody can say", func(b *bench) { b.xid("79", "3b", old); b.wait(2 * time.Minute) }, "xid/79@3b:00.0 degraded drain-idle"},
		{"it is good now", func(b *bench) { b.xid("79", "3b", old); b.wait(time.Second); b.j.Seen("nvml", b.now, gpu); b.wait(2 * time.Minute) }, "xid/79@3b:00.0 info"},
		{"it is still so", func(b *bench) { b.xid("79", "3b", old); b.wait(time.Second); b.hold("G2", "", "3b", Holds); b.j.Seen("nvml", b.now, gpu) },
			"G2@3b:00.0 fatal drain-now+reboot; xid/79@3b:00.0 fatal drain-now+reboot"},
		{"the driver asks for a reset of it", func(b *bench) { b.hold(CheckRecovery, RecoveryReset, "3b", Holds); b.xid("95", "3b", old) },
			"G5/reset@3b:00.0 fatal reset-gpu; xid/95@3b:00.0 fatal reset-gpu"},
		{"another GPU is ill", func(b *bench) { b.xid("95", "3b", old); b.hold(CheckRecovery, RecoveryReset, "86", Holds); b.wait(time.Second); b.j.Seen("nvml", b.now, gpu) },
			"G5/reset@86:00.0 fatal reset-gpu; xid/95@3b:00.0 info"},
		{"it happens again", func(b *bench) { b.xid("95", "3b", old); b.wait(time.Second); b.j.Seen("nvml", b.now, gpu); b.wait(time.Second); b.xid("95", "3b") },
			"xid/95@3b:00.0 fatal drain-now+reset-gpu"},
		{"a program's error", func(b *bench) { b.xid("43", "3b", old) }, "xid/43@3b:00.0 info"},
		{"of an earlier boot", func(b *bench) { b.xid("79", "3b", func(s *Signal) { s.Boot = "boot-0" }) }, "xid/79@3b:00.0 info"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, nil)
			c.do(b)
			b.want(c.want)
		})
	}
}

func TestRestart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "journal")
	b := newBench(t, func(o *Options) { o.Journal = file })
	var lines []Signal
	for i, c := range []string{"79", "94", "13", "48"} {
		lines = append(lines, Signal{Check: CheckXID, Code: c, Part: Part{Kind: GPU, BDF: BDF(fmt.Sprintf("0000:%02x:00", 16*i))}, Seq: uint64(i + 1), At: b.now})
		b.take(lines[i])
	}
	b.hold("G11", "", "86", Holds)
	b.restart()
	b.want("G11@86:00.0 degraded drain-idle+reset-gpu; xid/13@20:00.0 info tell-tenant; xid/48@30:00.0 info; xid/79@00:00.0 fatal drain-now+reboot; xid/94@10:00.0 degraded tell-tenant+drain-idle+reset-gpu")
	for _, s := range lines { // the reader had not kept its place
		b.take(s)
	}
	b.hold("G11", "", "86", Holds)
	b.wait(30 * time.Second)
	for _, v := range b.reports {
		t.Errorf("reported again: %s", short(v))
	}
	b.wait(time.Minute) // the 48 was not decided: how it is now is not known
	b.want("G11@86:00.0 degraded drain-idle+reset-gpu; xid/13@20:00.0 info tell-tenant; xid/48@30:00.0 degraded drain-idle; xid/79@00:00.0 fatal drain-now+reboot; xid/94@10:00.0 degraded tell-tenant+drain-idle+reset-gpu")
	for _, v := range b.reports {
		if v.Has(DrainNow) || v.Action().Rank() > DrainIdle.Rank() {
			t.Errorf("an act from an old event: %s", short(v))
		}
	}
	// A new boot: what was fatal stands until a burn-in; a new line of it is a new fault, and the second in a month.
	b.options.Boot, b.seq = "boot-2", 0
	b.restart()
	b.wait(time.Hour)
	b.xid("79", "00", func(s *Signal) { s.Part.BDF = "0000:00:00.0" })
	if v := b.j.Verdicts()[0]; v.ID != "xid/79@0000:00:00.0" || v.Action() != QuarantineRMA || v.Count != 1 || !v.Since.Equal(b.now) {
		t.Errorf("%+v", v)
	}
	if len(b.reports) == 0 || b.reports[len(b.reports)-1].Action() != QuarantineRMA {
		t.Errorf("reports %+v", b.reports)
	}
}

// A journal that was cut in the middle of a write is read up to there.
func TestJournalIsCutAtTheFirstBadLine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "journal")
	b := newBench(t, func(o *Options) { o.Journal = file })
	b.xid("79", "3b")
	b.xid("95", "86")
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		file []byte
		want string
	}{
		{"whole", whole, "xid/79@3b:00.0 fatal drain-now+reboot; xid/95@86:00.0 fatal drain-now+reset-gpu"},
		{"cut", whole[:len(whole)-5], "xid/79@3b:00.0 fatal drain-now+reboot; xid/95@86:00.0 fatal drain-now+reset-gpu"},
		{"a bit is wrong", slices.Concat(whole[:20], []byte("X"), whole[21:]), ""},
		{"nonsense", []byte("nonsense\n"), ""},
		{"empty", nil, ""},
	} {
		if err := os.WriteFile(file, c.file, 0o600); err != nil {
			t.Fatal(err)
		}
		b.restart()
		if got := b.state(); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		b.xid("46", "af")
		b.restart()
		if got := b.state(); !strings.Contains(got, "xid/46@af:00.0 fatal drain-now+reset-gpu") {
			t.Errorf("%s: what came afterwards is not kept: %q", c.name, got)
		}
	}
}

func TestJournalStaysShort(t *testing.T) {
	file := filepath.Join(t.TempDir(), "journal")
	b := newBench(t, func(o *Options) { o.Journal = file })
	for i := range 20000 {
		b.xid("95", fmt.Sprintf("%02x", i%8))
		b.wait(time.Minute)
	}
	if st, err := os.Stat(file); err != nil || st.Size() > maxJournal+64<<10 {
		t.Errorf("%v, %v", st.Size(), err)
	}
	before := b.state()
	b.restart()
	b.want(before)
}

// However many faults there are, so many are remembered, and the worst is never lost.
func TestIncidentsAreBounded(t *testing.T) {
	b := newBench(t, nil)
	for i := range 3000 {
		b.xid("13", "3b", unit(fmt.Sprintf("GPC %d TPC 0", i)))
		b.now = b.now.Add(time.Second)
	}
	if n := b.j.Stats().Incidents; n > maxIncidents {
		t.Errorf("%d notices", n)
	}
	for i := range 3000 {
		b.xid("95", fmt.Sprintf("%02x", i%256), unit(fmt.Sprint("MIG ", i/256)))
	}
	st := b.j.Stats()
	v := b.j.Verdicts()
	i := slices.IndexFunc(v, func(v Verdict) bool { return v.Code == "overflow" })
	if st.Incidents > maxIncidents+300 || st.Folded < 1500 || i < 0 || v[i].Severity != Fatal || !v[i].Has(DrainNow) || v[i].Count != st.Folded {
		t.Errorf("%+v, %+v", st, v[max(i, 0)])
	}
	if n := len(b.j.past); n > maxPast {
		t.Errorf("%d kinds of past", n)
	}
}

func TestOverrides(t *testing.T) {
	until := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	b := newBench(t, func(o *Options) {
		o.Overrides = []Override{
			{Rule: "xid/109", Severity: Info, Reason: "driver 595 says it falsely", Actor: "kim", Expires: until},
			{Rule: "xid/95", Shadow: true, Reason: "new", Actor: "kim", Expires: until},
		}
	})
	b.xid("109", "3b")
	b.xid("95", "86")
	b.want("xid/109@3b:00.0 info; xid/95@86:00.0 fatal drain-now+reset-gpu in shadow")
	if a := Alerts(b.j.Verdicts()); len(a) != 0 {
		t.Errorf("alerts %+v", a)
	}
	if v := b.j.Verdicts()[1]; v.Override != "kim until 2026-12-01T00:00:00Z: driver 595 says it falsely" {
		t.Errorf("%+v", v)
	}
	if n := b.j.Stats().Shadow; n != 1 {
		t.Errorf("%d reports in shadow", n)
	}
	b.now = until
	b.xid("109", "af")
	if got := b.state(); !strings.Contains(got, "xid/109@af:00.0 degraded reset-gpu") {
		t.Errorf("it has ended: %s", got)
	}
	_, err := NewJudge(Options{Overrides: []Override{{Rule: "xid/9999"}, {Rule: "xid/109", Severity: "bad", Actions: []Action{"dance"}, Reason: "r", Actor: "a", Expires: until}}})
	for _, want := range []string{"no such rule", "who, why and until when", "no severity", "no action", "give a severity"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("wrong overrides: %v lacks %q", err, want)
		}
	}
}

// How faults are let go of.
func TestFaultsEnd(t *testing.T) {
	gpu := Part{Kind: GPU, BDF: "0000:3b:00.0"}
	poll := func(b *bench, d time.Duration, m Mark) { // NVML's rounds, every 10 s
		for end := b.now.Add(d); b.now.Before(end); {
			b.wait(10 * time.Second)
			b.hold("G25", "", "86", Ended)
			b.hold("G13", "none", "3b", m)
			b.reports = append(b.reports, b.j.Seen("nvml", b.now, gpu)...)
		}
	}
	for _, c := range []struct {
		name string
		do   func(b *bench)
		want string
	}{
		{"a notice", func(b *bench) { b.xid("43", "3b"); b.wait(11 * time.Minute) }, ""},
		{"a notice, too early", func(b *bench) { b.xid("43", "3b"); b.wait(9 * time.Minute) }, "xid/43@3b:00.0 info"},
		{"a degraded state that is good for ten minutes", func(b *bench) { poll(b, time.Minute, Holds); poll(b, 11*time.Minute, Ended) }, ""},
		{"for nine", func(b *bench) { poll(b, time.Minute, Holds); poll(b, 9*time.Minute, Ended) }, "G13/none@3b:00.0 degraded drain-idle"},
		{"good once, then nobody looks", func(b *bench) { poll(b, time.Minute, Holds); poll(b, 10*time.Second, Ended); b.wait(time.Hour) }, "G13/none@3b:00.0 degraded drain-idle"},
		{"it flaps: the second time takes an hour", func(b *bench) {
			for range 2 {
				poll(b, time.Minute, Holds)
				poll(b, 15*time.Minute, Ended)
			}
		}, "G13/none@3b:00.0 degraded drain-idle"},
		{"an hour later", func(b *bench) {
			for range 2 {
				poll(b, time.Minute, Holds)
				poll(b, 61*time.Minute, Ended)
			}
		}, ""},
		{"the third time takes twelve", func(b *bench) {
			for range 3 {
				poll(b, time.Minute, Holds)
				poll(b, 11*time.Hour, Ended)
			}
		}, "G13/none@3b:00.0 degraded drain-idle"},
		{"a degraded event, the part is looked at", func(b *bench) { b.xid("157", "3b"); poll(b, 11*time.Minute, Ended) }, ""},
		{"a degraded event, nobody looks", func(b *bench) { b.xid("157", "3b"); b.wait(24 * time.Hour) }, "xid/157@3b:00.0 degraded drain-idle"},
		{"a reset is asked for", func(b *bench) { b.xid("63", "3b"); poll(b, 24*time.Hour, Ended) }, "xid/63@3b:00.0 degraded drain-idle+reset-gpu"},
		{"fatal", func(b *bench) { b.xid("79", "3b"); poll(b, 24*time.Hour, Ended) }, "xid/79@3b:00.0 fatal drain-now+reboot"},
		{"a fatal state", func(b *bench) { b.hold("G25", "", "86", Holds); poll(b, 24*time.Hour, Ended) }, "G25@86:00.0 fatal drain-now+reset-gpu"},
		{"a passed burn-in ends them", func(b *bench) {
			b.xid("79", "3b")
			b.hold("G25", "", "86", Holds)
			b.wait(time.Minute)
			b.hold("G25", "", "86", Ended)
			b.j.Passed(b.now, "burn-in short")
		}, ""},
		{"but not what holds, or came later", func(b *bench) {
			began := b.now
			b.hold("G25", "", "86", Holds)
			b.wait(time.Minute)
			b.xid("79", "3b")
			b.j.Passed(began.Add(time.Second), "burn-in short")
		}, "G25@86:00.0 fatal drain-now+reset-gpu; xid/79@3b:00.0 fatal drain-now+reboot"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, nil)
			c.do(b)
			b.want(c.want)
			if c.want == "" && b.j.Stats().Reports < 2 {
				t.Error("that it is over was not reported")
			}
		})
	}
}
