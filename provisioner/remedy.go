package provisioner

import (
	"slices"
	"time"

	"github.com/hostler-project/hostler/inventory"
)

// What is done to a node for its health, without anybody asking, has a budget of its own: a node that flaps is a
// technician's, not the loop's (reliability.md P15).
const (
	remedyLost = "lost"  // a ready node was sent to inspection
	remedyBoot = "boot"  // it was booted once more in the middle of its work
	remedyOut  = "drain" // its tenant's notice began

	restBetween = 10 * time.Minute   // between two moves for a node's health
	remedyDay   = 24 * time.Hour     // in which a node is helped maxADay times
	remedyWeek  = 7 * 24 * time.Hour // in which a ready node is lost maxLost times; older ones are forgotten
	maxADay     = 3
	maxLost     = 2
	mostKept    = 32
)

// remedies counts what was done to a node within a time; "" counts everything.
func remedies(in Input, what string, within time.Duration) int {
	n := 0
	for _, r := range in.View.State.V.Remedies {
		if (what == "" && r.What != remedyOut || r.What == what) && in.Now.Sub(r.At) < within {
			n++
		}
	}
	return n
}

// tooSoon says how long to wait until the node may be moved for its health again.
func tooSoon(in Input) time.Duration {
	var left time.Duration
	for _, r := range in.View.State.V.Remedies {
		if r.What != remedyBoot {
			left = max(left, restBetween-max(in.Now.Sub(r.At), 0)) // dated by a clock that was wrong: as if it were now
		}
	}
	return left
}

// remedied writes with a decision that it helps the node.
func remedied(in Input, d Decision, what string) Decision {
	return d.then(func(st *inventory.NodeState) {
		kept := slices.DeleteFunc(slices.Clone(st.Remedies), func(r inventory.Remedy) bool { return in.Now.Sub(r.At) >= remedyWeek })
		kept = append(kept, inventory.Remedy{At: in.Now, What: what})
		st.Remedies = kept[max(0, len(kept)-mostKept):]
	})
}
