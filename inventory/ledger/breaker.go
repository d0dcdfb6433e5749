package ledger

import (
	"context"
	"strings"

	"github.com/hostler-project/hostler/inventory"
)

// OpenBreaker opens the site's breaker, if it still is as it was read.
func (l *Ledger) OpenBreaker(ctx context.Context, kv inventory.KV, b inventory.Breaker) (int64, error) {
	kv.Key = inventory.KeyBreaker
	d, err := inventory.Decode[inventory.Breaker](kv)
	if err != nil {
		return 0, err
	}
	b.Schema, b.Open, b.Closed = inventory.Schema, true, d.V.Closed
	op, err := d.Put(b)
	if err != nil {
		return 0, err
	}
	return l.commit(ctx, inventory.Txn{If: []inventory.Cond{d.Unchanged()}, Then: []inventory.Op{op}})
}

// CloseBreaker closes it: a person has looked. What became unhealthy until now does not count again.
func (l *Ledger) CloseBreaker(ctx context.Context, actor, reason string) (inventory.Breaker, error) {
	var out inventory.Breaker
	err := inventory.Update(ctx, l.Store, inventory.KeyBreaker, func(kv inventory.KV) ([]inventory.Cond, []inventory.Op, error) {
		kv.Key = inventory.KeyBreaker
		d, err := inventory.Decode[inventory.Breaker](kv)
		switch {
		case err != nil:
			return nil, nil, err
		case strings.TrimSpace(reason) == "":
			return nil, nil, Refuse("--reason TEXT", "closing the breaker needs a reason: the next person will ask")
		case !d.V.Open:
			return nil, nil, Refuse("", "the breaker is not open")
		}
		out = d.V
		out.Schema, out.Open, out.Since, out.By, out.Reason = inventory.Schema, false, l.Now(), actor, reason
		out.Closed = out.Since
		op, err := d.Put(out)
		return nil, []inventory.Op{op}, err
	})
	return out, err
}
