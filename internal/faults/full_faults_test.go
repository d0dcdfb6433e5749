//go:build faults

package faults

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/api"
	"github.com/hostler-project/hostler/inventory/client"
)

// etcd's quota runs full (F-08): writes are refused with the reason, deadlines stand still, and one command gives the
// site its writes back.
func TestFull(t *testing.T) {
	site := open(t, Options{Daemons: 1, Quick: 16, Quota: 16 << 20, Steady: true})
	s := &storm{t, site, site.Clients(t.Context(), 8, Quick, false)}
	must(t, s.c.Acked(t.Context(), 30*time.Second))
	acme := &client.Client{URL: site.Daemons[0].API, Token: site.Rental[0]}
	held, err := acme.Claim(t.Context(), api.ClaimRequest{Reservation: "held", SKU: Quick, Hold: inventory.Duration(time.Hour)})
	for n := 0; err != nil && n < 50; n++ { // until a node is free
		time.Sleep(100 * time.Millisecond)
		held, err = acme.Claim(t.Context(), api.ClaimRequest{Reservation: "held", SKU: Quick, Hold: inventory.Duration(time.Hour)})
	}
	must(t, err)

	// The same key again and again: it is history that fills the quota.
	before, fills := s.c.Count(), 0
	for ; ; fills++ {
		_, err := site.Store.Commit(t.Context(), inventory.Txn{Then: []inventory.Op{{Key: "/filler", Value: make([]byte, 200<<10)}}})
		if errors.Is(err, inventory.ErrNoSpace) {
			break
		}
		if must(t, err); fills > 500 {
			t.Fatal("etcd does not become full")
		}
	}
	full := time.Now()
	shown := time.Duration(0)
	for shown == 0 && time.Since(full) < 15*time.Second {
		if m, err := site.Daemons[0].Metrics(t.Context()); err == nil && m["hostler_store_writable"] == 0 {
			shown = time.Since(full)
		}
		time.Sleep(100 * time.Millisecond)
	}
	if shown == 0 || shown > 10*time.Second {
		t.Errorf("degraded mode shows after %v, want within 10 s (P7)", shown)
	}
	left := deadline(t, acme)
	acked := s.c.acked()
	var why *client.Error
	for time.Since(full) < 15*time.Second {
		_, err := acme.Claim(t.Context(), api.ClaimRequest{Reservation: "refused", SKU: Quick})
		if errors.As(err, &why); err == nil || why.Status != http.StatusServiceUnavailable && why.Status != http.StatusConflict {
			t.Errorf("a claim while the store is full: %v", err)
		}
		time.Sleep(500 * time.Millisecond)
	}
	if why == nil || !strings.Contains(why.Detail+why.Fix, "recover") && !strings.Contains(why.Detail, "full") && why.Status == http.StatusServiceUnavailable {
		t.Errorf("the refusal does not say why: %+v", why)
	}
	if n := s.c.acked() - acked; n > 0 {
		t.Errorf("%d writes were acknowledged while the store was full", n)
	}
	if spent := left - deadline(t, acme); spent > 2*time.Second {
		t.Errorf("the deadline of a reserved node lost %v while nothing could be written", spent)
	}
	out, err := site.Daemons[0].Run(t.Context(), "store", "recover", "--yes")
	if err != nil {
		t.Errorf("hostlerd store recover: %v\n%s", err, out)
	}
	must(t, s.c.Acked(t.Context(), 10*time.Second))
	gap := s.c.Gap(full)
	_, err = acme.ReleaseClaim(t.Context(), held.Reservation.ID, "")
	must(t, err)
	table.Add(Row{"NOSPACE, quota of 16 MiB (F-08)", 1, s.c.Count() - before, gap, "shown after " + shown.Round(10*time.Millisecond).String() + ", hostlerd store recover gave the writes back"})
	verdict(t, site, s.c.End())
}

// deadline is how much is left of the deadline of the reservation that the test holds.
func deadline(t *testing.T, c *client.Client) time.Duration {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		st, err := c.ShowClaim(context.WithoutCancel(t.Context()), "held")
		if err == nil && st.Live != nil && st.Live.Left != nil {
			return time.Duration(*st.Live.Left)
		}
	}
	t.Fatal("the API does not say how much of the deadline is left")
	return 0
}
