package provisioner

import (
	"slices"
	"strings"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/lifecycle"
)

// stepInspect has the agent read the hardware, records it, and compares it with the SKU and with what was there before.
func stepInspect(in Input) Decision {
	if !in.View.SKU.Exists() {
		return move(lifecycle.Failed, "its SKU %q is not declared: add it to site.yaml", in.View.Spec.V.SKU)
	}
	return withAgent(in, func(in Input) Decision {
		work := in.View.State.V.Work
		if work.Phase != inventory.OrderInspect {
			return startOrder(in, inventory.OrderInspect, 1, "its agent answers; reading the hardware")
		}
		r := report(in)
		switch {
		case r == nil:
			return working(in, "reading the hardware")
		case r.Error != "" && r.Retry && work.Try < 2:
			return startOrder(in, inventory.OrderInspect, work.Try+1, "reading the hardware again: %s", r.Error)
		case r.Error != "":
			return move(lifecycle.Failed, "the hardware could not be read: %s", r.Error)
		case r.Hardware == nil:
			return move(lifecycle.Failed, "the agent reported no hardware")
		}
		return judge(in, *r.Hardware)
	})
}

// judge writes the facts and moves: on where they hold, else to quarantine with slot, expected, found.
func judge(in Input, hw inventory.Hardware) Decision {
	faults := in.Rules.Compare(in.View.SKU.V, hw)
	now := map[string]bool{}
	for _, m := range hw.Media {
		now[m.Key()] = true
	}
	facts := in.View.Facts.V
	ever := slices.Clone(hw.Media)
	for _, m := range facts.MediaEver {
		if !now[m.Key()] {
			ever = append(ever, m)
			faults = append(faults, "slot "+m.Slot+": expected "+m.String()+", which held data since the last certificate, found nothing: put it back, then hostler node return "+in.View.Name()+"; if it cannot come back, leave the node here: what became of a removed medium is for a later version to record")
		}
	}
	if want := in.View.Spec.V.Serial; want != "" && !strings.EqualFold(want, hw.Serial) {
		faults = append(faults, "chassis: expected serial "+want+", found "+hw.Serial)
	}
	same := twins(in, hw)
	if r := suspect(in, same); r != nil {
		return raise(r)
	}
	for _, t := range same[:min(len(same), 10)] {
		faults = append(faults, "chassis: "+t.by+" belongs to node "+t.node)
	}
	for _, a := range in.View.Alerts("") {
		if a.ID == identityAlert { // it was a tenant's when the other was found: now it is nobody's
			faults = append(faults, "chassis: "+a.What)
		}
	}
	facts.Schema, facts.Hardware, facts.MediaEver, facts.Inspected = inventory.Schema, hw, ever, in.Now

	d := move(lifecycle.Done, "the hardware is what its SKU %s calls for", in.View.SKU.V.Name)
	if len(faults) > 0 {
		d = move(lifecycle.Failed, "%s", strings.Join(faults, "; "))
	}
	op, err := in.View.Facts.Put(facts)
	if err != nil {
		return move(lifecycle.Failed, "the facts cannot be written: %v", err)
	}
	d.Change.If = append(d.Change.If, in.View.Facts.Unchanged())
	d.Change.Then = append(d.Change.Then, op)
	return d
}
