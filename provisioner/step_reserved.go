package provisioner

import (
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/lifecycle"
)

// stepReserved waits for the confirm, and gives the node back when the reservation runs out. The confirm moves the
// reservation's phase in the same transaction as the node, so an expired one can never touch a node that went on. What
// has passed is counted, as of deadlines, and read from no wall clock: one that is set, or another daemon's, ends nothing.
func stepReserved(in Input) Decision {
	r := in.View.Reservation
	hold := orElse(time.Duration(r.V.Hold), r.V.Expires.Sub(r.V.Created)) // an older daemon's tells only its end
	switch {
	case !r.Exists() || r.V.Phase != inventory.Pending:
		return wait(time.Second, "reserved, but its reservation is %q", r.V.Phase)
	case in.Seen.Held >= hold:
		return move(lifecycle.Expire, "reservation %s of %s expired before it was confirmed", r.V.ID, r.V.Tenant)
	}
	return wait(hold-in.Seen.Held, "waiting for %s to confirm reservation %s, until %s", r.V.Tenant, r.V.ID, r.V.Expires.Format(time.TimeOnly))
}
