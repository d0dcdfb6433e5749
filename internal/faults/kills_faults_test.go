//go:build faults

package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/ledger"
	"github.com/hostler-project/hostler/inventory/lifecycle"
)

// What 5,000 records and 20 kills must come to (issue 3).
const (
	records     = 5000
	kills       = 20
	servesIn    = 3 * time.Second
	reconcileIn = 30 * time.Second
)

// kinds are what the seeded nodes are at, n of each: all that the daemon has to do to them needs no machine.
var kinds = []struct {
	name string
	n    int
	make func(ctx context.Context, s *Seed, id string) error
}{
	{"reserved, and the reservation has expired", 300, func(ctx context.Context, s *Seed, id string) error {
		if err := s.offered(ctx, id); err != nil {
			return err
		}
		s.now = time.Now().Add(-time.Hour)
		_, err := s.led.Claim(ctx, ledger.ClaimRequest{Tenant: "acme", Reservation: "r-" + id, SKU: Quick, Hold: time.Minute, Actor: "run"})
		return err
	}},
	{"to be quarantined", 300, func(ctx context.Context, s *Seed, id string) error {
		w := newID()
		return s.put(ctx, inventory.KeyWish(id, w), inventory.Wish{Schema: inventory.Schema, ID: w, Node: id, Verb: inventory.WishQuarantine, Actor: "run", Reason: "seeded",
			Generation: s.view(ctx, id).State.V.Generation, Created: time.Now(), Expires: time.Now().Add(time.Hour)})
	}},
	{"given back by its tenant, without a controller to switch it off", 100, func(ctx context.Context, s *Seed, id string) error {
		if err := s.offered(ctx, id); err != nil {
			return err
		}
		if _, err := s.led.Claim(ctx, ledger.ClaimRequest{Tenant: "acme", Reservation: "r-" + id, SKU: Quick, Actor: "run"}); err != nil {
			return err
		}
		if _, err := s.led.Confirm(ctx, ledger.ConfirmRequest{Tenant: "acme", Reservation: "r-" + id, Image: imageDigest, ImageName: Image, Sealed: []byte("x"), Actor: "run"}); err != nil {
			return err
		}
		v := s.view(ctx, id)
		session := v.Session.V
		session.Phase, session.Cert = inventory.SessionClosed, nil
		if _, err := s.led.Move(ctx, v, lifecycle.Done, ledger.Change{Actor: "run", Reason: "seeded", Session: &session}); err != nil {
			return err
		}
		_, err := s.led.Release(ctx, "acme", "r-"+id, "run", "")
		return err
	}},
	{"at rest", records - 700, func(ctx context.Context, s *Seed, id string) error { return s.offered(ctx, id) }},
}

// thousands makes the records.
func thousands(ctx context.Context, s *Seed) error {
	for _, k := range kinds {
		for range k.n {
			if err := s.begin(ctx); err != nil {
				return err
			}
			session := inventory.Session{Schema: inventory.Schema, ID: "s-" + newID(), Purpose: string(inventory.Inspecting), Nonce: newID(), Phase: inventory.SessionRedeemed, Boots: 1,
				Created: time.Now(), Expires: time.Now().Add(time.Hour), KeyHash: "seeded", TokenHash: "seeded", BootID: "seeded", Redeemed: time.Now()}
			id, err := s.ready(ctx, s.spec(Quick, "", ""), session)
			if err == nil {
				err = k.make(ctx, s, id)
			}
			if err == nil {
				err = s.end(ctx)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", k.name, err)
			}
		}
	}
	return nil
}

// The daemon is killed again and again in the middle of its work on thousands of records. It serves and reconciles soon
// after each start, and the end is that of a daemon that nobody killed.
func TestKills(t *testing.T) {
	options := Options{Daemons: 1, More: thousands, Config: map[string]any{"patience": map[string]any{"silence": "24h", "lost": "48h"}}}
	began := time.Now()
	want := ends(t, options, func(s *Site, d *Daemon) {})
	alone := time.Since(began)
	var serves, reconciles []time.Duration
	began = time.Now()
	got := ends(t, options, func(s *Site, d *Daemon) {
		for range kills {
			time.Sleep(rand.N(1500 * time.Millisecond))
			d.Kill()
			must(t, d.Start())
			took, err := d.Serving(t.Context(), s.Admin, 30*time.Second)
			must(t, err)
			serves = append(serves, took)
			took, err = s.decided(t.Context(), d, time.Minute)
			must(t, err)
			reconciles = append(reconciles, took)
		}
	})
	var other []string
	for name, state := range want {
		if got[name] != state {
			other = append(other, fmt.Sprintf("%s: %s, undisturbed: %s", name, got[name], state))
		}
	}
	result := fmt.Sprintf("serves after %s (limit %v), every node decided after %s (limit %v), %d of %d end states other", spread(serves), servesIn, spread(reconciles), reconcileIn, len(other), len(want))
	table.Add(Row{fmt.Sprintf("hostlerd SIGKILL over %d records", len(want)), len(serves), 0, 0, result})
	t.Logf("undisturbed run %v, run with kills %v", alone, time.Since(began))
	slices.Sort(other)
	for i, o := range other {
		if i < 5 {
			t.Error(o)
		}
	}
	if len(want) != records || len(got) != records {
		t.Errorf("%d and %d nodes, want %d", len(want), len(got), records)
	}
	if slices.Max(serves) > servesIn || slices.Max(reconciles) > reconcileIn {
		t.Error(result)
	}
}

// ends runs a site, does something to its daemon, waits until nothing moves any more, and gives every node's end state.
func ends(t *testing.T, o Options, do func(*Site, *Daemon)) map[string]string {
	t.Helper()
	s := open(t, o)
	do(s, s.Daemons[0])
	_, err := s.decided(t.Context(), s.Daemons[0], time.Minute)
	must(t, err)
	for end, quiet := time.Now().Add(2*time.Minute), 0; quiet < 4; time.Sleep(500 * time.Millisecond) {
		rev := s.Recorder.Rev()
		if working := s.working(t); working > 0 {
			if quiet = 0; time.Now().After(end) {
				t.Fatalf("%d nodes are still being worked on", working)
			}
		} else if time.Sleep(100 * time.Millisecond); rev == s.Recorder.Rev() {
			quiet++
		}
	}
	if err := s.Recorder.Broken(); err != nil {
		t.Error(err)
	}
	out := map[string]string{}
	for _, v := range s.nodes(t) {
		st := v.State.V
		out[v.Name()] = fmt.Sprintf("%s generation %d wipe %d taint %q claim %v offered %v rentable %v", st.State, st.Generation, st.Wipe, st.Taint, v.Claim.Exists(), v.Avail.Exists(), v.Public.V.Rentable)
	}
	must(t, s.Close())
	return out
}

// working counts the nodes that something is still to be done to: wishes without an answer, and states that end.
func (s *Site) working(t *testing.T) int {
	t.Helper()
	n := 0
	for _, prefix := range []string{inventory.PrefixPublic, inventory.PrefixWishes} {
		snap, err := s.Store.List(t.Context(), prefix, inventory.ListOptions{})
		must(t, err)
		for _, kv := range snap.KVs {
			p, perr := inventory.Decode[inventory.Public](kv)
			w, werr := inventory.Decode[inventory.Wish](kv)
			must(t, perr)
			must(t, werr)
			if row, _ := lifecycle.Get(p.V.State); prefix == inventory.PrefixPublic && !row.Rest || prefix == inventory.PrefixWishes && (w.V.Answer == "" || w.V.Answer == inventory.Doing) {
				n++
			}
		}
	}
	return n
}

func events(s inventory.Snapshot) []inventory.Event {
	var out []inventory.Event
	for _, kv := range s.KVs {
		out = append(out, inventory.Event{KV: kv})
	}
	return out
}

// decided waits until the daemon has decided about every node once, and says how long after its start that was.
func (s *Site) decided(ctx context.Context, d *Daemon, limit time.Duration) (time.Duration, error) {
	var m map[string]float64
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		var err error
		if m, err = d.Metrics(ctx); err == nil && m["hostler_nodes_owned"] > 0 && m["hostler_nodes_owned"] == m["hostler_nodes_decided"] {
			return time.Since(d.Started), nil
		}
	}
	return 0, fmt.Errorf("faults: %s has decided about %v of %v nodes after %v", d.Name, m["hostler_nodes_decided"], m["hostler_nodes_owned"], limit)
}

// spread is the middle and the largest of some times.
func spread(all []time.Duration) string {
	all = slices.Sorted(slices.Values(all))
	return fmt.Sprintf("%.2f s (largest %.2f s)", all[len(all)/2].Seconds(), all[len(all)-1].Seconds())
}
