package provisioner

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hostler-project/hostler/inventory"
)

func TestWishes(t *testing.T) {
	power := func(arg string) inventory.Wish { return inventory.Wish{Verb: inventory.WishPower, Arg: arg} }
	for _, c := range []struct {
		name   string
		at     inventory.State
		wish   inventory.Wish
		edit   func(*world, *inventory.Wish)
		answer string
		detail string
		end    inventory.State // "": it stays
	}{
		{"quarantine a ready node", inventory.Ready, inventory.Wish{Verb: inventory.WishQuarantine, Reason: "smells"}, nil, inventory.DoneOK, "now quarantined", inventory.Quarantined},
		{"return from quarantine", inventory.Quarantined, inventory.Wish{Verb: inventory.WishReturn}, nil, inventory.DoneOK, "now inspecting", inventory.Inspecting},
		{"maintenance", inventory.Quarantined, inventory.Wish{Verb: inventory.WishMaintain}, nil, inventory.DoneOK, "now maintenance", inventory.Maintenance},
		{"abort sanitizing", inventory.Sanitizing, inventory.Wish{Verb: inventory.WishAbort}, nil, inventory.DoneOK, "now quarantined", inventory.Quarantined},
		{"quarantine a tenant's node", inventory.InUse, inventory.Wish{Verb: inventory.WishQuarantine}, nil, inventory.Refused, "a node that is in-use cannot be asked to quarantine", ""},
		{"approve a ready node", inventory.Ready, inventory.Wish{Verb: inventory.WishApprove}, nil, inventory.Refused, "a node that is ready cannot be asked to approve", ""},
		{"abort a resting node", inventory.Ready, inventory.Wish{Verb: inventory.WishAbort}, nil, inventory.Refused, "cannot be asked to abort", ""},
		{"a verb of later versions", inventory.Ready, inventory.Wish{Verb: inventory.WishRetire}, nil, inventory.Refused, "this version cannot retire", ""},
		{"power with a nonsense word", inventory.Quarantined, power("up"), nil, inventory.Refused, "this version cannot power up", ""},
		{"expired", inventory.Ready, inventory.Wish{Verb: inventory.WishQuarantine}, func(w *world, wish *inventory.Wish) { wish.Expires = w.now.Add(-time.Second) }, inventory.Stale, "it expired", ""},
		{"of another generation", inventory.Ready, inventory.Wish{Verb: inventory.WishQuarantine}, func(w *world, wish *inventory.Wish) { wish.Generation-- }, inventory.Stale, "it was for generation", ""},
		{"power off in quarantine", inventory.Quarantined, power("off"), nil, inventory.DoneOK, "power is off, confirmed", ""},
		{"power cycle in quarantine", inventory.Quarantined, power("cycle"), nil, inventory.DoneOK, "confirmed", ""},
		{"power off, BMC away", inventory.Quarantined, power("off"), func(w *world, _ *inventory.Wish) {
			w.bmc = func(Act) error { return errors.New("no route to 10.0.0.9") }
		}, inventory.Refused, "no route to 10.0.0.9", ""},
		{"power off a ready node", inventory.Ready, power("off"), nil, inventory.Refused, "it is ready: quarantine it first", ""},
		{"power off a working node", inventory.Sanitizing, power("off"), nil, inventory.Refused, "it is sanitizing: quarantine it first", ""},
		{"power off a tenant's node", inventory.InUse, power("off"), nil, inventory.Refused, "it is a tenant's", ""},
		{"power without a BMC", inventory.Quarantined, power("off"), func(w *world, _ *inventory.Wish) {
			v := w.view()
			spec := v.Spec.V
			spec.BMC.Addr = ""
			w.must(w.led.Edit(w.t.Context(), v, spec))
		}, inventory.Refused, "no BMC is known", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			switch c.at {
			case inventory.Quarantined:
				w.disks = w.disks[:1]
			case inventory.InUse:
				w.until(inventory.Ready)
				w.rent("r")
			case inventory.Sanitizing:
				w.endless = func(o inventory.Order) bool { return o.Kind == inventory.OrderSanitize }
			}
			w.until(c.at)
			acts := len(w.acts)
			wish, id := c.wish, w.ulid()
			wish.Schema, wish.ID, wish.Node, wish.Actor, wish.Generation, wish.Created, wish.Expires = 1, id, w.id, "kim", w.view().State.V.Generation, w.now, w.now.Add(time.Hour)
			if c.edit != nil {
				c.edit(w, &wish)
			}
			key := inventory.KeyWish(w.id, id)
			w.put(key, wish)
			got := w.answered(key)
			if got.Answer != c.answer || !strings.Contains(got.Detail, c.detail) || got.Answered.IsZero() {
				t.Errorf("answered %s: %q", got.Answer, got.Detail)
			}
			if end := c.end; end == "" {
				if w.view().State.V.State != c.at {
					t.Errorf("it moved: %s", w.view().State.V.State)
				}
			} else if w.view().State.V.State != end || w.view().State.V.From != c.at {
				t.Errorf("it is %s, from %s", w.view().State.V.State, w.view().State.V.From)
			}
			if c.wish.Verb == inventory.WishPower && c.answer == inventory.Refused && c.name != "power off, BMC away" && len(w.acts) != acts {
				t.Errorf("refused, but acts %v", w.acts[acts:])
			}
			told := false
			for _, h := range w.history() {
				told = told || h.Actor == "kim"
			}
			if !told {
				t.Error("the history does not name who wished")
			}
			w.whole()
		})
	}
}

// A machine that DHCP found is approved only with a SKU that is declared and a BMC.
func TestApproveNeedsSKUAndBMC(t *testing.T) {
	for _, c := range []struct {
		name, sku, bmc, want string
	}{
		{"no SKU", "", "bmc", `its SKU "" is not declared`},
		{"SKU not declared", "huge", "bmc", `its SKU "huge" is not declared`},
		{"no BMC", "virtual", "", "no BMC is known for it"},
		{"both", "virtual", "bmc", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			v := w.view()
			spec := v.Spec.V
			spec.Approve, spec.SKU, spec.BMC.Addr = "", c.sku, c.bmc
			w.must(w.led.Edit(t.Context(), v, spec))
			for range 5 {
				w.turn()
			}
			if w.in(inventory.Discovered, "imported"); len(w.acts) != 0 {
				t.Errorf("acts before anybody approved: %v", w.acts)
			}
			got := w.wish(inventory.WishApprove, "")
			if c.want == "" {
				if got.Answer != inventory.DoneOK {
					t.Errorf("got %+v", got)
				}
				w.until(inventory.Ready)
				return
			}
			if got.Answer != inventory.Refused || !strings.Contains(got.Detail, c.want) {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// Wishes are answered one after the other, the oldest first, none dropped.
func TestWishesInOrder(t *testing.T) {
	w := newWorld(t)
	w.until(inventory.Ready)
	var keys []string
	for range 3 {
		id := w.ulid()
		keys = append(keys, inventory.KeyWish(w.id, id))
		w.put(keys[len(keys)-1], inventory.Wish{Schema: 1, ID: id, Node: w.id, Verb: inventory.WishQuarantine, Actor: "kim", Generation: w.view().State.V.Generation, Created: w.now, Expires: w.now.Add(time.Hour)})
	}
	want := []string{inventory.DoneOK, inventory.Stale, inventory.Stale} // the first raised the generation
	for i, key := range keys {
		if got := w.answered(key); got.Answer != want[i] {
			t.Errorf("wish %d: %+v", i, got)
		}
	}
	if w.entered(inventory.Quarantined) != 1 {
		t.Errorf("quarantined %d times", w.entered(inventory.Quarantined))
	}
}
