package ledger_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/ledger"
	"github.com/hostler-project/hostler/inventory/memstore"
)

// Whoever forbids renting takes the offer away in the same transaction; who only informs the tenant does not.
func TestRaiseAndClear(t *testing.T) {
	for _, c := range []struct {
		class  string
		offers bool
		health string
		detail string
	}{
		{inventory.PreventAllocation, false, "unhealthy", "ready and tainted"},
		{inventory.DrainWhenIdle, true, "unhealthy", "ready and tainted"},
		{inventory.TenantVisible, true, "healthy", ""},
	} {
		s := newSite(t)
		id := s.place(inventory.Ready)
		rev := s.store.Rev()
		alert := inventory.Alert{ID: "audit:I3", What: "ready and tainted", Classes: []string{c.class}}
		s.must(s.led.Raise(t.Context(), id, "audit", alert))
		v := s.view(id)
		if s.store.Rev() != rev+1 || v.Avail.Exists() != c.offers || v.Public.V.Rentable != c.offers || v.Public.V.Health != c.health || v.Public.V.Detail != c.detail {
			t.Errorf("%s: on offer %v, public %+v", c.class, v.Avail.Exists(), v.Public.V)
		}
		if h := v.Health[0].V; h.Source != "audit" || !h.Observed.Equal(s.now) || !h.Alerts[0].Since.Equal(s.now) {
			t.Errorf("%+v", h)
		}
		s.must(s.led.Raise(t.Context(), id, "audit", alert)) // it stands already
		s.untouched(rev + 1)
		s.must(s.led.Raise(t.Context(), id, "audit", inventory.Alert{ID: "audit:I4"}))
		if n := len(s.view(id).Alerts("")); n != 2 {
			t.Errorf("%d alerts stand", n)
		}
		s.must(s.led.Clear(t.Context(), id, "audit", "kim looked"))
		v = s.view(id)
		if len(v.Alerts("")) != 0 || v.Health[0].V.Note != "kim looked" || v.Public.V.Health != "healthy" || v.Public.V.Rentable != true {
			t.Errorf("cleared: %+v, public %+v", v.Health[0].V, v.Public.V)
		}
		rev = s.store.Rev()
		s.must(s.led.Clear(t.Context(), id, "audit", "again"))
		s.untouched(rev)
		s.whole()
	}
}

// An alert that is raised while the node is claimed or changed is raised on the node as it is then.
func TestRaiseReadsAgain(t *testing.T) {
	s := newSite(t)
	id := s.place(inventory.Ready)
	s.whole()
	once := false
	s.store.SetFault(func(c memstore.Call) error {
		if c.Op == "commit" && !once {
			once = true
			_, err := s.led.Claim(t.Context(), ledger.ClaimRequest{Tenant: "acme", Reservation: "r", Node: id})
			s.must(err)
		}
		return nil
	})
	s.must(s.led.Raise(t.Context(), id, "bmc", inventory.Alert{ID: "fan", What: "fan 3 stands", Classes: []string{inventory.PreventAllocation}}))
	if v := s.view(id); v.State.V.State != inventory.Reserved || v.Public.V.State != inventory.Reserved || v.Public.V.Tenant != "acme" || v.Public.V.Health != "unhealthy" {
		t.Errorf("public %+v", v.Public.V)
	}
	s.whole()
	if err := s.led.Raise(t.Context(), "n-nobody", "bmc", inventory.Alert{ID: "fan"}); err == nil || !strings.Contains(err.Error(), "no node") {
		t.Errorf("got %v", err)
	}
	s.do(inventory.Op{Key: inventory.KeyState(id), Value: []byte(`{"schema":2}`)})
	if err := s.led.Raise(t.Context(), id, "bmc", inventory.Alert{ID: "other"}); !errors.Is(err, inventory.ErrNewer) {
		t.Errorf("got %v", err)
	}
}
