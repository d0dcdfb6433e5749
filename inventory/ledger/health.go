package ledger

import (
	"context"
	"fmt"
	"slices"

	"github.com/hostler-project/hostler/inventory"
)

// Raise adds an alert to what a source says of a node, unless it is there already. One that forbids renting takes the
// node off the market in the same transaction (design.md section 6).
func (l *Ledger) Raise(ctx context.Context, id, source string, a inventory.Alert) error {
	return l.health(ctx, id, source, func(h *inventory.HealthReport) bool {
		if slices.ContainsFunc(h.Alerts, func(old inventory.Alert) bool { return old.ID == a.ID }) {
			return false
		}
		a.Since = l.Now()
		h.Alerts, h.Note = append(slices.Clone(h.Alerts), a), ""
		return true
	})
}

// Clear takes a source's alerts away, and leaves a note of who did and why: what a source said is never deleted.
func (l *Ledger) Clear(ctx context.Context, id, source, note string) error {
	return l.health(ctx, id, source, func(h *inventory.HealthReport) bool {
		had := len(h.Alerts) > 0
		h.Alerts, h.Note = []inventory.Alert{}, note
		return had
	})
}

// health has a source's report of a node changed, and writes it with the public record that follows from it.
func (l *Ledger) health(ctx context.Context, id, source string, change func(*inventory.HealthReport) bool) error {
	return l.retry(func() error {
		r := &inventory.Read{Ctx: ctx, Store: l.Store}
		v := inventory.View(r, id)
		if r.Err != nil {
			return r.Err
		}
		if !v.State.Exists() {
			return Refuse("hostler node ls", "there is no node %s", id)
		}
		if err := writable(v); err != nil {
			return err
		}
		key := inventory.KeyHealth(id, source)
		i := slices.IndexFunc(v.Health, func(d inventory.Doc[inventory.HealthReport]) bool { return d.KV.Key == key })
		next := v
		next.Health = slices.Clone(v.Health)
		if i < 0 {
			i = len(next.Health)
			next.Health = append(next.Health, inventory.Doc[inventory.HealthReport]{KV: inventory.KV{Key: key}})
		}
		h := next.Health[i].V
		if !change(&h) {
			return nil
		}
		h.Schema, h.Source, h.Observed = inventory.Schema, source, l.Now()
		t := inventory.Txn{If: append(l.term(id), v.State.Unchanged(), v.Spec.Unchanged(), v.Avail.Unchanged())}
		if err := put(&t, &next.Health[i], h, true); err != nil {
			return err
		}
		if len(next.Alerts(inventory.PreventAllocation)) > 0 && v.Avail.Exists() {
			t.Then = append(t.Then, inventory.Delete(v.Avail.KV.Key))
			next.Avail = inventory.Doc[inventory.Avail]{}
		}
		if _, err := l.publish(ctx, t, next, l.Now()); err != nil {
			return fmt.Errorf("health of %s: %w", v.Name(), err)
		}
		return nil
	})
}
