package ledger

import (
	"context"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/lifecycle"
)

// Restore moves a node whose record came back from a backup: what happened to it since is not known. Its numbers jump, its
// boot session is over, and unless it rests or is its tenant's it goes to the fence.
func (l *Ledger) Restore(ctx context.Context, v inventory.NodeView, c Change) (int64, error) {
	return l.Move(ctx, v, lifecycle.Restored, c)
}

// stays says whether a restore leaves the node where it is, in the middle of what it does there: a tenant's notice runs
// on, the reason of a quarantine is still the reason.
func stays(e lifecycle.Edge) bool {
	row, _ := lifecycle.Get(e.From)
	return e.By == lifecycle.Restorer && e.From == e.To && (row.Owned || row.Rest)
}

// restored adds what else changes: the claim goes on under the new generation, because the tenant's system may still run;
// but a reservation that was not yet a running machine is over, and its holder is told why.
func restored(next *inventory.NodeView, e lifecycle.Edge, generation int64, c *Change, now time.Time) {
	if next.Claim.Exists() {
		claim := next.Claim.V
		claim.Generation = generation
		c.Claim = &claim
	}
	begun := e.From == inventory.Reserved || e.From == inventory.Provisioning
	if in := next.Instance.V; next.Instance.Exists() && in.Phase != inventory.InstanceEnded {
		in.Generation = generation
		if begun {
			in.Phase, in.Ready, in.ReadyReason = inventory.InstanceDraining, false, c.Reason
		}
		c.Instance = &in
	}
	if r := next.Reservation.V; begun && next.Reservation.Exists() && (r.Phase == inventory.Pending || r.Phase == inventory.Committed) {
		r.Phase, r.Ended, r.Reason = inventory.Released, now, c.Reason
		c.Reservation = &r
	}
}
