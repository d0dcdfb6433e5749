package provisioner

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/ledger"
	"github.com/hostler-project/hostler/inventory/lifecycle"
)

// One identity, one node (reliability I7, F-24). Who registers an identity is settled by the ledger; here is what a
// machine says of itself when it is inspected. If another node is that machine already, one of the two records is wrong,
// and nobody knows which: the one that is inspected goes to quarantine, and the other gets an alert that takes it there
// too, unless a tenant has it. Whoever of the two a person returns is inspected again; the one that stays in quarantine
// does not stand in its way.

// identityAlert is the alert's id, and the source of the health record that holds it.
const identityAlert = "identity"

// maxTwins is how many nodes one report can put under suspicion. A machine that says it is many others lies or is
// broken, and must not empty the fleet.
const maxTwins = 2

// identities are what tells machines apart, as key of the registration. Cards count only where one boots from them: the
// cards that controllers show to their hosts have the same address on every board of some makers.
func identities(hw inventory.Hardware) []string {
	var out []string
	for kind, v := range map[string]string{"serial": hw.Serial, "uuid": hw.UUID} {
		if v != "" && !ledger.Worthless(kind, v) {
			out = append(out, inventory.KeyID(kind, v))
		}
	}
	slices.Sort(out)
	return out
}

// A census knows which nodes were found to have an identity when they were inspected, whatever is registered.
type census struct {
	of  map[string][]string // node → its identities
	who map[string][]string // identity → its nodes
}

// take counts the nodes of a copy.
func take(c *inventory.Copy) *census {
	s := &census{of: map[string][]string{}, who: map[string][]string{}}
	for _, id := range c.Nodes() {
		s.set(id, c.One(inventory.KeyFacts(id)))
	}
	return s
}

// changed counts again what a batch is about.
func (s *census) changed(b inventory.Batch) {
	for _, e := range b.Events {
		if p := inventory.Parts(e.KV.Key); len(p) == 3 && p[0] == "nodes" && p[2] == "facts" {
			s.set(p[1], e.KV)
		}
	}
}

func (s *census) set(node string, kv inventory.KV) {
	for _, key := range s.of[node] {
		if s.who[key] = slices.DeleteFunc(s.who[key], func(n string) bool { return n == node }); len(s.who[key]) == 0 {
			delete(s.who, key)
		}
	}
	delete(s.of, node)
	f, err := inventory.Decode[inventory.Facts](kv)
	if err != nil || !f.Exists() {
		return // unreadable facts make their node read-only: it is nobody's twin
	}
	s.of[node] = identities(f.V.Hardware)
	for _, key := range s.of[node] {
		s.who[key] = append(s.who[key], node)
	}
}

// A twin is another node that is the same machine, and by what.
type twin struct{ node, by string }

// twins finds the other nodes that are the machine with this hardware.
func twins(in Input, hw inventory.Hardware) []twin {
	var out []twin
	add := func(node, kind, value string, resting bool) {
		if node == "" || node == in.View.ID || slices.ContainsFunc(out, func(t twin) bool { return t.node == node }) {
			return
		}
		if resting && in.Other != nil { // a record that was set aside claims only what is registered for it
			switch in.Other(node).State.V.State {
			case inventory.Quarantined, inventory.Retired, inventory.Discovered:
				return
			}
		}
		out = append(out, twin{node, kind + " " + value})
	}
	for _, i := range [][2]string{{"serial", hw.Serial}, {"uuid", hw.UUID}} {
		if i[1] == "" || ledger.Worthless(i[0], i[1]) {
			continue
		}
		add(in.Holder(i[0], i[1]), i[0], i[1], false)
		if in.Found != nil {
			for _, node := range in.Found(i[0], i[1]) {
				add(node, i[0], i[1], true)
			}
		}
	}
	for _, n := range hw.NICs {
		if mac := strings.ToLower(n.MAC); mac != "" {
			add(in.Holder("mac", mac), "mac", mac, true)
		}
	}
	return out
}

// suspect is the alert that a twin still lacks, or nil. It is raised before the inspected node moves, so that a daemon
// that dies in between finds the same to do.
func suspect(in Input, all []twin) *Raise {
	if in.Other == nil || len(all) > maxTwins {
		return nil
	}
	for _, t := range all {
		v := in.Other(t.node)
		st := v.State.V.State
		if st == inventory.Quarantined || st == inventory.Retired || slices.ContainsFunc(v.Alerts(""), func(a inventory.Alert) bool { return a.ID == identityAlert }) {
			continue
		}
		a := inventory.Alert{ID: identityAlert, Classes: []string{inventory.PreventAllocation},
			What: fmt.Sprintf("%s was found in node %s too: two records are one machine, or two machines tell the same", inventory.Plain(t.by, 100), in.View.Name()),
			Next: "look at the label of both machines; then hostler node return the one whose record is right"}
		if _, err := lifecycle.Find(st, lifecycle.Quarantine); err == nil {
			a.Classes = append(a.Classes, inventory.PreventTransition)
		}
		return &Raise{Node: t.node, Alert: a}
	}
	return nil
}

// A Raise is an alert that a decision puts on another node.
type Raise struct {
	Node  string
	Alert inventory.Alert
}

// raise decides to put an alert on another node, and to decide again once it shows.
func raise(r *Raise) Decision {
	return Decision{Raise: r, Say: words("%s: an alert goes to node %s", r.Alert.What, r.Node), Again: 200 * time.Millisecond}
}

// absolve takes the suspicion off a node that a person returns: it is inspected again, and compared anew.
func absolve(in Input, d Decision, by string) Decision {
	for _, h := range in.View.Health {
		if h.KV.Key != inventory.KeyHealth(in.View.ID, identityAlert) || len(h.V.Alerts) == 0 {
			continue
		}
		next := h.V
		next.Alerts, next.Note, next.Observed = []inventory.Alert{}, inventory.Plain("returned by "+by, 100), in.Now
		if op, err := h.Put(next); err == nil { // it was a record of ours a moment ago
			d.Change.If, d.Change.Then = append(d.Change.If, h.Unchanged()), append(d.Change.Then, op)
		}
	}
	return d
}
