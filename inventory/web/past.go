package web

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/lifecycle"
)

const (
	entries  = 40  // of history on one page
	lookBack = 200 // entries in which the way of the present circle is looked for
)

// past is a node's history as a page needs it. It is read from the store when its newest number has changed.
type past struct {
	before int64 // entries with a smaller number; 0: from the newest on
	seq    int64
	all    []inventory.History // newest first
	circle []inventory.History // transitions since the node last began its way, oldest first
}

func (p *past) read(ctx context.Context, store inventory.Store, v inventory.NodeView) error {
	seq := v.State.V.Seq
	if seq == p.seq && seq > 0 {
		return nil
	}
	recent, err := entriesBefore(ctx, store, v.ID, seq+1, lookBack)
	if err != nil {
		return err
	}
	p.circle = nil
	for _, h := range recent {
		if h.Kind != "transition" {
			continue
		}
		p.circle = append(p.circle, h)
		if h.To == inventory.Inspecting || h.To == inventory.Discovered {
			break
		}
	}
	slices.Reverse(p.circle)
	p.all = recent[:min(len(recent), entries)]
	if p.before > 0 {
		if p.all, err = entriesBefore(ctx, store, v.ID, p.before, entries); err != nil {
			return err
		}
	}
	p.seq = seq
	return nil
}

// entriesBefore are at most n entries below a number, newest first. Numbers have no gaps, so that a page is one range.
func entriesBefore(ctx context.Context, store inventory.Store, node string, before int64, n int) ([]inventory.History, error) {
	snap, err := store.List(ctx, inventory.PrefixHistory+node+"/", inventory.ListOptions{
		After: inventory.KeyHistory(node, max(0, before-1-int64(n))), Limit: n})
	if err != nil {
		return nil, err
	}
	var out []inventory.History
	for _, kv := range snap.KVs {
		h, err := inventory.Decode[inventory.History](kv)
		if err != nil && !errors.Is(err, inventory.ErrNewer) {
			h.V = inventory.History{Kind: "unreadable", Reason: err.Error()}
		}
		if h.V.Seq < before {
			out = append(out, h.V)
		}
	}
	slices.Reverse(out)
	return out, nil
}

// A telling is one page of history.
type telling struct {
	Entries       []inventory.History
	Older, Newest string // links
}

func (p *past) tell(path string) telling {
	t := telling{Entries: p.all}
	if n := len(p.all); n > 0 && p.all[n-1].Seq > 1 {
		t.Older = path + "?" + url.Values{"before": {strconv.FormatInt(p.all[n-1].Seq, 10)}}.Encode() + "#history"
	}
	if p.before > 0 {
		t.Newest = path + "#history"
	}
	return t
}

// A stop is one state on a node's way.
type stop struct {
	State inventory.State
	Means string
	Been  bool   // since it last began
	Here  bool   //
	Next  bool   // an edge leads there from here, without anything going wrong
	Took  string // how long it was there
}

// way is the life of a node as a line: every state that a healthy node can meet, in the order of the table, and where
// it is now if that is none of them.
func way(st inventory.NodeState, circle []inventory.History, at time.Time) []stop {
	been := map[inventory.State]time.Duration{}
	for i, h := range circle {
		end := at
		if i+1 < len(circle) {
			end = circle[i+1].Time
		}
		been[h.To] += end.Sub(h.Time)
	}
	next := map[inventory.State]bool{}
	for _, e := range lifecycle.Exits(st.State) {
		next[e.To] = next[e.To] || slices.Contains(forward, e.On)
	}
	healthy := healthyStates()
	var out []stop
	for _, row := range lifecycle.States {
		here := row.Name == st.State
		if !here && !healthy[row.Name] {
			continue
		}
		took, ok := been[row.Name]
		s := stop{State: row.Name, Means: row.Means, Here: here, Been: ok && !here, Next: next[row.Name] && !here}
		if ok {
			s.Took = span(took)
			if here { // still counting: coarse, or the page would change each second
				s.Took = ago(at, at.Add(-took))
			}
		}
		out = append(out, s)
	}
	return out
}

// forward are the events of a life in which nothing goes wrong.
var forward = []lifecycle.Event{lifecycle.Approve, lifecycle.Done, lifecycle.DoneBurnIn, lifecycle.Drift, lifecycle.Claim,
	lifecycle.Confirm, lifecycle.Release, lifecycle.Service}

// healthyStates are what forward reaches in the table.
func healthyStates() map[inventory.State]bool {
	seen := map[inventory.State]bool{inventory.Discovered: true}
	for queue := []inventory.State{inventory.Discovered}; len(queue) > 0; queue = queue[1:] {
		for _, e := range lifecycle.Exits(queue[0]) {
			if slices.Contains(forward, e.On) && !seen[e.To] {
				seen[e.To] = true
				queue = append(queue, e.To)
			}
		}
	}
	return seen
}
