package provisioner

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/ledger"
	"github.com/hostler-project/hostler/inventory/lifecycle"
	"github.com/hostler-project/hostler/inventory/memstore"
)

func (f *fleet) breaker() inventory.Breaker {
	kv, err := f.store.Get(f.t.Context(), inventory.KeyBreaker)
	f.must(err)
	return inventory.BreakerIn(kv)
}

// powerActs counts acts on machines since the fleet began.
func (f *fleet) powerActs() int { return f.acts[PowerOff] + f.acts[PowerOn] + f.acts[PowerCycle] }

func (f *fleet) count(holds func(inventory.NodeView) bool) int {
	n := 0
	for _, id := range f.order {
		if holds(f.view(id)) {
			n++
		}
	}
	return n
}

func offered(v inventory.NodeView) bool { return v.Avail.Exists() }

// quiet says that no node entered an activity while the breaker was open, at any revision.
func (f *fleet) quiet() {
	f.t.Helper()
	all, err := f.store.Since(1)
	f.must(err)
	open, was := false, map[string]string{}
	for _, b := range all {
		for _, e := range b.Events {
			if p := inventory.Parts(e.KV.Key); len(p) == 3 && p[2] == "state" {
				d, err := inventory.Decode[inventory.NodeState](e.KV)
				f.must(err)
				if a := inventory.Activity(d.V); a != was[p[1]] {
					if was[p[1]] = a; a != "" && open {
						f.t.Errorf("revision %d: node %s entered %s with the breaker open", b.Rev, p[1], a)
					}
				}
			}
			if e.KV.Key == inventory.KeyBreaker {
				open = inventory.BreakerIn(e.KV).Open
			}
		}
	}
}

// When the network to all nodes dies, all look dead and none is: nothing is switched, nothing is erased, the offers go,
// and a person is told. When it is back, everything is as before by itself, but for the breaker.
func TestMonitoringLost(t *testing.T) {
	for _, replicas := range []int{1, 2} {
		f := newFleet(t, 30, replicas, nil)
		f.works = func(o inventory.Order) bool { return o.Kind == inventory.OrderSanitize && f.machines[o.Node].n >= 20 }
		ready := func() int { return f.count(offered) }
		f.until(600, "20 on offer, 10 being erased", func() bool {
			return ready() == 20 && f.count(func(v inventory.NodeView) bool { return v.State.V.Work.Phase == inventory.OrderSanitize }) == 10
		})
		before := f.powerActs()
		cut := true
		f.silent = func(*machine) bool { return cut }
		for range 75 {
			f.turn()
		}
		if ready() != 0 {
			t.Errorf("%d silent nodes are on offer", ready())
		}
		f.step = 10 * time.Second
		f.turns(180) // half an hour
		if n := f.powerActs() - before; n != 0 {
			t.Errorf("%d power acts for a switch that died", n)
		}
		b := f.breaker()
		if !b.Open || !strings.Contains(b.Cause, "monitoring lost: ") || b.Allowed != 5 {
			t.Fatalf("breaker %+v", b)
		}
		for i, id := range f.order {
			if st := f.state(id).State; st != inventory.Ready && st != inventory.Sanitizing {
				t.Errorf("node %d was moved to %s", i, st)
			}
		}
		if say := f.say(0); !strings.Contains(say, "held up: the breaker is open since") || !strings.Contains(say, "monitoring lost") {
			t.Errorf("why says %q", say)
		}
		if l := f.replicas[0].loop.Live(f.order[20]); l.Still != "the breaker is open" {
			t.Errorf("deadline: %+v", l)
		}
		f.restart(0) // what is known of the storm is in the records
		f.turns(60)
		if n := f.powerActs() - before; n != 0 {
			t.Errorf("%d power acts after a restart", n)
		}
		cut = false
		f.turns(3)
		if ready() != 20 || f.count(func(v inventory.NodeView) bool { return v.State.V.Alive == inventory.Silent }) != 0 {
			t.Errorf("the network is back: %d on offer", ready())
		}
		f.step = time.Second
		_, err := f.led.CloseBreaker(t.Context(), "kim", "switch replaced")
		f.must(err)
		f.works = nil
		f.until(300, "all ready", f.all(inventory.Ready))
		if f.breaker().Open || f.powerActs() != before {
			t.Errorf("afterwards: %+v, %d power acts", f.breaker(), f.powerActs()-before)
		}
		f.quiet()
	}
}

// A few silent nodes are a few broken nodes: they are looked after.
func TestAFewSilentNodesAreLost(t *testing.T) {
	f := newFleet(t, 12, 1, nil)
	f.until(300, "ready", f.all(inventory.Ready))
	f.silent = func(m *machine) bool { return m.n < 5 && m.boots < 2 }
	f.step = 5 * time.Second
	f.until(200, "lost", func() bool {
		return f.count(func(v inventory.NodeView) bool { return v.State.V.Cause == string(lifecycle.Lost) }) == 5
	})
	f.until(200, "ready again", f.all(inventory.Ready))
	if f.breaker().Open {
		t.Errorf("breaker %+v", f.breaker())
	}
}

// More than the larger of 3 % and 5 nodes that become unhealthy within ten minutes open the breaker; an operator's acts,
// and nodes that are unhealthy since long, do not.
func TestBreakerOpens(t *testing.T) {
	for _, c := range []struct {
		name  string
		nodes int // that the fleet has, beside those that fall ill
		ill   int
		gap   time.Duration
		actor string
		open  bool
	}{
		{"five at once", 20, 5, 0, actor, false},
		{"six at once", 20, 6, 0, actor, true},
		{"six in ten minutes", 20, 6, 110 * time.Second, actor, true},
		{"six in an hour", 20, 6, 12 * time.Minute, actor, false},
		{"an operator takes twenty out", 40, 20, 0, "kim", false},
		{"three per cent of 400", 388, 12, 0, actor, false},
		{"more than three per cent of 400", 387, 13, 0, actor, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFleet(t, 0, 1, nil)
			node := func(i int) inventory.NodeView {
				id, err := f.led.Add(t.Context(), inventory.Spec{Name: fmt.Sprint("x", i)}, "test", "imported")
				f.must(err)
				st := f.state(id)
				st.State, st.Since = inventory.Maintenance, f.now
				f.put(inventory.KeyState(id), st)
				return f.view(id)
			}
			for i := range c.nodes {
				node(i)
			}
			for i := range c.ill {
				v := node(c.nodes + i)
				d := move(lifecycle.Quarantine, "alert gpu: fell off the bus")
				d.Change.Actor = c.actor
				d.Change.Unwell = unwell(Input{View: v}, d)
				_, err := f.led.Move(t.Context(), v, d.Event, d.Change)
				f.must(err)
				f.turn()
				f.now = f.now.Add(c.gap)
			}
			f.turn()
			if b := f.breaker(); b.Open != c.open {
				t.Fatalf("breaker %+v", b)
			}
			if !c.open {
				return
			}
			// The same count again after a restart: the records say it. Closing judges the present.
			if b := f.breaker(); b.Counted < 6 || b.Cause == "" || b.By != actor {
				t.Errorf("breaker %+v", b)
			}
			f.now = f.now.Add(time.Second)
			_, err := f.led.CloseBreaker(t.Context(), "kim", "bad driver rolled back")
			f.must(err)
			f.turns(5)
			f.restart(0)
			f.turns(5)
			if b := f.breaker(); b.Open || b.By != "kim" || b.Reason != "bad driver rolled back" {
				t.Errorf("opened again by what was before: %+v", b)
			}
		})
	}
}

// A daemon that starts, or takes over, in the middle finds the same count in the records.
func TestBreakerCountsAcrossRestarts(t *testing.T) {
	f := newFleet(t, 20, 1, nil)
	f.until(300, "ready", f.all(inventory.Ready))
	for i := range 6 {
		v := f.view(f.order[i])
		d := move(lifecycle.Quarantine, "alert gpu")
		d.Change.Unwell = unwell(Input{View: v}, d)
		_, err := f.led.Move(t.Context(), v, d.Event, d.Change)
		f.must(err)
		if i == 2 {
			f.turn()
			f.restart(0)
		}
	}
	f.restart(0)
	f.turns(2)
	if !f.breaker().Open {
		t.Errorf("breaker %+v", f.breaker())
	}
}

// With the breaker open: what starts is held up, what has started goes on, what is seen is written.
func TestWhatAnOpenBreakerHoldsUp(t *testing.T) {
	open := inventory.Breaker{Open: true, Since: time.Date(2026, 11, 25, 3, 0, 0, 0, time.UTC), Cause: "test"}
	in := func(state inventory.State, phase string, edit func(*Input)) Input {
		i := Input{Breaker: open, Now: open.Since.Add(time.Hour), Rules: (&world{}).rules(), Seen: Seen{Results: map[Act]Result{}}}
		i.View.ID = "n"
		i.View.State.V = inventory.NodeState{State: state, Work: inventory.Work{Phase: phase, Order: "o.1"}}
		if edit != nil {
			edit(&i)
		}
		return i
	}
	note := func(phase string) Decision { return startOrder(in("", "", nil), phase, 1, "x") }
	session := phase(in("", "", nil), phaseOff, "x")
	session.Change.Session = &inventory.Session{}
	released := func(i *Input) { i.View.Reservation.V.Phase = inventory.Released }
	cause := func(c string) func(*Input) { return func(i *Input) { i.View.State.V.Cause = c } }
	for _, c := range []struct {
		name string
		in   Input
		d    Decision
		held bool
	}{
		{"a first boot", in(inventory.Inspecting, "", nil), session, true},
		{"another boot", in(inventory.Inspecting, phaseBoot, nil), session, true},
		{"the next phase of a boot", in(inventory.Inspecting, phaseOff, nil), phase(in("", "", nil), "boot-device", "x"), false},
		{"the act of a phase", in(inventory.Inspecting, phaseOff, nil), act(PowerOff, "x"), false},
		{"an erasure", in(inventory.Sanitizing, phaseBoot, nil), note(inventory.OrderSanitize), true},
		{"an erasure once more", in(inventory.Sanitizing, inventory.OrderSanitize, nil), note(inventory.OrderSanitize), true},
		{"writing a tenant's image", in(inventory.Provisioning, "", nil), note(inventory.OrderWrite), true},
		{"reading the hardware", in(inventory.Inspecting, phaseBoot, nil), note(inventory.OrderInspect), false},
		{"a test", in(inventory.BurnIn, "", nil), note(inventory.OrderTest), false},
		{"lost", in(inventory.Ready, "", nil), move(lifecycle.Lost, "x"), true},
		{"deadline", in(inventory.Sanitizing, "", nil), move(lifecycle.Timeout, "x"), true},
		{"drain", in(inventory.InUse, "running", nil), move(lifecycle.DrainNow, "x"), true},
		{"un-drain", in(inventory.Draining, "", nil), move(lifecycle.Cancel, "x"), false},
		{"the notice is over", in(inventory.Draining, "", nil), move(lifecycle.Done, "x"), true},
		{"its tenant has released it", in(inventory.Draining, "", released), move(lifecycle.Done, "x"), false},
		{"a step failed", in(inventory.Sanitizing, "", nil), move(lifecycle.Failed, "x"), false},
		{"a step is done", in(inventory.Sanitizing, "", nil), move(lifecycle.Done, "x"), false},
		{"a reservation expired", in(inventory.Reserved, "", nil), move(lifecycle.Expire, "x"), false},
		{"put aside", in(inventory.Ready, "", nil), move(lifecycle.Quarantine, "x"), false},
		{"emergency", in(inventory.InUse, "running", nil), move(lifecycle.Emergency, "x"), false},
		{"silent", in(inventory.Ready, "", nil), alive(in("", "", nil), inventory.Silent), false},
		{"alive again", in(inventory.Ready, "", nil), alive(in("", "", nil), inventory.Alive), false},
		{"offer", in(inventory.Ready, "", nil), Decision{Offer: true}, false},
		{"withdraw", in(inventory.Ready, "", nil), Decision{Withdraw: true}, false},
		{"reading the power", in(inventory.Discovered, "", nil), act(ReadPower, "x"), false},
		{"its tenant's network", in(inventory.InUse, "attach", nil), act(FenceAttach, "x"), false},
		{"the last tenant's system is switched off", in(inventory.Quarantined, "", nil), act(PowerOff, "x"), true},
		{"the same after an emergency", in(inventory.Quarantined, "", cause("emergency")), act(PowerOff, "x"), false},
	} {
		d := held(c.in, c.d)
		if d.Held != c.held {
			t.Errorf("%s: held up %v, want %v", c.name, d.Held, c.held)
		}
		if d.Held && (d.Act != "" || d.Event != "" || d.Note || !strings.Contains(d.Say, "held up: the breaker is open since 03:00:00: test") || d.Still == "") {
			t.Errorf("%s: %+v", c.name, d)
		}
		c.in.Breaker.Open = false
		if d := held(c.in, c.d); d.Held {
			t.Errorf("%s: held up by a closed breaker", c.name)
		}
	}
}

// The one act that starts something without a transaction of its own looks at the breaker right before: a copy that is
// late does not know that it has opened.
func TestALateCopyAndTheBreaker(t *testing.T) {
	for _, opened := range []bool{false, true} {
		f := newFleet(t, 1, 1, nil)
		f.until(200, "ready", f.all(inventory.Ready))
		loop := f.replicas[0].loop
		f.sync(f.replicas[0])
		loop.touch(f.order[0])
		in, due := loop.input(f.order[0])
		in.View.State.V.State, in.View.State.V.Work = inventory.Quarantined, inventory.Work{}
		d := held(in, act(PowerOff, "its last tenant's system may still run"))
		if opened {
			f.put(inventory.KeyBreaker, inventory.Breaker{Schema: 1, Open: true, Since: f.now, Cause: "test"})
		}
		before := f.acts[PowerOff]
		loop.apply(t.Context(), in, d)
		for _, begun := range f.begun {
			begun()
		}
		if did := f.acts[PowerOff] - before; !due || did != 1 && !opened || did != 0 && opened {
			t.Errorf("breaker opened %v: %d power acts", opened, did)
		}
	}
}

// Wishes that would start something are refused with the reason and what to do; those that stop something are done.
func TestWishesWhileTheBreakerIsOpen(t *testing.T) {
	w := newWorld(t)
	w.until(inventory.Ready)
	w.put(inventory.KeyBreaker, inventory.Breaker{Schema: 1, Open: true, Since: w.now, Cause: "test"})
	w.sync()
	if a := w.wish(inventory.WishQuarantine, ""); a.Answer != inventory.DoneOK {
		t.Errorf("quarantine: %+v", a)
	}
	for _, x := range []struct{ verb, arg string }{{inventory.WishReturn, ""}, {inventory.WishPower, "off"}} {
		a := w.wish(x.verb, x.arg)
		if a.Answer != inventory.Refused || !strings.Contains(a.Detail, "the breaker is open since") || !strings.Contains(a.Detail, "hostler breaker close --reason") {
			t.Errorf("%s: %+v", x.verb, a)
		}
	}
	w.now = w.now.Add(time.Second)
	_, err := w.led.CloseBreaker(t.Context(), "kim", "looked")
	w.must(err)
	if a := w.wish(inventory.WishReturn, ""); a.Answer != inventory.DoneOK {
		t.Errorf("return: %+v", a)
	}
	w.until(inventory.Ready)
	w.whole()
}

// A breaker that the store does not take yet holds things up all the same.
func TestBreakerThatCannotBeWritten(t *testing.T) {
	f := newFleet(t, 20, 1, nil)
	f.until(300, "ready", f.all(inventory.Ready))
	before := f.powerActs()
	fired := 0
	f.store.SetFault(func(c memstore.Call) error {
		if c.Op == "commit" && c.Txn.Then[0].Key == inventory.KeyBreaker {
			fired++
			return fmt.Errorf("no: %w", inventory.ErrUnavailable)
		}
		return nil
	})
	f.silent = func(*machine) bool { return true }
	f.step = 5 * time.Second
	f.turns(200)
	if n := f.powerActs() - before; n != 0 || fired < 20 {
		t.Errorf("%d power acts, %d tries", n, fired)
	}
	f.store.SetFault(nil)
	f.turns(2)
	if !f.breaker().Open {
		t.Error("it was not opened when the store was back")
	}
}

// Liveness is written at a pace that leaves the store to others, those on offer first.
func TestLivenessStorm(t *testing.T) {
	c := inventory.NewCopy()
	now := time.Date(2026, 11, 25, 3, 0, 0, 0, time.UTC)
	var k bucket
	wrote := [2]int{}
	for range 100 { // ten seconds, 10,000 nodes that all want to
		now = now.Add(100 * time.Millisecond)
		for i := range 1000 {
			offered := i%2 == 1
			if k.take(now, c, offered) {
				wrote[i%2]++
			}
		}
	}
	if n := wrote[0] + wrote[1]; n < 900 || n > 1100 {
		t.Errorf("%d writes in ten seconds", n)
	}
	if wrote[0] > 100 {
		t.Errorf("%d writes of nodes that are not on offer, %d of those that are", wrote[0], wrote[1])
	}
}

// Closing needs a reason, and an open breaker.
func TestCloseBreaker(t *testing.T) {
	f := newFleet(t, 0, 1, nil)
	var refused *ledger.Refusal
	if _, err := f.led.CloseBreaker(t.Context(), "kim", "why not"); !errors.As(err, &refused) {
		t.Errorf("closed: %v", err)
	}
	f.put(inventory.KeyBreaker, inventory.Breaker{Schema: 1, Open: true, Since: f.now, Cause: "test"})
	if _, err := f.led.CloseBreaker(t.Context(), "kim", " "); !errors.As(err, &refused) || !f.breaker().Open {
		t.Errorf("without a reason: %v", err)
	}
}
