package ledger_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/ledger"
	"github.com/hostler-project/hostler/inventory/lifecycle"
	"github.com/hostler-project/hostler/inventory/memstore"
)

// between has something happen once, between the next transaction's reads and its commit.
func (s *site) between(f func()) {
	done := false
	s.store.SetFault(func(c memstore.Call) error {
		if c.Op == "commit" && !done {
			done = true
			f()
		}
		return nil
	})
}

// An offer and a withdrawal are of the node as it was seen.
func TestOfferAndWithdrawOfAStaleView(t *testing.T) {
	s := newSite(t)
	id := s.place(inventory.Ready)
	v := s.view(id)
	_, err := s.led.Note(t.Context(), v, change)
	s.must(err)
	rev := s.store.Rev()
	if _, err := s.led.Withdraw(t.Context(), v); !errors.Is(err, ledger.ErrConflict) {
		t.Errorf("withdrawn as it was before: %v", err)
	}
	s.untouched(rev)

	_, err = s.led.Withdraw(t.Context(), s.view(id))
	s.must(err)
	v, rev = s.view(id), s.store.Rev()
	_, err = s.led.Move(t.Context(), v, lifecycle.Recheck, change)
	s.must(err)
	if _, err := s.led.Offer(t.Context(), v, rev); !errors.Is(err, ledger.ErrConflict) {
		t.Errorf("offered while it is tested again: %v", err)
	}
	if s.view(id).Avail.Exists() {
		t.Error("on offer while it is tested again")
	}
	s.whole()
}

// A session that an agent redeemed meanwhile is not written over by one that was decided before.
func TestANewSessionLosesAgainstARedemption(t *testing.T) {
	s := newSite(t)
	id := s.place(inventory.Inspecting)
	v := s.view(id)
	redeemed := v.Session.V
	redeemed.KeyHash = "key"
	s.put(inventory.KeySession(id), redeemed)
	c := change
	c.Session = &inventory.Session{Schema: 1, ID: "s-2", Node: id, Generation: generation, Phase: inventory.SessionArmed}
	if _, err := s.led.Note(t.Context(), v, c); !errors.Is(err, ledger.ErrConflict) {
		t.Errorf("got %v", err)
	}
	if got := s.view(id).Session.V; got.ID != "s-1" || got.KeyHash != "key" {
		t.Errorf("session %+v", got)
	}
}

// A node that is taken off the market while it is being claimed is not claimed, though its state has not changed.
func TestClaimLosesAgainstAnAlert(t *testing.T) {
	s := newSite(t)
	id := s.place(inventory.Ready)
	s.between(func() {
		s.must(s.led.Raise(t.Context(), id, "bmc", inventory.Alert{ID: "leak", What: "leak", Classes: []string{inventory.PreventAllocation}}))
	})
	_, err := s.led.Claim(t.Context(), ledger.ClaimRequest{Tenant: "acme", Reservation: "r", Node: id})
	if r := (*ledger.Refusal)(nil); !errors.As(err, &r) || s.view(id).State.V.State != inventory.Ready {
		t.Errorf("got %v, the node is %s", err, s.view(id).State.V.State)
	}
	s.whole()
}

// The longest hold is allowed; anything longer is not.
func TestLongestHold(t *testing.T) {
	for hold, ok := range map[time.Duration]bool{ledger.LongestHold: true, ledger.LongestHold + 1: false} {
		s := newSite(t)
		id := s.place(inventory.Ready)
		res, err := s.led.Claim(t.Context(), ledger.ClaimRequest{Tenant: "acme", Reservation: "r", Node: id, Hold: hold})
		if r := (*ledger.Refusal)(nil); ok && (err != nil || !res.Expires.Equal(s.now.Add(hold))) || !ok && !errors.As(err, &r) {
			t.Errorf("%v: got %+v, %v", hold, res, err)
		}
	}
}

// Whatever else a record says, a node that has a claim is not claimed again.
func TestClaimOfANodeWithAClaim(t *testing.T) {
	s := newSite(t)
	id := s.place(inventory.Ready)
	s.put(inventory.KeyClaim(id), inventory.Claim{Schema: 1, Node: id, Tenant: "bolt", Reservation: "theirs", Instance: "i-theirs"})
	_, err := s.led.Claim(t.Context(), ledger.ClaimRequest{Tenant: "acme", Reservation: "r", Node: id})
	if err == nil || s.view(id).Claim.V.Tenant != "bolt" {
		t.Errorf("got %v, the claim is %+v", err, s.view(id).Claim.V)
	}
}

// A restore carries a claim on as it is, not as it was.
func TestRestoreLosesAgainstAClaimThatChanged(t *testing.T) {
	s := newSite(t)
	id := s.place(inventory.InUse)
	v := s.view(id)
	claim := v.Claim.V
	claim.Since = claim.Since.Add(time.Hour)
	s.put(inventory.KeyClaim(id), claim)
	rev := s.store.Rev()
	if _, err := s.led.Restore(t.Context(), v, change); !errors.Is(err, ledger.ErrConflict) {
		t.Errorf("got %v", err)
	}
	s.untouched(rev)
}

// A reservation that is held longer while it is confirmed is confirmed as it is then.
func TestConfirmKeepsARenewal(t *testing.T) {
	s := newSite(t)
	id := s.place(inventory.Reserved)
	var renewed inventory.Reservation
	s.between(func() {
		var err error
		renewed, err = s.led.Renew(t.Context(), "acme", "r-"+id, 30*time.Minute)
		s.must(err)
	})
	_, err := s.led.Confirm(t.Context(), ledger.ConfirmRequest{Tenant: "acme", Reservation: "r-" + id, Image: "img"})
	s.must(err)
	if got := get[inventory.Reservation](s, inventory.KeyReservation("acme", "r-"+id)).V; got.Phase != inventory.Committed || !got.Expires.Equal(renewed.Expires) || renewed.Expires.IsZero() {
		t.Errorf("got %+v, renewed until %v", got, renewed.Expires)
	}
	s.whole()
}

// A confirm works on a claim that is its own, before and at its commit.
func TestConfirmOfAnothersClaim(t *testing.T) {
	for name, c := range map[string]func(*inventory.Claim){
		"another reservation of the tenant": func(c *inventory.Claim) { c.Reservation = "other" },
		"another tenant's of the same id":   func(c *inventory.Claim) { c.Tenant = "bolt" },
		"none":                              nil,
	} {
		for _, late := range []bool{false, true} {
			s := newSite(t)
			id := s.place(inventory.Reserved)
			claim := s.view(id).Claim.V
			spoil := func() {
				if c == nil {
					s.do(inventory.Delete(inventory.KeyClaim(id)))
					return
				}
				c(&claim)
				s.put(inventory.KeyClaim(id), claim)
			}
			if late {
				s.between(spoil)
			} else {
				spoil()
			}
			_, err := s.led.Confirm(t.Context(), ledger.ConfirmRequest{Tenant: "acme", Reservation: "r-" + id, Image: "img"})
			if err == nil || !strings.Contains(err.Error(), "whose claim is another's") || s.view(id).State.V.State != inventory.Reserved {
				t.Errorf("%s, at the commit %v: got %v, the node is %s", name, late, err, s.view(id).State.V.State)
			}
		}
	}
}

// What a newer version wrote into a reservation is neither answered nor changed.
func TestNewerReservation(t *testing.T) {
	s := newSite(t)
	id := s.place(inventory.Reserved)
	key := inventory.KeyReservation("acme", "r-"+id)
	res := get[inventory.Reservation](s, key).V
	res.Schema = inventory.Schema + 1
	s.put(key, res)
	rev := s.store.Rev()
	for name, f := range map[string]func() error{
		"claim": func() error {
			_, err := s.led.Claim(t.Context(), ledger.ClaimRequest{Tenant: "acme", Reservation: "r-" + id})
			return err
		},
		"confirm": func() error {
			_, err := s.led.Confirm(t.Context(), ledger.ConfirmRequest{Tenant: "acme", Reservation: "r-" + id, Image: "img"})
			return err
		},
		"release": func() error {
			_, err := s.led.Release(t.Context(), "acme", "r-"+id, "kim", "")
			return err
		},
	} {
		err := f()
		if r := (*ledger.Refusal)(nil); !errors.Is(err, inventory.ErrNewer) || errors.As(err, &r) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	s.untouched(rev)
}

// A reservation that is over says for ever when and why: the end of its claim, later, changes nothing.
func TestTheEndOfAClaimKeepsWhatARetryWasTold(t *testing.T) {
	s := newSite(t)
	id := s.place(inventory.InUse)
	told, err := s.led.Release(t.Context(), "acme", "r-"+id, "acme", "done with it")
	s.must(err)
	s.now = s.now.Add(time.Hour)
	for range 2 { // draining, fencing
		_, err := s.led.Move(t.Context(), s.view(id), lifecycle.Done, change)
		s.must(err)
	}
	got := get[inventory.Reservation](s, inventory.KeyReservation("acme", "r-"+id)).V
	if s.view(id).Claim.Exists() || got.Reason != "done with it" || !got.Ended.Equal(told.Ended) {
		t.Errorf("told %+v, now %+v", told, got)
	}
	s.whole()
}

// A tenancy without an instance's record is released without making one.
func TestReleaseWithoutAnInstance(t *testing.T) {
	s := newSite(t)
	id := s.place(inventory.InUse)
	s.do(inventory.Delete(inventory.KeyInstance("i-" + id)))
	_, err := s.led.Release(t.Context(), "acme", "r-"+id, "acme", "")
	s.must(err)
	all, err := s.store.List(t.Context(), inventory.PrefixInstances, inventory.ListOptions{})
	s.must(err)
	if len(all.KVs) != 0 {
		t.Errorf("made %s: %s", all.KVs[0].Key, all.KVs[0].Value)
	}
	if st := s.view(id).State.V.State; st != inventory.Draining {
		t.Errorf("it is %s", st)
	}
}

// A store that is away is no answer: a client that hears "there is no such reservation" would claim anew.
func TestAStoreThatIsAwayRefusesNothing(t *testing.T) {
	s := newSite(t)
	id := s.place(inventory.Reserved)
	for _, op := range []string{"get", "list", "commit"} {
		s.store.SetFault(func(c memstore.Call) error {
			if c.Op == op {
				return inventory.ErrUnavailable
			}
			return nil
		})
		_, confirm := s.led.Confirm(t.Context(), ledger.ConfirmRequest{Tenant: "acme", Reservation: "r-" + id, Image: "img"})
		_, release := s.led.Release(t.Context(), "acme", "r-"+id, "kim", "")
		for verb, err := range map[string]error{"confirm": confirm, "release": release} {
			if r := (*ledger.Refusal)(nil); !errors.Is(err, inventory.ErrUnavailable) || errors.As(err, &r) {
				t.Errorf("%s without %s: got %v", verb, op, err)
			}
		}
	}
	s.store.SetFault(nil)
	s.whole()
}
