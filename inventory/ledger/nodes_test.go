package ledger_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/ledger"
)

func TestAdd(t *testing.T) {
	s := newSite(t)
	rev := s.store.Rev()
	id, err := s.led.Add(t.Context(), inventory.Spec{Name: "a", MACs: []string{"52:54:00:00:00:0A"}, IP: "10.0.0.2"}, "kim", "imported")
	s.must(err)
	v := s.view(id)
	st := v.State.V
	if s.store.Rev() != rev+1 || st.State != inventory.Discovered || st.Seq != 1 || !st.BurnInDue || st.Reason != "imported" || v.Public.V.Rentable || v.Avail.Exists() {
		t.Errorf("got %+v, public %+v", st, v.Public.V)
	}
	r := &inventory.Read{Ctx: t.Context(), Store: s.store}
	for kind, value := range map[string]string{"name": "A", "mac": "52:54:00:00:00:0a", "ip": "10.0.0.2"} {
		if got := ledger.Holder(r, kind, value); got != id {
			t.Errorf("%s %s belongs to %q", kind, value, got)
		}
	}
	s.whole()
}

// One identity is one node: a collision names the holder, and nothing is written.
func TestIdentitiesCollide(t *testing.T) {
	full := inventory.Spec{Name: "a", Serial: "SER-1", UUID: "11111111-2222-3333-4444-555555555555", IP: "10.0.0.2", MACs: []string{"52:54:00:00:00:01", "52:54:00:00:00:02"}}
	for _, c := range []struct {
		name string
		spec inventory.Spec
		want string
	}{
		{"name", inventory.Spec{Name: "A"}, "name a"},
		{"serial in other case", inventory.Spec{Serial: "ser-1"}, "serial ser-1"},
		{"UUID", inventory.Spec{UUID: full.UUID}, "uuid 11111111-2222-3333-4444-555555555555"},
		{"second MAC", inventory.Spec{MACs: []string{"52:54:00:00:00:09", "52:54:00:00:00:02"}}, "mac 52:54:00:00:00:02"},
		{"address", inventory.Spec{IP: "10.0.0.2"}, "ip 10.0.0.2"},
		{"worthless UUID", inventory.Spec{UUID: "00000000-0000-0000-0000-000000000000"}, ""},
		{"worthless serial", inventory.Spec{Serial: "To Be Filled By O.E.M."}, ""},
		{"nothing in common", inventory.Spec{Name: "b", Serial: "SER-2"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			id, err := s.led.Add(t.Context(), full, "kim", "imported")
			s.must(err)
			other, err := s.led.Add(t.Context(), inventory.Spec{Name: "other", UUID: "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF", Serial: "Default string"}, "kim", "imported")
			s.must(err)
			rev := s.store.Rev()
			_, err = s.led.Add(t.Context(), c.spec, "kim", "imported")
			if c.want == "" {
				s.must(err)
			} else {
				refused(t, err, c.want+" already belongs to node "+id)
				s.untouched(rev)
			}
			rev = s.store.Rev()
			if c.want != "" {
				refused(t, s.led.Edit(t.Context(), s.view(other), c.spec), c.want+" already belongs to node "+id)
				s.untouched(rev)
			}
		})
	}
}

// What a spec no longer names is free for another node, in the same transaction.
func TestEditMovesIdentities(t *testing.T) {
	s := newSite(t)
	id, err := s.led.Add(t.Context(), inventory.Spec{Name: "a", Serial: "S1", MACs: []string{"52:54:00:00:00:01"}}, "kim", "imported")
	s.must(err)
	v := s.view(id)
	spec := v.Spec.V
	spec.Serial, spec.MACs = "s1", []string{"52:54:00:00:00:02"} // the same serial in other case is the same
	s.must(s.led.Edit(t.Context(), v, spec))
	if err := s.led.Edit(t.Context(), v, spec); err == nil {
		t.Error("edited twice from one view")
	}
	ids := ledger.Identities(s.view(id).Spec.V)
	l, err := s.store.List(t.Context(), inventory.PrefixIDs, inventory.ListOptions{})
	s.must(err)
	var keys []string
	for _, kv := range l.KVs {
		keys = append(keys, kv.Key)
	}
	if d := cmp.Diff(slices.Sorted(maps.Keys(ids)), keys); d != "" {
		t.Errorf("registered (-spec +store):\n%s", d)
	}
	_, err = s.led.Add(t.Context(), inventory.Spec{MACs: []string{"52:54:00:00:00:01"}}, "kim", "imported")
	s.must(err)
}

// A hold takes a node off the market in the transaction that writes it.
func TestHoldWithdraws(t *testing.T) {
	s := newSite(t)
	id := s.place(inventory.Ready)
	v := s.view(id)
	spec := v.Spec.V
	spec.Holds = []inventory.Hold{{Kind: "cordon", Actor: "kim", Reason: "dust"}}
	rev := s.store.Rev()
	s.must(s.led.Edit(t.Context(), v, spec))
	v = s.view(id)
	if s.store.Rev() != rev+1 || v.Avail.Exists() || v.Public.V.Rentable || !strings.Contains(strings.Join(v.Public.V.Reasons, " "), "dust") {
		t.Errorf("got %+v", v.Public.V)
	}
	_, err := s.led.Claim(t.Context(), ask("r1"))
	refused(t, err, "no node of SKU small is rentable now")
}
