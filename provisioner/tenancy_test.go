package provisioner

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/ledger"
)

// rented is a world whose node is in use under reservation r.
func rented(t *testing.T) *world {
	w := newWorld(t)
	w.until(inventory.Ready)
	w.rent("r")
	w.until(inventory.InUse)
	w.data = "secret"
	return w
}

func (w *world) reservation(id string) inventory.Reservation {
	w.t.Helper()
	kv, err := w.store.Get(w.t.Context(), inventory.KeyReservation("acme", id))
	w.must(err)
	d, err := inventory.Decode[inventory.Reservation](kv)
	w.must(err)
	return d.V
}

// The order of fencing: cut off, off, and only then towards a network and a boot of ours.
func TestFencingCutsOffFirst(t *testing.T) {
	w := rented(t)
	from := len(w.acts)
	w.release("r")
	w.until(inventory.Inspecting)
	want := []Act{FenceIsolate, PowerOff, FenceProvide, BootNetwork, PowerOn}
	if got := w.acts[from:]; !slices.Equal(got, want) {
		t.Errorf("acts %v, want %v", got, want)
	}
	if v := w.view(); v.Claim.Exists() || v.Public.V.Tenant != "" {
		t.Error("the claim is still there after fencing")
	}
}

// Fencing that begins anew under another generation, in the same instant or by a clock that went back, cuts off anew: the
// session of before proves nothing.
func TestFencingBeginsAnew(t *testing.T) {
	w := rented(t)
	w.release("r")
	w.turns(50, "cut off", func() bool { return w.count(FenceIsolate) == 1 })
	w.now = w.now.Add(-time.Hour)
	_, err := w.led.Restore(t.Context(), w.view(), ledger.Change{Actor: "test", Reason: "from a backup"})
	w.must(err)
	w.restart()
	w.until(inventory.Ready)
	if w.count(FenceIsolate) != 2 || w.data != "" {
		t.Errorf("cut off %d times, data %q", w.count(FenceIsolate), w.data)
	}
	w.whole()
}

// A machine that cannot be cut off or switched off is quarantined, and its claim stays until the power is off for sure:
// the tenant's system may run.
func TestFencingUnconfirmed(t *testing.T) {
	for _, stuck := range []Act{FenceIsolate, PowerOff} {
		w := rented(t)
		w.bmc = func(a Act) error {
			if a == stuck || a == PowerOff {
				return errors.New("unconfirmed: still on")
			}
			return nil
		}
		w.release("r")
		w.until(inventory.Quarantined)
		w.in(inventory.Quarantined, "unconfirmed: still on")
		for range 200 {
			w.turn()
		}
		v := w.view()
		if !v.Claim.Exists() || v.State.V.Taint == "" || v.Session.V.Phase != inventory.SessionClosed || !w.tenant {
			t.Errorf("%s: claim %v, taint %q, session %s", stuck, v.Claim.Exists(), v.State.V.Taint, v.Session.V.Phase)
		}
		if say := w.loop.Live(w.id).Say; !strings.Contains(say, "pull its power") {
			t.Errorf("says %q", say)
		}
		if n := w.count(PowerOff); n < 5 || n > 8+8 {
			t.Errorf("%s: %d tries to switch it off in 200 s", stuck, n)
		}
		if a := w.wish(inventory.WishReturn, ""); a.Answer != inventory.Refused || !strings.Contains(a.Detail, "power") {
			t.Errorf("an operator's return with the tenant's system running: %+v", a)
		}
		if a := w.wish(inventory.WishMaintain, ""); a.Answer != inventory.Refused {
			t.Errorf("an operator's maintain: %+v", a)
		}
		w.bmc = nil
		w.turns(100, "without a claim", func() bool { return !w.view().Claim.Exists() })
		w.in(inventory.Quarantined, "unconfirmed")
		if w.power != "off" || w.reservation("r").Phase != inventory.Released {
			t.Errorf("power %s, reservation %+v", w.power, w.reservation("r"))
		}
		if a := w.wish(inventory.WishReturn, ""); a.Answer != inventory.DoneOK {
			t.Errorf("return: %+v", a)
		}
		w.until(inventory.Ready) // although it was cut off
		if w.data != "" {
			t.Errorf("ready with data %q", w.data)
		}
		w.whole()
	}
}

// An operator's abort while an agent enters the tenant's system: nobody knows whether that system runs, so the claim ends
// only when the power is off for certain.
func TestAbortWhileTheAgentEnters(t *testing.T) {
	w := newWorld(t)
	w.until(inventory.Ready)
	w.rent("r")
	w.turns(200, "entering", func() bool { return w.view().State.V.Work.Phase == "enter" })
	w.turn()
	w.bmc = func(Act) error { return errors.New("unconfirmed: still on") }
	if a := w.wish(inventory.WishAbort, ""); a.Answer != inventory.DoneOK {
		t.Fatalf("abort: %+v", a)
	}
	for range 60 {
		w.turn()
	}
	if v := w.view(); v.State.V.State != inventory.Quarantined || !v.Claim.Exists() || !w.tenant {
		t.Errorf("%s, claim %v, the tenant's system runs: %v", v.State.V.State, v.Claim.Exists(), w.tenant)
	}
	w.bmc = nil
	w.turns(100, "without a claim", func() bool { return !w.view().Claim.Exists() })
	if w.power != "off" || w.tenant || w.reservation("r").Phase != inventory.Released {
		t.Errorf("power %s, the tenant's system runs: %v, reservation %+v", w.power, w.tenant, w.reservation("r"))
	}
	w.whole()
}

// A tenant's network that cannot be attached is tried for ever; the node stays the tenant's and nothing else is done.
func TestAttachKeepsFailing(t *testing.T) {
	w := newWorld(t)
	w.until(inventory.Ready)
	w.rent("r")
	var at []time.Time
	w.bmc = func(a Act) error {
		if a == FenceAttach {
			at = append(at, w.now)
			return errors.New("switch says no")
		}
		return nil
	}
	w.turns(300, "handed over", func() bool { return w.view().State.V.State == inventory.InUse })
	for range 900 {
		w.turn()
	}
	w.in(inventory.InUse, "handed over")
	if len(at) < 15 || len(at) > 25 {
		t.Errorf("%d tries in 15 minutes", len(at))
	}
	if say := w.loop.Live(w.id).Say; !strings.Contains(say, "switch says no") {
		t.Errorf("says %q", say)
	}
	w.bmc = nil
	w.until(inventory.InUse)
	w.whole()
}

// What goes wrong before the hand-over is tried once more from the beginning; twice, and the node is fenced, erased, and
// the tenant told.
func TestHandOverFails(t *testing.T) {
	for _, c := range []struct {
		name, kind string
		edit       func(*inventory.Report)
		want       string
	}{
		{"write fails", inventory.OrderWrite, func(r *inventory.Report) { r.Error, r.Written = "chunk 3: wrong hash", nil }, "chunk 3: wrong hash"},
		{"nothing written", inventory.OrderWrite, func(r *inventory.Report) { r.Written = nil }, "no complete read-back"},
		{"another image written", inventory.OrderWrite, func(r *inventory.Report) { r.Written.Image = "other" }, "no complete read-back"},
		{"not all read back", inventory.OrderWrite, func(r *inventory.Report) { r.Written.ReadBack-- }, "no complete read-back"},
		{"hand-off fails", inventory.OrderHandoff, func(r *inventory.Report) { r.Error, r.Handoff = "kexec_file_load: bad kernel", nil }, "kexec_file_load"},
		{"no hand-off", inventory.OrderHandoff, func(r *inventory.Report) { r.Handoff = nil }, "reported no hand-off"},
	} {
		for times := 1; times <= 2; times++ {
			t.Run(c.name+[]string{"", " once", " twice"}[times], func(t *testing.T) {
				w := newWorld(t)
				w.until(inventory.Ready)
				left := times
				w.answer = func(o inventory.Order, r *inventory.Report) {
					if o.Kind == c.kind && left > 0 {
						left--
						c.edit(r)
					}
				}
				w.rent("r")
				if times == 1 {
					w.until(inventory.InUse)
					if w.entered(inventory.Provisioning) != 2 {
						t.Errorf("provisioning was entered %d times", w.entered(inventory.Provisioning))
					}
				} else {
					w.until(inventory.Fencing)
					w.in(inventory.Fencing, c.want)
					if in := w.view().Instance.V; in.Phase != inventory.InstanceFailed || !strings.Contains(in.ReadyReason, c.want) || in.Ready {
						t.Errorf("instance %+v", in)
					}
					w.until(inventory.Ready)
					if w.data != "" || w.reservation("r").Phase != inventory.Released {
						t.Errorf("data %q, reservation %+v", w.data, w.reservation("r"))
					}
				}
				w.whole()
			})
		}
	}
}

// An agent that was told to enter and reports that it could not is still there: tried again, not in use.
func TestAgentThatCannotEnter(t *testing.T) {
	w := newWorld(t)
	w.until(inventory.Ready)
	w.rent("r")
	w.turns(200, "about to enter", func() bool { return w.view().State.V.Work.Phase == "enter" })
	v := w.view()
	w.loop.Told(w.id)
	w.loop.Heard(w.id, inventory.Report{Session: w.redeemed, BootID: "1", Order: v.State.V.Work.Order, Done: true, Error: "kexec: busy"})
	w.done[v.State.V.Work.Order] = inventory.Report{Session: w.redeemed, BootID: "1", Order: "x"}
	w.loop.Round(t.Context())
	w.sync()
	w.in(inventory.Provisioning, "once more: kexec: busy")
	w.until(inventory.InUse)
	w.whole()
}

// The daemon dies between telling the agent to enter and writing that it is gone. The new one was told nothing: it waits
// longer, then sees that the agent is gone; one that still asks is told again.
func TestKilledBetweenTellingAndMoving(t *testing.T) {
	for _, gone := range []bool{true, false} {
		w := newWorld(t)
		w.until(inventory.Ready)
		w.rent("r")
		w.turns(200, "about to enter", func() bool { return w.view().State.V.Work.Phase == "enter" })
		if gone { // it was told, and went
			w.agent, w.tenant = false, true
		} else { // the answer was lost: it asks again, and again
			w.mute = true
		}
		w.restart()
		before := w.now
		for range 10 {
			w.turn()
		}
		w.in(inventory.Provisioning, "confirmed")
		w.mute = false
		w.until(inventory.InUse)
		if took := w.now.Sub(before); gone && (took < 30*time.Second || took > time.Minute) || !w.tenant {
			t.Errorf("gone %v: in use after %v, tenant's system runs: %v", gone, took, w.tenant)
		}
		if in := w.view().Instance.V; in.Handoff != "kexec" || in.Phase != inventory.InstanceRunning || in.Address != "192.0.2.1" {
			t.Errorf("instance %+v", in)
		}
		w.whole()
	}
}

// A tenant's system that does not answer in time is said to, and left alone.
func TestReadiness(t *testing.T) {
	w := rented(t)
	w.step = time.Minute
	acts := len(w.acts)
	for range 40 {
		w.turn()
	}
	if in := w.view().Instance.V; in.Ready || in.ReadyReason != notReady {
		t.Errorf("after 40 minutes: %+v", in)
	}
	w.loop.PhonedHome(w.id, PhoneHome{Instance: "i-other"})
	w.turn()
	if w.view().Instance.V.Ready {
		t.Error("another instance's call counted")
	}
	w.loop.PhonedHome(w.id, PhoneHome{Instance: w.view().Instance.V.ID, HostKeys: []string{"ssh-ed25519 AAAA"}})
	w.turn()
	if in := w.view().Instance.V; !in.Ready || len(in.HostKeys) != 1 || !w.view().Public.V.Ready {
		t.Errorf("after it answered: %+v", in)
	}
	if len(w.acts) != acts {
		t.Errorf("acts on a node in use: %v", w.acts[acts:])
	}
}

// drain-now is a wish of health's. The tenant gets its notice, in which nothing is done to its machine; the notice ends by
// itself, or when the tenant leaves.
func TestDrainNow(t *testing.T) {
	for name, leave := range map[string]func(*world){
		"the notice runs out": func(w *world) {
			for range int(healthNotice / time.Minute) {
				w.now = w.now.Add(time.Minute)
				w.turn()
			}
		},
		"the tenant leaves":   func(w *world) { w.release("r") },
	} {
		t.Run(name, func(t *testing.T) {
			w := rented(t)
			acts := len(w.acts)
			w.put(inventory.KeyHealth(w.id, "bmc"), inventory.HealthReport{Schema: 1, Source: "bmc", Alerts: []inventory.Alert{{ID: "leak", What: "water", Classes: []string{inventory.DrainNow}}}})
			w.turns(400, "draining", func() bool { return w.view().State.V.State == inventory.Draining })
			for range 60 {
				w.turn()
			}
			if w.view().State.V.State != inventory.Draining || len(w.acts) != acts || !w.tenant {
				t.Fatalf("a minute into the notice: %s, acts %v, its system runs: %v", w.view().State.V.State, w.acts[acts:], w.tenant)
			}
			leave(w)
			w.turns(400, "ready, not offered", func() bool { return w.view().State.V.State == inventory.Ready })
			if w.data != "" || w.entered(inventory.Draining) != 1 || w.reservation("r").Phase != inventory.Released {
				t.Errorf("data %q, reservation %+v", w.data, w.reservation("r"))
			}
			w.whole()
		})
	}
}

// A reservation that runs out gives the node back, on offer again without another erasure; released, the same.
func TestReservationRunsOut(t *testing.T) {
	for _, released := range []bool{false, true} {
		w := newWorld(t)
		w.until(inventory.Ready)
		_, err := w.led.Claim(t.Context(), ledger.ClaimRequest{Tenant: "acme", Reservation: "r", SKU: "virtual", Hold: 5 * time.Minute, Actor: "test"})
		w.must(err)
		before := w.now
		if released {
			w.release("r")
		}
		w.until(inventory.Ready)
		phase, least := inventory.Expired, 5*time.Minute
		if released {
			phase, least = inventory.Released, 0
		}
		if took := w.now.Sub(before); took < least || took > least+5*time.Second || w.reservation("r").Phase != phase {
			t.Errorf("given back after %v: %+v", took, w.reservation("r"))
		}
		if w.entered(inventory.Sanitizing) != 1 || w.view().Claim.Exists() {
			t.Errorf("sanitized %d times", w.entered(inventory.Sanitizing))
		}
		w.rent("r2")
		w.until(inventory.InUse)
		w.whole()
	}
}

// A ready node is for sale only while its agent speaks.
func TestReadyNodeFallsSilent(t *testing.T) {
	w := newWorld(t)
	w.until(inventory.Ready)
	w.mute = true
	before := w.now
	w.turns(200, "withdrawn", func() bool { return !w.view().Avail.Exists() })
	if took := w.now.Sub(before); took < 55*time.Second || took > 65*time.Second {
		t.Errorf("withdrawn after %v", took)
	}
	if v := w.view(); v.State.V.Alive != inventory.Silent || v.Public.V.Rentable {
		t.Errorf("alive %q, public %+v", v.State.V.Alive, v.Public.V)
	}
	w.mute = false
	w.until(inventory.Ready)
	if w.view().State.V.Alive != inventory.Alive || w.entered(inventory.Inspecting) != 1 {
		t.Error("it spoke again, and is not simply on offer again")
	}
}

func TestReadyNodeIsLost(t *testing.T) {
	ways := map[string]func(*world){
		"silent for 5 minutes": func(w *world) { w.mute = true },
		"booted again":         func(w *world) { w.reset() },
	}
	for name, lose := range ways {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.bmc = func(a Act) error {
				if a == PowerOn {
					w.mute = false
				}
				return nil
			}
			for i := range 2 {
				w.until(inventory.Ready)
				for range int(restBetween / w.step) { // not twice in ten minutes
					w.turn()
				}
				w.until(inventory.Ready)
				before := w.now
				lose(w)
				w.until(inventory.Inspecting)
				if took := w.now.Sub(before); took > 5*time.Minute+5*time.Second || w.mute && took < 5*time.Minute-5*time.Second {
					t.Errorf("time %d: inspected again after %v", i+1, took)
				}
			}
			w.until(inventory.Ready)
			lose(w)
			w.until(inventory.Quarantined)
			w.in(inventory.Quarantined, "for the third time in 7 days")
			if w.entered(inventory.Sanitizing) != 3 {
				t.Errorf("sanitized %d times", w.entered(inventory.Sanitizing))
			}

			w.mute = false
			w.wish(inventory.WishReturn, "") // somebody has looked: it may be lost twice more
			w.until(inventory.Ready)
			lose(w)
			w.until(inventory.Inspecting)
			w.until(inventory.Ready)
			w.whole()
		})
	}
}

// A daemon that was away gives every agent time to speak before it counts as silent.
func TestSilenceBeforeTheDaemonStartedIsNobodysFault(t *testing.T) {
	w := newWorld(t)
	w.until(inventory.Ready)
	w.now = w.now.Add(24 * time.Hour)
	w.restart()
	w.mute = true
	for range 50 {
		w.turn()
	}
	if v := w.view(); v.State.V.State != inventory.Ready || !v.Avail.Exists() {
		t.Errorf("%s, on offer: %v", v.State.V.State, v.Avail.Exists())
	}
	w.turns(30, "withdrawn", func() bool { return !w.view().Avail.Exists() })
}

// A test that grows old is run again before it is too old.
func TestOldTestIsRunAgain(t *testing.T) {
	w := newWorld(t)
	s := w.view().SKU.V
	s.TestMaxAge = inventory.Duration(time.Hour)
	w.put(inventory.KeySKU("virtual"), s)
	w.until(inventory.Ready)
	tested := w.view().State.V.Tested
	w.step = 5 * time.Second
	w.turns(3600, "verifying", func() bool { return w.view().State.V.State == inventory.Verifying })
	if age := w.now.Sub(tested); age < 54*time.Minute || age > 56*time.Minute {
		t.Errorf("tested again after %v", age)
	}
	w.until(inventory.Ready)
	if v := w.view(); !v.State.V.Tested.After(tested) || w.entered(inventory.Sanitizing) != 1 {
		t.Errorf("tested %v, sanitized %d times", v.State.V.Tested, w.entered(inventory.Sanitizing))
	}
	w.whole()
}

// A burnt session means that somebody else has the token: quarantine, and its machine is refused until that is over.
func TestBurntSession(t *testing.T) {
	for _, state := range []inventory.State{inventory.Inspecting, inventory.Ready} {
		w := newWorld(t)
		w.turns(200, string(state), func() bool {
			v := w.view()
			return v.State.V.State == state && v.Session.V.Phase == inventory.SessionRedeemed
		})
		s := w.view().Session.V
		s.Phase, s.Reason = inventory.SessionBurnt, "another key redeemed its token"
		w.put(inventory.KeySession(w.id), s)
		w.until(inventory.Quarantined)
		w.in(inventory.Quarantined, "burnt: another key redeemed its token")
		if v := w.view(); v.Avail.Exists() || bootFor(v).Kind != "refuse" {
			t.Errorf("on offer %v, boots %+v", v.Avail.Exists(), bootFor(v))
		}
		w.wish(inventory.WishReturn, "")
		w.until(inventory.Ready)
		w.whole()
	}
}

func TestPreventTransitionAlert(t *testing.T) {
	alert := func(w *world) {
		w.put(inventory.KeyHealth(w.id, "agent"), inventory.HealthReport{Schema: 1, Source: "agent", Alerts: []inventory.Alert{{ID: "sm-dead", What: "3 SMs dead", Classes: []string{inventory.PreventTransition}}}})
	}
	w := newWorld(t)
	w.until(inventory.Ready)
	alert(w)
	w.until(inventory.Quarantined)
	w.in(inventory.Quarantined, "alert sm-dead: 3 SMs dead")

	w = rented(t)
	alert(w)
	for range 20 {
		w.turn()
	}
	w.in(inventory.InUse, "handed over") // a tenant's node is never quarantined under it
}

func claimOf(reservation string, hold time.Duration) ledger.ClaimRequest {
	return ledger.ClaimRequest{Tenant: "acme", Reservation: reservation, SKU: "virtual", Hold: hold, Actor: "test"}
}

// A node that is quarantined between two networks, or still on its tenant's, keeps its claim until it is off and cut off,
// and comes back from wherever its port was left (found by internal/sim: it stayed there, and never booted again; or its
// last tenant's system came back on its network).
func TestQuarantinedOnAnotherNetwork(t *testing.T) {
	for _, at := range []string{"isolate", "fenced-off"} {
		t.Run(at, func(t *testing.T) {
			w := newWorld(t)
			w.until(inventory.Ready)
			w.rent("r-1")
			w.until(inventory.InUse)
			w.release("r-1")
			stuck := errors.New("it does not answer")
			w.bmc = func(a Act) error {
				if a == PowerOff || at == "isolate" && a == FenceIsolate {
					return stuck
				}
				return nil
			}
			w.turns(200, "fencing", func() bool { return w.view().State.V.State == inventory.Fencing && w.view().State.V.Work.Phase == at })
			w.wish(inventory.WishQuarantine, "")
			for range 60 {
				w.turn()
			}
			w.turns(30, "told", func() bool { return strings.Contains(w.loop.Live(w.id).Say, "it could not be") })
			if !w.view().Claim.Exists() {
				t.Error("neither off nor cut off, and its claim is over")
			}
			w.bmc = nil
			w.turns(200, "without a claim", func() bool { return !w.view().Claim.Exists() })
			if w.place != "isolated" || w.power != "off" {
				t.Errorf("its claim is over, and it is %s on network %q", w.power, w.place)
			}
			w.wish(inventory.WishReturn, "")
			w.until(inventory.Ready)
		})
	}
}
