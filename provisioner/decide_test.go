package provisioner

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/lifecycle"
)

// A step that works and never ends is ended by the deadline of its state, with what it did last.
func TestDeadlines(t *testing.T) {
	for _, c := range []struct {
		kind  string
		state inventory.State
		end   inventory.State
		after time.Duration
	}{
		{inventory.OrderInspect, inventory.Inspecting, inventory.Quarantined, 60 * time.Minute},
		{inventory.OrderSanitize, inventory.Sanitizing, inventory.Quarantined, 30 * time.Minute},
		{inventory.OrderTest, inventory.BurnIn, inventory.Quarantined, 6 * time.Hour},
		{inventory.OrderWrite, inventory.Provisioning, inventory.Fencing, 90 * time.Minute},
	} {
		t.Run(string(c.state), func(t *testing.T) {
			w := newWorld(t)
			if c.state == inventory.Provisioning {
				w.until(inventory.Ready)
				w.rent("r")
			}
			w.endless = func(o inventory.Order) bool { return o.Kind == c.kind }
			w.until(c.state)
			if w.entered(c.state) == 0 {
				t.Fatal("never got there")
			}
			w.turns(300, "working", func() bool { return w.view().State.V.Work.Phase == c.kind })
			begun := w.view().State.V.Since
			w.step = 20 * time.Second
			w.turns(3000, string(c.end), func() bool { return w.view().State.V.State == c.end })
			w.in(c.end, "deadline of "+c.after.String()+" passed", "1 of 100 blocks")
			if took := w.view().State.V.Since.Sub(begun); took < c.after || took > c.after+time.Minute {
				t.Errorf("ended after %v", took)
			}
			if in := w.view().Instance; c.end == inventory.Fencing && in.V.Phase != inventory.InstanceFailed {
				t.Errorf("the tenant was not told: %+v", in.V)
			}
			w.whole()
		})
	}
}

// Time in which the daemon did not run, or hung, costs a node at most two minutes of its deadline; what counted is not
// lost when a new one starts.
func TestPausesDoNotCount(t *testing.T) {
	for name, pause := range map[string]func(*world){
		"hung":      func(w *world) {},
		"restarted": func(w *world) { w.restart() },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.endless = func(o inventory.Order) bool { return o.Kind == inventory.OrderSanitize }
			w.until(inventory.Sanitizing)
			w.turns(300, "working", func() bool { return w.view().State.V.Work.Phase == inventory.OrderSanitize })
			for range 3 {
				w.now = w.now.Add(5 * time.Hour)
				pause(w)
				w.machine() // the agent speaks before anybody looks
				for range 5 {
					w.turn()
				}
			}
			left, timed := Left(Input{View: w.view(), Seen: w.loop.node(w.id).seen})
			if !timed || left < 23*time.Minute {
				t.Errorf("%v left of 30 minutes, after 15 hours in which nobody looked", left)
			}
			w.in(inventory.Sanitizing, "the hardware is")
		})
	}
}

// Deadlines of states are counted in any rhythm of looking up to two minutes.
func TestQuietNodeReachesItsDeadline(t *testing.T) {
	w := newWorld(t)
	w.until(inventory.Ready)
	_, err := w.led.Claim(t.Context(), claimOf("r", time.Hour))
	w.must(err)
	w.mute = true // nothing is heard of it: only the loop itself looks
	begun := w.now
	w.step = 5 * time.Second
	w.turns(3*720, "given back", func() bool { return w.view().State.V.State != inventory.Reserved })
	if took := w.now.Sub(begun); took > time.Hour+time.Minute {
		t.Errorf("given back after %v", took)
	}
}

// draw makes any input: records that fit together and records that do not.
func draw(t *rapid.T, state inventory.State) Input {
	now := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	when := rapid.Custom(func(t *rapid.T) time.Time {
		if rapid.Bool().Draw(t, "never") {
			return time.Time{}
		}
		return now.Add(-time.Duration(rapid.IntRange(-60, 7200).Draw(t, "ago")) * time.Second)
	})
	pick := func(name string, words ...string) string { return rapid.SampledFrom(words).Draw(t, name) }
	phases := []string{"", "enter", "running", "boot", "inspect", "sanitize", "test", "write", "hand-off", "nonsense"}
	for _, r := range actRows {
		phases = append(phases, r.Phase)
	}
	gen := int64(3)
	v := inventory.NodeView{ID: "n-1"}
	v.Spec = exists(inventory.Spec{Name: "a", SKU: "s", Serial: pick("serial", "", "S"), Approve: pick("approve", "", "auto"), BMC: inventory.BMCSpec{Addr: pick("bmc", "", "10.0.0.9")}})
	v.State = exists(inventory.NodeState{State: state, Since: when.Draw(t, "since"), Generation: gen, Wipe: 2, Seq: 9, Attempt: rapid.IntRange(0, 2).Draw(t, "attempt"),
		Remedies: slices.Repeat([]inventory.Remedy{{At: when.Draw(t, "helped"), What: remedyLost}}, rapid.IntRange(0, 3).Draw(t, "remedies")), Taint: pick("taint", "", inventory.Taint), Alive: pick("alive", "", inventory.Alive, inventory.Silent), BootID: pick("boot id", "1", "2"),
		Allowed: inventory.Duration(lifecycle.Allowed(state, 0, 0)),
		Work:    inventory.Work{Phase: pick("phase", phases...), Order: pick("order", "", "o.1"), Since: when.Draw(t, "work since"), Try: rapid.IntRange(0, 2).Draw(t, "try")}})
	if rapid.Bool().Draw(t, "session") {
		v.Session = exists(inventory.Session{ID: "s-1", Generation: gen - int64(rapid.IntRange(0, 1).Draw(t, "behind")), Boots: rapid.IntRange(0, 3).Draw(t, "boots"), Created: when.Draw(t, "created"), Redeemed: when.Draw(t, "redeemed"),
			Purpose: pick("purpose", string(state), "other"), Phase: pick("session phase", inventory.SessionArmed, inventory.SessionRedeemed, inventory.SessionBurnt, inventory.SessionClosed)})
	}
	if rapid.Bool().Draw(t, "claim") {
		v.Claim = exists(inventory.Claim{Tenant: "acme", Reservation: "r", Instance: "i-1", Generation: gen})
		v.Reservation = exists(inventory.Reservation{ID: "r", Phase: pick("reservation", inventory.Pending, inventory.Committed, inventory.Released), Expires: when.Draw(t, "expires")})
		v.Instance = exists(inventory.Instance{ID: "i-1", Image: "img", Ready: rapid.Bool().Draw(t, "ready"), HandedOver: when.Draw(t, "handed over")})
	}
	if rapid.Bool().Draw(t, "sku") {
		v.SKU = exists(inventory.SKU{Name: "s", TestMaxAge: inventory.Duration(rapid.SampledFrom([]time.Duration{0, time.Hour}).Draw(t, "max age"))})
	}
	if rapid.Bool().Draw(t, "facts") {
		v.Facts = exists(inventory.Facts{MediaEver: []inventory.Medium{{Serial: "D", Kind: "nvme"}}})
	}
	if rapid.Bool().Draw(t, "alert") {
		v.Health = append(v.Health, exists(inventory.HealthReport{Alerts: []inventory.Alert{{ID: "a", Classes: []string{pick("class", inventory.DrainNow, inventory.PreventTransition, inventory.PreventAllocation)}}}}))
	}
	if rapid.Bool().Draw(t, "wish") {
		v.Wishes = append(v.Wishes, exists(inventory.Wish{Verb: pick("verb", inventory.WishPower, inventory.WishQuarantine, inventory.WishReturn, inventory.WishAbort, inventory.WishApprove, inventory.WishMaintain, "nonsense"),
			Arg: pick("arg", "", "on", "off", "cycle"), Generation: gen, Created: when.Draw(t, "wished"), Expires: now.Add(time.Hour)}))
	}
	seen := Seen{Session: pick("heard of", "", "s-1", "s-0"), Heard: when.Draw(t, "heard"), AskedBoot: when.Draw(t, "asked boot"), AskedDHCP: when.Draw(t, "asked"), BootID: pick("seen boot id", "1", "2"),
		Told: when.Draw(t, "told"), Counted: time.Duration(rapid.IntRange(0, 7200).Draw(t, "counted")) * time.Second, Results: map[Act]Result{}}
	for _, a := range []Act{ReadPower, PowerOff, PowerOn, PowerCycle, BootNetwork, BootDisk, FenceIsolate, FenceProvide, FenceAttach} {
		if rapid.Bool().Draw(t, string(a)) {
			seen.Results[a] = Result{At: when.Draw(t, "at"), Tries: rapid.IntRange(1, 9).Draw(t, "tries"), Power: pick("power", "on", "off", ""), Fatal: rapid.Bool().Draw(t, "fatal"),
				Err: rapid.SampledFrom([]error{nil, errors.New("timeout")}).Draw(t, "err")}
		}
	}
	if rapid.Bool().Draw(t, "report") {
		r := inventory.Report{Session: "s-1", Order: pick("reported order", "o.1", "o.0"), Done: true, Error: pick("error", "", "broken"), Retry: rapid.Bool().Draw(t, "retry")}
		switch rapid.IntRange(0, 5).Draw(t, "answer") {
		case 0:
			r.Hardware = &inventory.Hardware{Serial: "S", Media: []inventory.Medium{{Serial: "D", Kind: "nvme"}}}
		case 1:
			r.Proofs = []inventory.MediumProof{{Medium: inventory.Medium{Serial: "D", Kind: "nvme"}, Passed: rapid.Bool().Draw(t, "passed")}}
		case 2:
			r.Test = &inventory.TestRun{Verdict: pick("verdict", inventory.Pass, inventory.Fail, "")}
		case 3:
			r.Written = &inventory.Written{Image: pick("image", "img", "other")}
		case 4:
			r.Handoff = &inventory.HandoffResult{Method: "kexec"}
		}
		seen.Report = &r
	}
	return Input{Now: now, Started: when.Draw(t, "started"), View: v, Seen: seen, ID: "ID", Nonce: "NONCE", Rules: (&world{}).rules(), Holder: func(string, string) string { return "" }}
}

func exists[T any](v T) inventory.Doc[T] {
	return inventory.Doc[T]{V: v, KV: inventory.KV{Key: "/k", Mod: 5, Create: 5}}
}

// For any record and anything seen: a decision is one thing, says why, follows the table, is the same when asked again,
// and no tenant's node ever gets a power or boot act.
func TestAnyDecision(t *testing.T) {
	key := newWorld(t).key
	rapid.Check(t, func(t *rapid.T) {
		state := rapid.SampledFrom(lifecycle.States).Draw(t, "state")
		in := draw(t, state.Name)
		in.Rules.Sign = (&world{key: key}).rules().Sign
		d := Decide(in)
		if d.Say == "" {
			t.Fatal("it does not say why")
		}
		things := 0
		for _, b := range []bool{d.Act != "", d.Event != "", d.Note, d.Offer, d.Withdraw, d.EndClaim} {
			if b {
				things++
			}
		}
		if things > 1 {
			t.Fatalf("not one thing: %+v", d)
		}
		if d.Event != "" {
			if _, err := lifecycle.Find(state.Name, d.Event); err != nil {
				t.Fatal(err)
			}
		}
		if (d.Event != "" || d.Note || d.EndClaim) && (d.Change.Actor != actor && len(in.View.Wishes) == 0 || d.Change.Reason == "") {
			t.Fatalf("written without who or why: %+v", d.Change)
		}
		if d.Act != "" && d.Act != FenceAttach && (state.Owned || in.View.Claim.Exists() && in.View.State.V.State == inventory.InUse) {
			t.Fatalf("%s on a tenant's node", d.Act)
		}
		if d.Act != "" && d.Act != ReadPower && state.Name == inventory.Discovered && len(in.View.Wishes) == 0 {
			t.Fatalf("%s on a node that nobody approved", d.Act)
		}
		if in.Seen.Busy == "" && state.Name == inventory.Retired && d.Act != "" && len(in.View.Wishes) == 0 {
			t.Fatalf("%s on a retired node", d.Act)
		}
		if again := Decide(in); fmt.Sprint(again.Say, again.Again, again.Act, again.Event, again.Note, again.Offer, again.Withdraw, again.EndClaim) !=
			fmt.Sprint(d.Say, d.Again, d.Act, d.Event, d.Note, d.Offer, d.Withdraw, d.EndClaim) {
			t.Fatalf("asked again: %+v, then %+v", d, again)
		}
	})
}

// What the agent must do is a function of the record: the same record gives the same order, destructive ones only in
// states that the table says may destroy, and always for the present generation and session.
func TestAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		state := rapid.SampledFrom(lifecycle.States).Draw(t, "state")
		in := draw(t, state.Name)
		o, again := OrderFor(in.View, in.Rules), OrderFor(in.View, in.Rules)
		if !reflect.DeepEqual(o, again) {
			t.Fatalf("%+v, then %+v", o, again)
		}
		if o.Generation != in.View.State.V.Generation || o.Session != in.View.Session.V.ID || o.Wipe != in.View.State.V.Wipe {
			t.Fatalf("order %+v", o)
		}
		if o.Kind != inventory.OrderIdle && o.ID != in.View.State.V.Work.Order || o.Kind == inventory.OrderIdle && o.ID != "idle" {
			t.Fatalf("order %+v for work %+v", o, in.View.State.V.Work)
		}
		switch o.Kind {
		case inventory.OrderSanitize, inventory.OrderWrite, inventory.OrderHandoff:
			if !state.Destroys {
				t.Fatalf("order %s for a node that is %s", o.Kind, state.Name)
			}
		}
		if e := Entering(in.View, o.ID); e && (state.Name != inventory.Provisioning || o.Kind != inventory.OrderHandoff) {
			t.Fatalf("may enter: %s, %+v", state.Name, o)
		}
	})
}

// An order's id is never used for other work: a new try, state or boot has another.
func TestOrderIdsAreNeverReused(t *testing.T) {
	w := rented(t)
	w.release("r")
	w.until(inventory.Ready)
	seen := map[string]string{}
	all, err := w.store.Since(1)
	w.must(err)
	for _, b := range all {
		for _, e := range b.Events {
			if e.KV.Key != inventory.KeyState(w.id) {
				continue
			}
			d, err := inventory.Decode[inventory.NodeState](e.KV)
			w.must(err)
			st := d.V
			if st.Work.Order == "" {
				continue
			}
			what := fmt.Sprint(st.State, st.Since, st.Generation, st.Work.Try)
			if was, used := seen[st.Work.Order]; used && was != what {
				t.Errorf("order %s was for %s, then for %s", st.Work.Order, was, what)
			}
			seen[st.Work.Order] = what
		}
	}
	if len(seen) != 8 { // inspect, sanitize, test; write, hand-off; inspect, sanitize, test
		t.Errorf("orders %v", seen)
	}
}
