package provisioner

import (
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/lifecycle"
)

// stepReserved waits for the confirm, and gives the node back when the reservation runs out. The confirm moves the
// reservation's phase in the same transaction as the node, so an expired one can never touch a node that went on.
func stepReserved(in Input) Decision {
	r := in.View.Reservation
	switch {
	case !r.Exists() || r.V.Phase != inventory.Pending:
		return wait(time.Second, "reserved, but its reservation is %q", r.V.Phase)
	case in.Now.After(r.V.Expires):
		return move(lifecycle.Expire, "reservation %s of %s expired before it was confirmed", r.V.ID, r.V.Tenant)
	}
	left := r.V.Expires.Sub(in.Now)
	return wait(left, "waiting for %s to confirm reservation %s, until %s", r.V.Tenant, r.V.ID, r.V.Expires.Format(time.TimeOnly))
}
