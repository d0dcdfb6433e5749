package audit

import (
	"encoding/json"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/ledger"
	"github.com/hostler-project/hostler/inventory/lifecycle"
)

// A node is what the checks need of one node. What the pointers point to is never changed, only exchanged, so a copy of
// the struct shows the node as it was.
type node struct {
	id      string
	odd     map[string]bool // keys of records that this version does not understand
	spec    *inventory.Spec
	state   *inventory.NodeState
	facts   *inventory.Facts
	public  *inventory.Public
	avail   *inventory.Avail
	claim   *inventory.Claim
	session *inventory.Session

	certs  map[int64]certificate // by wipe; the present one and later
	tests  []testRun             // oldest first, the newest few
	alerts map[string]string     // by source: an alert of it that forbids renting
	live   map[string]bool       // keys of the reservations that are live and name this node
	held   map[string]bool       // keys of the identities registered for it

	seq   int64   // of the newest history entry
	moved int64   // of the newest transition
	steps []*Step // transitions, oldest first
	proof proof
	past  []inventory.History // while loading: its kept history
	touch *touch              // of the revision that is being taken in
}

type certificate struct {
	body inventory.CertificateBody
	odd  bool // not readable to this version
	err  error
}

type testRun struct {
	key              string
	odd              bool
	verdict          string
	generation, wipe int64
}

type reservation struct {
	node, instance, phase string
	odd, gone             bool
}

func (r reservation) alive() bool {
	return !r.gone && (r.phase == inventory.Pending || r.phase == inventory.Committed)
}

func (n *node) readable() bool { return len(n.odd) == 0 }

// known is false for a node in a state that this version does not have. One that does not exist is known.
func (n *node) known() bool {
	if n.state == nil {
		return true
	}
	_, ok := lifecycle.Get(n.state.State)
	return ok
}

// What a revision wrote of a node.
const (
	wroteSpec = 1 << iota
	wroteState
	wroteFacts
	wrotePublic
	wroteAvail
	wroteClaim
	wroteSession
	wroteCert
	wroteTest
	wroteHealth
	wroteReservation
	wroteID
	wroteSealed
)

// A touch is a node that a revision wrote something of.
type touch struct {
	n       *node
	was     node
	wrote   int
	entries []inventory.History // written by this revision
	odd     bool                // one of them is not readable: let this revision pass
}

func (c *Checker) node(id string) *node {
	n := c.nodes[id]
	if n == nil {
		n = &node{id: id, proof: proof{sanitized: none}}
		c.nodes[id] = n
	}
	return n
}

// touchNode notes that this revision writes something of a node.
func (c *Checker) touchNode(id string, what int) *node {
	n := c.node(id)
	if n.touch == nil {
		n.touch = &touch{n: n, was: *n}
		c.touched = append(c.touched, n.touch)
	}
	n.touch.wrote |= what
	return n
}

// read decodes a record; ok is false for one that this version must not judge.
func read[T any](e inventory.Event) (v *T, ok bool) {
	if e.Deleted {
		return nil, true
	}
	v = new(T)
	if json.Unmarshal(e.KV.Value, v) != nil || reflect.ValueOf(v).Elem().FieldByName("Schema").Int() > inventory.Schema {
		return nil, false
	}
	return v, true
}

// take reads a record of a node into its place. One that cannot be read makes the node one that is not judged.
func take[T any](n *node, e inventory.Event, to **T) {
	v, ok := read[T](e)
	if !ok {
		if n.odd == nil {
			n.odd = map[string]bool{}
		}
		n.odd[e.KV.Key] = true
		return
	}
	*to = v
	if n.odd[e.KV.Key] { // a copy: the node as it was keeps its own
		odd := map[string]bool{}
		for k := range n.odd {
			if k != e.KV.Key {
				odd[k] = true
			}
		}
		n.odd = odd
	}
}

// maxValue is the largest record, maxPublic the largest public one (design.md section 6).
const (
	maxValue  = 64 << 10
	maxPublic = 3 << 10
)

// take takes one change in.
func (c *Checker) take(e inventory.Event) {
	kv := e.KV
	p := inventory.Parts(kv.Key)
	if len(p) < 2 {
		return
	}
	if len(kv.Value) > maxValue {
		c.say("I15", nil, "%s has %d bytes; %d are allowed", kv.Key, len(kv.Value), maxValue)
	}
	switch {
	case p[0] == "nodes" && len(p) == 3:
		c.takeNode(p[1], p[2], e)
	case p[0] == "public":
		n := c.touchNode(p[1], wrotePublic)
		take(n, e, &n.public)
		if len(kv.Value) > maxPublic {
			c.say("I15", n, "its public record has %d bytes; %d are allowed", len(kv.Value), maxPublic)
		}
	case p[0] == "avail":
		n := c.touchNode(p[1], wroteAvail)
		take(n, e, &n.avail)
	case p[0] == "claims":
		n := c.touchNode(p[1], wroteClaim)
		take(n, e, &n.claim)
	case p[0] == "sessions":
		n := c.touchNode(p[1], wroteSession)
		take(n, e, &n.session)
	case p[0] == "certs" && len(p) == 3:
		c.takeCertificate(p[1], p[2], e)
	case p[0] == "tests" && len(p) == 3:
		c.takeTest(p[1], e)
	case p[0] == "health" && len(p) == 3:
		c.takeHealth(p[1], p[2], e)
	case p[0] == "history" && len(p) == 3:
		c.takeHistory(p[1], p[2], e)
	case p[0] == "reservations":
		c.takeReservation(e)
	case p[0] == "ids":
		c.takeID(e)
	case p[0] == "sealed":
		if e.Deleted {
			delete(c.sealed, p[1])
		} else {
			c.sealed[p[1]] = true
		}
	case kv.Key == inventory.KeyEra:
		c.takeEra(e)
	case kv.Key == inventory.KeyLimits:
		c.limits = inventory.LimitsIn(kv)
	}
}

func (c *Checker) takeNode(id, what string, e inventory.Event) {
	bit := map[string]int{"spec": wroteSpec, "state": wroteState, "facts": wroteFacts}[what]
	if bit == 0 {
		return
	}
	n := c.touchNode(id, bit)
	if e.Deleted {
		c.say("I10", n, "its %s was deleted", what)
	}
	switch bit {
	case wroteSpec:
		take(n, e, &n.spec)
		if n.spec != nil {
			c.usage.SetRack(id, n.spec.Rack)
		}
	case wroteFacts:
		take(n, e, &n.facts)
	case wroteState:
		had := n.state != nil
		take(n, e, &n.state)
		if n.state != nil {
			c.usage.SetState(id, *n.state)
		}
		if has := n.state != nil; has != had {
			c.counts.Nodes += map[bool]int{true: 1, false: -1}[has]
		}
	}
}

func (c *Checker) takeCertificate(id, wipe string, e inventory.Event) {
	w, err := strconv.ParseInt(wipe, 10, 64)
	if err != nil {
		return
	}
	n := c.touchNode(id, wroteCert)
	if !c.loading && !e.Deleted && e.KV.Create != 0 && e.KV.Create != e.KV.Mod {
		c.say("I2", n, "its certificate of wipe %d was written over", w)
	}
	certs := map[int64]certificate{} // a copy: the node as it was keeps its own
	for k, v := range n.certs {
		if n.state == nil || k >= n.state.Wipe {
			certs[k] = v
		}
	}
	n.certs = certs
	if e.Deleted {
		delete(certs, w)
		return
	}
	rec, ok := read[inventory.Certificate](e)
	if !ok {
		certs[w] = certificate{odd: true}
		return
	}
	var cert certificate
	if len(c.key) > 0 {
		cert.body, cert.err = ledger.OpenCertificate(*rec, c.key)
	} else {
		cert.err = json.Unmarshal(rec.Body, &cert.body)
	}
	certs[w] = cert
}

// keptTests is how many test runs of a node are remembered; only the newest counts.
const keptTests = 4

func (c *Checker) takeTest(id string, e inventory.Event) {
	n := c.touchNode(id, wroteTest)
	tests := slices.Clone(n.tests)
	i, found := slices.BinarySearchFunc(tests, e.KV.Key, func(t testRun, key string) int { return strings.Compare(t.key, key) })
	if found {
		tests = slices.Delete(tests, i, i+1)
	}
	if !e.Deleted {
		t := testRun{key: e.KV.Key, odd: true}
		if v, ok := read[inventory.TestRun](e); ok {
			t = testRun{key: e.KV.Key, verdict: v.Verdict, generation: v.Generation, wipe: v.Wipe}
		}
		tests = slices.Insert(tests, i, t)
	}
	n.tests = tests[max(0, len(tests)-keptTests):]
}

func (c *Checker) takeHealth(id, source string, e inventory.Event) {
	n := c.touchNode(id, wroteHealth)
	if e.Deleted {
		c.say("I10", n, "its health of source %s was deleted: silence must read as stale", source)
	}
	alerts := map[string]string{}
	for k, v := range n.alerts {
		alerts[k] = v
	}
	delete(alerts, source)
	var h *inventory.HealthReport
	take(n, e, &h)
	if h != nil {
		for _, a := range h.Alerts {
			if slices.Contains(a.Classes, inventory.PreventAllocation) {
				alerts[source] = a.ID
			}
		}
	}
	n.alerts = alerts
}

func (c *Checker) takeReservation(e inventory.Event) {
	old, had := c.reservations[e.KV.Key]
	now := old
	if e.Deleted {
		now.gone = true
	} else if v, ok := read[inventory.Reservation](e); ok {
		now = reservation{node: v.Node, instance: v.Instance, phase: v.Phase}
	} else {
		now.odd, now.gone = true, false
	}
	c.reservations[e.KV.Key] = now
	n := c.touchNode(now.node, wroteReservation)
	switch {
	case had && old.node != now.node && old.node != "":
		c.say("I1", c.touchNode(old.node, wroteReservation), "%s was for it, and is for node %s", e.KV.Key, now.node)
	case had && !old.odd && !now.odd && !now.gone && !old.alive() && now.alive():
		c.say("I1", n, "%s was %s, and is %s again", e.KV.Key, old.phase, now.phase)
	}
	if old.alive() && (!now.alive() || old.node != now.node) {
		o := c.touchNode(old.node, wroteReservation)
		o.live = without(o.live, e.KV.Key)
	}
	if now.alive() && !now.odd {
		n.live = with(n.live, e.KV.Key)
	}
}

// holder is the record of a registered identity.
type holder struct {
	Schema int    `json:"schema"`
	Node   string `json:"node"`
}

func (c *Checker) takeID(e inventory.Event) {
	now := ""
	if h, ok := read[holder](e); ok && h != nil {
		now = h.Node
	} else if !ok {
		now = c.ids[e.KV.Key]
	}
	if old := c.ids[e.KV.Key]; old != "" && old != now {
		o := c.touchNode(old, wroteID)
		o.held = without(o.held, e.KV.Key)
	}
	if now == "" {
		delete(c.ids, e.KV.Key)
		return
	}
	c.ids[e.KV.Key] = now
	n := c.touchNode(now, wroteID)
	n.held = with(n.held, e.KV.Key)
}

func (c *Checker) takeEra(e inventory.Event) {
	v, ok := read[struct {
		Schema int    `json:"schema"`
		Era    string `json:"era"`
	}](e)
	if !ok || v == nil {
		return
	}
	if v.Era < c.era {
		c.say("I12", nil, "the era went back from %s to %s", c.era, v.Era)
	}
	c.era = v.Era
}

// with and without give a set with a key more or less; the set itself may be another's and stays.
func with(set map[string]bool, key string) map[string]bool {
	out := map[string]bool{key: true}
	for k := range set {
		out[k] = true
	}
	return out
}

func without(set map[string]bool, key string) map[string]bool {
	out := map[string]bool{}
	for k := range set {
		if k != key {
			out[k] = true
		}
	}
	return out
}
