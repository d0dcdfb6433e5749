package provisioner

import (
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/lifecycle"
)

// stepReady keeps a ready node on offer while it is rentable, and sends it back when its agent is gone.
func stepReady(in Input) Decision {
	v, st := in.View, in.View.State.V
	silence, lost := orElse(in.Rules.Silence, time.Minute), orElse(in.Rules.Lost, 5*time.Minute)
	quiet := in.Now.Sub(lastHeard(in))
	gone := in.Now.Sub(later(in.Now, lastHeard(in), in.Awake)) // what passed while nothing could be done is not held against it
	heard := in.Seen.Session == v.Session.V.ID && !in.Seen.Heard.IsZero()
	switch {
	case v.Session.V.Phase != inventory.SessionRedeemed || v.Session.V.Generation != st.Generation:
		return leaveReady(in, "it has no running boot session")
	case in.Seen.AskedBoot.After(v.Session.V.Redeemed.Add(time.Second)) && in.Seen.AskedBoot.After(in.Seen.Heard):
		return leaveReady(in, "it booted again by itself")
	case quiet >= silence && st.Alive != inventory.Silent:
		return alive(in, inventory.Silent)
	case gone >= lost:
		return leaveReady(in, "its agent has been silent for "+quiet.Round(time.Second).String())
	case quiet >= silence:
		return wait(lost-gone, "its agent has been silent for %v; inspected again after %v", quiet.Round(time.Second), lost)
	case !heard:
		return wait(silence-quiet, "waiting for its agent to speak again")
	case st.Alive != inventory.Alive || st.BootID != in.Seen.BootID:
		return alive(in, inventory.Alive)
	}
	why := v.Blocked(in.Now)
	age := time.Duration(v.SKU.V.TestMaxAge)
	switch {
	case age > 0 && st.Tested.Sub(in.Now) > inventory.ClockSlack:
		return move(lifecycle.Recheck, "its last test is dated %s, which is to come: its age is not known", st.Tested.Format(time.RFC3339))
	case age > 0 && in.Now.Sub(st.Tested) > age*9/10:
		return move(lifecycle.Recheck, "its last test is %v old, the limit is %v", in.Now.Sub(st.Tested).Round(time.Minute), age)
	case len(why) == 0 && !v.Avail.Exists():
		return Decision{Offer: true, Say: "erased, tested, warm: offered"}
	case len(why) > 0 && v.Avail.Exists():
		return Decision{Withdraw: true, Say: why[0]}
	case len(why) > 0:
		return wait(30*time.Second, "ready, but not offered: %s", why[0])
	}
	return wait(min(silence-quiet, 30*time.Second)+time.Second, "waiting for a claim")
}

// leaveReady goes to inspecting, at most twice a week and not twice in ten minutes; after that somebody has to look.
func leaveReady(in Input, why string) Decision {
	switch {
	case remedies(in, remedyLost, remedyWeek) >= maxLost:
		return move(lifecycle.Quarantine, "%s, for the third time in 7 days", why)
	case remedies(in, "", remedyDay) >= maxADay:
		return move(lifecycle.Quarantine, "%s, after %d remedies in 24 hours", why, maxADay)
	}
	if left := tooSoon(in); left > 0 {
		if in.View.Avail.Exists() {
			return Decision{Withdraw: true, Say: why}
		}
		return wait(left, "%s; it was moved for its health a short while ago, inspected again in %v", why, left.Round(time.Second))
	}
	d := remedied(in, move(lifecycle.Lost, "%s", why), remedyLost)
	return d.then(func(st *inventory.NodeState) { st.Alive = inventory.Unknown })
}

// alive writes that liveness changed; heartbeats themselves are never written.
func alive(in Input, word string) Decision {
	d := Decision{Note: true, Liveness: word, Say: "its agent is " + word, Change: change("its agent is " + word)}
	d.Change.Edit = func(st *inventory.NodeState) {
		st.Alive = word
		if word == inventory.Alive {
			st.BootID = in.Seen.BootID
		}
	}
	return d
}
