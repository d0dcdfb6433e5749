package provisioner

import (
	"container/heap"
	"slices"
	"time"

	"github.com/hostler-project/hostler/inventory"
)

// What a round looks at: the nodes about which something has changed, and those whose time has come. A round costs what
// happened, not what the site has: most rounds are about one node of thousands.

// timers are the nodes that are to be looked at again at some time, the next one first.
type timers []*track

func (t timers) Len() int           { return len(t) }
func (t timers) Less(i, j int) bool { return t[i].next.Before(t[j].next) }
func (t timers) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].timer, t[j].timer = i, j
}

// Push implements heap.Interface.
func (t *timers) Push(x any) {
	n := x.(*track)
	n.timer = len(*t)
	*t = append(*t, n)
}

// Pop implements heap.Interface.
func (t *timers) Pop() any {
	old := *t
	n := old[len(old)-1]
	old[len(old)-1] = nil
	*t, n.timer = old[:len(old)-1], none
	return n
}

// none is the timer of a node that has none.
const none = -1

// mark has a node looked at in the next round.
func (l *Loop) mark(n *track) {
	n.dirty = true
	l.marked[n.id] = n
}

// clear says that a node has been looked at.
func (l *Loop) clear(n *track) {
	n.dirty, n.eager = false, false
	delete(l.marked, n.id)
}

// lookAt has a node looked at at some time at the latest.
func (l *Loop) lookAt(n *track, at time.Time) {
	n.next = at
	if n.timer == none {
		heap.Push(&l.timers, n)
	} else {
		heap.Fix(&l.timers, n.timer)
	}
}

// drop ends what a track stands for in the lists of what is to be looked at.
func (l *Loop) drop(n *track) {
	if n.timer != none {
		heap.Remove(&l.timers, n.timer)
	}
	if l.marked[n.id] == n {
		delete(l.marked, n.id)
	}
}

// How long a round may be before it leaves the rest for the next one, and how many of the rest it looks at all the same.
const (
	longRound = 100 * time.Millisecond
	fewest    = 16
)

// due are the nodes to look at now, in the order of their ids; the first so many are those to which something happened.
func (l *Loop) due(now time.Time) (ids []string, eager int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.survey()
	for len(l.timers) > 0 && !now.Before(l.timers[0].next) {
		l.mark(heap.Pop(&l.timers).(*track))
	}
	var rest []string
	for id, n := range l.marked {
		if n.eager {
			ids = append(ids, id)
		} else {
			rest = append(rest, id)
		}
	}
	slices.Sort(ids)
	slices.Sort(rest)
	return append(ids, rest...), len(ids)
}

// A shardSeen is what this replica has of a shard, seen by one of the shard's nodes.
type shardSeen struct {
	node  string
	owned bool
	since time.Time
}

// survey marks the nodes of the shards that came or went since the last round.
func (l *Loop) survey() {
	var changed [inventory.Shards]bool
	any := false
	for i := range l.shards {
		h := &l.shards[i]
		if h.node == "" {
			continue
		}
		if owned, since := l.Owns == nil || l.Owns(h.node), l.since(h.node); owned != h.owned || !since.Equal(h.since) {
			h.owned, h.since, changed[i], any = owned, since, true, true
		}
	}
	if !any {
		return
	}
	for id, n := range l.nodes {
		if changed[inventory.Shard(id)] {
			l.mark(n)
		}
	}
}
