package provisioner

import (
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/ledger"
	"github.com/hostler-project/hostler/inventory/lifecycle"
)

// stepInUse puts the machine on its tenant's network, notes that the tenant's system answered, and else keeps its hands
// off: no power, boot or firmware act is ever decided here.
func stepInUse(in Input) Decision {
	st, inst := in.View.State.V, in.View.Instance.V
	if row, ok := actPhase(st.Work.Phase); ok && row.Act == FenceAttach {
		if r := in.Seen.Results[FenceAttach]; r.Err != nil && (r.Fatal || r.Tries >= maxTries) {
			if in.Now.Sub(r.At) < time.Minute { // no edge to give up by: it is the tenant's; a person has to mend the network
				return wait(time.Minute, "%s keeps failing: %v", row.Doing, r.Err)
			}
			return act(FenceAttach, "%s, once more", row.Doing)
		}
		return walk(in, row, advance(in))
	}
	if a := in.View.Alerts(inventory.DrainNow); len(a) > 0 {
		if left := tooSoon(in); left > 0 {
			return wait(left, "alert %s: %s; it was moved for its health a short while ago, drained in %v", a[0].ID, a[0].What, left.Round(time.Second))
		}
		d := remedied(in, move(lifecycle.DrainNow, "alert %s: %s", a[0].ID, a[0].What), remedyOut)
		d.Change.Cause = "alert " + a[0].ID
		return d
	}
	if !in.View.Instance.Exists() {
		return wait(0, "in use")
	}
	if p := in.Seen.PhoneHome; p != nil && p.Instance == inst.ID && !inst.Ready {
		inst.Ready, inst.ReadyReason, inst.ReadyAt, inst.HostKeys = true, "its system phoned home", p.At, p.HostKeys
		return instanceFact(in, inst)
	}
	late := orElse(in.Rules.Readiness, 30*time.Minute)
	switch waited := in.Now.Sub(inst.HandedOver); {
	case inst.Ready:
		return wait(0, "in use by %s", inst.Tenant)
	case waited < late:
		return wait(late-waited, "in use by %s; its system has not answered yet", inst.Tenant)
	case inst.ReadyReason != notReady:
		inst.ReadyReason = notReady
		return instanceFact(in, inst)
	}
	return wait(0, "in use by %s; %s", inst.Tenant, notReady)
}

const notReady = "its system did not answer in time: look at its console; the disk is the tenant's and stays"

func instanceFact(in Input, inst inventory.Instance) Decision {
	d := Decision{Note: true, Say: inst.ReadyReason, Change: change(inst.ReadyReason)}
	d.Change.Instance = &inst
	return d
}

// change is who and why, with more to write.
func change(reason string, then ...inventory.Op) ledger.Change {
	return ledger.Change{Actor: actor, Reason: words("%s", reason), Then: then}
}
