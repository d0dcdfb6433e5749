package provisioner

import (
	"context"

	"github.com/hostler-project/hostler/inventory"
)

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
