package ledger_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/ledger"
	"github.com/hostler-project/hostler/inventory/lifecycle"
	"github.com/hostler-project/hostler/inventory/memstore"
)

func ask(reservation string) ledger.ClaimRequest {
	return ledger.ClaimRequest{Tenant: "acme", Project: "p", Reservation: reservation, SKU: "small", Actor: "acme's token"}
}

func confirm(reservation string) ledger.ConfirmRequest {
	return ledger.ConfirmRequest{Tenant: "acme", Reservation: reservation, Image: "digest", ImageName: "debian", Hostname: "h", SeedHash: "hash", Sealed: []byte("sealed"), Actor: "acme's token"}
}

// refused says whether err is an answer that holds want.
func refused(t *testing.T, err error, want string) {
	t.Helper()
	var r *ledger.Refusal
	if !errors.As(err, &r) || !strings.Contains(r.Why, want) {
		t.Errorf("got %v, want a refusal with %q", err, want)
	}
}

func TestClaim(t *testing.T) {
	s := newSite(t)
	id := s.place(inventory.Ready)
	rev := s.store.Rev()
	res, err := s.led.Claim(t.Context(), ask("r1"))
	s.must(err)
	want := inventory.Reservation{Schema: 1, ID: "r1", Tenant: "acme", Project: "p", Phase: inventory.Pending, SKU: "small", Node: id,
		Instance: res.Instance, Created: s.now, Expires: s.now.Add(10 * time.Minute), Hold: inventory.Duration(10 * time.Minute)}
	if d := cmp.Diff(want, res); d != "" || !strings.HasPrefix(res.Instance, "i-") {
		t.Errorf("-want +got:\n%s", d)
	}
	v := s.view(id)
	if v.State.V.State != inventory.Reserved || v.Avail.Exists() || v.Claim.V.Generation != v.State.V.Generation || v.Public.V.Reservation != "r1" || s.store.Rev() != rev+1 {
		t.Errorf("after a claim: %+v, public %+v", v.State.V, v.Public.V)
	}

	again, err := s.led.Claim(t.Context(), ask("r1"))
	if d := cmp.Diff(res, again); d != "" || err != nil {
		t.Errorf("asked again: %v\n%s", err, d)
	}
	if s.store.Rev() != rev+1 {
		t.Error("asked again, written again")
	}
	s.whole()
}

func TestClaimRefusals(t *testing.T) {
	over := func(phase string) func(*site) ledger.ClaimRequest {
		return func(s *site) ledger.ClaimRequest {
			s.place(inventory.Ready)
			s.put(inventory.KeyReservation("acme", "r1"), inventory.Reservation{Schema: 1, ID: "r1", SKU: "small", Phase: phase, Reason: "was tired"})
			return ask("r1")
		}
	}
	for _, c := range []struct {
		name, want string
		prepare    func(*site) ledger.ClaimRequest
	}{
		{"no node at all", `there is no node of SKU "small"`, func(*site) ledger.ClaimRequest { return ask("r1") }},
		{"none free", "1 in-use, 1 quarantined, of 2", func(s *site) ledger.ClaimRequest {
			for _, st := range []inventory.State{inventory.InUse, inventory.Quarantined} {
				id := s.place(st)
				s.put(inventory.KeyPublic(id), s.view(id).Offer(s.now))
			}
			return ask("r1")
		}},
		{"another SKU", `there is no node of SKU "large"`, func(s *site) ledger.ClaimRequest {
			s.place(inventory.Ready)
			q := ask("r1")
			q.SKU = "large"
			return q
		}},
		{"that node is not ready", "cannot be claimed: it is quarantined: broken fan", func(s *site) ledger.ClaimRequest {
			s.place(inventory.Ready)
			id := s.place(inventory.Quarantined)
			v := s.view(id)
			v.State.V.Reason = "broken fan"
			s.put(inventory.KeyPublic(id), v.Offer(s.now))
			q := ask("r1")
			q.Node = id
			return q
		}},
		{"held too long", "1h0m0s at most", func(s *site) ledger.ClaimRequest {
			s.place(inventory.Ready)
			q := ask("r1")
			q.Hold = 61 * time.Minute
			return q
		}},
		{"id of an expired reservation", "is over: expired (was tired)", over(inventory.Expired)},
		{"id of a released reservation", "is over: released (was tired)", over(inventory.Released)},
		{"same id, another SKU", "exists for SKU small, not large", func(s *site) ledger.ClaimRequest {
			s.place(inventory.Ready)
			_, err := s.led.Claim(s.t.Context(), ask("r1"))
			s.must(err)
			q := ask("r1")
			q.SKU = "large"
			return q
		}},
		{"same id, another node", "is for node n-", func(s *site) ledger.ClaimRequest {
			s.place(inventory.Ready)
			_, err := s.led.Claim(s.t.Context(), ask("r1"))
			s.must(err)
			q := ask("r1")
			q.Node = s.place(inventory.Ready)
			return q
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			q := c.prepare(s)
			rev := s.store.Rev()
			_, err := s.led.Claim(t.Context(), q)
			refused(t, err, c.want)
			s.untouched(rev)
		})
	}
}

// One tenant's reservation id says nothing about another's.
func TestReservationsAreTheTenants(t *testing.T) {
	s := newSite(t)
	s.place(inventory.Ready)
	s.place(inventory.Ready)
	one, err := s.led.Claim(t.Context(), ask("r1"))
	s.must(err)
	q := ask("r1")
	q.Tenant = "globex"
	two, err := s.led.Claim(t.Context(), q)
	s.must(err)
	if one.Node == two.Node {
		t.Errorf("both have %s", one.Node)
	}
	_, err = s.led.Release(t.Context(), "initech", "r1", "x", "")
	refused(t, err, "no reservation r1 of tenant initech")
}

// A node that this version does not understand is passed over: it does not keep the others from being claimed.
func TestClaimPassesOverWhatItDoesNotUnderstand(t *testing.T) {
	s := newSite(t)
	for i := range 3 {
		id := s.place(inventory.Ready)
		s.put([]string{inventory.KeyState(id), inventory.KeyAvail(id), inventory.KeyHealth(id, "nvml")}[i], map[string]any{"schema": 2, "sku": "small"})
	}
	good := s.place(inventory.Ready)
	res, err := s.led.Claim(t.Context(), ask("r1"))
	s.must(err)
	if res.Node != good {
		t.Errorf("got %s", res.Node)
	}
	_, err = s.led.Claim(t.Context(), ask("r2"))
	refused(t, err, "no node of SKU small is rentable now")
}

// A writer that comes in between the reads of a claim costs it a try, never an error that is not an answer.
func TestClaimMeetsOtherWriters(t *testing.T) {
	for _, c := range []struct {
		name string
		key  func(string) string // the other writer comes in before this is read
		edit func(*site, string)
		want string
	}{
		{"claimed by another", inventory.KeyAvail, func(s *site, id string) {
			_, err := s.led.Claim(s.t.Context(), ledger.ClaimRequest{Tenant: "globex", Reservation: "g1", SKU: "small"})
			s.must(err)
		}, "no node of SKU small is rentable now"},
		{"not ready when its state was read, offered when its offer was", inventory.KeyAvail, func(s *site, id string) {
			s.put(inventory.KeyAvail(id), inventory.Avail{Schema: 1, SKU: "small", Wipe: wipe})
		}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			id := s.place(inventory.Ready)
			if c.want == "" { // it becomes ready only after its state was read
				st := s.view(id).State.V
				was := st
				was.State = inventory.Verifying
				s.put(inventory.KeyState(id), was)
				edit := c.edit
				c.edit = func(s *site, id string) { edit(s, id); s.put(inventory.KeyState(id), st) }
			}
			done := false
			s.store.SetFault(func(call memstore.Call) error {
				if call.Op == "get" && call.Key == c.key(id) && !done {
					done = true
					c.edit(s, id)
				}
				return nil
			})
			res, err := s.led.Claim(t.Context(), ask("r1"))
			if !done {
				t.Fatal("the other writer never came")
			}
			if c.want == "" {
				s.must(err)
				if res.Node != id {
					t.Errorf("got %+v", res)
				}
			} else {
				refused(t, err, c.want)
			}
			s.store.SetFault(nil)
			s.whole()
		})
	}
}

// 64 clients want 20 nodes, with a store that now and then does not say whether it wrote. Clients ask again under their
// id until they hear an answer.
func TestManyClientsFewNodes(t *testing.T) {
	const clients, nodes = 64, 20
	s := newSite(t)
	for range nodes {
		s.place(inventory.Ready)
	}
	var commits, lost atomic.Int64
	s.store.SetFault(func(c memstore.Call) error {
		if c.Op != "commit" {
			return nil
		}
		if n := commits.Add(1); n%5 == 0 || n%7 == 0 && c.After {
			lost.Add(1)
			return inventory.ErrUnavailable
		}
		return nil
	})
	got := make([]inventory.Reservation, clients)
	var won, refusals atomic.Int64
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			for {
				res, err := s.led.Claim(t.Context(), ask(fmt.Sprintf("r%d", i)))
				var no *ledger.Refusal
				switch {
				case errors.Is(err, inventory.ErrUnavailable):
					continue
				case errors.As(err, &no):
					refusals.Add(1)
				case err != nil:
					t.Error(err)
				default:
					won.Add(1)
					got[i] = res
				}
				return
			}
		})
	}
	wg.Wait()
	s.store.SetFault(nil)
	if won.Load() != nodes || refusals.Load() != clients-nodes || lost.Load() == 0 {
		t.Errorf("%d won, %d were refused, %d answers were lost", won.Load(), refusals.Load(), lost.Load())
	}
	byNode := map[string]string{}
	for i, res := range got {
		if res.Node == "" {
			continue
		}
		if other := byNode[res.Node]; other != "" {
			t.Errorf("%s and %s both have %s", other, res.ID, res.Node)
		}
		byNode[res.Node] = res.ID
		if c := s.view(res.Node).Claim.V; c.Reservation != fmt.Sprintf("r%d", i) || c.Instance != res.Instance {
			t.Errorf("%s was told %s, whose claim is %+v", res.ID, res.Node, c)
		}
	}
	s.whole()
}

func TestConfirm(t *testing.T) {
	s := newSite(t)
	id := s.place(inventory.Ready)
	_, err := s.led.Claim(t.Context(), ask("r1"))
	s.must(err)
	before := s.view(id).State.V
	in, err := s.led.Confirm(t.Context(), confirm("r1"))
	s.must(err)
	v := s.view(id)
	if st := v.State.V; st.State != inventory.Provisioning || st.Taint == "" || st.Wipe != before.Wipe+1 || st.Generation != before.Generation {
		t.Errorf("state %+v", st)
	}
	if v.Reservation.V.Phase != inventory.Committed || v.Reservation.V.Image != "digest" || v.Instance.V.ID != in.ID || in.Phase != inventory.InstanceProvisioning || in.Ready {
		t.Errorf("reservation %+v, instance %+v", v.Reservation.V, v.Instance.V)
	}
	if sealed := get[inventory.Sealed](s, inventory.KeySealed(in.ID)); string(sealed.V.Age) != "sealed" {
		t.Errorf("sealed seed %+v", sealed.V)
	}
	if v.Session.V.Phase != inventory.SessionRedeemed || v.Session.V.Generation != v.State.V.Generation {
		t.Errorf("the warm agent lost its session: %+v", v.Session.V)
	}

	rev := s.store.Rev()
	again, err := s.led.Confirm(t.Context(), confirm("r1"))
	if err != nil || again.ID != in.ID {
		t.Errorf("the same again: %+v, %v", again, err)
	}
	for name, edit := range map[string]func(*ledger.ConfirmRequest){
		"another image": func(q *ledger.ConfirmRequest) { q.Image = "other" },
		"another seed":  func(q *ledger.ConfirmRequest) { q.SeedHash = "other" },
	} {
		q := confirm("r1")
		edit(&q)
		_, err := s.led.Confirm(t.Context(), q)
		t.Run(name, func(t *testing.T) { refused(t, err, "already confirmed with another image or seed") })
	}
	s.untouched(rev)
	s.whole()
}

func TestConfirmRefusals(t *testing.T) {
	for _, c := range []struct {
		name, want string
		edit       func(*site)
	}{
		{"no such reservation", "there is no reservation r2", func(s *site) {}},
		{"expired", "is over: expired", func(s *site) {
			id := get[inventory.Reservation](s, inventory.KeyReservation("acme", "r1")).V.Node
			_, err := s.led.Move(s.t.Context(), s.view(id), lifecycle.Expire, change)
			s.must(err)
		}},
		{"released", "is over: released", func(s *site) {
			_, err := s.led.Release(s.t.Context(), "acme", "r1", "x", "")
			s.must(err)
		}},
		{"quarantined meanwhile", "is over: released (because)", func(s *site) {
			id := get[inventory.Reservation](s, inventory.KeyReservation("acme", "r1")).V.Node
			_, err := s.led.Move(s.t.Context(), s.view(id), lifecycle.Quarantine, change)
			s.must(err)
		}},
		{"SKU not declared any more", `SKU "small" is not declared`, func(s *site) { s.do(inventory.Delete(inventory.KeySKU("small"))) }},
		{"image not qualified", "image debian is not qualified on SKU small", func(s *site) {
			s.put(inventory.KeySKU("small"), inventory.SKU{Schema: 1, Name: "small", Qualified: []string{"fedora"}})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			s.place(inventory.Ready)
			_, err := s.led.Claim(t.Context(), ask("r1"))
			s.must(err)
			c.edit(s)
			rev := s.store.Rev()
			q := confirm("r1")
			if c.name == "no such reservation" {
				q.Reservation = "r2"
			}
			_, err = s.led.Confirm(t.Context(), q)
			refused(t, err, c.want)
			s.untouched(rev)
		})
	}
}

// Whether a reservation has run out is the reconciler's to say: a clock that was set refuses nobody.
func TestConfirmAsksNoClock(t *testing.T) {
	for name, jump := range map[string]time.Duration{"a minute too late": 11 * time.Minute, "ten years ahead": 87600 * time.Hour, "ten years back": -87600 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.place(inventory.Ready)
			_, err := s.led.Claim(t.Context(), ask("r1"))
			s.must(err)
			s.now = s.now.Add(jump)
			_, err = s.led.Confirm(t.Context(), confirm("r1"))
			s.must(err)
			if p := get[inventory.Reservation](s, inventory.KeyReservation("acme", "r1")).V.Phase; p != inventory.Committed {
				t.Errorf("the reservation is %s", p)
			}
		})
	}
}

// Whether the store wrote or not when it did not say: a client that asks again ends at the same place.
func TestUnknownOutcomes(t *testing.T) {
	for _, after := range []bool{false, true} {
		s := newSite(t)
		id := s.place(inventory.Ready)
		steps := []func() error{
			func() error { _, err := s.led.Claim(t.Context(), ask("r1")); return err },
			func() error {
				_, err := s.led.Renew(t.Context(), "acme", "r1", 20*time.Minute)
				return err
			},
			func() error { _, err := s.led.Confirm(t.Context(), confirm("r1")); return err },
			func() error { _, err := s.led.Release(t.Context(), "acme", "r1", "x", "done"); return err },
		}
		for i, step := range steps {
			fired := false
			s.store.SetFault(func(c memstore.Call) error {
				if c.Op == "commit" && c.After == after && !fired {
					fired = true
					return inventory.ErrUnavailable
				}
				return nil
			})
			if err := step(); !errors.Is(err, inventory.ErrUnavailable) {
				t.Errorf("step %d, written %v: got %v", i, after, err)
			}
			s.must(step())
		}
		if v := s.view(id); v.State.V.State != inventory.Fencing || v.Reservation.V.Phase != inventory.Released || v.State.V.Generation != generation+1 || v.State.V.Wipe != wipe+1 {
			t.Errorf("written %v: %+v, %+v", after, v.State.V, v.Reservation.V)
		}
		s.whole()
	}
}

// A release is one effect, wherever the tenancy stands, and finds that it is done when asked again.
func TestRelease(t *testing.T) {
	for _, c := range []struct {
		from, to inventory.State
		claim    bool // it stays until the machine is certainly the tenant's no more
	}{
		{inventory.Reserved, inventory.Ready, false},
		{inventory.Provisioning, inventory.Fencing, true},
		{inventory.InUse, inventory.Draining, true},
		{inventory.Draining, inventory.Draining, true},
		{inventory.Fencing, inventory.Fencing, true},
		{inventory.Quarantined, inventory.Quarantined, true},
	} {
		t.Run(string(c.from), func(t *testing.T) {
			s := newSite(t)
			id := s.place(c.from)
			if c.from == inventory.Quarantined {
				s.claim(id, inventory.Fencing)
			}
			before := s.view(id).State.V
			res, err := s.led.Release(t.Context(), "acme", "r-"+id, "acme's token", "done with it")
			s.must(err)
			v := s.view(id)
			if v.State.V.State != c.to || v.Claim.Exists() != c.claim || v.State.V.Taint != before.Taint {
				t.Errorf("state %+v, claim there: %v", v.State.V, v.Claim.Exists())
			}
			stored := get[inventory.Reservation](s, inventory.KeyReservation("acme", "r-"+id)).V
			if d := cmp.Diff(stored, res); d != "" || res.Phase != inventory.Released || res.Reason != "done with it" || !res.Ended.Equal(s.now) {
				t.Errorf("-stored +told:\n%s", d)
			}
			if in := get[inventory.Instance](s, inventory.KeyInstance("i-"+id)); in.Exists() && (in.V.Phase != inventory.InstanceDraining || in.V.Ready) {
				t.Errorf("instance %+v", in.V)
			}
			if h := get[inventory.History](s, inventory.KeyHistory(id, v.State.V.Seq)).V; h.Seq != 2 || h.Actor != "acme's token" {
				t.Errorf("history %+v", h)
			}
			rev := s.store.Rev()
			again, err := s.led.Release(t.Context(), "acme", "r-"+id, "acme's token", "done again")
			if d := cmp.Diff(res, again); d != "" || err != nil {
				t.Errorf("released twice: %v\n%s", err, d)
			}
			s.untouched(rev)
			s.whole()
		})
	}
}

// Two releases of one reservation at the same moment, read between each other's writes: both hear that it is released.
func TestReleasesAtOnce(t *testing.T) {
	for _, between := range []func(string) string{inventory.KeyState, inventory.KeyClaim, func(id string) string { return inventory.KeyReservation("acme", "r-"+id) }} {
		s := newSite(t)
		id := s.place(inventory.Reserved)
		first := true
		s.store.SetFault(func(c memstore.Call) error {
			if c.Op == "get" && c.Key == between(id) && first {
				first = false
				_, err := s.led.Release(t.Context(), "acme", "r-"+id, "one", "")
				s.must(err)
			}
			return nil
		})
		res, err := s.led.Release(t.Context(), "acme", "r-"+id, "two", "")
		if first || err != nil || res.Phase != inventory.Released || res.Reason != "released by one" {
			t.Errorf("before %s: %+v, %v", between(id), res, err)
		}
		s.store.SetFault(nil)
		s.whole()
	}
}

func TestRenew(t *testing.T) {
	for _, c := range []struct {
		name  string
		phase string
		after time.Duration // since the claim
		hold  time.Duration
		want  string
	}{
		{"as long as it may be held", inventory.Pending, 0, time.Hour, ""},
		{"the rest of the hour", inventory.Pending, 9 * time.Minute, 51 * time.Minute, ""},
		{"a moment too long", inventory.Pending, 9 * time.Minute, 51*time.Minute + 1, "1h0m0s in all"},
		{"for no time", inventory.Pending, 0, 0, "1h0m0s in all"},
		{"into the past", inventory.Pending, 0, -time.Minute, "1h0m0s in all"},
		{"committed", inventory.Committed, 0, time.Minute, "is committed"},
		{"released", inventory.Released, 0, time.Minute, "is released"},
		{"expired", inventory.Expired, 0, time.Minute, "is expired"},
		{"over by the clock, not by the reconciler", inventory.Pending, 11 * time.Minute, time.Minute, ""},
		{"by a clock that was set back", inventory.Pending, -3 * time.Hour, time.Hour, ""},
		{"by a clock ten years ahead", inventory.Pending, 10 * 365 * 24 * time.Hour, time.Hour, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			s.put(inventory.KeyReservation("acme", "r1"), inventory.Reservation{Schema: 1, ID: "r1", Tenant: "acme", Phase: c.phase, Created: s.now, Expires: s.now.Add(10 * time.Minute)})
			s.now = s.now.Add(c.after)
			rev := s.store.Rev()
			res, err := s.led.Renew(t.Context(), "acme", "r1", c.hold)
			if c.want == "" {
				s.must(err)
				if !res.Expires.Equal(s.now.Add(c.hold)) || !get[inventory.Reservation](s, inventory.KeyReservation("acme", "r1")).V.Expires.Equal(res.Expires) {
					t.Errorf("got %+v", res)
				}
				return
			}
			refused(t, err, c.want)
			s.untouched(rev)
		})
	}
	s := newSite(t)
	_, err := s.led.Renew(t.Context(), "acme", "nothing", time.Minute)
	refused(t, err, "no reservation nothing")
}

// A confirm that meets its own repetition half-way (reservation read before, node read after) finds that it is done.
func TestConfirmBesideItself(t *testing.T) {
	s := newSite(t)
	id := s.place(inventory.Ready)
	_, err := s.led.Claim(t.Context(), ask("r1"))
	s.must(err)
	var first inventory.Instance
	s.store.SetFault(func(c memstore.Call) error {
		if c.Op == "get" && c.Key == inventory.KeyState(id) && first.ID == "" {
			first.ID = "asked"
			first, err = s.led.Confirm(t.Context(), confirm("r1"))
			s.must(err)
		}
		return nil
	})
	second, err := s.led.Confirm(t.Context(), confirm("r1"))
	s.must(err)
	if first.ID == "asked" || second.ID != first.ID || s.view(id).State.V.State != inventory.Provisioning {
		t.Errorf("confirmed as %q and as %q, the node is %s", first.ID, second.ID, s.view(id).State.V.State)
	}
	s.whole()
}
