package provisioner

import (
	"strings"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/ledger"
	"github.com/hostler-project/hostler/inventory/lifecycle"
)

// stepSanitize has every medium ever seen erased, and signs a certificate for exactly this wipe when every one is
// proven. A medium without proof keeps the taint and sends the node to quarantine.
func stepSanitize(in Input) Decision {
	return withAgent(in, func(in Input) Decision {
		st := in.View.State.V
		if len(in.View.Facts.V.MediaEver) == 0 {
			return move(lifecycle.Failed, "no medium was ever recorded for it: nothing to erase is never a proof")
		}
		if st.Work.Phase != inventory.OrderSanitize {
			return startOrder(in, inventory.OrderSanitize, 1, "erasing %d media", len(in.View.Facts.V.MediaEver))
		}
		r := report(in)
		if r == nil {
			return working(in, "erasing the media")
		}
		if r.Error != "" && r.Retry && st.Work.Try < 2 {
			return startOrder(in, inventory.OrderSanitize, st.Work.Try+1, "erasing again: %s", r.Error)
		}
		body := inventory.CertificateBody{
			Site: in.Rules.Site, Node: in.View.ID, Name: in.View.Name(), Serial: in.View.Facts.V.Hardware.Serial,
			Generation: st.Generation, Wipe: st.Wipe, Instance: st.Instance, Media: r.Proofs, NotDone: append(notErased(), r.NotDone...),
			Fence: in.Rules.Fence, Agent: r.Agent, Started: r.Started, Finished: r.Finished,
		}
		var faults []string
		for _, p := range r.Proofs {
			if !p.Passed {
				faults = append(faults, p.Medium.String()+": "+strings.Join(p.Faults, ", "))
			}
		}
		if r.Error != "" {
			faults = append(faults, r.Error)
		}
		if m, missing := ledger.Uncovered(body, in.View.Facts.V.MediaEver); missing && len(faults) == 0 {
			faults = append(faults, "no proof for "+m.String())
		}
		if len(faults) > 0 {
			return move(lifecycle.Failed, "%s", strings.Join(faults, "; "))
		}
		return certify(in, body)
	})
}

// notErased names what this version does not erase: it is printed on every certificate rather than left out.
func notErased() []string {
	return []string{
		"host memory: not overwritten; power was cycled",
		"GPU memory, TPM, UEFI variables and boot entries, BMC accounts: not treated by this version",
	}
}

func certify(in Input, body inventory.CertificateBody) Decision {
	cert, err := in.Rules.Sign(body)
	if err != nil {
		return move(lifecycle.Failed, "the certificate cannot be signed: %v", err)
	}
	key := inventory.KeyCert(in.View.ID, body.Wipe)
	op, err := inventory.Encode(key, cert)
	if err != nil {
		return move(lifecycle.Failed, "the certificate cannot be written: %v", err)
	}
	// From here on the media to erase next time are these: what was removed before had its proof or disposition.
	facts := in.View.Facts.V
	facts.MediaEver = facts.Hardware.Media
	fop, err := in.View.Facts.Put(facts)
	if err != nil {
		return move(lifecycle.Failed, "the facts cannot be written: %v", err)
	}
	d := move(lifecycle.Done, "%d media erased and read back; certificate signed for wipe %d", len(body.Media), body.Wipe)
	d.Change.Edit = func(st *inventory.NodeState) { st.Instance = "" }
	if in.View.State.V.BurnInDue {
		d.Event = lifecycle.DoneBurnIn
	}
	d.Change.If = []inventory.Cond{inventory.Absent(key), in.View.Facts.Unchanged()}
	d.Change.Then = []inventory.Op{op, fop}
	return d
}
