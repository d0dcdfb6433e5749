package provisioner

import (
	"strings"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/lifecycle"
)

// stepTest runs a burn-in profile: the SKU's burn-in profile in burn-in, its verify profile in verifying. The run is
// written first; ready is written only by comparing with that record.
func stepTest(in Input) Decision {
	return withAgent(in, func(in Input) Decision {
		st, work := in.View.State.V, in.View.State.V.Work
		name := profile(in.View)
		if work.Phase != inventory.OrderTest {
			return startOrder(in, inventory.OrderTest, 1, "running test profile %s", name)
		}
		if t := in.View.Test; t.Exists() && t.V.Order == work.Order {
			return verdict(in, t.V)
		}
		r := report(in)
		switch {
		case r == nil:
			return working(in, "running test profile "+name)
		case r.Test == nil:
			return retest(in, "the agent reported no test run: "+r.Error)
		}
		t := *r.Test
		t.Schema, t.ID, t.Node, t.Order, t.Profile, t.Generation, t.Wipe = inventory.Schema, in.ID, in.View.ID, work.Order, name, st.Generation, st.Wipe
		op, err := inventory.Encode(inventory.KeyTest(in.View.ID, in.ID), t)
		if err != nil {
			return move(lifecycle.Failed, "the test run cannot be written: %v", err)
		}
		return Decision{Note: true, Say: words("test profile %s: %s", name, t.Verdict), Change: change("test profile "+name+": "+t.Verdict, op)}
	})
}

// verdict moves by the written run. Only pass is a pass.
func verdict(in Input, t inventory.TestRun) Decision {
	if t.Verdict == inventory.Pass {
		d := move(lifecycle.Done, "test profile %s passed", t.Profile)
		d.Change.Edit = func(st *inventory.NodeState) { st.BurnInDue = false }
		return d
	}
	var faults []string
	for _, r := range t.Results {
		if r.Verdict != inventory.Pass {
			faults = append(faults, r.Test+" of "+r.Component+": "+r.Verdict+" ("+r.Reason+")")
		}
	}
	return retest(in, "test profile "+t.Profile+": "+t.Verdict+": "+strings.Join(faults, "; "))
}

// retest gives a known node a second chance; a new or repaired one has none.
func retest(in Input, why string) Decision {
	if st := in.View.State.V; st.State == inventory.Verifying && st.Work.Try < 2 {
		return startOrder(in, inventory.OrderTest, st.Work.Try+1, "once more, %s", why)
	}
	return move(lifecycle.Failed, "%s", why)
}

// profile is the test profile that the present state calls for.
func profile(v inventory.NodeView) string {
	if v.State.V.State == inventory.BurnIn {
		return fallback(v.SKU.V.BurnInProfile, "full")
	}
	return fallback(v.SKU.V.VerifyProfile, "smoke")
}

func fallback(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
