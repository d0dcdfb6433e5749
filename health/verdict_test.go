package health

import (
	"slices"
	"strings"
	"testing"

	"github.com/hostler-project/hostler/inventory"
)

func TestClassesOfAlerts(t *testing.T) {
	for _, c := range []struct {
		name string
		v    Verdict
		want string
	}{
		{"nothing to do", Verdict{Severity: Info}, ""},
		{"the tenant's own program", Verdict{Severity: Info, Actions: []Action{TellTenant}}, "tenant-visible"},
		{"repair can wait", Verdict{Severity: Degraded, Actions: []Action{DrainIdle, ResetGPU}}, "prevent-allocation drain-when-idle"},
		{"contained memory error", Verdict{Severity: Degraded, Actions: []Action{TellTenant, DrainIdle, ResetGPU}, Hardware: true},
			"prevent-allocation drain-when-idle tenant-visible hardware"},
		{"degraded, a reset alone waits too", Verdict{Severity: Degraded, Actions: []Action{ResetGPU}}, "prevent-allocation drain-when-idle"},
		{"fatal", Verdict{Severity: Fatal, Actions: []Action{DrainNow, Reboot}}, "prevent-allocation drain-now tenant-visible"},
		{"fatal, the row names only the remedy", Verdict{Severity: Fatal, Actions: []Action{ResetGPU}}, "prevent-allocation drain-now tenant-visible"},
		{"fatal, but it waits for the tenant", Verdict{Severity: Fatal, Actions: []Action{DrainIdle}}, "prevent-allocation drain-when-idle"},
		{"out of the house", Verdict{Severity: Fatal, Actions: []Action{QuarantineRMA}, Hardware: true},
			"prevent-allocation drain-now prevent-transition tenant-visible hardware"},
		{"hands off", Verdict{Severity: Fatal, Actions: []Action{QuarantineRMA}, NoReboot: true},
			"prevent-allocation drain-now prevent-transition no-auto-reboot tenant-visible"},
		{"in shadow", Verdict{Severity: Fatal, Actions: []Action{QuarantineRMA}, Shadow: true}, ""},
		{"words nobody knows are not mild", Verdict{Severity: "bad", Actions: []Action{"dance"}}, "prevent-allocation drain-when-idle"},
	} {
		if got := strings.Join(c.v.Classes(), " "); got != c.want {
			t.Errorf("%s: classes %q, want %q", c.name, got, c.want)
		}
	}
}

func TestAlertsSayWhatAPersonNeeds(t *testing.T) {
	part := Part{Kind: GPU, BDF: "0000:3b:00.0", Serial: "1650522001234", Slot: "GPU 5"}
	got := Alerts([]Verdict{
		{ID: "info", Severity: Info},
		{ID: "mild", Severity: Degraded, Actions: []Action{DrainIdle}, What: "a row waits to be remapped", Part: part},
		{ID: "bad", Severity: Fatal, Actions: []Action{DrainNow, Reboot}, What: "the GPU fell off the bus", Part: part, Unit: "link 7", Count: 3,
			Rule: "xid/79", Source: "catalogue of 2025-10-29", Next: "reseat it", Evidence: []string{"NVRM: ..."}},
	})
	if len(got) != 2 || got[0].ID != "bad" || got[1].ID != "mild" {
		t.Fatalf("alerts %+v", got)
	}
	a := got[0]
	if a.What != "the GPU fell off the bus (3 times)" || a.Where != "gpu, slot GPU 5, serial 1650522001234, at 0000:3b:00.0, link 7" ||
		a.Rule != "xid/79, catalogue of 2025-10-29" || a.Severity != "fatal" || !slices.Equal(a.Actions, []string{"drain-now", "reboot"}) ||
		a.Next != "reseat it" || a.Count != 3 || len(a.Evidence) != 1 || !slices.Contains(a.Classes, inventory.DrainNow) {
		t.Errorf("alert %+v", a)
	}
}

func TestAddressesHaveOneForm(t *testing.T) {
	for in, want := range map[string]string{
		"0000:3b:00":       "0000:3b:00.0",
		"PCI:0000:3b:00":   "0000:3b:00.0",
		"00000000:3B:00.0": "0000:3b:00.0",
		"3b:00.1":          "0000:3b:00.1",
		"0018:01:00":       "0018:01:00.0",
		"10000:01:00.0":    "10000:01:00.0",
		"no address":       "no address",
		"a:b:c:d":          "a:b:c:d",
		"":                 "",
	} {
		if got := BDF(in); got != want {
			t.Errorf("BDF(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestLadderIsOrdered(t *testing.T) {
	if got := Strongest([]Action{DrainNow, ResetGPU, TellTenant}); got != ResetGPU {
		t.Errorf("strongest is %s", got)
	}
	if got := Strongest(nil); got != None {
		t.Errorf("strongest of nothing is %s", got)
	}
	for i, a := range Ladder() {
		if a.Rank() != i {
			t.Errorf("%s has rank %d", a, a.Rank())
		}
	}
	if Severity("worse").Rank() <= Fatal.Rank() || Action("dance").Rank() <= QuarantineRMA.Rank() {
		t.Error("an unknown word passes as mild")
	}
}

func TestIncidentsAreTold(t *testing.T) {
	for _, c := range []struct {
		s    Signal
		want string
	}{
		{Signal{Check: CheckXID, Code: "79", Part: Part{Kind: GPU, BDF: "0000:3b:00.0", UUID: "GPU-1"}}, "xid/79@0000:3b:00.0"},
		{Signal{Check: CheckSXid, Code: "12028", Part: Part{Kind: NVSwitch, BDF: "0000:05:00.0"}, Unit: "link 7"}, "sxid/12028@0000:05:00.0/link-7"},
		{Signal{Check: "G10", Code: "threshold", Part: Part{Kind: GPU, UUID: "GPU-1"}}, "G10/threshold@GPU-1"},
		{Signal{Check: "H13", Part: Part{Kind: Node}}, "H13@node"},
	} {
		if got := c.s.Incident(); got != c.want {
			t.Errorf("incident %q, want %q", got, c.want)
		}
	}
}
