package audit

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/ledger"
	"github.com/hostler-project/hostler/inventory/lifecycle"
)

// An Invariant is one row of what must hold at every revision. Pending says why a row cannot be checked yet.
type Invariant struct {
	ID      string `json:"id"`
	Words   string `json:"words"`
	Pending string `json:"pending,omitempty"`

	check func(*look) string // what is broken, in words; "" where it holds
}

// Invariants is the table. I1 to I12 are the rows of reliability.md; the rest is what design.md sections 5 and 6 add.
// What the intake of one record already shows (a key deleted, a value too large) is told there, under the same ids.
var Invariants = []Invariant{
	{ID: "I1", Words: "A node has at most one live claim, the claim and its reservation name each other, and a reservation id is one node's for ever.", check: checkClaim},
	{ID: "I2", Words: "A node that is ready or reserved has a signed certificate of its present wipe for every medium ever seen, and a passed test of that wipe.", check: checkProofs},
	{ID: "I3", Words: "A tainted node comes to ready only through sanitizing and a test in one generation, and is never ready while tainted.", check: checkWay},
	{ID: "I4", Words: "A boot session is live only for its node's present generation and never in a tenant's hands; one that is over keeps no certificate.", check: checkSession},
	{ID: "I5", Words: "Destructive orders stand only in states that may destroy, and belong to the present record.", check: checkOrders},
	{ID: "I6", Words: "A node in use or draining has no power, boot or erase phase.", check: checkOwned},
	{ID: "I7", Words: "An identity is one node's: what specs name is registered for them, and nothing else is.", check: checkIdentities},
	{ID: "I8", Words: "A node on sale is isolated, a node in use is on its tenant's network.", Pending: "the record does not hold yet what was observed of a node's network"},
	{ID: "I9", Words: "Every change has an earlier entry in the audit log, and the log's chain holds.", Pending: "there is no audit log yet"},
	{ID: "I10", Words: "No record disappears: spec, state, facts and health of a node are never deleted.", check: checkWhole},
	{ID: "I11", Words: "No more nodes boot or are erased at once than the site's limits say.", check: checkLimits},
	{ID: "I12", Words: "Generation, wipe and era never fall.", check: checkCounters},
	{ID: "I13", Words: "History has no gap; every move is an edge of the lifecycle table from where the node stood, its effects happened, and state and history are one transaction.", check: checkHistory},
	{ID: "I14", Words: "A node is offered only while it is ready, alive, untainted and unclaimed, without hold and blocking alert, as the wipe and SKU it was offered as.", check: checkOffer},
	{ID: "I15", Words: "The public record tells the state as it is, in 3 KiB; no record is larger than 64 KiB.", check: checkPublic},
}

// A look is one node at one revision that wrote something of it.
type look struct {
	c       *Checker
	n       *node
	was     *node // as it was before; nil where that is not known
	born    bool  // it did not exist before
	wrote   int
	entries []inventory.History
}

func (l *look) touched(what int) bool { return l.wrote&what != 0 || l.c.loading || l.was == nil }

// transition is the move that this revision made; nil when there was none.
func (l *look) transition() *inventory.History {
	for i := range l.entries {
		if l.entries[i].Kind == "transition" {
			return &l.entries[i]
		}
	}
	return nil
}

// tenure says which phases the reservation of a node's claim may have, in the states in which a node has a claim.
var tenure = []struct {
	state  inventory.State
	must   bool // without a claim nobody would be here
	phases []string
}{
	{inventory.Reserved, true, []string{inventory.Pending}},
	{inventory.Provisioning, true, []string{inventory.Committed}},
	{inventory.InUse, false, []string{inventory.Committed}}, // one that was adopted has none
	{inventory.Servicing, false, []string{inventory.Committed}},
	{inventory.Draining, false, []string{inventory.Committed, inventory.Released}},
	{inventory.Fencing, false, []string{inventory.Committed, inventory.Released}},
	{inventory.Quarantined, false, []string{inventory.Committed, inventory.Released}}, // its power is not off for certain yet
}

func checkClaim(l *look) string {
	n, claim := l.n, l.n.claim
	if !l.touched(wroteState | wroteClaim | wroteReservation) {
		return ""
	}
	if n.state == nil {
		if claim != nil || len(n.live) > 0 {
			return "a claim or reservation is for a node that does not exist"
		}
		return ""
	}
	if what := checkClaimChange(l); what != "" {
		return what
	}
	key := ""
	if claim != nil {
		key = inventory.KeyReservation(claim.Tenant, claim.Reservation)
	}
	for k := range n.live {
		if k != key {
			return fmt.Sprintf("%s is live and names it, but its claim is %s", k, cmp.Or(key, "nobody's"))
		}
	}
	i := slices.IndexFunc(tenure, func(r struct {
		state  inventory.State
		must   bool
		phases []string
	}) bool {
		return r.state == n.state.State
	})
	switch {
	case claim == nil && i >= 0 && tenure[i].must:
		return fmt.Sprintf("it is %s without a claim", n.state.State)
	case claim == nil:
		return ""
	case i < 0:
		return fmt.Sprintf("it is %s and has a live claim of %s", n.state.State, key)
	}
	r := l.c.reservations[key]
	now := n.state.State != inventory.Quarantined
	switch {
	case r.odd:
		return ""
	case claim.Node != n.id:
		return "its claim names node " + claim.Node
	case r.node == "" || r.gone:
		return "its claim names " + key + ", which does not exist"
	case r.node != n.id || r.instance != claim.Instance:
		return fmt.Sprintf("its claim names %s as instance %s, which is for node %s as instance %s", key, claim.Instance, r.node, r.instance)
	case !slices.Contains(tenure[i].phases, r.phase):
		return fmt.Sprintf("it is %s, and %s of its live claim is %s", n.state.State, key, r.phase)
	case claim.Generation > n.state.Generation || now && claim.Generation != n.state.Generation:
		return fmt.Sprintf("its claim is of generation %d, the node is at %d", claim.Generation, n.state.Generation)
	}
	return ""
}

// checkClaimChange says whether a claim came and went as it may.
func checkClaimChange(l *look) string {
	if l.was == nil {
		return ""
	}
	was, now, h := l.was.claim, l.n.claim, l.transition()
	switch {
	case was == nil && now != nil:
		if h == nil || h.Event != string(lifecycle.Claim) && h.Event != string(lifecycle.Adopt) {
			return "a claim came without the move that makes one"
		}
	case was != nil && now == nil:
		edge := lifecycle.Edge{}
		if h != nil {
			edge, _ = lifecycle.Find(h.From, lifecycle.Event(h.Event))
		}
		if !edge.EndClaim && l.n.state.State != inventory.Quarantined {
			return fmt.Sprintf("its claim is gone, and it is %s", l.n.state.State)
		}
		if l.c.sealed[was.Instance] {
			return "its claim is gone, the tenant's sealed seed of instance " + was.Instance + " is not"
		}
	case was != nil && (was.Tenant != now.Tenant || was.Reservation != now.Reservation || was.Instance != now.Instance ||
		was.Generation != now.Generation && (h == nil || h.Event != string(lifecycle.Restored))):
		return fmt.Sprintf("its claim of %s/%s became one of %s/%s", was.Tenant, was.Reservation, now.Tenant, now.Reservation)
	}
	return ""
}

func checkProofs(l *look) string {
	n := l.n
	if n.state == nil || n.state.State != inventory.Ready && n.state.State != inventory.Reserved {
		return ""
	}
	if !l.touched(wroteFacts|wroteCert|wroteTest) && l.was.state.State == n.state.State && l.was.state.Wipe == n.state.Wipe {
		return ""
	}
	wipe := n.state.Wipe
	cert, there := n.certs[wipe]
	switch {
	case !there:
		return fmt.Sprintf("it is %s without a certificate of wipe %d", n.state.State, wipe)
	case cert.odd:
		return ""
	case cert.err != nil:
		return cert.err.Error()
	case cert.body.Node != n.id || cert.body.Wipe != wipe:
		return fmt.Sprintf("the certificate under wipe %d is for node %s wipe %d", wipe, cert.body.Node, cert.body.Wipe)
	case n.facts == nil || len(n.facts.Hardware.Media) == 0:
		return fmt.Sprintf("it is %s, and no medium of it was ever recorded", n.state.State)
	}
	for _, media := range [][]inventory.Medium{n.facts.MediaEver, n.facts.Hardware.Media} {
		if m, missing := ledger.Uncovered(cert.body, media); missing {
			return fmt.Sprintf("it is %s, and its certificate of wipe %d does not prove %s erased", n.state.State, wipe, m)
		}
	}
	if len(n.tests) == 0 {
		return fmt.Sprintf("it is %s without a test", n.state.State)
	}
	switch t := n.tests[len(n.tests)-1]; {
	case t.odd:
	case t.verdict != inventory.Pass:
		return fmt.Sprintf("it is %s, and its newest test says %q", n.state.State, t.verdict)
	case t.wipe != wipe:
		return fmt.Sprintf("it is %s at wipe %d, and its newest test is of wipe %d", n.state.State, wipe, t.wipe)
	}
	return ""
}

func checkWay(l *look) string {
	n := l.n
	if n.state == nil {
		return ""
	}
	sale := n.state.State == inventory.Ready || n.state.State == inventory.Reserved
	switch h := l.transition(); {
	case sale && n.state.Taint != "":
		return fmt.Sprintf("it is %s and tainted", n.state.State)
	case sale && n.proof.unproven:
		return fmt.Sprintf("it was tainted, and is %s without having been sanitized and tested in one generation", n.state.State)
	case h == nil || h.To != inventory.Ready || h.From == inventory.Reserved || len(n.tests) == 0:
	case !n.tests[len(n.tests)-1].odd && n.tests[len(n.tests)-1].generation != n.state.Generation:
		return fmt.Sprintf("it became ready in generation %d by a test of generation %d", n.state.Generation, n.tests[len(n.tests)-1].generation)
	}
	return ""
}

func checkSession(l *look) string {
	n, s := l.n, l.n.session
	if s == nil || n.state == nil || !l.touched(wroteSession|wroteState) {
		return ""
	}
	live := s.Phase == inventory.SessionArmed || s.Phase == inventory.SessionRedeemed
	switch {
	case s.Node != n.id:
		return "its boot session names node " + s.Node
	case live && s.Generation != n.state.Generation:
		return fmt.Sprintf("boot session %s of generation %d is %s, the node is at generation %d", s.ID, s.Generation, s.Phase, n.state.Generation)
	case live && (n.state.State == inventory.InUse || n.state.State == inventory.Draining):
		return fmt.Sprintf("boot session %s is %s, and the node is %s", s.ID, s.Phase, n.state.State)
	case !live && len(s.Cert) > 0:
		return fmt.Sprintf("boot session %s is %s and still has its certificate", s.ID, s.Phase)
	}
	return ""
}

// phases says which phases of work destroy or belong to an agent's order, and in which states a tenant's machine has them.
var phases = []struct {
	name    string
	order   string // what the order's id begins with; "" where there is no order
	destroy bool
	owned   bool // may stand while the machine is its tenant's
}{
	{name: "", owned: true},
	{name: "attach", owned: true},
	{name: "running", owned: true},
	{name: inventory.OrderInspect, order: inventory.OrderInspect},
	{name: inventory.OrderSanitize, order: inventory.OrderSanitize, destroy: true},
	{name: inventory.OrderTest, order: inventory.OrderTest, destroy: true},
	{name: inventory.OrderWrite, order: inventory.OrderWrite, destroy: true},
	{name: inventory.OrderHandoff, order: inventory.OrderHandoff, destroy: true},
	{name: "enter", order: inventory.OrderHandoff, destroy: true},
}

func checkOrders(l *look) string {
	n := l.n
	if n.state == nil || l.wrote&wroteState == 0 && !l.c.loading {
		return ""
	}
	w, st := n.state.Work, n.state
	row, _ := lifecycle.Get(st.State)
	for _, p := range phases {
		if p.name != w.Phase {
			continue
		}
		if p.destroy && !row.Destroys {
			return fmt.Sprintf("it is %s with a %s order, which may destroy", st.State, w.Phase)
		}
		if p.order == "" {
			break
		}
		number, ok := strings.CutPrefix(w.Order, p.order+".")
		seq, err := strconv.ParseInt(number, 10, 64)
		if !ok || err != nil || seq > st.Seq || seq <= n.moved {
			return fmt.Sprintf("its order %q is none of its present stay in %s, which began with history %d and is at %d", w.Order, st.State, n.moved, st.Seq)
		}
	}
	return ""
}

func checkOwned(l *look) string {
	n := l.n
	if n.state == nil || l.wrote&wroteState == 0 && !l.c.loading || n.state.State != inventory.InUse && n.state.State != inventory.Draining {
		return ""
	}
	for _, p := range phases {
		if p.owned && p.name == n.state.Work.Phase {
			return ""
		}
	}
	return fmt.Sprintf("it is %s and in phase %q", n.state.State, n.state.Work.Phase)
}

func checkIdentities(l *look) string {
	if !l.touched(wroteSpec | wroteID) {
		return ""
	}
	n := l.n
	if n.spec == nil {
		for k := range n.held {
			return k + " is registered for it, and it does not exist"
		}
		return ""
	}
	names := ledger.Identities(*n.spec)
	for k := range names {
		if h := l.c.ids[k]; h != n.id {
			return fmt.Sprintf("its spec names %s, which is %s's", k, cmp.Or(h, "nobody"))
		}
	}
	for k := range n.held {
		if _, ok := names[k]; !ok {
			return k + " is registered for it, and its spec does not name it"
		}
	}
	return ""
}

func checkWhole(l *look) string {
	n := l.n
	if n.state == nil && (n.public != nil || n.avail != nil || n.session != nil || n.spec != nil) && (l.was == nil || l.was.state == nil) {
		return "it has records, and no state"
	}
	return ""
}

// checkLimits looks at the moment at which a node enters an activity: limits that were lowered send nobody out.
func checkLimits(l *look) string {
	if l.was == nil || l.n.state == nil {
		return ""
	}
	if now := inventory.Activity(*l.n.state); now == "" || now == inventory.Activity(*l.was.state) {
		return ""
	}
	return l.c.usage.Over(l.c.limits, l.n.id)
}

func checkCounters(l *look) string {
	if l.was == nil || l.n.state == nil {
		return ""
	}
	was, now := l.was.state, l.n.state
	switch {
	case now.Generation < was.Generation:
		return fmt.Sprintf("its generation fell from %d to %d", was.Generation, now.Generation)
	case now.Wipe < was.Wipe:
		return fmt.Sprintf("its wipe number fell from %d to %d", was.Wipe, now.Wipe)
	}
	return ""
}

func checkHistory(l *look) string {
	n := l.n
	if n.state == nil || l.c.loading {
		return ""
	}
	if l.wrote&wroteState == 0 {
		if len(l.entries) > 0 {
			return fmt.Sprintf("history %d was written without the state", l.entries[0].Seq)
		}
		return ""
	}
	st := n.state
	if len(l.entries) != 1 || l.entries[0].Seq != st.Seq {
		return fmt.Sprintf("its state names history %d as the newest, and not exactly that was written with it", st.Seq)
	}
	h := l.entries[0]
	if h.Generation != st.Generation || h.Wipe != st.Wipe {
		return fmt.Sprintf("history %d says generation %d, wipe %d, the state says %d, %d", h.Seq, h.Generation, h.Wipe, st.Generation, st.Wipe)
	}
	if l.was == nil && !l.born {
		return ""
	}
	was := inventory.NodeState{}
	if l.was != nil {
		was = *l.was.state
	}
	if h.Kind != "transition" {
		if was.State != st.State || was.Generation != st.Generation || was.Wipe != st.Wipe || was.Taint != st.Taint {
			return fmt.Sprintf("history %d is no transition, and the node went from %s (generation %d, wipe %d, taint %q) to %s (%d, %d, %q)",
				h.Seq, was.State, was.Generation, was.Wipe, was.Taint, st.State, st.Generation, st.Wipe, st.Taint)
		}
		return ""
	}
	if h.From != was.State || h.To != st.State {
		return fmt.Sprintf("history %d says %q → %s, the node went from %q to %s", h.Seq, h.From, h.To, was.State, st.State)
	}
	if what := isEdge(h); what != "" {
		return what
	}
	e, _ := lifecycle.Find(h.From, lifecycle.Event(h.Event))
	return checkEffects(l, e, was)
}

// checkEffects says which effect of an edge did not happen, or happened without being one.
func checkEffects(l *look, e lifecycle.Edge, was inventory.NodeState) string {
	st := l.n.state
	taint := was.Taint
	if e.Taint {
		taint = inventory.Taint
	}
	if e.Clean {
		taint = ""
	}
	switch {
	case e.Generation && st.Generation <= was.Generation, !e.Generation && st.Generation != was.Generation:
		return fmt.Sprintf("%s on %s: generation went from %d to %d", e.From, e.On, was.Generation, st.Generation)
	case e.Wipe && st.Wipe <= was.Wipe, !e.Wipe && st.Wipe != was.Wipe:
		return fmt.Sprintf("%s on %s: wipe went from %d to %d", e.From, e.On, was.Wipe, st.Wipe)
	case st.Taint != taint:
		return fmt.Sprintf("%s on %s: taint went from %q to %q", e.From, e.On, was.Taint, st.Taint)
	case e.EndClaim && l.n.claim != nil:
		return fmt.Sprintf("%s on %s: its claim is still there", e.From, e.On)
	case l.wrote&wrotePublic == 0:
		return fmt.Sprintf("%s on %s: the public record was not written with it", e.From, e.On)
	}
	return ""
}

func checkOffer(l *look) string {
	n, a := l.n, l.n.avail
	if a == nil || n.state == nil || !l.touched(wroteAvail|wroteState|wroteSpec|wroteClaim|wroteHealth) {
		return ""
	}
	switch st := n.state; {
	case st.State != inventory.Ready:
		return fmt.Sprintf("it is offered, and %s", st.State)
	case st.Taint != "":
		return "it is offered, and tainted"
	case st.Alive != inventory.Alive:
		return "it is offered, and its agent is " + cmp.Or(st.Alive, inventory.Unknown)
	case a.Wipe != st.Wipe:
		return fmt.Sprintf("it is offered as of wipe %d, and is at %d", a.Wipe, st.Wipe)
	case n.claim != nil:
		return "it is offered, and claimed"
	case n.spec == nil || a.SKU != n.spec.SKU:
		return fmt.Sprintf("it is offered as SKU %q, which its spec does not say", a.SKU)
	}
	for _, h := range n.spec.Holds {
		if h.Until.IsZero() || a.Since.Before(h.Until) {
			return fmt.Sprintf("it is offered, and has a %s hold of %s", h.Kind, h.Actor)
		}
	}
	for source, id := range n.alerts {
		return fmt.Sprintf("it is offered, and alert %s of %s forbids it", id, source)
	}
	return ""
}

func (n *node) certified() bool {
	_, there := n.certs[n.state.Wipe]
	return there
}

func checkPublic(l *look) string {
	n, p := l.n, l.n.public
	if n.state == nil || !l.touched(wrotePublic|wroteState|wroteAvail|wroteClaim) {
		return ""
	}
	st := n.state
	switch {
	case p == nil:
		return "it has no public record"
	case p.ID != n.id:
		return "its public record names node " + p.ID
	case p.State != st.State || p.Generation != st.Generation || p.Wipe != st.Wipe:
		return fmt.Sprintf("it is %s (generation %d, wipe %d), its public record says %s (%d, %d)", st.State, st.Generation, st.Wipe, p.State, p.Generation, p.Wipe)
	case (p.Tenant != "") != (n.claim != nil):
		return fmt.Sprintf("its public record names tenant %q, and a claim is there: %v", p.Tenant, n.claim != nil)
	case p.Rentable && st.State != inventory.Ready:
		return fmt.Sprintf("its public record says rentable, and it is %s", st.State)
	case p.Sanitized && st.Taint != "":
		return "its public record says sanitized, and it is tainted"
	case p.Sanitized && !n.certified():
		return fmt.Sprintf("its public record says sanitized, and there is no certificate of wipe %d", st.Wipe)
	case n.avail != nil && !p.Rentable:
		return "it is offered, and its public record says that it cannot be rented"
	}
	return ""
}
