package provisioner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/ledger"
	"github.com/hostler-project/hostler/inventory/lifecycle"
)

// What counts towards the breaker, and what it holds up. Both are seen from a decision and the record alone: after a
// restart or a take-over the count is the same.

// unwell says by what a decision says that a node became unhealthy; "" when it says no such thing. An operator's wish is
// never a sign of bad health.
func unwell(in Input, d Decision) string {
	st := in.View.State.V
	switch {
	case d.Change.Actor != actor:
	case d.Event == lifecycle.Lost:
		return inventory.ByLoss
	case d.Event != "":
		if e, err := lifecycle.Find(st.State, d.Event); err == nil && e.To == inventory.Quarantined {
			return inventory.ByQuarantine
		}
	case d.Liveness == inventory.Silent:
		return inventory.BySilence
	case d.Note && d.Change.Session != nil && st.Work.Phase == phaseBoot && in.View.Session.V.Phase == inventory.SessionArmed:
		return inventory.ByNoBoot
	}
	return ""
}

// starts says whether a decision starts something that an open breaker must not let start. What has started goes on: the
// acts and phases of a boot after its session, an order that an agent has.
func starts(in Input, d Decision) bool {
	st := in.View.State.V
	if d.Act != "" { // acts belong to a phase that was entered, but this one, which has none; an emergency waits for nobody
		return d.Act == PowerOff && st.State == inventory.Quarantined && st.Work.Phase == "" && !lifecycle.Urgent(st.Cause)
	}
	if lifecycle.Starts(d.Event) {
		return true
	}
	if d.Event == lifecycle.Done && st.State == inventory.Draining { // a tenant that wants to go may go; one that is sent can still be kept
		return in.View.Reservation.V.Phase != inventory.Released
	}
	if !d.Note && d.Event == "" {
		return false
	}
	next := becomes(in.View, d)
	a := inventory.Activity(next)
	return a != "" && (a != inventory.Activity(st) || d.Change.Session != nil || next.Work.Order != "" && next.Work.Order != st.Work.Order)
}

// held holds back what must not start while the breaker is open.
func held(in Input, d Decision) Decision {
	d.Starts = starts(in, d)
	switch {
	case !in.Breaker.Open:
		return d
	case !d.Starts && d.waits() && in.View.State.V.Alive == inventory.Silent: // what would come of its silence does not
		d.Say, d.Held = d.Say+"; held up: "+in.Breaker.Words(), true
		return d
	case !d.Starts:
		return d
	}
	return Decision{Say: d.Say + "; held up: " + in.Breaker.Words(), Again: lookAgain, Held: true, Still: "the breaker is open"}
}

// sick are the nodes that count now, and since when, newest last.
func (b *budget) sick(now time.Time) []inventory.Unwell {
	var out []inventory.Unwell
	for id, u := range b.unwell {
		if b.open.Counts(b.in.Breaker, u, now) {
			out = append(out, u)
		} else if now.Sub(u.Since) > time.Duration(b.in.Breaker.Within) {
			delete(b.unwell, id)
		}
	}
	slices.SortFunc(out, func(a, b inventory.Unwell) int { return a.Since.Compare(b.Since) })
	return out
}

// together is how close in time nodes fall silent whose silence has one cause.
const together = 2 * time.Minute

// judge says whether the breaker must open, and as what.
func (b *budget) judge(now time.Time) (inventory.Breaker, bool) {
	allowed := b.in.Breaker.Threshold(len(b.fleet))
	sick := b.sick(now)
	if b.open.Open || len(sick) <= allowed {
		return b.open, false
	}
	by := map[string]int{}
	var silent []time.Time
	for _, u := range sick {
		by[u.By]++
		if u.By == inventory.BySilence {
			silent = append(silent, u.Since)
		}
	}
	out := inventory.Breaker{Open: true, Since: now, Counted: len(sick), Allowed: allowed, By: actor, Closed: b.open.Closed}
	first := len(silent) // of those that fell silent with the last one
	for first > 0 && silent[len(silent)-1].Sub(silent[first-1]) <= together {
		first--
	}
	if n := len(silent) - first; 2*n >= len(sick) { // a big site always has some that are unwell for other reasons
		out.Cause = fmt.Sprintf("monitoring lost: %d of %d nodes silent since %s, all at once: the network to them is the first suspect", n, len(b.fleet), silent[first].UTC().Format("15:04:05"))
		return out, true
	}
	var parts []string
	for _, w := range []string{inventory.ByQuarantine, inventory.ByLoss, inventory.BySilence, inventory.ByNoBoot} {
		if by[w] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", by[w], w))
		}
	}
	out.Cause = fmt.Sprintf("%d of %d nodes became unhealthy within %v (%s)", len(sick), len(b.fleet), time.Duration(b.in.Breaker.Within), strings.Join(parts, ", "))
	return out, true
}

// watchBreaker opens the breaker when too many nodes became unhealthy. Until the store has taken that, this daemon acts
// as if it had.
func (l *Loop) watchBreaker(ctx context.Context) {
	b, now := l.budget, l.Now()
	if !b.suspect || b.pending.Open && now.Sub(b.tried) < time.Second {
		return
	}
	open, must := b.pending, b.pending.Open
	if !must {
		open, must = b.judge(now)
	}
	b.suspect = must
	if !must {
		return
	}
	b.pending, b.tried = open, now
	rev, err := l.Ledger.OpenBreaker(ctx, b.breaker, open)
	switch {
	case err == nil:
		b.suspect, b.pending, b.open, b.breaker.Mod = false, inventory.Breaker{}, open, rev
		l.Log.Error("breaker opened: no power or destructive act starts until a person closes it (hostler breaker)", "cause", open.Cause)
		l.touchAll()
	case errors.Is(err, ledger.ErrConflict): // another replica was first, or a person closed it just now: the copy will tell
	default:
		l.Log.Error("the breaker must open, and the store does not take it", "cause", open.Cause, "err", err)
	}
}

// breakerNow is the breaker as decisions have to take it.
func (b *budget) breakerNow() inventory.Breaker {
	if b.pending.Open {
		return b.pending
	}
	return b.open
}

// fellIll counts our own write at once: the next decision does not wait for the copy.
func (b *budget) fellIll(v inventory.NodeView, d Decision, now time.Time) {
	if u := v.State.V.Unwell; d.Change.Unwell != "" && (u.Since.IsZero() || u.Over) {
		b.unwell[v.ID], b.suspect = inventory.Unwell{Since: now, By: d.Change.Unwell}, true
	}
}

// A bucket limits how fast liveness is written: when a switch dies, thousands of nodes fall silent at once, and the store
// has other work. Nodes on offer go first: half of the bucket is kept for them.
type bucket struct {
	left, full float64
	at         time.Time
}

// livenessRate is how many such writes a second the site's replicas make together, with as many more in a burst.
const livenessRate = 100

func (k *bucket) take(now time.Time, c *inventory.Copy, offered bool) bool {
	if d := now.Sub(k.at); d > 0 {
		k.full = livenessRate / float64(max(1, len(c.Under(inventory.PrefixReplicas))))
		k.left += k.full * d.Seconds()
		if k.left = min(k.left, k.full); k.at.IsZero() {
			k.left = k.full
		}
		k.at = now
	}
	if k.left < 1 || !offered && k.left < k.full/2 {
		return false
	}
	k.left--
	return true
}
