package ledger_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/ledger"
	"github.com/hostler-project/hostler/inventory/lifecycle"
	"github.com/hostler-project/hostler/inventory/memstore"
)

// Every row of the table, applied to a node: its effects, exactly, in one transaction with history and public record.
func TestEveryEdge(t *testing.T) {
	for _, e := range edges() {
		t.Run(fmt.Sprintf("%s on %s", e.From, e.On), func(t *testing.T) {
			s := newSite(t)
			id := s.place(e.From)
			before := s.view(id)
			rev := s.store.Rev()
			got, err := s.led.Move(t.Context(), before, e.On, change)
			s.must(err)
			if got != rev+1 || s.store.Rev() != rev+1 {
				t.Errorf("revision %d came back, the store went from %d to %d", got, rev, s.store.Rev())
			}
			after := s.view(id)
			checkState(t, e, before.State.V, after.State.V, s.now)
			checkClaim(t, s, e, before, after)
			checkSession(t, e, before.Session.V, after.Session.V)
			if after.Avail.Exists() {
				t.Error("still on offer")
			}
			h := get[inventory.History](s, inventory.KeyHistory(id, after.State.V.Seq)).V
			want := inventory.History{Schema: 1, Seq: 2, Time: s.now, Kind: "transition", From: e.From, To: e.To, Event: string(e.On),
				Reason: "because", Actor: "kim", Generation: after.State.V.Generation, Wipe: after.State.V.Wipe}
			if d := cmp.Diff(want, h); d != "" {
				t.Errorf("history (-want +got):\n%s", d)
			}
			if p := after.Public.V; p.State != e.To || p.Generation != h.Generation || p.Wipe != h.Wipe || (p.Tenant != "") != after.Claim.Exists() || after.Public.KV.Mod != got {
				t.Errorf("public record %+v", p)
			}
			switch { // alone some moves lack what their callers write with them; TestAnyWalkHolds has them whole
			case e.On == lifecycle.Claim, e.On == lifecycle.Confirm, e.On == lifecycle.Reinstall, e.From == inventory.Provisioning && e.On == lifecycle.Done:
			default:
				s.whole()
			}
		})
	}
}

func checkState(t *testing.T, e lifecycle.Edge, before, after inventory.NodeState, now time.Time) {
	t.Helper()
	want := before
	want.State, want.From, want.Since, want.Reason, want.Seq = e.To, e.From, now, "because", before.Seq+1
	want.Work, want.Spent, want.Attempt = inventory.Work{}, 0, 0
	if !slices.Contains([]lifecycle.Event{lifecycle.Done, lifecycle.DoneBurnIn, lifecycle.Drift, lifecycle.Failed, lifecycle.Again, lifecycle.Timeout,
		lifecycle.Claim, lifecycle.Expire, lifecycle.Cancel, lifecycle.Quarantine, lifecycle.Abort, lifecycle.ToRepair, lifecycle.Maintain}, e.On) {
		want.Cause = string(e.On) // a step's end goes on with what began before it
	}
	if e.From == e.To {
		want.Attempt = before.Attempt + 1
	}
	want.Allowed = inventory.Duration(lifecycle.Allowed(e.To, 0, 0))
	if row, _ := lifecycle.Get(e.From); e.On == lifecycle.Restored && e.From == e.To && (row.Owned || row.Rest) {
		want = before // it stays in the middle of what it does
		want.Seq++
	}
	step := int64(1)
	if e.Jump {
		step = 1000
	}
	if e.Generation {
		want.Generation += step
	}
	if e.Wipe {
		want.Wipe += step
	}
	if e.EndClaim && before.Taint != "" && slices.Contains(claimed, e.From) {
		want.Instance = after.Instance // whose data the certificate will say was erased
		if want.Instance == "" {
			t.Error("a tenancy ended, and whose data the media hold was not noted")
		}
	}
	if e.Taint {
		want.Taint = inventory.Taint
	}
	if e.Clean {
		want.Taint = ""
	}
	if e.To == inventory.Ready && e.From != inventory.Reserved {
		want.Tested = now
	}
	if d := cmp.Diff(want, after); d != "" {
		t.Errorf("state (-want +got):\n%s", d)
	}
}

func checkClaim(t *testing.T, s *site, e lifecycle.Edge, before, after inventory.NodeView) {
	t.Helper()
	if !before.Claim.Exists() {
		return
	}
	res := get[inventory.Reservation](s, before.Reservation.KV.Key).V
	inst := get[inventory.Instance](s, before.Instance.KV.Key)
	sealed := get[inventory.Sealed](s, inventory.KeySealed(before.Claim.V.Instance)).Exists()
	if e.On == lifecycle.Restored {
		claim, phase := before.Claim.V, before.Reservation.V.Phase
		claim.Generation = after.State.V.Generation
		if e.From == inventory.Reserved || e.From == inventory.Provisioning {
			phase = inventory.Released
		}
		if after.Claim.V != claim || res.Phase != phase || sealed != before.Instance.Exists() || inst.V.Generation != claim.Generation && inst.Exists() ||
			(inst.V.Phase == before.Instance.V.Phase) != (phase == before.Reservation.V.Phase) && inst.Exists() {
			t.Errorf("claim %+v, reservation %+v, instance %+v, sealed %v", after.Claim.V, res, inst.V, sealed)
		}
		return
	}
	if !e.EndClaim {
		if after.Claim.KV.Mod != before.Claim.KV.Mod || res != before.Reservation.V || inst.KV.Mod != before.Instance.KV.Mod || sealed != before.Instance.Exists() {
			t.Errorf("the claim was touched: %+v, %+v, %+v, sealed %v", after.Claim.V, res, inst.V, sealed)
		}
		return
	}
	phase := inventory.Released
	if e.On == lifecycle.Expire || e.From == inventory.Reserved && e.On == lifecycle.Timeout {
		phase = inventory.Expired
	}
	if after.Claim.Exists() || res.Phase != phase || res.Reason != "because" || !res.Ended.Equal(s.now) || sealed {
		t.Errorf("claim there: %v, sealed seed there: %v, reservation %+v, want %s", after.Claim.Exists(), sealed, res, phase)
	}
	if inst.Exists() && (inst.V.Phase != inventory.InstanceEnded || inst.V.Ready || inst.V.ReadyReason != "because" || !inst.V.Ended.Equal(s.now)) {
		t.Errorf("instance %+v", inst.V)
	}
}

func checkSession(t *testing.T, e lifecycle.Edge, want, got inventory.Session) {
	t.Helper()
	switch {
	case e.On == lifecycle.Claim: // the warm node goes on
		want.Generation++
	case e.Generation && want.Phase == inventory.SessionRedeemed:
		want.Phase, want.Reason, want.Cert = inventory.SessionClosed, "because", nil
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("session (-want +got):\n%s", d)
	}
}

// Whatever is not a row is refused, and nothing is written.
func TestNoRowNoMove(t *testing.T) {
	events := map[lifecycle.Event]bool{"nonsense": true, "": true}
	for _, e := range lifecycle.Edges {
		events[e.On] = true
	}
	s := newSite(t)
	for _, state := range lifecycle.States {
		id := s.place(state.Name)
		v, rev := s.view(id), s.store.Rev()
		for ev := range events {
			if _, err := lifecycle.Find(state.Name, ev); err == nil {
				continue
			}
			if _, err := s.led.Move(t.Context(), v, ev, change); err == nil || !strings.Contains(err.Error(), string(state.Name)) {
				t.Errorf("%s on %q: got %v", state.Name, ev, err)
			}
		}
		s.untouched(rev)
	}
}

// Who acts on an old view loses, whatever it was that changed.
func TestStaleViewIsAConflict(t *testing.T) {
	rewrite := func(key func(string) string) func(*site, string) {
		return func(s *site, id string) {
			kv, err := s.store.Get(s.t.Context(), key(id))
			s.must(err)
			s.do(inventory.Op{Key: key(id), Value: append(kv.Value, ' ')})
		}
	}
	for _, c := range []struct {
		name string
		from inventory.State
		on   lifecycle.Event
		edit func(*site, string)
	}{
		{"state", inventory.Inspecting, lifecycle.Done, rewrite(inventory.KeyState)},
		{"session that the move closes", inventory.Inspecting, lifecycle.Failed, rewrite(inventory.KeySession)},
		{"claim that the move ends", inventory.Fencing, lifecycle.Done, rewrite(inventory.KeyClaim)},
		{"reservation that the move ends", inventory.Reserved, lifecycle.Expire, rewrite(func(id string) string { return inventory.KeyReservation("acme", "r-"+id) })},
		{"instance that the move ends", inventory.Fencing, lifecycle.Done, rewrite(func(id string) string { return inventory.KeyInstance("i-" + id) })},
		{"certificate of the gate", inventory.Verifying, lifecycle.Done, rewrite(func(id string) string { return inventory.KeyCert(id, wipe) })},
		{"facts of the gate", inventory.Verifying, lifecycle.Done, rewrite(inventory.KeyFacts)},
		{"test of the gate", inventory.Verifying, lifecycle.Done, func(s *site, id string) { rewrite(func(string) string { return s.view(id).Test.KV.Key })(s, id) }},
		{"history that is there already", inventory.Inspecting, lifecycle.Done, func(s *site, id string) {
			s.put(inventory.KeyHistory(id, 2), inventory.History{Seq: 2})
		}},
		{"a condition of the caller's", inventory.Inspecting, lifecycle.Done, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			id := s.place(c.from)
			v := s.view(id)
			ch := change
			if c.edit != nil {
				c.edit(s, id)
			} else {
				ch.If = []inventory.Cond{inventory.Absent(inventory.KeySpec(id))}
			}
			rev := s.store.Rev()
			if _, err := s.led.Move(t.Context(), v, c.on, ch); !errors.Is(err, ledger.ErrConflict) {
				t.Errorf("got %v", err)
			}
			s.untouched(rev)
		})
	}
}

// A replica whose term is over writes nothing more.
func TestTermIsCompared(t *testing.T) {
	s := newSite(t)
	s.put(inventory.KeyShard(0), map[string]string{"replica": "one"})
	mine := get[map[string]string](s, inventory.KeyShard(0)).KV.Create
	s.led.Term = func(string) []inventory.Cond { return []inventory.Cond{{Key: inventory.KeyShard(0), Create: mine}} }
	ready, held, sick := s.place(inventory.Ready), s.place(inventory.Reserved), s.place(inventory.Quarantined)
	s.claim(sick, inventory.Fencing)
	s.do(inventory.Delete(inventory.KeyAvail(ready)))
	s.do(inventory.Delete(inventory.KeyShard(0)))
	s.put(inventory.KeyShard(0), map[string]string{"replica": "two"})
	rev := s.store.Rev()
	for name, f := range map[string]func() (int64, error){
		"move":     func() (int64, error) { return s.led.Move(t.Context(), s.view(held), lifecycle.Expire, change) },
		"note":     func() (int64, error) { return s.led.Note(t.Context(), s.view(held), change) },
		"offer":    func() (int64, error) { return s.led.Offer(t.Context(), s.view(ready), rev) },
		"withdraw": func() (int64, error) { return s.led.Withdraw(t.Context(), s.view(ready)) },
		"endclaim": func() (int64, error) { return s.led.EndClaim(t.Context(), s.view(sick), change) },
	} {
		if _, err := f(); !errors.Is(err, ledger.ErrConflict) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	s.untouched(rev)
}

// Right before an act: the record is still the one that was seen, the term still ours, the store there.
func TestCurrent(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(*site, string)
		want error
	}{
		{"nothing happened", func(*site, string) {}, nil},
		{"the state was written", func(s *site, id string) { s.put(inventory.KeyState(id), s.view(id).State.V) }, ledger.ErrConflict},
		{"another replica has the shard", func(s *site, _ string) {
			s.do(inventory.Delete(inventory.KeyShard(0)))
			s.put(inventory.KeyShard(0), map[string]string{"replica": "two"})
		}, ledger.ErrConflict},
		{"nobody has the shard", func(s *site, _ string) { s.do(inventory.Delete(inventory.KeyShard(0))) }, ledger.ErrConflict},
		{"the shard's holder renewed it", func(s *site, _ string) { s.put(inventory.KeyShard(0), map[string]string{"replica": "one again"}) }, nil},
		{"the store is away", func(s *site, _ string) {
			s.store.SetFault(func(memstore.Call) error { return inventory.ErrUnavailable })
		}, inventory.ErrUnavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			s.put(inventory.KeyShard(0), map[string]string{"replica": "one"})
			mine := get[map[string]string](s, inventory.KeyShard(0)).KV.Create
			s.led.Term = func(string) []inventory.Cond { return []inventory.Cond{{Key: inventory.KeyShard(0), Create: mine}} }
			id := s.place(inventory.Inspecting)
			v := s.view(id)
			c.edit(s, id)
			if err := s.led.Current(t.Context(), v); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

// A node of which one record is of a newer version, or in a state that this one does not know, is never written.
func TestWhatIsNotUnderstoodIsNotWritten(t *testing.T) {
	newer := func(key func(string) string) func(*site, string) {
		return func(s *site, id string) { s.put(key(id), map[string]any{"schema": 2}) }
	}
	for _, c := range []struct {
		name string
		edit func(*site, string)
	}{
		{"newer state", newer(inventory.KeyState)},
		{"newer spec", newer(inventory.KeySpec)},
		{"newer facts", newer(inventory.KeyFacts)},
		{"newer claim", newer(inventory.KeyClaim)},
		{"newer session", newer(inventory.KeySession)},
		{"newer health report", newer(func(id string) string { return inventory.KeyHealth(id, "bmc") })},
		{"unreadable state", func(s *site, id string) { s.do(inventory.Op{Key: inventory.KeyState(id), Value: []byte("{")}) }},
		{"unknown state", func(s *site, id string) {
			st := s.view(id).State.V
			st.State = "orbiting"
			s.put(inventory.KeyState(id), st)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			id := s.place(inventory.Ready)
			s.claim(id, inventory.Fencing)
			c.edit(s, id)
			v, rev := s.view(id), s.store.Rev()
			for name, f := range map[string]func() error{
				"move":     func() error { _, err := s.led.Move(t.Context(), v, lifecycle.Quarantine, change); return err },
				"note":     func() error { _, err := s.led.Note(t.Context(), v, change); return err },
				"offer":    func() error { _, err := s.led.Offer(t.Context(), v, rev); return err },
				"withdraw": func() error { _, err := s.led.Withdraw(t.Context(), v); return err },
				"endclaim": func() error { _, err := s.led.EndClaim(t.Context(), v, change); return err },
				"edit":     func() error { return s.led.Edit(t.Context(), v, inventory.Spec{Schema: 1, Name: "other"}) },
			} {
				if err := f(); err == nil || errors.Is(err, ledger.ErrConflict) {
					t.Errorf("%s: got %v", name, err)
				}
			}
			s.untouched(rev)
		})
	}
}

// A note is a line of history; it reaches the rental layer only where that sees a difference.
func TestNote(t *testing.T) {
	s := newSite(t)
	id := s.place(inventory.Ready)
	public := s.view(id).Public.KV.Mod
	c := change
	c.Edit = func(st *inventory.NodeState) { st.Work = inventory.Work{Phase: "power-off"} }
	_, err := s.led.Note(t.Context(), s.view(id), c)
	s.must(err)
	v := s.view(id)
	h := get[inventory.History](s, inventory.KeyHistory(id, 2)).V
	if h.Kind != "step" || h.Phase != "power-off" || h.From != inventory.Ready || h.To != inventory.Ready || v.State.V.Work.Phase != "power-off" || v.Public.KV.Mod != public || !v.Avail.Exists() {
		t.Errorf("a step: %+v, %+v", h, v.State.V)
	}
	c.Edit = func(st *inventory.NodeState) { st.Alive = inventory.Silent }
	_, err = s.led.Note(t.Context(), v, c)
	s.must(err)
	v = s.view(id)
	if v.Avail.Exists() || v.Public.V.Rentable || !slices.Contains(v.Public.V.Reasons, "its agent is silent") {
		t.Errorf("silent, but on offer: %v, public %+v", v.Avail.Exists(), v.Public.V)
	}
	s.whole()
}

// The claim of a node whose power was confirmed off ends outside an edge.
func TestEndClaim(t *testing.T) {
	s := newSite(t)
	id := s.place(inventory.Quarantined)
	s.claim(id, inventory.Fencing)
	_, err := s.led.EndClaim(t.Context(), s.view(id), change)
	s.must(err)
	v := s.view(id)
	if v.Claim.Exists() || v.Public.V.Tenant != "" || v.State.V.State != inventory.Quarantined || v.State.V.Taint == "" {
		t.Errorf("got %+v, public %+v", v.State.V, v.Public.V)
	}
	if r := get[inventory.Reservation](s, inventory.KeyReservation("acme", "r-"+id)).V; r.Phase != inventory.Released {
		t.Errorf("reservation %+v", r)
	}
	rev := s.store.Rev()
	if _, err := s.led.EndClaim(t.Context(), v, change); err == nil {
		t.Error("there was no claim to end")
	}
	s.untouched(rev)
}

// Deadlines come from the table, the SKU's boot time and the site's configuration.
func TestDeadlineIsWrittenWithTheState(t *testing.T) {
	s := newSite(t)
	s.put(inventory.KeySKU("small"), inventory.SKU{Schema: 1, Name: "small", Boot: inventory.Duration(40 * time.Minute)})
	for name, c := range map[string]struct {
		override, want time.Duration
	}{"table": {0, 120 * time.Minute}, "site": {5 * time.Minute, 5 * time.Minute}} {
		s.led.Allowed = map[inventory.State]time.Duration{inventory.Inspecting: c.override}
		id := s.place(inventory.Quarantined)
		_, err := s.led.Move(t.Context(), s.view(id), lifecycle.Return, change)
		s.must(err)
		if got := time.Duration(s.view(id).State.V.Allowed); got != c.want {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}

// Any walk over the table keeps what must always hold.
func TestAnyWalkHolds(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := newSite(t)
		id := s.place(rapid.SampledFrom(lifecycle.States).Draw(rt, "from").Name)
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			v := s.view(id)
			events := slices.DeleteFunc(lifecycle.Events(v.State.V.State), func(ev lifecycle.Event) bool { return !possible(v, ev) })
			if len(events) == 0 {
				break
			}
			err := s.take(v, rapid.SampledFrom(events).Draw(rt, "event"))
			if r := (*ledger.Refusal)(nil); err != nil && !errors.Is(err, ledger.ErrGate) && !errors.As(err, &r) {
				rt.Fatal(err)
			}
			s.whole()
			if s.broken != nil {
				rt.FailNow()
			}
		}
	})
}

// possible leaves out what no caller asks of the ledger: to move on with a tenancy that is over, or was never.
func possible(v inventory.NodeView, ev lifecycle.Event) bool {
	switch ev {
	case lifecycle.Reinstall:
		return v.Claim.Exists()
	case lifecycle.Cancel:
		return v.Reservation.V.Phase != inventory.Released
	}
	return v.State.V.State != inventory.Quarantined || !v.Claim.Exists()
}

// take takes an event as its caller does: through the API's transactions, and with what a step writes beside the move.
func (s *site) take(v inventory.NodeView, ev lifecycle.Event) error {
	ctx, c, r := s.t.Context(), change, v.Reservation.V
	switch {
	case ev == lifecycle.Claim:
		_, err := s.led.Claim(ctx, ledger.ClaimRequest{Tenant: "acme", Reservation: s.id(), Node: v.ID})
		return err
	case ev == lifecycle.Confirm:
		_, err := s.led.Confirm(ctx, ledger.ConfirmRequest{Tenant: r.Tenant, Reservation: r.ID, Image: "img"})
		return err
	case ev == lifecycle.Release && v.Claim.Exists():
		_, err := s.led.Release(ctx, r.Tenant, r.ID, "kim", "")
		return err
	case v.State.V.State == inventory.Provisioning && ev == lifecycle.Done: // handed over: the agent is gone
		sn := v.Session.V
		sn.Phase, sn.Cert = inventory.SessionClosed, nil
		c.Session = &sn
	}
	_, err := s.led.Move(ctx, v, ev, c)
	return err
}
