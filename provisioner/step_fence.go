package provisioner

import (
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/lifecycle"
)

// healthNotice is how long a tenant has to leave a node that is drained for its health (design.md section 5).
const healthNotice = 15 * time.Minute

// stepDrain runs the tenant's notice. Its own release has none; every other reason gives it time to leave.
func stepDrain(in Input) Decision {
	if r := in.View.Reservation; r.Exists() && r.V.Phase == inventory.Released {
		return move(lifecycle.Done, "released by its tenant: no notice to run")
	}
	if left := healthNotice - time.Duration(in.View.State.V.Spent) - in.Seen.Counted; left > 0 {
		return wait(left, "its tenant's notice runs for another %v", left.Round(time.Second))
	}
	return move(lifecycle.Done, "its tenant's notice of %v is over", healthNotice)
}

// stepFence cuts the machine off, switches it off until that is certain, and boots the service OS. The tenant's claim
// ends only after all of that: with the edge into inspecting.
func stepFence(in Input) Decision {
	if !ofThisStay(in) {
		return newSession(in, "isolate", 0, "fencing: the boot session is written, the machine is cut off first")
	}
	return withAgent(in, func(in Input) Decision {
		return move(lifecycle.Done, "cut off, power-cycled, and this session's agent answers")
	})
}

// stepQuarantine leaves a node alone, but a claim that is still on it (its tenant's system may run) ends only when the
// power is confirmed off and the machine is cut off its tenant's network, so that nothing that is switched on again
// comes back there. Both are tried for ever, each whether or not the other works.
func stepQuarantine(in Input) Decision {
	if !in.View.Claim.Exists() {
		return wait(0, "%s; when it is mended: hostler node return %s", in.View.State.V.Reason, in.View.Name())
	}
	var late Decision
	for _, do := range []struct {
		act           Act
		doing, failed string
	}{
		{PowerOff, "switching it off: its last tenant's system may still run", "it could not be switched off, try %d: %v; pull its power"},
		{FenceIsolate, "cutting it off its last tenant's network", "it could not be cut off its last tenant's network, try %d: %v; unplug it"},
	} {
		r, have := in.Seen.Results[do.act]
		switch left := 30*time.Second - in.Now.Sub(r.At); {
		case in.Seen.Busy == do.act, in.Seen.Busy != "" && (!have || r.Err != nil):
			return wait(0, "%s", do.doing)
		case !have, r.Err != nil && left <= 0:
			return act(do.act, "%s", do.doing)
		case r.Err != nil && late.Say == "":
			late = wait(left, do.failed, r.Tries, r.Err)
		}
	}
	if late.Say != "" {
		return late
	}
	const over = "power is confirmed off, and it is cut off its tenant's network: the claim is closed"
	return Decision{EndClaim: true, Say: over, Change: change(over)}
}
