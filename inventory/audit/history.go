package audit

import (
	"cmp"
	"slices"
	"strconv"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/lifecycle"
)

// proof is how far a node has come on the way from tainted to ready.
type proof struct {
	unproven  bool  // tainted once, and not ready by proof since
	sanitized int64 // generation in which sanitizing was done since; none
}

const none = -1

// takeHistory takes one entry of a node's history in.
func (c *Checker) takeHistory(id, number string, e inventory.Event) {
	seq, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return
	}
	n := c.touchNode(id, 0)
	if e.Deleted { // archived and trimmed, oldest first
		if seq >= n.seq {
			c.say("I13", n, "history %d, its newest, was deleted", seq)
		}
		return
	}
	h, ok := read[inventory.History](e)
	if !ok {
		n.touch.odd = true
		n.seq = max(n.seq, seq)
		n.moved = n.seq
		return
	}
	if c.loading {
		n.past = append(n.past, *h)
		return
	}
	switch {
	case e.KV.Create != 0 && e.KV.Create != e.KV.Mod:
		c.say("I13", n, "history %d was written over", seq)
	case h.Seq != seq:
		c.say("I13", n, "the entry under number %d says that it is %d", seq, h.Seq)
	case seq != n.seq+1:
		c.say("I13", n, "history goes from %d to %d", n.seq, seq)
	}
	n.seq = max(n.seq, seq)
	n.touch.entries = append(n.touch.entries, *h)
}

// settle goes along with the transitions that a revision wrote, after all of it was taken in.
func (t *touch) settle(c *Checker, rev int64) {
	for _, h := range t.entries {
		if h.Kind == "transition" {
			t.n.step(h, rev)
			c.counts.Transitions++
		}
	}
}

// step remembers a transition.
func (n *node) step(h inventory.History, rev int64) {
	n.moved = h.Seq
	s := &Step{Rev: rev, Seq: h.Seq, Time: h.Time, From: h.From, To: h.To, Event: h.Event, Generation: h.Generation, Wipe: h.Wipe, Reason: h.Reason}
	n.steps = append(slices.Clip(n.steps[max(0, len(n.steps)-keptSteps+1):]), s)

	e, err := lifecycle.Find(h.From, lifecycle.Event(h.Event))
	switch {
	case err != nil: // told as I13
	case e.From == "" || e.Taint:
		n.proof = proof{unproven: true, sanitized: none}
	case e.To == inventory.Sanitizing:
		n.proof.sanitized = none
	case e.From == inventory.Sanitizing && e.Clean:
		n.proof.sanitized = h.Generation
	case e.To == inventory.Ready && n.proof.sanitized == h.Generation:
		n.proof.unproven = false
	}
}

// replay goes along the history that the store still keeps of a node, and checks it as a walk over the table.
func (n *node) replay(c *Checker) {
	slices.SortFunc(n.past, func(a, b inventory.History) int { return cmp.Compare(a.Seq, b.Seq) })
	at, whole := inventory.State(""), true
	for i, h := range n.past {
		switch {
		case i == 0 && h.Seq > 1:
			whole = false // the beginning was archived
		case i > 0 && h.Seq != n.past[i-1].Seq+1:
			c.say("I13", n, "history goes from %d to %d", n.past[i-1].Seq, h.Seq)
		}
		n.seq = max(n.seq, h.Seq)
		if h.Kind != "transition" {
			continue
		}
		if what := isEdge(h); what != "" {
			c.say("I13", n, "%s", what)
		} else if whole && h.From != at {
			c.say("I13", n, "history %d goes on from %q, but the node was %q", h.Seq, h.From, at)
		}
		at, whole = h.To, true
		n.step(h, 0)
	}
	if n.state == nil {
		n.past = nil
		return
	}
	if len(n.past) > 0 && (n.touch == nil || !n.touch.odd) {
		if n.seq != n.state.Seq {
			c.say("I13", n, "its state names history %d as the newest, there is %d", n.state.Seq, n.seq)
		} else if n.moved > 0 && at != n.state.State {
			c.say("I13", n, "its history ends in %q, its state is %q", at, n.state.State)
		}
	}
	n.seq = max(n.seq, n.state.Seq)
	if n.state.Taint != "" { // whatever the history that is left says
		n.proof.unproven = true
	}
	n.past = nil
}

// isEdge says what is wrong with a transition that is no row of the lifecycle table.
func isEdge(h inventory.History) string {
	e, err := lifecycle.Find(h.From, lifecycle.Event(h.Event))
	if err != nil {
		return err.Error()
	}
	if e.To != h.To {
		return "on " + h.Event + " a node that is " + string(h.From) + " becomes " + string(e.To) + ", not " + string(h.To)
	}
	return ""
}
