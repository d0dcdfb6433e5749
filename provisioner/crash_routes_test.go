package provisioner

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/ledger"
	"github.com/hostler-project/hostler/inventory/lifecycle"
	"github.com/hostler-project/hostler/provisioner/dhcp"
)

// A route says how a node comes to take an edge, all by real code. It begins at the moment in which the node entered the
// edge's state, by the usual way or by start, and ends where the node rests.
type route struct {
	from  inventory.State
	on    lifecycle.Event
	name  string             // tells routes of one edge apart
	end   inventory.State    // where the node rests in the end
	start *way               // nil: the usual way
	set   func(*world)       // what is wrong from the moment in which the node entered the state
	when  func(*world) bool  // take is called once it holds; nil: at once
	take  func(*world) error // what somebody outside does; nil: the step takes the edge by itself
}

// routes is the table. To add an edge to the lifecycle, add its row here, or to notAlive.
var routes = []route{
	{from: "", on: lifecycle.Appear, end: inventory.Discovered, take: askAddress},
	{from: inventory.Discovered, on: lifecycle.Approve, end: inventory.Ready},
	{from: inventory.Discovered, on: lifecycle.Approve, end: inventory.Ready, name: "by hand", set: byHand, take: wish(inventory.WishApprove)},
	{from: inventory.Discovered, on: lifecycle.Maintain, end: inventory.Maintenance, take: wish(inventory.WishMaintain)},
	{from: inventory.Discovered, on: lifecycle.Quarantine, end: inventory.Quarantined, take: wish(inventory.WishQuarantine)},

	{from: inventory.Inspecting, on: lifecycle.Done, end: inventory.Ready},
	{from: inventory.Inspecting, on: lifecycle.Failed, end: inventory.Quarantined, name: "a drive is missing", set: func(w *world) { w.disks = w.disks[:1] }},
	{from: inventory.Inspecting, on: lifecycle.Failed, end: inventory.Quarantined, name: "its BMC refuses us", set: refuse(PowerOn, inventory.Inspecting)},
	{from: inventory.Inspecting, on: lifecycle.Timeout, end: inventory.Quarantined, set: endless(inventory.OrderInspect)},
	{from: inventory.Inspecting, on: lifecycle.Quarantine, end: inventory.Quarantined, take: wish(inventory.WishQuarantine)},
	{from: inventory.Inspecting, on: lifecycle.Quarantine, end: inventory.Quarantined, name: "its session is burnt", when: session(inventory.SessionArmed), take: burn},
	{from: inventory.Inspecting, on: lifecycle.Abort, end: inventory.Quarantined, set: endless(inventory.OrderInspect), when: reached(inventory.OrderInspect), take: wish(inventory.WishAbort)},

	{from: inventory.Sanitizing, on: lifecycle.DoneBurnIn, end: inventory.Ready},
	{from: inventory.Sanitizing, on: lifecycle.DoneBurnIn, end: inventory.Ready, name: "its machine resets meanwhile", set: resetsOnce(inventory.OrderSanitize)},
	{from: inventory.Sanitizing, on: lifecycle.Done, end: inventory.Ready, start: &way{after: inventory.Fencing}},
	{from: inventory.Sanitizing, on: lifecycle.Failed, end: inventory.Quarantined, set: answers(inventory.OrderSanitize, func(_ *world, r *inventory.Report) { r.Proofs = r.Proofs[:1] })},
	{from: inventory.Sanitizing, on: lifecycle.Timeout, end: inventory.Quarantined, set: endless(inventory.OrderSanitize)},
	{from: inventory.Sanitizing, on: lifecycle.Quarantine, end: inventory.Quarantined, take: wish(inventory.WishQuarantine)},
	{from: inventory.Sanitizing, on: lifecycle.Abort, end: inventory.Quarantined, set: endless(inventory.OrderSanitize), when: reached(inventory.OrderSanitize), take: wish(inventory.WishAbort)},

	{from: inventory.BurnIn, on: lifecycle.Done, end: inventory.Ready},
	{from: inventory.BurnIn, on: lifecycle.Failed, end: inventory.Quarantined, set: answers(inventory.OrderTest, failTest)},
	{from: inventory.BurnIn, on: lifecycle.Timeout, end: inventory.Quarantined, set: endless(inventory.OrderTest)},
	{from: inventory.BurnIn, on: lifecycle.Quarantine, end: inventory.Quarantined, take: wish(inventory.WishQuarantine)},
	{from: inventory.BurnIn, on: lifecycle.Abort, end: inventory.Quarantined, set: endless(inventory.OrderTest), when: reached(inventory.OrderTest), take: wish(inventory.WishAbort)},

	{from: inventory.Verifying, on: lifecycle.Done, end: inventory.Ready},
	{from: inventory.Verifying, on: lifecycle.Failed, end: inventory.Quarantined, set: answers(inventory.OrderTest, failTest)},
	{from: inventory.Verifying, on: lifecycle.Timeout, end: inventory.Quarantined, set: endless(inventory.OrderTest)},
	{from: inventory.Verifying, on: lifecycle.Quarantine, end: inventory.Quarantined, take: wish(inventory.WishQuarantine)},
	{from: inventory.Verifying, on: lifecycle.Abort, end: inventory.Quarantined, set: endless(inventory.OrderTest), when: reached(inventory.OrderTest), take: wish(inventory.WishAbort)},

	{from: inventory.Ready, on: lifecycle.Recheck, end: inventory.Ready, set: tests(10 * time.Minute)},
	{from: inventory.Ready, on: lifecycle.Lost, end: inventory.Ready, when: settledIn(inventory.Ready), take: func(w *world) error { w.reset(); return nil }},
	{from: inventory.Ready, on: lifecycle.Lost, end: inventory.Ready, name: "its agent is silent", set: unmute, when: settledIn(inventory.Ready), take: func(w *world) error { w.mute = true; return nil }},
	{from: inventory.Ready, on: lifecycle.Claim, end: inventory.Ready, when: settledIn(inventory.Ready), take: claimFor(0)},
	{from: inventory.Ready, on: lifecycle.Maintain, end: inventory.Maintenance, when: settledIn(inventory.Ready), take: wish(inventory.WishMaintain)},
	{from: inventory.Ready, on: lifecycle.Quarantine, end: inventory.Quarantined, take: wish(inventory.WishQuarantine)},
	{from: inventory.Ready, on: lifecycle.Quarantine, end: inventory.Quarantined, name: "an alert", when: settledIn(inventory.Ready), take: alert(inventory.PreventTransition)},

	{from: inventory.Reserved, on: lifecycle.Confirm, end: inventory.InUse, take: confirm},
	{from: inventory.Reserved, on: lifecycle.Release, end: inventory.Ready, take: release},
	{from: inventory.Reserved, on: lifecycle.Expire, end: inventory.Ready},
	{from: inventory.Reserved, on: lifecycle.Timeout, end: inventory.Ready, start: &way{after: inventory.Ready, when: settledIn(inventory.Ready), do: claimFor(time.Hour)}},
	{from: inventory.Reserved, on: lifecycle.Quarantine, end: inventory.Quarantined, take: wish(inventory.WishQuarantine)},
	{from: inventory.Reserved, on: lifecycle.Abort, end: inventory.Quarantined, take: wish(inventory.WishAbort)},

	{from: inventory.Provisioning, on: lifecycle.Done, end: inventory.InUse},
	{from: inventory.Provisioning, on: lifecycle.Done, end: inventory.InUse, name: "its machine resets meanwhile", set: resetsOnce(inventory.OrderWrite)},
	{from: inventory.Provisioning, on: lifecycle.Again, end: inventory.InUse, set: answers(inventory.OrderWrite, func(w *world, r *inventory.Report) {
		if w.view().State.V.Attempt == 0 {
			r.Error = "chunk 3: wrong hash"
		}
	})},
	{from: inventory.Provisioning, on: lifecycle.Failed, end: inventory.Ready, set: answers(inventory.OrderWrite, func(_ *world, r *inventory.Report) { r.Error = "chunk 3: wrong hash" })},
	{from: inventory.Provisioning, on: lifecycle.Timeout, end: inventory.Ready, set: endless(inventory.OrderWrite)},
	{from: inventory.Provisioning, on: lifecycle.Release, end: inventory.Ready, set: endless(inventory.OrderWrite), when: reached(inventory.OrderWrite), take: release},
	{from: inventory.Provisioning, on: lifecycle.Quarantine, end: inventory.Quarantined, take: wish(inventory.WishQuarantine)},
	{from: inventory.Provisioning, on: lifecycle.Abort, end: inventory.Quarantined, name: "while the agent enters", when: reached("enter"), take: wish(inventory.WishAbort)},
	{from: inventory.Provisioning, on: lifecycle.Abort, end: inventory.Quarantined, set: endless(inventory.OrderWrite), when: reached(inventory.OrderWrite), take: wish(inventory.WishAbort)},

	{from: inventory.InUse, on: lifecycle.Release, end: inventory.Ready, when: settledIn(inventory.InUse), take: release},
	{from: inventory.InUse, on: lifecycle.Release, end: inventory.Ready, name: "its system has answered", set: func(w *world) { w.phones = true },
		when: func(w *world) bool { return w.view().Instance.V.Ready }, take: release},
	{from: inventory.InUse, on: lifecycle.DrainNow, end: inventory.Ready, when: settledIn(inventory.InUse), take: alert(inventory.DrainNow)},

	{from: inventory.Draining, on: lifecycle.Done, end: inventory.Ready},
	{from: inventory.Draining, on: lifecycle.Timeout, end: inventory.Ready, start: &way{after: inventory.InUse, when: settledIn(inventory.InUse), do: alert(inventory.DrainNow)}},

	{from: inventory.Fencing, on: lifecycle.Done, end: inventory.Ready},
	{from: inventory.Fencing, on: lifecycle.Failed, end: inventory.Quarantined, set: refuse(PowerOff, inventory.Fencing)},
	{from: inventory.Fencing, on: lifecycle.Timeout, end: inventory.Quarantined, set: dead},
	{from: inventory.Fencing, on: lifecycle.Quarantine, end: inventory.Quarantined, take: wish(inventory.WishQuarantine)},
	{from: inventory.Fencing, on: lifecycle.Abort, end: inventory.Quarantined, set: dead, when: reached(phaseBoot), take: wish(inventory.WishAbort)},

	{from: inventory.Quarantined, on: lifecycle.Return, end: inventory.Ready, when: unclaimed, take: wish(inventory.WishReturn)},
	{from: inventory.Quarantined, on: lifecycle.Maintain, end: inventory.Maintenance, when: unclaimed, take: wish(inventory.WishMaintain)},

	// A record that came back from a backup: whoever may have a tenant is fenced and erased, a tenant's stays its tenant's.
	{from: inventory.Discovered, on: lifecycle.Restored, end: inventory.Discovered, set: byHand, take: restore},
	{from: inventory.Inspecting, on: lifecycle.Restored, end: inventory.Ready, take: restore},
	{from: inventory.Sanitizing, on: lifecycle.Restored, end: inventory.Ready, take: restore},
	{from: inventory.BurnIn, on: lifecycle.Restored, end: inventory.Ready, take: restore},
	{from: inventory.Verifying, on: lifecycle.Restored, end: inventory.Ready, take: restore},
	{from: inventory.Ready, on: lifecycle.Restored, end: inventory.Ready, when: settledIn(inventory.Ready), take: restore},
	{from: inventory.Reserved, on: lifecycle.Restored, end: inventory.Ready, take: restore},
	{from: inventory.Provisioning, on: lifecycle.Restored, end: inventory.Ready, when: reached("enter"), take: restore},
	{from: inventory.InUse, on: lifecycle.Restored, end: inventory.InUse, take: restore},
	{from: inventory.Draining, on: lifecycle.Restored, end: inventory.Ready, take: restore},
	{from: inventory.Fencing, on: lifecycle.Restored, end: inventory.Ready, take: restore},
	{from: inventory.Quarantined, on: lifecycle.Restored, end: inventory.Quarantined, take: restore},
	{from: inventory.Maintenance, on: lifecycle.Restored, end: inventory.Maintenance, take: restore},

	{from: inventory.Maintenance, on: lifecycle.Return, end: inventory.Ready, take: wish(inventory.WishReturn)},
	{from: inventory.Maintenance, on: lifecycle.Quarantine, end: inventory.Quarantined, take: wish(inventory.WishQuarantine)},
}

// What is wrong.

func byHand(w *world) {
	v := w.view()
	spec := v.Spec.V
	spec.Approve = ""
	w.must(w.led.Edit(w.t.Context(), v, spec))
}

func dead(w *world) { w.dead = true }

// unmute has a machine that boots again speak again.
func unmute(w *world) {
	w.bmc = func(a Act) error {
		if a == PowerOn {
			w.mute = false
		}
		return nil
	}
}

func refuse(a Act, in inventory.State) func(*world) {
	return func(w *world) {
		w.bmc = func(now Act) error {
			if now == a && w.view().State.V.State == in {
				return errFatal
			}
			return nil
		}
	}
}

// resetsOnce has the machine reset in the middle of an order, until a boot session was made for the state.
func resetsOnce(kind string) func(*world) {
	return func(w *world) {
		w.crash = func(o inventory.Order) bool {
			v := w.view()
			return o.Kind == kind && v.Session.V.Purpose != string(v.State.V.State)
		}
	}
}

func endless(kind string) func(*world) {
	return func(w *world) { w.endless = func(o inventory.Order) bool { return o.Kind == kind } }
}

func answers(kind string, edit func(*world, *inventory.Report)) func(*world) {
	return func(w *world) {
		w.answer = func(o inventory.Order, r *inventory.Report) {
			if o.Kind == kind {
				edit(w, r)
			}
		}
	}
}

func failTest(_ *world, r *inventory.Report) { r.Test.Verdict = inventory.Fail }

func tests(age time.Duration) func(*world) {
	return func(w *world) {
		s := w.view().SKU.V
		s.TestMaxAge = inventory.Duration(age)
		w.put(inventory.KeySKU("virtual"), s)
	}
}

// When.

func settledIn(s inventory.State) func(*world) bool {
	return func(w *world) bool { return w.settled(s) }
}

// reached says that the step got to a phase, wherever it is now.
func reached(phase string) func(*world) bool {
	return func(w *world) bool {
		state := w.view().State.V
		return slices.ContainsFunc(w.history(), func(h inventory.History) bool {
			return h.Phase == phase && h.To == state.State && !h.Time.Before(state.Since)
		})
	}
}

func session(phase string) func(*world) bool {
	return func(w *world) bool { return w.view().Session.V.Phase == phase }
}

func unclaimed(w *world) bool { return !w.view().Claim.Exists() }

// What somebody outside does. Each can be done again by a client that got no answer.

// outside writes a record in somebody else's name: nothing of ours breaks in it.
func (w *world) outside(key string, v any) {
	who := w.who
	w.who = ""
	defer func() { w.who = who }()
	w.put(key, v)
}

func wish(verb string) func(*world) error {
	return func(w *world) error {
		w.outside(inventory.KeyWish(w.id, "w"), inventory.Wish{Schema: 1, ID: "w", Node: w.id, Verb: verb, Actor: "kim", Generation: w.view().State.V.Generation, Created: w.now, Expires: w.now.Add(time.Hour)})
		return nil
	}
}

func alert(class string) func(*world) error {
	return func(w *world) error {
		w.outside(inventory.KeyHealth(w.id, "bmc"), inventory.HealthReport{Schema: 1, Source: "bmc", Alerts: []inventory.Alert{{ID: "leak", What: "water", Classes: []string{class}}}})
		return nil
	}
}

func burn(w *world) error {
	s := w.view().Session.V
	s.Phase, s.Reason = inventory.SessionBurnt, "another key redeemed its token"
	w.outside(inventory.KeySession(w.id), s)
	return nil
}

func claimFor(hold time.Duration) func(*world) error {
	return func(w *world) error {
		_, err := w.led.Claim(w.t.Context(), ledger.ClaimRequest{Tenant: "acme", Reservation: "r", SKU: "virtual", Hold: hold, Actor: "acme"})
		return err
	}
}

func confirm(w *world) error {
	_, err := w.led.Confirm(w.t.Context(), ledger.ConfirmRequest{Tenant: "acme", Reservation: "r", Image: "img", Sealed: []byte("x"), Actor: "acme"})
	return err
}

func release(w *world) error {
	_, err := w.led.Release(w.t.Context(), "acme", "r", "acme", "")
	return err
}

// restore is hostlerd restore: on a store that nobody else uses yet, and done again when it was cut off.
func restore(w *world) error {
	var err error
	for range 3 {
		v := w.view()
		if v.State.V.Generation >= lifecycle.Jump {
			return nil
		}
		_, err = w.led.Restore(w.t.Context(), v, ledger.Change{Actor: "hostlerd restore", Reason: "the record came back from a backup"})
		if err == nil || !errors.Is(err, inventory.ErrUnavailable) && !errors.Is(err, ledger.ErrConflict) {
			return err
		}
	}
	return err
}

// askAddress is a machine that nobody knows, on a segment where they are written down.
func askAddress(w *world) error {
	mac, _ := net.ParseMAC("52:54:00:00:00:01")
	d := &Directory{Copy: w.loop.Copy, Ledger: w.led, Loop: w.loop, Now: w.clock, Log: slog.New(slog.DiscardHandler),
		Segments: []dhcp.Segment{{Name: "s", Mode: dhcp.Enrol, Subnet: netip.MustParsePrefix("10.0.0.0/24"), Address: netip.MustParseAddr("10.0.0.1")}}}
	if a := d.Answer(w.t.Context(), dhcp.Query{Type: dhcp.Discover, MAC: mac, Segment: "s", PXE: true}); !a.Known {
		return inventory.ErrUnavailable
	}
	return nil
}

// The ways. Each world is made once, and cloned.

// shortDeadlines are a site's configuration: a deadline passes before a boot's patience ends.
var shortDeadlines = func() map[inventory.State]time.Duration {
	all := map[inventory.State]time.Duration{}
	for _, s := range lifecycle.States {
		if !s.Rest {
			all[s.Name] = 7 * time.Minute
		}
	}
	all[inventory.Reserved] = 14 * time.Minute // longer than a usual reservation
	all[inventory.Draining] = 4 * time.Minute  // even counted anew by another daemon it is over before the notice
	return all
}()

// A way leads from the moment in which the node entered one state to the moment in which it enters the next.
type way struct {
	after inventory.State
	set   func(*world)
	when  func(*world) bool
	do    func(*world) error
}

// ways are the usual ones.
var ways = map[inventory.State]way{
	inventory.Inspecting:   {after: inventory.Discovered},
	inventory.Sanitizing:   {after: inventory.Inspecting},
	inventory.BurnIn:       {after: inventory.Sanitizing},
	inventory.Ready:        {after: inventory.BurnIn},
	inventory.Reserved:     {after: inventory.Ready, when: settledIn(inventory.Ready), do: claimFor(0)},
	inventory.Provisioning: {after: inventory.Reserved, do: confirm},
	inventory.InUse:        {after: inventory.Provisioning},
	inventory.Draining:     {after: inventory.InUse, when: settledIn(inventory.InUse), do: release},
	inventory.Fencing:      {after: inventory.Draining},
	inventory.Verifying:    {after: inventory.Fencing},
	// With its last tenant's claim: it could not be switched off.
	inventory.Quarantined: {after: inventory.Fencing, set: refuse(PowerOff, inventory.Fencing)},
	inventory.Maintenance: {after: inventory.Quarantined, when: unclaimed, do: wish(inventory.WishMaintain)},
}

// made are the worlds of the usual ways, each made once.
var made = map[inventory.State]*world{}

// usual is a world whose node has just entered a state.
func usual(t testing.TB, s inventory.State) *world {
	if made[s] == nil {
		switch s {
		case "":
			made[s] = emptyWorld(t)
		case inventory.Discovered:
			w := newWorld(t)
			w.allowed = shortDeadlines
			made[s] = w.clone(t)
		default:
			made[s] = travel(t, ways[s], s)
		}
	}
	return made[s].clone(t)
}

func travel(t testing.TB, by way, to inventory.State) *world {
	w := usual(label{t, "on the way to " + string(to)}, by.after)
	if by.set != nil {
		by.set(w)
	}
	w.halt = func() bool { return w.view().State.V.State == to }
	asked := by.do == nil
	w.turns(1000, string(to), func() bool {
		if !asked && (by.when == nil || by.when(w)) {
			w.must(by.do(w))
			asked = true
		}
		return w.halt()
	})
	if by.after == inventory.Provisioning {
		w.data = "secret of the tenant"
	}
	return w
}
