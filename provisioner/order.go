package provisioner

import (
	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/lifecycle"
)

// OrderFor is what a node's agent must do now: a pure function of the record. The order's id is in the record, so an
// agent that asks again, or a daemon that has just started, gets the same.
func OrderFor(v inventory.NodeView, rules *Rules) inventory.Order {
	st := v.State.V
	o := inventory.Order{ID: "idle", Kind: inventory.OrderIdle, Node: v.ID, Name: v.Name(), Generation: st.Generation, Session: v.Session.V.ID, Wipe: st.Wipe}
	row, _ := lifecycle.Get(st.State)
	if st.Work.Order == "" || !row.Destroys && st.Work.Phase != inventory.OrderInspect { // whatever the record says: the table decides where anything may be destroyed
		return o
	}
	switch st.Work.Phase {
	case inventory.OrderInspect, inventory.OrderSanitize, inventory.OrderTest, inventory.OrderWrite, inventory.OrderHandoff:
		o.ID, o.Kind = st.Work.Order, st.Work.Phase
	case "enter":
		o.ID, o.Kind = st.Work.Order, inventory.OrderHandoff
	}
	switch o.Kind {
	case inventory.OrderInspect, inventory.OrderTest:
		sku := v.SKU.V
		o.SKU, o.Profile = &sku, profile(v)
		o.Media = v.Facts.V.Hardware.Media
	case inventory.OrderSanitize:
		o.Media = v.Facts.V.MediaEver
	case inventory.OrderWrite:
		o.Media = v.Facts.V.Hardware.Media
		o.Write = &inventory.WriteOrder{Image: v.Instance.V.Image, ChunkBase: rules.ChunkBase(v, v.Instance.V.Image), Medium: bootMedium(v),
			TrustedKey: rules.TrustedKey(v.Instance.V.Image), Reboots: v.SKU.V.Handoff == "reboot"}
	case inventory.OrderHandoff:
		o.Handoff = &inventory.HandoffOrder{Image: v.Instance.V.Image, ChunkBase: rules.ChunkBase(v, v.Instance.V.Image), Medium: bootMedium(v),
			Instance: v.Instance.V.ID, Hostname: v.Instance.V.Hostname, Method: fallback(v.SKU.V.Handoff, "kexec"), Qualified: true,
			TrustedKey: rules.TrustedKey(v.Instance.V.Image)}
	}
	return o
}

// bootMedium is the medium that images are written to: the one that the SKU marks, else the first recorded.
func bootMedium(v inventory.NodeView) inventory.Medium {
	media := v.Facts.V.Hardware.Media
	for _, want := range v.SKU.V.Media {
		for _, m := range media {
			if want.Boot && (m.Slot == want.Slot || m.Device == want.Slot) {
				return m
			}
		}
	}
	if len(media) > 0 {
		return media[0]
	}
	return inventory.Medium{}
}

// Entering says whether the agent may enter the tenant's system now: the hand-off was written down.
func Entering(v inventory.NodeView, order string) bool {
	st := v.State.V
	return st.State == inventory.Provisioning && st.Work.Phase == "enter" && st.Work.Order == order
}
