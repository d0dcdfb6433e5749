package provisioner

import (
	"fmt"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/lifecycle"
)

// wishEvents says which event a wish asks for.
var wishEvents = map[string]lifecycle.Event{
	inventory.WishApprove:    lifecycle.Approve,
	inventory.WishQuarantine: lifecycle.Quarantine,
	inventory.WishReturn:     lifecycle.Return,
	inventory.WishAbort:      lifecycle.Abort,
	inventory.WishMaintain:   lifecycle.Maintain,
}

// powerActs says which act a power wish asks for.
var powerActs = map[string]Act{"on": PowerOn, "off": PowerOff, "cycle": PowerCycle}

// phasePower is the phase of a node whose power is switched for a person.
const phasePower = "power"

// decideWish answers the oldest open wish: done, refused with the reason, or stale. None is ever dropped.
func decideWish(in Input) (Decision, bool) {
	if len(in.View.Wishes) == 0 {
		return Decision{}, false
	}
	w, st := in.View.Wishes[0], in.View.State.V
	switch {
	case in.Now.After(w.V.Expires):
		return answer(in, w, inventory.Stale, "it expired before anybody could do it"), true
	case w.V.Generation != st.Generation:
		return answer(in, w, inventory.Stale, fmt.Sprintf("it was for generation %d, the node is at %d", w.V.Generation, st.Generation)), true
	}
	if ev, ok := wishEvents[w.V.Verb]; ok {
		edge, err := lifecycle.Find(st.State, ev)
		switch {
		case err != nil:
			return answer(in, w, inventory.Refused, fmt.Sprintf("a node that is %s cannot be asked to %s", st.State, w.V.Verb)), true
		case in.Breaker.Open && lifecycle.Starts(ev):
			return answer(in, w, inventory.Refused, breakerFix(in)), true
		case ev == lifecycle.Approve && !in.View.SKU.Exists():
			return answer(in, w, inventory.Refused, fmt.Sprintf("its SKU %q is not declared in site.yaml", in.View.Spec.V.SKU)), true
		case ev == lifecycle.Approve && in.View.Spec.V.BMC.Addr == "":
			return answer(in, w, inventory.Refused, "no BMC is known for it: --bmc ADDR --credential REF"), true
		case st.State == inventory.Quarantined && in.View.Claim.Exists():
			return answer(in, w, inventory.Refused, "its last tenant's system may still run: its power must be confirmed off first, which is tried for ever; pull it if the BMC cannot"), true
		}
		why := w.V.Verb + " by " + w.V.Actor
		if w.V.Reason != "" {
			why += ": " + w.V.Reason
		}
		d := answer(in, w, inventory.DoneOK, "now "+string(edge.To))
		d.Note, d.Event, d.Say = false, ev, why
		d.Change.Actor, d.Change.Reason = w.V.Actor, why
		if ev == lifecycle.Return { // somebody has looked: its budget is whole again
			d = absolve(in, d.then(func(st *inventory.NodeState) { st.Remedies = nil }), w.V.Actor)
		}
		return d, true
	}
	if a, ok := powerActs[w.V.Arg]; ok && w.V.Verb == inventory.WishPower {
		return power(in, w, a), true
	}
	return answer(in, w, inventory.Refused, fmt.Sprintf("this version cannot %s %s", w.V.Verb, w.V.Arg)), true
}

// power switches a node that rests and is nobody's; one that works or is a tenant's is not touched by hand.
func power(in Input, w inventory.Doc[inventory.Wish], a Act) Decision {
	row, _ := lifecycle.Get(in.View.State.V.State)
	switch {
	case row.Owned || in.View.Claim.Exists():
		return answer(in, w, inventory.Refused, "it is a tenant's: no power act without the holder's consent")
	case !row.Rest || row.Name == inventory.Ready:
		return answer(in, w, inventory.Refused, fmt.Sprintf("it is %s: quarantine it first, or wait", row.Name))
	case in.View.Spec.V.BMC.Addr == "":
		return answer(in, w, inventory.Refused, "no BMC is known for it")
	}
	r, have := in.Seen.Results[a]
	switch {
	case in.View.State.V.Work.Phase != phasePower && in.Breaker.Open:
		return answer(in, w, inventory.Refused, breakerFix(in))
	case in.View.State.V.Work.Phase != phasePower: // counted like every other power act
		return phase(in, phasePower, "power %s for %s", w.V.Arg, w.V.Actor)
	case in.Seen.Busy != "":
		return wait(0, "power %s for %s", w.V.Arg, w.V.Actor)
	case !have: // of a wish before this one there is none left: its answer began another chapter
		return act(a, "power %s for %s", w.V.Arg, w.V.Actor)
	case r.Err != nil:
		return answer(in, w, inventory.Refused, r.Err.Error())
	}
	return answer(in, w, inventory.DoneOK, "power is "+r.Power+", confirmed")
}

// breakerFix says why a wish is refused, and what to do.
func breakerFix(in Input) string {
	return in.Breaker.Words() + "; find the cause, then: hostler breaker close --reason TEXT"
}

// answer writes the answer into the wish, as a line of the node's history.
func answer(in Input, w inventory.Doc[inventory.Wish], word, detail string) Decision {
	v := w.V
	v.Answer, v.Detail, v.Answered = word, detail, in.Now
	say := fmt.Sprintf("wish %s by %s: %s, %s", v.Verb, v.Actor, word, detail)
	op, err := w.Put(v)
	if err != nil {
		return wait(0, "the wish %s cannot be answered: %v", w.KV.Key, err)
	}
	d := Decision{Note: true, Say: say, Change: change(say, op)}
	d.Change.Actor = v.Actor
	d.Change.If = []inventory.Cond{w.Unchanged()}
	d.Change.Edit = func(st *inventory.NodeState) {
		if st.Work.Phase == phasePower {
			st.Work = inventory.Work{}
		}
	}
	return d
}
