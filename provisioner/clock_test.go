package provisioner

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/memstore"
)

// A deadline counts only while the store takes writes; what stands still says why, and nothing is late afterwards.
func TestDeadlinesStandStillWithTheStore(t *testing.T) {
	for _, c := range []struct {
		name    string
		down    func(*memstore.Store)
		up      func(*memstore.Store)
		because string
	}{
		{"unavailable", func(s *memstore.Store) {
			s.SetFault(func(c memstore.Call) error {
				if c.Op == "commit" {
					return fmt.Errorf("no quorum: %w", inventory.ErrUnavailable)
				}
				return nil
			})
		}, func(s *memstore.Store) { s.SetFault(nil) }, "the store takes no writes"},
		{"full", func(s *memstore.Store) { s.SetFull(true) }, func(s *memstore.Store) { s.SetFull(false) }, "the store is full and takes no writes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFleet(t, 1, 1, nil)
			f.works = func(o inventory.Order) bool { return o.Kind == inventory.OrderSanitize }
			f.until(100, "erasing", func() bool { return f.state(f.order[0]).Work.Phase == inventory.OrderSanitize })
			f.turns(10)
			live := func() Live { return f.replicas[0].loop.Live(f.order[0]) }
			rev, left := f.store.Rev(), live().Left
			f.turns(60)
			if ran := left - live().Left; ran < 55*time.Second || ran > 65*time.Second || live().Still != "" {
				t.Errorf("the deadline ran %v in a minute; still %q", ran, live().Still)
			}
			if f.store.Rev() != rev {
				t.Errorf("asking whether the store takes writes made %d revisions", f.store.Rev()-rev)
			}
			c.down(f.store)
			left = live().Left
			f.step = time.Minute
			f.turns(120) // four times the deadline
			if ran := left - live().Left; ran > 5*time.Second || live().Still != c.because {
				t.Errorf("the deadline ran %v while the store was down; still %q", ran, live().Still)
			}
			c.up(f.store)
			f.step = time.Second
			f.turns(60)
			if ran := left - live().Left; ran < 50*time.Second || ran > 65*time.Second || live().Still != "" {
				t.Errorf("the deadline ran %v in the minute after; still %q", ran, live().Still)
			}
			if st := f.state(f.order[0]); st.State != inventory.Sanitizing {
				t.Errorf("it is %s: %s", st.State, st.Reason)
			}
			f.step = time.Minute
			f.until(40, "over", func() bool { return f.state(f.order[0]).State == inventory.Quarantined })
		})
	}
}

// What counts: slices between two proofs, not more than one look apart.
func TestClock(t *testing.T) {
	at := func(s int) time.Time { return time.Date(2026, 11, 25, 3, 0, s, 0, time.UTC) }
	var c clock
	c.took(at(0)) // the first proof has no slice before it
	c.took(at(3))
	c.result(at(6), fmt.Errorf("x: %w", inventory.ErrUnavailable))
	c.took(at(9)) // its end is proven, its start is not
	c.took(at(12))
	c.took(at(12 + 3600)) // nobody looked
	if want := 6*time.Second + longestGap; c.ran != want {
		t.Errorf("ran %v, want %v", c.ran, want)
	}
	if !c.since(at(12)).IsZero() { // one request that was lost is no reason to begin every patience anew
		t.Errorf("awake since %v", c.since(at(12)))
	}
	c.stop(at(3612), "x")
	if now := at(3612 + 14); !c.since(now).IsZero() {
		t.Errorf("after 14 seconds it is awake since %v", c.since(now))
	}
	if now := at(3612 + 15); c.since(now) != now {
		t.Error("it stands still, and counts")
	}
	c.took(at(3612 + 20))
	if c.since(at(3700)) != at(3612+20) {
		t.Errorf("awake since %v", c.since(at(3700)))
	}
}

// A site whose store loses a request now and then still loses patience with a node that is gone.
func TestAFlakyStoreKeepsNobodyWaiting(t *testing.T) {
	f := newFleet(t, 1, 1, nil)
	f.until(200, "ready", f.all(inventory.Ready))
	f.silent = func(*machine) bool { return true }
	loop := f.replicas[0].loop
	for i := range 15 * 60 {
		if i%60 == 0 {
			loop.clock.result(f.now, fmt.Errorf("lost: %w", inventory.ErrUnavailable))
		}
		f.turn()
		if f.state(f.order[0]).State != inventory.Ready {
			return
		}
	}
	t.Errorf("after 15 minutes of silence it is still ready: %s", f.say(0))
}

// A hold that lapses for a moment leaves nothing remembered: the agents that spoke until then have not been silent since
// the hold began.
func TestALapseIsNobodysSilence(t *testing.T) {
	f := newFleet(t, 10, 1, nil)
	f.until(400, "ready", f.all(inventory.Ready))
	loop, began, lapsed := f.replicas[0].loop, f.now, false
	loop.Owns = func(string) bool { return !lapsed }
	loop.Since = func(string) time.Time {
		if lapsed {
			return time.Time{}
		}
		return began
	}
	f.turns(5 * 60)
	rev := f.store.Rev()
	lapsed = true
	f.turns(2)
	lapsed = false
	f.silent = func(*machine) bool { return true } // until their next report
	f.turns(30)
	if f.store.Rev() != rev {
		t.Errorf("%d revisions after a lapse of two seconds; a node says: %s", f.store.Rev()-rev, f.say(0))
	}
}

// Nobody asks the store while no deadline runs.
func TestNoProbeWithoutADeadline(t *testing.T) {
	f := newFleet(t, 2, 1, nil)
	f.until(200, "ready", f.all(inventory.Ready))
	f.turns(5)
	n := 0
	f.store.SetFault(func(c memstore.Call) error {
		if c.Op == "commit" && !c.After {
			n++
		}
		return nil
	})
	f.turns(60)
	if n != 0 {
		t.Errorf("%d commits in a minute of rest", n)
	}
}

// A node that keeps needing help is a technician's: not twice in ten minutes, not more than three times a day.
func TestRemediesAreBounded(t *testing.T) {
	now := time.Date(2026, 11, 25, 3, 0, 0, 0, time.UTC)
	ago := func(what string, times ...time.Duration) (out []inventory.Remedy) {
		for _, d := range times {
			out = append(out, inventory.Remedy{At: now.Add(-d), What: what})
		}
		return out
	}
	day := 24 * time.Hour
	for _, c := range []struct {
		name string
		had  []inventory.Remedy
		ev   string // of leaving ready; "" it waits
		says string
	}{
		{"never helped", nil, "lost", ""},
		{"once this week", ago(remedyLost, 3*day), "lost", ""},
		{"twice this week", ago(remedyLost, 6*day, 3*day), "quarantine", "for the third time in 7 days"},
		{"twice, one of them long ago", ago(remedyLost, 8*day, 3*day), "lost", ""},
		{"five minutes ago", ago(remedyLost, 5*time.Minute), "", "a short while ago, inspected again in 5m0s"},
		{"booted again five minutes ago", ago(remedyBoot, 5*time.Minute), "lost", ""},
		{"helped three times today", ago(remedyBoot, 20*time.Hour, 10*time.Hour, time.Hour), "quarantine", "after 3 remedies in 24 hours"},
		{"helped three times, not all today", ago(remedyBoot, 25*time.Hour, 10*time.Hour, time.Hour), "lost", ""},
	} {
		in := Input{Now: now}
		in.View.State.V = inventory.NodeState{State: inventory.Ready, Remedies: c.had}
		d := leaveReady(in, "its agent is gone")
		if string(d.Event) != c.ev || !strings.Contains(d.Say, c.says) {
			t.Errorf("%s: %q %q", c.name, d.Event, d.Say)
		}
		if c.ev != "lost" {
			continue
		}
		st := inventory.NodeState{Remedies: slices.Concat(ago(remedyLost, 9*day), slices.Repeat(ago(remedyBoot, day), 40))}
		d.Change.Edit(&st)
		if n := len(st.Remedies); n != mostKept || st.Remedies[n-1].What != remedyLost || st.Remedies[0].What != remedyBoot {
			t.Errorf("%s: %d are kept: %+v", c.name, n, st.Remedies)
		}
	}
}

// What nobody needs is deleted after thirty days, by one of the replicas, also when the store is full; what is open, live
// or young stays, and so does, for a day, what is old by a clock that may have been set.
func TestSweep(t *testing.T) {
	f := newFleet(t, 2, 2, func(_ int, s *inventory.Spec) { s.Approve = "" })
	old, young := f.now.Add(-31*24*time.Hour), f.now.Add(-27*24*time.Hour)
	id := f.order[0]
	keys := map[string]bool{} // whether it stays
	put := func(key string, stays bool, v any) {
		f.put(key, v)
		keys[key] = stays
	}
	wish := func(name string, answer string, at time.Time, stays bool) {
		put(inventory.KeyWish(id, name), stays, inventory.Wish{Schema: 1, ID: name, Node: id, Verb: inventory.WishReturn, Answer: answer, Answered: at, Expires: f.now.Add(time.Hour)})
	}
	wish("a", inventory.DoneOK, old, false)
	wish("b", inventory.Refused, old, false)
	wish("c", inventory.DoneOK, young, true)
	put(inventory.KeyToken("t1"), false, inventory.Token{Schema: 1, Expires: old})
	put(inventory.KeyToken("t2"), true, inventory.Token{Schema: 1, Expires: young})
	put(inventory.KeyToken("t3"), true, inventory.Token{Schema: 1}) // good for ever
	put(inventory.KeyReservation("acme", "r1"), false, inventory.Reservation{Schema: 1, ID: "r1", Node: id, Phase: inventory.Released, Ended: old})
	put(inventory.KeyReservation("acme", "r2"), true, inventory.Reservation{Schema: 1, ID: "r2", Node: id, Phase: inventory.Committed, Created: old})
	put(inventory.KeyReservation("beta", "r3"), true, inventory.Reservation{Schema: 1, ID: "r3", Node: id, Phase: inventory.Expired, Ended: young})
	put(inventory.KeyReservation("beta", "r4"), true, inventory.Reservation{Schema: 1, ID: "r4", Node: f.order[1], Phase: inventory.Released, Ended: old}) // its node is still on the way back
	f.put(inventory.KeyClaim(f.order[1]), inventory.Claim{Schema: 1, Node: f.order[1], Tenant: "beta", Reservation: "r4"})
	put(inventory.KeySession(id), false, inventory.Session{Schema: 1, ID: "s-1", Node: id, Phase: inventory.SessionClosed, Created: old})
	put(inventory.KeySession(f.order[1]), true, inventory.Session{Schema: 1, ID: "s-2", Node: f.order[1], Phase: inventory.SessionRedeemed, Created: old})
	for i, r := range f.replicas {
		r.loop.Owns = func(node string) bool { return inventory.Shard(node)%2 == i }
	}
	f.store.SetFull(true)
	f.turns(3)
	for key := range keys {
		if kv, err := f.store.Get(t.Context(), key); err != nil || !kv.Exists() {
			t.Errorf("%s was deleted by a daemon that has known it for a moment: %v", key, err)
		}
	}
	f.now = f.now.Add(unchangedFor)
	f.turns(3)
	for key, stays := range keys {
		kv, err := f.store.Get(t.Context(), key)
		f.must(err)
		if kv.Exists() != stays {
			t.Errorf("%s: is there %v, want %v", key, kv.Exists(), stays)
		}
	}
	for i := range sweepAtMost + 50 {
		f.store.SetFull(false)
		f.put(inventory.KeyToken(fmt.Sprintf("x%03d", i)), inventory.Token{Schema: 1, Expires: old})
	}
	f.replicas[0].loop.Owns, f.replicas[1].loop.Owns = nil, func(string) bool { return false }
	f.now = f.now.Add(sweepEvery)
	f.turns(2)
	left := func() int { return len(f.replicas[0].copy.Under(inventory.PrefixTokens)) }
	f.now = f.now.Add(unchangedFor)
	f.turns(2)
	if left() != 2+50 {
		t.Errorf("%d tokens are left after one sweep", left())
	}
	f.now = f.now.Add(sweepEvery)
	f.turns(2)
	if left() != 2 {
		t.Errorf("%d tokens are left after two sweeps", left())
	}
}
