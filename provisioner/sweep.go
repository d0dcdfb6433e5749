package provisioner

import (
	"context"
	"time"

	"github.com/hostler-project/hostler/inventory"
)

// What nobody needs any more is deleted by whoever owns its node's shard, or the shard that its own name falls into. Only
// deletes, so a store that is full is helped by it.
const (
	sweepEvery  = 10 * time.Minute
	sweepAtMost = 200 // records in one sweep
	keptFor     = 30 * 24 * time.Hour

	// unchangedFor is how long, by no wall clock, this daemon must have known a record as it is: a clock that jumps by
	// years takes away no answer that somebody may ask for again today.
	unchangedFor = 24 * time.Hour
)

// A pastRev is the store's revision at some time of this daemon's life.
type pastRev struct {
	at  time.Time
	rev int64
}

// long is the newest revision that this daemon has known for unchangedFor; 0 while it is too young.
func (l *Loop) long(now time.Time) int64 {
	l.past = append(l.past, pastRev{now, l.Copy.Rev()})
	for len(l.past) > 1 && now.Sub(l.past[1].at) >= unchangedFor {
		l.past = l.past[1:]
	}
	if now.Sub(l.past[0].at) < unchangedFor {
		return 0
	}
	return l.past[0].rev
}

// useless says since when a record is of no more use; zero: it still is.
func useless(kv inventory.KV) time.Time {
	switch p := inventory.Parts(kv.Key); p[0] {
	case "wishes":
		if d, err := inventory.Decode[inventory.Wish](kv); err == nil && d.V.Answer != "" && d.V.Answer != inventory.Doing {
			return d.V.Answered
		}
	case "tokens":
		if d, err := inventory.Decode[inventory.Token](kv); err == nil {
			return d.V.Expires
		}
	case "reservations":
		if d, err := inventory.Decode[inventory.Reservation](kv); err == nil && (d.V.Phase == inventory.Released || d.V.Phase == inventory.Expired) {
			return d.V.Ended
		}
	case "sessions":
		if d, err := inventory.Decode[inventory.Session](kv); err == nil && d.V.Phase == inventory.SessionClosed {
			if d.V.Redeemed.After(d.V.Created) {
				return d.V.Redeemed
			}
			return d.V.Created
		}
	}
	return time.Time{}
}

// sweep deletes what has been stale for long enough, a bounded number of records.
func (l *Loop) sweep(ctx context.Context) {
	now := l.Now()
	if now.Sub(l.swept) < sweepEvery {
		return
	}
	l.swept = now
	known, done := l.long(now), 0
	look := func(kvs []inventory.KV, owner func(inventory.KV) string) {
		for _, kv := range kvs {
			since := useless(kv)
			if since.IsZero() || now.Sub(since) < keptFor || kv.Mod > known || done >= sweepAtMost {
				continue
			}
			node := owner(kv)
			if l.Owns != nil && !l.Owns(node) {
				continue
			}
			t := inventory.Txn{If: []inventory.Cond{inventory.Unchanged(kv)}, Then: []inventory.Op{inventory.Delete(kv.Key)}}
			if inventory.Parts(kv.Key)[0] == "reservations" { // while its node's claim stands it is in use, whatever the clock says
				claim := l.Copy.One(inventory.KeyClaim(node))
				if claim.Exists() {
					continue
				}
				t.If = append(t.If, inventory.Unchanged(claim))
			}
			if l.Ledger.Term != nil {
				t.If = append(t.If, l.Ledger.Term(node)...)
			}
			if _, err := l.Ledger.Store.Commit(ctx, t); err != nil {
				l.Log.Warn("an old record could not be deleted; trying again later", "key", kv.Key, "err", err)
				done = sweepAtMost
			}
			done++
		}
	}
	second := func(kv inventory.KV) string { return inventory.Parts(kv.Key)[1] }
	look(l.Copy.Under(inventory.PrefixTokens), second)
	look(l.Copy.Under(inventory.PrefixSessions), second)
	for _, id := range l.Copy.Nodes() {
		look(l.Copy.Under(inventory.PrefixWishes+id+"/"), second)
	}
	for _, tenant := range l.Copy.Below(inventory.PrefixReservations) {
		look(l.Copy.Under(inventory.PrefixReservations+tenant+"/"), func(kv inventory.KV) string {
			d, err := inventory.Decode[inventory.Reservation](kv)
			if err != nil {
				return second(kv)
			}
			return d.V.Node
		})
	}
}
