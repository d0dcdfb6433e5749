package provisioner

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/ledger"
	"github.com/hostler-project/hostler/inventory/memstore"
)

func limits(edit func(*inventory.Limits)) inventory.Limits {
	l := inventory.DefaultLimits()
	edit(&l)
	return l
}

// Every phase with an act on a machine's power or boot is counted, and nothing else of a tenant's life is.
func TestPowerPhasesAreBudgeted(t *testing.T) {
	for _, row := range actRows {
		got := inventory.Activity(inventory.NodeState{Work: inventory.Work{Phase: row.Phase}})
		want := inventory.Booting
		if row.Act == FenceAttach || row.Act == BootDisk {
			want = "" // the network of a tenant's node; the disk of one that is being handed over
		}
		if got != want {
			t.Errorf("phase %s: activity %q, want %q", row.Phase, got, want)
		}
	}
	for phase, want := range map[string]string{phaseBoot: inventory.Booting, phasePower: inventory.Booting, inventory.OrderSanitize: inventory.Destroying, inventory.OrderWrite: inventory.Destroying,
		inventory.OrderInspect: "", inventory.OrderTest: "", inventory.OrderHandoff: "", "enter": "", "running": "", "": ""} {
		if got := inventory.Activity(inventory.NodeState{Work: inventory.Work{Phase: phase}}); got != want {
			t.Errorf("phase %q: activity %q, want %q", phase, got, want)
		}
	}
}

// At no revision are more nodes booted or erased at once than the limits say, with one replica and with three that race;
// everybody has a turn.
func TestNeverMoreAtOnce(t *testing.T) {
	for _, replicas := range []int{1, 3} {
		for _, c := range []struct {
			name string
			edit func(*inventory.Limits)
			boot int // the most at once that must have been seen: a limit that nobody reaches is no test
		}{
			{"site", func(l *inventory.Limits) { l.Boot = inventory.Limit{Site: 3}; l.Destroy = inventory.Limit{Site: 2} }, 3},
			{"rack", func(l *inventory.Limits) {
				l.Boot = inventory.Limit{Site: 20, Rack: 1}
				l.Destroy = inventory.Limit{Site: 20, Rack: 1}
			}, 4},
			{"cause", func(l *inventory.Limits) {
				l.Boot = inventory.Limit{Site: 20, Cause: 5}
				l.Destroy = inventory.Limit{Site: 20, Cause: 2}
			}, 5},
			{"defaults", func(*inventory.Limits) {}, 8},
		} {
			t.Run(fmt.Sprint(c.name, replicas), func(t *testing.T) {
				f := newFleet(t, 24, replicas, func(i int, s *inventory.Spec) { s.Rack = fmt.Sprint("r", i%4) })
				f.put(inventory.KeyLimits, limits(c.edit))
				f.until(1000, "all ready", f.all(inventory.Ready))
				if got := f.peaks()[inventory.Booting]; got != c.boot {
					t.Errorf("at most %d booted at once, want %d", got, c.boot)
				}
			})
		}
	}
}

// A replica whose writes end with an unknown outcome still counts right.
func TestUnknownOutcomesAreCounted(t *testing.T) {
	f := newFleet(t, 20, 2, nil)
	f.put(inventory.KeyLimits, limits(func(l *inventory.Limits) { l.Boot = inventory.Limit{Site: 3}; l.Destroy = inventory.Limit{Site: 2} }))
	n, fired := 0, 0
	f.store.SetFault(func(c memstore.Call) error {
		if c.Op != "commit" || len(c.Txn.If) == 0 {
			return nil
		}
		if n++; n%7 == 0 {
			fired++
			return fmt.Errorf("the wire broke: %w", inventory.ErrUnavailable)
		}
		return nil
	})
	f.until(3000, "all ready", f.all(inventory.Ready))
	f.peaks()
	if fired < 20 {
		t.Errorf("the fault fired %d times", fired)
	}
}

// A node that waits says for what, its deadline stands still, and a daemon that starts in between keeps the order.
func TestWaitingForATurn(t *testing.T) {
	f := newFleet(t, 3, 1, nil)
	f.put(inventory.KeyLimits, limits(func(l *inventory.Limits) { l.Boot = inventory.Limit{Site: 1} }))
	f.dead = true
	f.turns(20)
	first, last := f.order[0], f.order[2]
	if f.state(first).Work.Phase != phaseBoot || f.state(last).Work.Phase != "" || f.state(last).State != inventory.Inspecting {
		t.Fatalf("%+v; %+v", f.state(first), f.state(last))
	}
	want := "it needs the service OS; waits: 1 of 1 boots at once are running at the site; its turn comes when one ends"
	if got := f.say(2); got != want {
		t.Errorf("says %q", got)
	}
	f.step = time.Minute
	f.turns(20)
	if l := f.replicas[0].loop.Live(last); l.Left < time.Hour-time.Second {
		t.Errorf("the deadline of a node that waits ran: %v left", l.Left)
	}
	if l := f.replicas[0].loop.Live(first); l.Left > 41*time.Minute {
		t.Errorf("the deadline of a node that boots stood still: %v left", l.Left)
	}
	f.restart(0)
	f.dead = false
	f.step = time.Second
	f.until(300, "ready", f.all(inventory.Ready))
	f.peaks()
}

// Tenants before what is only new, and who has waited longest before who came later.
func TestTurns(t *testing.T) {
	at := func(min int) time.Time { return time.Date(2026, 11, 25, 3, min, 0, 0, time.UTC) }
	node := func(id string, state inventory.State, since int, edit func(*inventory.NodeState)) inventory.NodeView {
		v := inventory.NodeView{ID: id}
		v.State.V = inventory.NodeState{State: state, Since: at(since)}
		if edit != nil {
			edit(&v.State.V)
		}
		return v
	}
	fresh := func(st *inventory.NodeState) { st.BurnInDue = true }
	nodes := []inventory.NodeView{
		node("new-old", inventory.Inspecting, 0, fresh),
		node("new-young", inventory.Inspecting, 3, fresh),
		node("back-b", inventory.Inspecting, 5, nil),
		node("back-a", inventory.Inspecting, 5, nil),
		node("released", inventory.Fencing, 9, nil),
		node("confirmed", inventory.Provisioning, 8, nil),
		node("retried", inventory.Provisioning, 1, func(st *inventory.NodeState) { st.Work.Since = at(10) }),
	}
	l := &Loop{Copy: inventory.NewCopy()}
	l.recount()
	b := l.budget
	b.in.Boot = inventory.Limit{Site: 1}
	for _, v := range nodes {
		b.decided(v, Decision{For: inventory.Booting})
	}
	var got []string
	for range nodes {
		for _, id := range b.grant(nil) {
			got = append(got, id)
			b.release(id)
			delete(b.queue[inventory.Booting], id)
		}
	}
	if want := "confirmed released retried back-a back-b new-old new-young"; strings.Join(got, " ") != want {
		t.Errorf("order %v, want %s", got, want)
	}
}

// Two nodes of which each has what the other waits for do not wait for ever: who waits gives up what it has.
func TestNoDeadlockBetweenBudgets(t *testing.T) {
	f := newFleet(t, 2, 1, nil)
	f.put(inventory.KeyLimits, limits(func(l *inventory.Limits) { l.Boot = inventory.Limit{Site: 1}; l.Destroy = inventory.Limit{Site: 1} }))
	// One is erased and falls silent, so it needs a boot; the other has just booted and needs to be erased.
	f.works = func(o inventory.Order) bool { return o.Kind == inventory.OrderSanitize && f.machines[o.Node].n == 0 }
	f.until(100, "erasing", func() bool { return f.state(f.order[0]).Work.Phase == inventory.OrderSanitize })
	silent := true
	f.silent = func(m *machine) bool { return silent && m.n == 0 }
	f.until(300, "both wait, or go on", func() bool {
		return f.state(f.order[1]).State == inventory.Sanitizing || f.state(f.order[1]).State == inventory.Ready
	})
	f.works, silent = nil, false
	f.until(600, "ready", f.all(inventory.Ready))
	f.peaks()
}

// A power wish takes its place like every other power act, and gives it back with the answer.
func TestWishedPowerIsCounted(t *testing.T) {
	f := newFleet(t, 6, 1, func(_ int, s *inventory.Spec) { s.Approve = "" })
	f.put(inventory.KeyLimits, limits(func(l *inventory.Limits) { l.Boot = inventory.Limit{Site: 2} }))
	for _, id := range f.order {
		f.put(inventory.KeyWish(id, "w"), inventory.Wish{Schema: 1, ID: "w", Node: id, Verb: inventory.WishPower, Arg: "cycle", Actor: "kim", Created: f.now, Expires: f.now.Add(time.Hour)})
	}
	f.turn()
	if n := f.acts[PowerCycle]; n > 2 {
		t.Errorf("%d power acts at once", n)
	}
	f.turns(10)
	for i, id := range f.order {
		kv, err := f.store.Get(t.Context(), inventory.KeyWish(id, "w"))
		f.must(err)
		w, err := inventory.Decode[inventory.Wish](kv)
		f.must(err)
		if w.V.Answer != inventory.DoneOK || inventory.Activity(f.state(id)) != "" {
			t.Errorf("node %d: %s %q, activity %q", i, w.V.Answer, w.V.Detail, inventory.Activity(f.state(id)))
		}
	}
	if got := f.peaks()[inventory.Booting]; got != 2 {
		t.Errorf("%d at once", got)
	}
}

// A tenant's wish overtakes what is being taken in.
func TestTenantOvertakesIngestion(t *testing.T) {
	f := newFleet(t, 8, 1, nil)
	f.put(inventory.KeyLimits, limits(func(l *inventory.Limits) { l.Destroy = inventory.Limit{Site: 1} }))
	f.works = func(o inventory.Order) bool { return o.Kind == inventory.OrderSanitize && f.machines[o.Node].n > 0 }
	f.until(300, "one ready", func() bool { return f.state(f.order[0]).State == inventory.Ready && f.view(f.order[0]).Avail.Exists() })
	_, err := f.led.Claim(t.Context(), ledger.ClaimRequest{Tenant: "acme", Reservation: "r", SKU: "virtual", Actor: "test"})
	f.must(err)
	_, err = f.led.Confirm(t.Context(), ledger.ConfirmRequest{Tenant: "acme", Reservation: "r", Image: "img", Sealed: []byte("x"), Actor: "test"})
	f.must(err)
	f.turns(20)
	if say := f.say(0); !strings.Contains(say, "1 of 1 erasures and writes at once") {
		t.Errorf("says %q", say)
	}
	ends := 0
	f.works = func(o inventory.Order) bool { // one erasure ends; the next one's place must be the tenant's
		if o.Kind == inventory.OrderSanitize && ends == 0 {
			ends++
			return false
		}
		return o.Kind == inventory.OrderSanitize
	}
	f.until(50, "in use", func() bool { return f.state(f.order[0]).State == inventory.InUse })
	if ends != 1 {
		t.Errorf("%d erasures ended first", ends)
	}
	f.peaks()
}
