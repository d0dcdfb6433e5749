package provisioner

import (
	"time"

	"github.com/hostler-project/hostler/inventory/lifecycle"
)

// stepDiscovered leaves a node alone, unless its manifest row says approve: auto and its BMC says that it is off.
func stepDiscovered(in Input) Decision {
	sp := in.View.Spec.V
	switch {
	case sp.Approve != "auto":
		return wait(0, "waiting for an operator: hostler node approve %s --sku … --bmc ADDR --credential REF", in.View.Name())
	case sp.BMC.Addr == "" || !in.View.SKU.Exists():
		return wait(0, "its manifest row says approve: auto, but names no BMC or no declared SKU")
	}
	r, have := in.Seen.Results[ReadPower]
	switch {
	case in.Seen.Busy != "":
		return wait(0, "asking its BMC whether it is off")
	case !have || in.Now.Sub(r.At) >= 30*time.Second:
		return act(ReadPower, "asking its BMC whether it is off")
	case r.Err != nil:
		return wait(30*time.Second, "its BMC does not answer: %v", r.Err)
	case r.Power != "off":
		return wait(30*time.Second, "approve: auto takes only machines that are off; its BMC says %s: approve it by hand", r.Power)
	}
	return move(lifecycle.Approve, "approved by its manifest row; the BMC says that it is off")
}
