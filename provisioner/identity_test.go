package provisioner

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/ledger"
	"github.com/hostler-project/hostler/inventory/lifecycle"
	"github.com/hostler-project/hostler/provisioner/httpboot"
)

const otherUUID = "4c4c4544-0036-3510-8052-b4c04f4e3132"

// newcomer adds node b, approved: its machine is being inspected. The world's own machine is not it, so its loop leaves
// b alone, and inspect decides about it.
func (w *world) newcomer(name string) string {
	w.t.Helper()
	w.loop.Owns = func(id string) bool { return id == w.id }
	id, err := w.led.Add(w.t.Context(), inventory.Spec{Name: name, SKU: "virtual", MACs: []string{"52:54:00:00:0" + name[:1] + ":02"}, IP: fmt.Sprintf("10.0.0.%d", 20+w.ids)}, "test", "imported")
	w.must(err)
	v := inventory.View(&inventory.Read{Ctx: w.t.Context(), Store: w.store}, id)
	_, err = w.led.Move(w.t.Context(), v, lifecycle.Approve, ledger.Change{Actor: "kim", Reason: "approved"})
	w.must(err)
	w.sync()
	return id
}

// inspect judges what the newcomer's agent reports, as often as the loop would, n decisions at most.
func (w *world) inspect(id string, n int, hw inventory.Hardware) inventory.NodeView {
	w.t.Helper()
	for range n {
		w.sync()
		w.loop.touch(id)
		in, _ := w.loop.input(id)
		if in.View.State.V.State != inventory.Inspecting {
			break
		}
		w.loop.apply(w.t.Context(), in, judge(in, hw))
	}
	w.sync()
	return inventory.View(w.copy, id)
}

func (w *world) hardware() inventory.Hardware {
	return inventory.Hardware{Serial: "SER-B", UUID: otherUUID, CPUs: 2, MemoryBytes: w.memory, Media: slices.Clone(w.disks), NICs: []inventory.NIC{{Name: "eth0", MAC: "52:54:00:00:0b:02"}}}
}

// Two records that are one machine (F-24): the newcomer goes to quarantine, and with it the holder, within five seconds,
// unless a tenant has it; neither boots anything of ours (P20).
func TestTwoNodesOneIdentity(t *testing.T) {
	uuid := func(w *world) {
		w.answer = func(_ inventory.Order, r *inventory.Report) {
			if r.Hardware != nil {
				r.Hardware.UUID = strings.ToUpper(otherUUID)
			}
		}
	}
	unregistered := func(w *world) { // the serial is known from inspection alone
		v := w.view()
		spec := v.Spec.V
		spec.Serial = ""
		w.must(w.led.Edit(w.t.Context(), v, spec))
	}
	serial := func(hw *inventory.Hardware) { hw.Serial = "ser-a" }
	sameUUID := func(*inventory.Hardware) {}
	for _, c := range []struct {
		name    string
		prepare func(*world)
		holder  func(*world) // brings it where it is found
		edit    func(*inventory.Hardware)
		says    string
	}{
		{"serial, ready", nil, func(w *world) { w.until(inventory.Ready) }, serial, "serial ser-a"},
		{"serial known from inspection, ready", unregistered, func(w *world) { w.until(inventory.Ready) }, serial, "serial ser-a"},
		{"UUID known from inspection, ready", uuid, func(w *world) { w.until(inventory.Ready) }, sameUUID, "uuid " + otherUUID},
		{"boot card, ready", nil, func(w *world) { w.until(inventory.Ready) }, func(hw *inventory.Hardware) {
			hw.NICs = append(hw.NICs, inventory.NIC{Name: "eth1", MAC: "52:54:00:00:00:01"})
		}, "mac 52:54:00:00:00:01"},
		{"serial, being erased", nil, func(w *world) {
			w.until(inventory.Sanitizing)
		}, serial, "serial ser-a"},
		{"serial, waiting for its boot", nil, func(w *world) {
			w.turns(100, "booting", func() bool { return w.view().State.V.Work.Phase == phaseBoot })
		}, serial, "serial ser-a"},
		{"serial, reserved", nil, func(w *world) {
			w.until(inventory.Ready)
			_, err := w.led.Claim(w.t.Context(), claimOf("r", time.Hour))
			w.must(err)
		}, serial, "serial ser-a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			if c.prepare != nil {
				c.prepare(w)
			}
			c.holder(w)
			b := w.newcomer("b")
			hw := w.hardware()
			c.edit(&hw)
			begun := w.now
			got := w.inspect(b, 5, hw)
			if got.State.V.State != inventory.Quarantined || !strings.Contains(got.State.V.Reason, c.says+" belongs to node "+w.id) {
				t.Errorf("the newcomer is %s: %s", got.State.V.State, got.State.V.Reason)
			}
			if w.view().Avail.Exists() {
				t.Error("the holder is still on offer")
			}
			w.turns(5, "quarantined too", func() bool { return w.view().State.V.State == inventory.Quarantined })
			w.in(inventory.Quarantined, "alert identity", c.says, "node b too")
			if took := w.now.Sub(begun); took > 5*time.Second {
				t.Errorf("it took %v", took)
			}
			for _, v := range []inventory.NodeView{w.view(), got} {
				if k := bootFor(v).Kind; k == httpboot.Service {
					t.Errorf("%s boots %s", v.Name(), k)
				}
			}
			w.whole()

			// The one that a person returns is inspected again; the other, in quarantine, is not in its way.
			if a := w.wish(inventory.WishReturn, ""); a.Answer != inventory.DoneOK {
				t.Fatalf("returned: %+v", a)
			}
			w.until(inventory.Ready)
			if n := len(w.view().Alerts("")); n != 0 {
				t.Errorf("%d alerts are left", n)
			}
			w.whole()
		})
	}
}

// A tenant's node is not touched: it gets an alert, and is looked at when the tenant has gone.
func TestATenantsNodeKeepsRunningInACollision(t *testing.T) {
	w := newWorld(t)
	w.until(inventory.Ready)
	w.rent("r")
	w.until(inventory.InUse)
	b := w.newcomer("b")
	hw := w.hardware()
	hw.Serial = "SER-A"
	acts := len(w.acts)
	if got := w.inspect(b, 5, hw); got.State.V.State != inventory.Quarantined {
		t.Errorf("the newcomer is %s", got.State.V.State)
	}
	for range 30 {
		w.turn()
	}
	w.in(inventory.InUse)
	if v := w.view(); len(v.Alerts(inventory.PreventAllocation)) != 1 || len(v.Alerts(inventory.PreventTransition)) != 0 || len(w.acts) != acts || !w.tenant {
		t.Errorf("alerts %+v, acts %v, tenant runs: %v", v.Alerts(""), w.acts[acts:], w.tenant)
	}
	w.release("r")
	w.until(inventory.Quarantined)
	w.in(inventory.Quarantined, "serial SER-A was found in node b too")
	if w.entered(inventory.Ready) != 1 {
		t.Error("it was offered again before anybody looked")
	}
	w.whole()
}

// A daemon that dies between the alert and the newcomer's move finds the same to do.
func TestCollisionSurvivesAKill(t *testing.T) {
	w := newWorld(t)
	w.until(inventory.Ready)
	b := w.newcomer("b")
	hw := w.hardware()
	hw.Serial = "SER-A"
	if got := w.inspect(b, 1, hw); got.State.V.State != inventory.Inspecting || len(w.view().Alerts("")) != 1 {
		t.Fatalf("first comes the alert: %s, %+v", got.State.V.State, w.view().Alerts(""))
	}
	w.restart()
	w.loop.Owns = func(id string) bool { return id == w.id }
	w.turn()
	if got := w.inspect(b, 5, hw); got.State.V.State != inventory.Quarantined {
		t.Errorf("the newcomer is %s", got.State.V.State)
	}
	w.turns(5, "quarantined too", func() bool { return w.view().State.V.State == inventory.Quarantined })
	w.whole()
}

// What boards ship with identifies nothing; and a machine that says it is many others harms itself alone.
func TestNoCollision(t *testing.T) {
	for name, edit := range map[string]func(*inventory.Hardware){
		"a serial of every board": func(hw *inventory.Hardware) { hw.Serial, hw.UUID = "To Be Filled By O.E.M.", "" },
		"a UUID of every board":   func(hw *inventory.Hardware) { hw.UUID = "03000200-0400-0500-0006-000700080009" },
		"a card that every BMC has": func(hw *inventory.Hardware) {
			hw.NICs = append(hw.NICs, inventory.NIC{Name: "usb0", MAC: "b0:3a:f2:b6:05:9f"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.answer = func(_ inventory.Order, r *inventory.Report) {
				if r.Hardware != nil {
					hw := *r.Hardware
					edit(&hw)
					r.Hardware.UUID, r.Hardware.NICs = hw.UUID, hw.NICs
				}
			}
			w.until(inventory.Ready)
			hw := w.hardware()
			edit(&hw)
			if got := w.inspect(w.newcomer("b"), 5, hw); got.State.V.State != inventory.Sanitizing {
				t.Errorf("the newcomer is %s: %s", got.State.V.State, got.State.V.Reason)
			}
			w.turn()
			w.in(inventory.Ready, "")
			if v := w.view(); len(v.Alerts("")) != 0 {
				t.Errorf("alerts %+v", v.Alerts(""))
			}
		})
	}
	w := newWorld(t)
	w.until(inventory.Ready)
	hw := w.hardware()
	hw.Serial = "SER-A"
	liar := w.newcomer("b")
	for i := range 3 {
		mac := net.HardwareAddr{0x52, 0x54, 0, 0, byte(i + 3), 2}.String()
		w.newcomer(fmt.Sprint(i + 3))
		hw.NICs = append(hw.NICs, inventory.NIC{MAC: mac})
	}
	if got := w.inspect(liar, 5, hw); got.State.V.State != inventory.Quarantined {
		t.Errorf("the liar is %s", got.State.V.State)
	}
	w.turn()
	w.in(inventory.Ready, "")
	if v := w.view(); len(v.Alerts("")) != 0 || !v.Avail.Exists() {
		t.Errorf("a liar took the holder off the market: %+v", v.Alerts(""))
	}
}
