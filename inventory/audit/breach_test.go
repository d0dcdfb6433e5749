package audit_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/audit"
	"github.com/hostler-project/hostler/inventory/ledger"
)

type (
	state   = inventory.NodeState
	history = inventory.History
)

func reservation(id string) string { return inventory.KeyReservation("acme", "r-"+id) }

// other is a second reservation, and its claim, of a node.
func other(s *site, id, phase string) []inventory.Op {
	return []inventory.Op{
		encode(s, inventory.KeyReservation("bolt", "r2"), inventory.Reservation{Schema: 1, ID: "r2", Tenant: "bolt", Phase: phase, Node: id, Instance: "i-2"}),
		encode(s, inventory.KeyClaim(id), inventory.Claim{Schema: 1, Node: id, Tenant: "bolt", Reservation: "r2", Instance: "i-2", Generation: s.view(id).State.V.Generation}),
	}
}

func health(s *site, id string, classes ...string) inventory.Op {
	return encode(s, inventory.KeyHealth(id, "bmc"), inventory.HealthReport{Schema: 1, Source: "bmc", Alerts: []inventory.Alert{{ID: "fan", What: "fan 3 stands", Classes: classes}}})
}

func avail(s *site, id string, f func(*inventory.Avail)) inventory.Op {
	v := s.view(id)
	a := inventory.Avail{Schema: 1, SKU: v.Spec.V.SKU, Wipe: v.State.V.Wipe, Since: s.now}
	if f != nil {
		f(&a)
	}
	return encode(s, inventory.KeyAvail(id), a)
}

// onSale walks a node to ready, alive and offered.
func onSale(s *site, id string) {
	s.walk(id, inventory.Ready)
	s.note(id, ledger.Change{Edit: func(st *state) { st.Alive = inventory.Alive }})
	s.offer(id)
}

// A breach is one way to break an invariant, and the honest neighbour that does not. Each begins with a node in a state;
// the last transaction of broken is the one that breaks it.
type breach struct {
	invariant, name string
	from            inventory.State
	broken, honest  func(*site, string)
	site            bool   // not one node's
	node            string // another node's than the one that was walked
	after           bool   // something else breaks before
}

func TestBreaches(t *testing.T) {
	for _, b := range slices.Concat(tenancies, records) {
		t.Run(b.invariant+" "+b.name, func(t *testing.T) {
			s := newSite(t)
			id := s.node()
			s.walk(id, b.from)
			b.honest(s, id)
			if broken, _ := s.broken(false); broken != nil {
				t.Fatalf("the honest neighbour: %v", broken)
			}
			s = newSite(t)
			id = s.node()
			s.walk(id, b.from)
			b.broken(s, id)
			broken, _ := s.broken(b.after)
			if broken == nil {
				t.Fatal("nothing was noticed")
			}
			if b.site || b.node != "" {
				id = b.node
			}
			if broken.Invariant != b.invariant || broken.Rev != s.store.Rev() || broken.Node != id {
				t.Errorf("at revision %d of node %q: %v", s.store.Rev(), id, broken)
			}
			if d := cmp.Diff(s.transitions(id, broken.Rev), broken.Before); d != "" {
				t.Errorf("transitions before (-want +got):\n%s", d)
			}
			if !strings.HasPrefix(broken.Error(), "audit: "+b.invariant+" is broken at revision ") || strings.Count(broken.Error(), "\n") != len(broken.Before) {
				t.Errorf("in words: %v", broken)
			}
		})
	}
}

// transitions are a node's before a revision.
func (s *site) transitions(id string, before int64) []audit.Step {
	var out []audit.Step
	all, err := s.store.List(s.t.Context(), inventory.PrefixHistory+id+"/", inventory.ListOptions{})
	s.must(err)
	for _, kv := range all.KVs {
		if h := get[history](s, kv.Key); id != "" && h.Kind == "transition" && kv.Create < before {
			out = append(out, audit.Step{Rev: kv.Create, Seq: h.Seq, Time: h.Time, From: h.From, To: h.To, Event: h.Event, Generation: h.Generation, Wipe: h.Wipe, Reason: h.Reason})
		}
	}
	return out
}

// A row without a case could be wrong for ever.
func TestEveryInvariantHasABreach(t *testing.T) {
	seen, breaches := map[string]bool{}, slices.Concat(tenancies, records)
	for _, i := range audit.Invariants {
		if seen[i.ID] || i.Words == "" {
			t.Errorf("%s: twice, or without words", i.ID)
		}
		seen[i.ID] = true
		has := slices.ContainsFunc(breaches, func(b breach) bool { return b.invariant == i.ID })
		if has == (i.Pending != "") {
			t.Errorf("%s: pending %q, and a case that breaks it: %v", i.ID, i.Pending, has)
		}
	}
	for _, b := range breaches {
		if !seen[b.invariant] {
			t.Errorf("%s: no such invariant", b.invariant)
		}
	}
}
