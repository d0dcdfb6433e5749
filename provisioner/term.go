package provisioner

import (
	"context"
	"fmt"

	"github.com/hostler-project/hostler/inventory"
)

// A Term is a replica's hold on the shards: every transaction of its reconciler compares the shard key's creation
// revision, so the writes of a replica that was replaced fail, however late they come. This version has one replica at
// a time, which takes every shard when it starts; elections among several come with inventory/etcd.
type Term struct{ created [inventory.Shards]int64 }

// TakeTerm begins a term on every shard for a replica. Whoever held them before writes nothing more.
func TakeTerm(ctx context.Context, s inventory.Store, replica string) (*Term, error) {
	var drop, take inventory.Txn
	for n := range inventory.Shards {
		key := inventory.KeyShard(n)
		op, err := inventory.Encode(key, map[string]string{"replica": replica})
		if err != nil {
			return nil, err
		}
		drop.Then = append(drop.Then, inventory.Delete(key))
		take.If, take.Then = append(take.If, inventory.Absent(key)), append(take.Then, op)
	}
	for range 8 { // another replica that starts at the same moment takes between the two
		if _, err := s.Commit(ctx, drop); err != nil {
			return nil, err
		}
		r, err := s.Commit(ctx, take)
		if err != nil {
			return nil, err
		}
		if r.Done {
			t := &Term{}
			for n := range t.created {
				t.created[n] = r.Rev
			}
			return t, nil
		}
	}
	return nil, fmt.Errorf("provisioner: the shards cannot be taken: another hostlerd keeps starting on this etcd")
}

// Conds are what a transaction about a node must compare.
func (t *Term) Conds(node string) []inventory.Cond {
	n := inventory.Shard(node)
	return []inventory.Cond{{Key: inventory.KeyShard(n), Create: t.created[n]}}
}

// Begin makes sure of the site's own records: schema, and the era, which watchers take from revisions of another life
// of the store. An era is made once; a restore from backup makes a new one.
func Begin(ctx context.Context, s inventory.Store, site, era string) error {
	for _, r := range []struct {
		key string
		v   map[string]any
	}{
		{inventory.KeySchema, map[string]any{"schema": inventory.Schema}},
		{inventory.KeySite, map[string]any{"schema": inventory.Schema, "site": site}},
		{inventory.KeyEra, map[string]any{"schema": inventory.Schema, "era": era}},
	} {
		op, err := inventory.Encode(r.key, r.v)
		if err != nil {
			return err
		}
		if _, err := s.Commit(ctx, inventory.Txn{If: []inventory.Cond{inventory.Absent(r.key)}, Then: []inventory.Op{op}}); err != nil {
			return err
		}
	}
	return nil
}
