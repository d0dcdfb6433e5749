package inventory_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/hostler-project/hostler/inventory"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// doc is a record that exists.
func doc[T any](v T) inventory.Doc[T] {
	return inventory.Doc[T]{V: v, KV: inventory.KV{Key: "/k", Mod: 3, Create: 3}}
}

// rentable is a node with nothing against it.
func rentable() inventory.NodeView {
	return inventory.NodeView{ID: "n-1",
		Spec:        doc(inventory.Spec{Schema: 1, Name: "a", SKU: "s"}),
		State:       doc(inventory.NodeState{Schema: 1, State: inventory.Ready, Alive: inventory.Alive, Wipe: 4, Generation: 2, Tested: noon.Add(-time.Hour)}),
		Certificate: doc(inventory.Certificate{}),
		Test:        doc(inventory.TestRun{Verdict: inventory.Pass, Wipe: 4, Generation: 2, Finished: noon.Add(-time.Hour)}),
		SKU:         doc(inventory.SKU{Name: "s", TestMaxAge: inventory.Duration(24 * time.Hour)}),
	}
}

// Each thing that is missing or wrong alone keeps the node from being rented, and is named.
func TestBlocked(t *testing.T) {
	hold := func(until time.Time) func(*inventory.NodeView) {
		return func(v *inventory.NodeView) {
			v.Spec.V.Holds = []inventory.Hold{{Kind: "cordon", Actor: "kim", Reason: "fan", Until: until}}
		}
	}
	alert := func(classes ...string) func(*inventory.NodeView) {
		return func(v *inventory.NodeView) {
			v.Health = append(v.Health, doc(inventory.HealthReport{Alerts: []inventory.Alert{{ID: "xid-79", What: "fell off the bus", Classes: classes}}}))
		}
	}
	for _, c := range []struct {
		name string
		edit func(*inventory.NodeView)
		want string // "": rentable
	}{
		{"nothing wrong", func(*inventory.NodeView) {}, ""},
		{"another state", func(v *inventory.NodeView) { v.State.V.State, v.State.V.Reason = inventory.Verifying, "smoke" }, "it is verifying: smoke"},
		{"silent", func(v *inventory.NodeView) { v.State.V.Alive = inventory.Silent }, "its agent is silent"},
		{"liveness never written", func(v *inventory.NodeView) { v.State.V.Alive = "" }, "its agent is unknown"},
		{"tainted", func(v *inventory.NodeView) { v.State.V.Taint = inventory.Taint }, "it is tainted"},
		{"no certificate", func(v *inventory.NodeView) { v.Certificate = inventory.Doc[inventory.Certificate]{} }, "no sanitize certificate for wipe 4"},
		{"no test", func(v *inventory.NodeView) { v.Test = inventory.Doc[inventory.TestRun]{} }, "no test run"},
		{"inconclusive test", func(v *inventory.NodeView) { v.Test.V.Verdict = inventory.Inconclusive }, "last test run: inconclusive"},
		{"verdict left empty", func(v *inventory.NodeView) { v.Test.V.Verdict = "" }, "last test run: "},
		{"test of another wipe", func(v *inventory.NodeView) { v.Test.V.Wipe = 3 }, "last passed test run is of wipe 3, not 4"},
		{"SKU gone", func(v *inventory.NodeView) { v.SKU = inventory.Doc[inventory.SKU]{} }, `its SKU "s" is not declared`},
		{"old test", func(v *inventory.NodeView) { v.State.V.Tested = noon.Add(-25 * time.Hour) }, "last test run is older than 24h0m0s"},
		{"test of no time", func(v *inventory.NodeView) { v.State.V.Tested = time.Time{} }, "last test run is older than 24h0m0s"},
		{"test of tomorrow", func(v *inventory.NodeView) { v.State.V.Tested = noon.Add(24 * time.Hour) }, "last test run is dated"},
		{"test of a clock a little ahead", func(v *inventory.NodeView) { v.State.V.Tested = noon.Add(time.Minute) }, ""},
		{"hold without end", hold(time.Time{}), "hold cordon by kim: fan"},
		{"hold until later", hold(noon.Add(time.Second)), "hold cordon by kim: fan"},
		{"hold that is over", hold(noon), ""},
		{"blocking alert", alert(inventory.HardwareAlert, inventory.PreventAllocation), "alert xid-79: fell off the bus"},
		{"alert of other classes", alert(inventory.TenantVisible), ""},
		{"unreadable", func(v *inventory.NodeView) { v.Broken = inventory.ErrNewer }, "a record of it cannot be read"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := rentable()
			c.edit(&v)
			got := v.Blocked(noon)
			if c.want == "" && len(got) != 0 || c.want != "" && (len(got) != 1 || !strings.HasPrefix(got[0], c.want)) {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if p := v.Offer(noon); p.Rentable != (c.want == "") {
				t.Errorf("public record says rentable=%v", p.Rentable)
			}
		})
	}
	if got := (inventory.NodeView{}).Blocked(noon); len(got) < 3 {
		t.Errorf("a node of which nothing is known: %q", got)
	}
}

func TestOfferTellsTheRentalLayer(t *testing.T) {
	v := rentable()
	v.State.V.State = inventory.InUse
	v.Claim = doc(inventory.Claim{Tenant: "acme", Reservation: "r1", Instance: "i-1"})
	v.Instance = doc(inventory.Instance{ID: "i-1", Ready: true})
	p := v.Offer(noon)
	if p.Tenant != "acme" || p.Reservation != "r1" || p.Instance != "i-1" || !p.Ready || p.Health != "healthy" || p.Rentable || !p.Sanitized {
		t.Errorf("in use: %+v", p)
	}
	v.State.V.State = inventory.Draining
	if v.Offer(noon).Ready {
		t.Error("draining, but ready")
	}
	v = rentable()
	v.State.V.State, v.State.V.Reason = inventory.Quarantined, "slot nvme1: expected nvme, found nothing"
	if p := v.Offer(noon); p.Health != "unhealthy" || p.Detail != v.State.V.Reason {
		t.Errorf("quarantined: %+v", p)
	}
	v = rentable()
	v.Health = []inventory.Doc[inventory.HealthReport]{doc(inventory.HealthReport{Alerts: []inventory.Alert{
		{ID: "xid/13", Classes: []string{inventory.TenantVisible}, What: "its program made an error"}}})}
	if p := v.Offer(noon); p.Health != "healthy" || !p.Rentable {
		t.Errorf("something that only its tenant is told: %+v", p)
	}
	v.Health[0].V.Alerts[0].Classes = []string{inventory.TenantVisible, inventory.DrainWhenIdle}
	if p := v.Offer(noon); p.Health != "unhealthy" || p.Detail != "its program made an error" {
		t.Errorf("something that its tenant is told too: %+v", p)
	}
	v = rentable()
	v.State.V.Taint = inventory.Taint
	if v.Offer(noon).Sanitized {
		t.Error("tainted, but sanitized")
	}
	v = rentable()
	v.Spec.V.Name = ""
	if p := v.Offer(noon); p.Name != "n-1" {
		t.Errorf("a node without a name is called %q", p.Name)
	}
}

// However much is wrong, in whatever script, the public record stays under 3 KiB and is text.
func TestPublicRecordStaysSmall(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.Map(rapid.StringN(0, 50, -1), func(s string) string { return strings.Repeat(s, 40) })
		v := rentable()
		v.State.V.State = rapid.SampledFrom([]inventory.State{inventory.Ready, inventory.Quarantined, inventory.InUse}).Draw(t, "state")
		v.State.V.Reason = text.Draw(t, "reason")
		for i := range rapid.IntRange(0, 20).Draw(t, "holds") {
			v.Spec.V.Holds = append(v.Spec.V.Holds, inventory.Hold{Kind: "cordon", Actor: fmt.Sprint(i), Reason: text.Draw(t, "hold")})
		}
		for i := range rapid.IntRange(0, 3).Draw(t, "alerts") {
			v.Health = append(v.Health, doc(inventory.HealthReport{Alerts: []inventory.Alert{{ID: fmt.Sprint(i), What: text.Draw(t, "what"), Classes: []string{inventory.PreventAllocation}}}}))
		}
		p := v.Offer(noon)
		b, err := json.Marshal(p)
		if err != nil || len(b) > 3<<10 {
			t.Fatalf("%d bytes, %v", len(b), err)
		}
		if why := v.Blocked(noon); (len(p.Reasons) == 0) != (len(why) == 0) {
			t.Fatalf("%d reasons shown of %d", len(p.Reasons), len(why))
		}
		for _, s := range append(slices.Clone(p.Reasons), p.Detail) {
			if !utf8.ValidString(s) {
				t.Fatalf("cut within a letter: %q", s)
			}
		}
	})
}

func TestNames(t *testing.T) {
	for _, c := range []struct {
		m         inventory.Medium
		key, name string
	}{
		{inventory.Medium{Kind: "nvme", Serial: "S1", Slot: "0000:00:04.0", Device: "nvme0", Model: "QEMU"}, "nvme serial S1", "nvme0 (QEMU) serial S1 in slot 0000:00:04.0"},
		{inventory.Medium{Kind: "disk", Slot: "0000:00:05.0"}, "disk slot 0000:00:05.0", "disk drive in slot 0000:00:05.0"},
	} {
		if c.m.Key() != c.key || c.m.String() != c.name {
			t.Errorf("got %q, %q", c.m.Key(), c.m)
		}
	}
	if k := inventory.KeyID("mac", "52:54:00:AA:BB:CC"); k != "/hostler/v1/ids/mac/52:54:00:aa:bb:cc" {
		t.Errorf("identities are compared without case: %s", k)
	}
	if inventory.KeyHistory("n", 9) >= inventory.KeyHistory("n", 10) || inventory.KeyCert("n", 99) >= inventory.KeyCert("n", 100) {
		t.Error("byte order is not number order")
	}
	if inventory.Parts("/registry/pods/x") != nil || len(inventory.Parts(inventory.KeySpec("n-1"))) != 3 {
		t.Error("foreign keys are told apart")
	}
	used := map[int]bool{}
	for i := range 1000 {
		used[inventory.Shard(fmt.Sprintf("n-%026d", i))] = true
	}
	if len(used) != inventory.Shards {
		t.Errorf("1000 nodes are spread over %d of %d shards", len(used), inventory.Shards)
	}
}
