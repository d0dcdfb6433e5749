package provisioner

import (
	"cmp"
	"slices"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/ledger"
)

// A budget is the loop's count of what goes on at the site, kept from the same batches as the copy, and the queue of its
// own nodes that wait for their turn. Only the goroutine that decides uses it.
//
// Whether there is room is decided here, but made certain in the store: a transaction that lets a node enter an activity
// compares and rewrites inventory.KeyBudget, so a count that somebody else's entry has overtaken writes nothing.
type budget struct {
	rev     int64 // every change up to here is counted
	entry   inventory.KV
	limits  inventory.KV
	in      inventory.Limits
	use     *inventory.Usage
	mods    map[string]int64             // of each node's state, as counted
	queue   map[string]map[string]waiter // by activity and node
	granted map[string]waiter            // places kept for waiters whose turn has come
	changed bool                         // there may be room for somebody, or somebody new waits

	breaker inventory.KV
	open    inventory.Breaker
	fleet   map[string]bool             // nodes of which the breaker takes its share
	unwell  map[string]inventory.Unwell // nodes that became unhealthy a short while ago
	suspect bool                        // somebody became unhealthy since the last judgement
	pending inventory.Breaker           // a breaker that must open, while the store has not taken it
	tried   time.Time
}

// A waiter is a node that waits for room.
type waiter struct {
	node, activity, rack, cause string
	rank                        int
	since                       time.Time
}

func (w waiter) before(o waiter) int {
	return cmp.Or(cmp.Compare(w.rank, o.rank), w.since.Compare(o.since), cmp.Compare(w.node, o.node))
}

// recount begins from the copy as it is.
func (l *Loop) recount() {
	b := &budget{use: inventory.NewUsage(), mods: map[string]int64{}, queue: map[string]map[string]waiter{}, granted: map[string]waiter{},
		entry: inventory.KV{Key: inventory.KeyBudget}, limits: inventory.KV{Key: inventory.KeyLimits}, in: inventory.DefaultLimits(),
		breaker: inventory.KV{Key: inventory.KeyBreaker}, fleet: map[string]bool{}, unwell: map[string]inventory.Unwell{}}
	for _, a := range inventory.ActivityList {
		b.queue[a] = map[string]waiter{}
	}
	ids := l.Copy.Nodes()
	b.rev = l.Copy.Rev() // before the records: what is newer comes once more
	for _, id := range ids {
		b.take(l.Copy.One(inventory.KeySpec(id)))
		b.take(l.Copy.One(inventory.KeyState(id)))
	}
	b.take(l.Copy.One(inventory.KeyBudget))
	b.take(l.Copy.One(inventory.KeyLimits))
	b.take(l.Copy.One(inventory.KeyBreaker))
	l.budget = b
}

// count takes a batch of changes in.
func (b *budget) count(batch inventory.Batch) {
	for _, e := range batch.Events {
		if e.KV.Mod > b.rev {
			b.take(e.KV)
		}
	}
	b.rev = max(b.rev, batch.Rev)
}

// take counts one record. One that is older than what is counted already (our own write, of which we knew at once) says
// nothing new; a node that was never seen, or is not readable, takes no place: nothing is ever done with it.
func (b *budget) take(kv inventory.KV) {
	p := inventory.Parts(kv.Key)
	b.changed = true
	switch {
	case kv.Key == inventory.KeyBudget && kv.Mod > b.entry.Mod:
		b.entry = kv
	case kv.Key == inventory.KeyLimits && kv.Mod > b.limits.Mod:
		b.limits, b.in, b.suspect = kv, inventory.LimitsIn(kv), true
	case kv.Key == inventory.KeyBreaker && kv.Mod > b.breaker.Mod:
		b.breaker, b.open, b.pending, b.suspect = kv, inventory.BreakerIn(kv), inventory.Breaker{}, true
	case len(p) == 3 && p[0] == "nodes" && p[2] == "spec":
		if d, err := inventory.Decode[inventory.Spec](kv); err == nil {
			b.use.SetRack(p[1], d.V.Rack)
		}
	case len(p) == 3 && p[0] == "nodes" && p[2] == "state" && kv.Mod > b.mods[p[1]]:
		if d, err := inventory.Decode[inventory.NodeState](kv); err == nil {
			b.use.SetState(p[1], d.V)
			b.mods[p[1]] = kv.Mod
			b.health(p[1], d.V)
		}
	}
}

// health notes whether a node is of the fleet, and that it became unhealthy.
func (b *budget) health(id string, st inventory.NodeState) {
	delete(b.fleet, id)
	if inventory.InFleet(st.State) {
		b.fleet[id] = true
	}
	if u := st.Unwell; u.Since.After(b.unwell[id].Since) {
		b.unwell[id], b.suspect = u, true
	}
}

// turn gives a node's decision what it has to know of the budget: why it must wait for an activity, "" when it may begin.
// A place that was kept for it is its own now.
func (b *budget) turn(v inventory.NodeView) func(activity string) string {
	kept, mine := b.granted[v.ID]
	b.release(v.ID)
	return func(activity string) string {
		others := len(b.queue[activity])
		if _, queued := b.queue[activity][v.ID]; queued {
			others--
		}
		switch full := b.use.Full(b.in, activity, v.Spec.V.Rack, v.State.V.Cause); {
		case full != "":
			return full + "; its turn comes when one ends"
		case others > 0 && !(mine && kept.activity == activity):
			return "others wait for their turn as well; the one that has waited longest goes first, tenants before all"
		}
		return ""
	}
}

// release gives back the place that was kept for a node.
func (b *budget) release(node string) {
	if w, kept := b.granted[node]; kept {
		b.changed = true
		b.use.Add(w.activity, w.rack, w.cause, -1)
		delete(b.granted, node)
	}
}

// forget takes a node that is another replica's out of the queues.
func (b *budget) forget(node string) {
	b.release(node)
	for _, q := range b.queue {
		delete(q, node)
	}
}

// waiting is a node as a waiter. Since when it waits is in its record: a daemon that takes over keeps the order.
func waiting(v inventory.NodeView, activity string) waiter {
	st := v.State.V
	w := waiter{node: v.ID, activity: activity, rack: v.Spec.V.Rack, cause: st.Cause, rank: 1, since: st.Since}
	if st.Work.Since.After(w.since) {
		w.since = st.Work.Since
	}
	switch {
	case st.State == inventory.Provisioning || st.State == inventory.Fencing: // a tenant waits, or has just left
		w.rank = 0
	case st.BurnInDue: // new here: nobody has missed it yet
		w.rank = 2
	}
	return w
}

// decided queues a node whose decision is to wait for room, and forgets one whose is not.
func (b *budget) decided(v inventory.NodeView, d Decision) {
	for _, a := range inventory.ActivityList {
		if a != d.For {
			delete(b.queue[a], v.ID)
		}
	}
	if d.For != "" {
		b.changed = true
		b.queue[d.For][v.ID] = waiting(v, d.For)
	}
}

// grant keeps the places that are free for those whose turn it is, and says who they are. What is free but for a rack or
// a cause goes to the next who is not held up by that. It looks only when something has changed, and puts only those in
// order for whom there is room: when a site comes back, hundreds wait and a few may go.
func (b *budget) grant(owns func(string) bool) []string {
	if !b.changed {
		return nil
	}
	b.changed = false
	var out []string
	for _, a := range inventory.ActivityList {
		if len(b.queue[a]) == 0 || b.use.Count(a) >= b.in.For(a).Site {
			continue
		}
		for _, w := range b.admissible(a, owns) {
			if b.use.Full(b.in, a, w.rack, w.cause) != "" {
				continue
			}
			b.granted[w.node] = w
			b.use.Add(a, w.rack, w.cause, 1)
			out = append(out, w.node)
		}
	}
	return out
}

// admissible are the waiters for whom there is room now, each for itself, the first one first.
func (b *budget) admissible(activity string, owns func(string) bool) []waiter {
	type kind struct{ rack, cause string }
	room := map[kind]bool{} // many wait for the same
	var out []waiter
	for _, w := range b.queue[activity] {
		if owns != nil && !owns(w.node) {
			b.forget(w.node)
			continue
		}
		k := kind{w.rack, w.cause}
		free, known := room[k]
		if !known {
			free = b.use.Full(b.in, activity, w.rack, w.cause) == ""
			room[k] = free
		}
		if _, kept := b.granted[w.node]; free && !kept {
			out = append(out, w)
		}
	}
	slices.SortFunc(out, waiter.before)
	return out
}

// enter makes a transaction that lets a node begin an activity certain of its count.
func (b *budget) enter(v inventory.NodeView, activity string, c *ledger.Change) error {
	op, err := inventory.Encode(inventory.KeyBudget, inventory.Budget{Schema: inventory.Schema, Node: v.ID, Activity: activity})
	c.If, c.Then = append(c.If, inventory.Unchanged(b.entry), inventory.Unchanged(b.limits)), append(c.Then, op)
	return err
}

// entered counts our own entry at once: the next decision does not wait for the copy.
func (b *budget) entered(v inventory.NodeView, st inventory.NodeState, rev int64) {
	b.changed = true
	b.entry.Mod = rev
	b.use.SetState(v.ID, st)
	b.mods[v.ID] = rev - 1 // what the copy shows of the node from before is older than this
}

// becomes is the node's record as a decision would leave it, as far as its activity goes.
func becomes(v inventory.NodeView, d Decision) inventory.NodeState {
	st := v.State.V
	if d.Event != "" {
		st.Work = inventory.Work{}
	}
	if d.Change.Edit != nil {
		d.Change.Edit(&st)
	}
	return st
}

// limited holds a decision back while there is no room for what it would begin. A node that waits for one activity gives
// up its place in another, so that no two can wait for each other.
func limited(in Input, d Decision) Decision {
	if !d.Note && d.Event == "" || in.Turn == nil {
		return d
	}
	now, next := inventory.Activity(in.View.State.V), inventory.Activity(becomes(in.View, d))
	if next == "" || next == now {
		return d
	}
	why := in.Turn(next)
	if why == "" {
		d.Enters = next
		return d
	}
	say := d.Say + "; waits: " + why
	if now != "" {
		out := Decision{Note: true, Say: say, Change: change(say)}
		out.Change.Edit = func(st *inventory.NodeState) { st.Work = inventory.Work{Since: st.Work.Since, Note: say} }
		return out
	}
	return Decision{Say: say, Again: lookAgain, For: next, Still: why}
}
