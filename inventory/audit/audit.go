// Package audit checks what must hold at every revision of the record: one live claim per node, no tainted node on sale,
// no history with a gap, and so on down the table Invariants.
//
// A Checker is fed with what a store has (Load) and with every change after it (Apply), and answers with the first
// invariant that is broken, at which revision, by which node, and that node's transitions before it. It keeps of each
// node what the checks need, and looks only at the nodes that a revision touched, so a simulation can feed it millions.
// Run feeds one from a store for as long as the daemon lives; file.go reads and writes saved histories.
//
// It trusts nothing that the writers think: it knows the records, the lifecycle table and how a certificate is opened,
// and no transaction of the ledger. It only reads. A record that is newer than this version is skipped, and its node with
// it, as the product does with it: read-only.
package audit

import (
	"cmp"
	"crypto/ed25519"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hostler-project/hostler/inventory"
)

// Options say what a Checker can check beside the record itself.
type Options struct {
	// CertificateKey is what sanitize certificates must be signed with. Nil: signatures are not checked.
	CertificateKey ed25519.PublicKey
}

// A Step is one transition of a node.
type Step struct {
	Rev        int64           `json:"rev"`
	Seq        int64           `json:"seq"`
	Time       time.Time       `json:"time"`
	From       inventory.State `json:"from"`
	To         inventory.State `json:"to"`
	Event      string          `json:"event"`
	Generation int64           `json:"generation"`
	Wipe       int64           `json:"wipe"`
	Reason     string          `json:"reason"`
}

func (s Step) String() string {
	return fmt.Sprintf("#%d %s → %s on %s, generation %d, wipe %d", s.Seq, cmp.Or(s.From, "new"), s.To, s.Event, s.Generation, s.Wipe)
}

// keptSteps is how many transitions of a node are remembered: two tenancies and more.
const keptSteps = 24

// Broken is an invariant that does not hold.
type Broken struct {
	Invariant string `json:"invariant"` // its id in the table, such as "I3"
	Rev       int64  `json:"rev"`       // the first revision at which it is seen
	Node      string `json:"node"`      // "" where it is the site's
	What      string `json:"what"`
	Before    []Step `json:"before"` // the node's transitions before that revision, oldest first
}

func (b *Broken) Error() string {
	var s strings.Builder
	fmt.Fprintf(&s, "audit: %s is broken at revision %d", b.Invariant, b.Rev)
	if b.Node != "" {
		fmt.Fprintf(&s, " by node %s", b.Node)
	}
	fmt.Fprintf(&s, ": %s", b.What)
	for _, st := range b.Before {
		fmt.Fprintf(&s, "\n\tbefore, at revision %d: %s", st.Rev, st)
	}
	return s.String()
}

// Counts is how much a Checker has seen.
type Counts struct {
	Revisions   int64 `json:"revisions"`
	Transitions int64 `json:"transitions"`
	Nodes       int   `json:"nodes"`
}

// A Checker walks one history. It is not safe for use by several goroutines.
type Checker struct {
	key    ed25519.PublicKey
	rev    int64
	counts Counts

	nodes        map[string]*node
	reservations map[string]reservation // by key; kept after the record is gone: an id is one node's for ever
	ids          map[string]string      // key of an identity → the node that it is registered for
	sealed       map[string]bool        // instances whose secrets are still there
	era          string
	usage        *inventory.Usage
	limits       inventory.Limits

	loading bool
	touched []*touch
	found   []Broken
}

// New makes a Checker of an empty store.
func New(o Options) *Checker {
	c := &Checker{key: o.CertificateKey}
	c.reset()
	return c
}

func (c *Checker) reset() {
	c.nodes, c.reservations, c.ids, c.sealed = map[string]*node{}, map[string]reservation{}, map[string]string{}, map[string]bool{}
	c.usage, c.limits = inventory.NewUsage(), inventory.DefaultLimits()
	c.counts.Nodes = 0
}

// Counts is how much was seen so far.
func (c *Checker) Counts() Counts { return c.counts }

// Rev is the revision up to which everything was seen.
func (c *Checker) Rev() int64 { return c.rev }

// Load begins in the middle: s is everything under inventory.Root as of one revision. What was known before is
// forgotten, but for the era. It answers with the first invariant that this state breaks.
func (c *Checker) Load(s inventory.Snapshot) *Broken {
	c.begin()
	for _, kv := range s.KVs {
		c.take(inventory.Event{KV: kv})
	}
	return first(c.loaded(s.Rev))
}

// begin, take (one for each key) and loaded are Load in pieces, for a store that is read page by page.
func (c *Checker) begin() {
	c.reset()
	c.loading = true
}

func (c *Checker) loaded(rev int64) []Broken {
	for _, n := range c.nodes {
		n.replay(c)
	}
	slices.SortFunc(c.touched, func(a, b *touch) int { return strings.Compare(a.n.id, b.n.id) })
	c.rev = rev
	out := c.judge(rev)
	c.loading = false
	return out
}

// Apply takes one batch in, revision by revision, and answers with the first invariant that it breaks. All of the batch
// is taken in whatever is found, so one may go on. Revisions that were seen already are passed over.
func (c *Checker) Apply(b inventory.Batch) *Broken { return first(c.all(b)) }

func (c *Checker) all(b inventory.Batch) []Broken {
	var out []Broken
	for i := 0; i < len(b.Events); {
		rev, j := b.Events[i].KV.Mod, i
		for j < len(b.Events) && b.Events[j].KV.Mod == rev {
			j++
		}
		if rev > c.rev {
			for _, e := range b.Events[i:j] {
				c.take(e)
			}
			c.rev = rev
			c.counts.Revisions++
			out = append(out, c.judge(rev)...)
		}
		i = j
	}
	c.rev = max(c.rev, b.Rev)
	return out
}

func first(found []Broken) *Broken {
	if len(found) == 0 {
		return nil
	}
	return &found[0]
}

// judge checks every node that was touched, and gives what is broken at this revision in the order it was found.
func (c *Checker) judge(rev int64) []Broken {
	for _, t := range c.touched {
		t.settle(c, rev)
	}
	for _, t := range c.touched {
		l := look{c: c, n: t.n, wrote: t.wrote, entries: t.entries}
		if was := &t.was; !c.loading && was.known() && was.readable() {
			if was.state != nil {
				l.was = was
			}
			l.born = was.state == nil && t.n.state != nil
		}
		if t.n.known() && t.n.readable() && !t.odd {
			for i := range Invariants {
				if check := Invariants[i].check; check != nil {
					if what := check(&l); what != "" {
						c.say(Invariants[i].ID, t.n, "%s", what)
					}
				}
			}
		}
	}
	var out []Broken
	if len(c.found) > 0 {
		out = slices.Clone(c.found)
		for i := range out {
			out[i].Rev = rev
			if n := c.nodes[out[i].Node]; n != nil {
				before := n.steps
				if n.touch != nil && !c.loading {
					before = n.touch.was.steps
				}
				for _, s := range before {
					out[i].Before = append(out[i].Before, *s)
				}
			}
		}
		c.found = c.found[:0]
	}
	for _, t := range c.touched {
		t.n.touch = nil
	}
	c.touched = c.touched[:0]
	return out
}

// say notes that an invariant is broken. n may be nil.
func (c *Checker) say(id string, n *node, format string, a ...any) {
	b := Broken{Invariant: id, What: fmt.Sprintf(format, a...)}
	if n != nil {
		b.Node = n.id
	}
	c.found = append(c.found, b)
}
