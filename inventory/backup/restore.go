package backup

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

// A Plan says what a restore does with a site's record.
type Plan struct {
	Site, Era string
	Moves     []Move            // by state, in the order of the table
	Tenants   []string          // nodes that stay their tenant's: each to be confirmed by a person
	Left      map[string]string // nodes that are not touched, and why: a record of them cannot be read
}

// A Move is what happens to the nodes of one state.
type Move struct {
	From, To inventory.State
	Nodes    []string
}

// A Restore brings the record of a store that was made of a backup into a state in which a daemon may go on with it.
// Nobody else may use the store meanwhile, and one that was cut off is thrown away and made again.
type Restore struct {
	Store    inventory.Store
	Manifest Manifest
	Now      func() time.Time
	NewID    func() string // a ULID
	Lost     string        // an era that is over with the one that the store has; may be ""
	Cause    string        // what histories and breaker tell; "": of which backup it is
}

// Reason is what histories, reservations and the breaker tell.
func (r *Restore) Reason() string {
	if r.Cause != "" {
		return r.Cause
	}
	return "restored from the backup of " + r.Manifest.Time.UTC().Format(time.RFC3339)
}

// records reads everything but history, sealed data and samples.
func (r *Restore) records(ctx context.Context) (*inventory.Copy, []string, error) {
	c := inventory.NewCopy()
	snap, err := r.Store.List(ctx, inventory.Root, inventory.ListOptions{})
	if err != nil {
		return nil, nil, err
	}
	b := inventory.Batch{Rev: snap.Rev}
	for _, kv := range snap.KVs {
		b.Events = append(b.Events, inventory.Event{KV: kv})
	}
	c.Apply(b)
	return c, c.Nodes(), nil
}

// Plan tells what Apply would do.
func (r *Restore) Plan(ctx context.Context) (Plan, error) {
	p := Plan{Left: map[string]string{}}
	c, nodes, err := r.records(ctx)
	if err != nil {
		return p, err
	}
	if p.Site, p.Era, err = whose(c); err != nil {
		return p, err
	}
	by := map[inventory.State][]string{}
	for _, id := range nodes {
		v := inventory.View(c, id)
		st := v.State.V.State
		row, known := lifecycle.Get(st)
		switch {
		case errors.Is(v.Broken, inventory.ErrNewer), v.Broken == nil && !known:
			return p, fmt.Errorf("backup: %s was written by a newer version than this one: use that one (%s)", v.Name(), r.Manifest.Version)
		case v.Broken != nil:
			p.Left[v.Name()] = v.Broken.Error()
			continue
		}
		by[st] = append(by[st], v.Name())
		if row.Owned {
			p.Tenants = append(p.Tenants, v.Name())
		}
	}
	for _, s := range lifecycle.States {
		if names := by[s.Name]; len(names) > 0 {
			e, err := lifecycle.Find(s.Name, lifecycle.Restored)
			if err != nil {
				return p, err
			}
			slices.Sort(names)
			p.Moves = append(p.Moves, Move{s.Name, e.To, names})
		}
	}
	slices.Sort(p.Tenants)
	return p, nil
}

// Words are the plan for people, a line each.
func (p Plan) Words() []string {
	out := []string{fmt.Sprintf("site %s gets a new era; revisions, generations and wipe numbers jump beyond all that were", p.Site)}
	for _, m := range p.Moves {
		row, _ := lifecycle.Get(m.From)
		line := fmt.Sprintf("%4d %s", len(m.Nodes), m.From)
		switch {
		case row.Owned:
			line += ": stay their tenants', untouched, to be confirmed by a person: " + strings.Join(m.Nodes, ", ")
		case m.From == m.To && row.Rest:
			line += ": stay there, tainted"
		default:
			line += ": cut off, switched off, inspected and erased"
		}
		out = append(out, line)
	}
	for name, why := range p.Left {
		out = append(out, "     "+name+": not touched, "+why)
	}
	return append(out, "pending reservations end; discovery leases, elections, login links and boot sessions are dropped",
		"the breaker is left open: nothing is switched or erased until a person has looked and closed it")
}

// Apply does it. The new era comes first: whatever else was read before it belongs to another life of the store.
func (r *Restore) Apply(ctx context.Context, p Plan) error {
	if err := r.newEra(ctx); err != nil {
		return err
	}
	// The breaker before the first node: at no moment is there a record on which a daemon would act.
	led := &ledger.Ledger{Store: r.Store, Now: r.Now, NewID: r.NewID}
	if err := r.openBreaker(ctx, led); err != nil {
		return err
	}
	c, nodes, err := r.records(ctx)
	if err != nil {
		return err
	}
	for _, id := range nodes {
		v := inventory.View(c, id)
		if p.Left[v.Name()] != "" {
			continue
		}
		if _, err := led.Restore(ctx, v, ledger.Change{Actor: "hostlerd restore", Reason: r.Reason()}); err != nil {
			return fmt.Errorf("backup: restore %s: %w", v.Name(), err)
		}
	}
	return r.sweep(ctx, c, p)
}

func (r *Restore) newEra(ctx context.Context) error {
	return inventory.Update(ctx, r.Store, inventory.KeyEra, func(kv inventory.KV) ([]inventory.Cond, []inventory.Op, error) {
		kv.Key = inventory.KeyEra
		d, err := inventory.Decode[inventory.Era](kv)
		if err != nil {
			return nil, nil, err
		}
		era := d.V
		era.Schema = inventory.Schema
		era.Former = slices.Clone(era.Former)
		for _, over := range slices.Compact([]string{r.Lost, era.Era}) {
			if over != "" {
				era.Former = append(era.Former, inventory.FormerEra{Era: over, Ended: r.Now().UTC(), Backup: r.Manifest.SHA256,
					Taken: r.Manifest.Time, Revision: r.Manifest.Revision})
			}
		}
		era.Era = r.NewID()
		op, err := d.Put(era)
		return nil, []inventory.Op{op}, err
	})
}

func (r *Restore) openBreaker(ctx context.Context, led *ledger.Ledger) error {
	kv, err := r.Store.Get(ctx, inventory.KeyBreaker)
	if err != nil {
		return err
	}
	_, err = led.OpenBreaker(ctx, kv, inventory.Breaker{Since: r.Now(), Cause: r.Reason(), By: "hostlerd restore"})
	return err
}

// dropped are what belonged to processes and conversations that are over.
var dropped = []string{inventory.PrefixShards, inventory.PrefixReplicas, inventory.Root + "leases4/", inventory.Root + "leases6/"}

// sweep ends what belongs to no node: reservations that pend without a claim, login links, elections, leases.
func (r *Restore) sweep(ctx context.Context, c *inventory.Copy, p Plan) error {
	var ops []inventory.Op
	snap, err := r.Store.List(ctx, inventory.PrefixReservations, inventory.ListOptions{})
	if err != nil {
		return err
	}
	for _, kv := range snap.KVs {
		d, err := inventory.Decode[inventory.Reservation](kv)
		if err != nil || d.V.Phase != inventory.Pending || p.Left[inventory.View(c, d.V.Node).Name()] != "" {
			continue // an unreadable one pends for nobody: confirm cannot read it either
		}
		res := d.V
		res.Phase, res.Ended, res.Reason = inventory.Released, r.Now(), r.Reason()
		op, err := d.Put(res)
		if err != nil {
			return err
		}
		ops = append(ops, op)
	}
	for _, kv := range c.Under(inventory.PrefixTokens) {
		if t, err := inventory.Decode[inventory.Token](kv); err == nil && t.V.Once {
			ops = append(ops, inventory.Delete(kv.Key))
		}
	}
	for _, prefix := range dropped {
		snap, err := r.Store.List(ctx, prefix, inventory.ListOptions{KeysOnly: true})
		if err != nil {
			return err
		}
		for _, kv := range snap.KVs {
			ops = append(ops, inventory.Delete(kv.Key))
		}
	}
	for chunk := range slices.Chunk(ops, inventory.MaxOps) {
		if err := r.write(ctx, chunk); err != nil {
			return err
		}
	}
	return nil
}

func (r *Restore) write(ctx context.Context, ops []inventory.Op) error {
	_, err := r.Store.Commit(ctx, inventory.Txn{Then: ops})
	return err
}
