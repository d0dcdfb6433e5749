package provisioner

import (
	"errors"
	"fmt"
	"testing"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/ledger"
	"github.com/hostler-project/hostler/inventory/memstore"
)

// The whole circle: from a powered-off box to a tenant and back, and once more.
func TestCircle(t *testing.T) {
	w := newWorld(t)
	w.until(inventory.Ready)
	for i := range 2 {
		res := fmt.Sprintf("r%d", i)
		w.rent(res)
		w.until(inventory.InUse)
		if !w.tenant || w.place != "tenant" || w.boots != "disk" {
			t.Fatalf("in use, but tenant=%v place=%s boots=%s", w.tenant, w.place, w.boots)
		}
		w.data = "secret of the tenant"
		w.loop.PhonedHome(w.id, PhoneHome{Instance: w.view().Instance.V.ID})
		for range 3 {
			w.turn()
		}
		if !w.view().Public.V.Ready {
			t.Error("the tenant's system phoned home, but the public record is not ready")
		}
		instance := w.view().Instance.V.ID
		w.release(res)
		w.until(inventory.Ready)
		if body, err := ledger.OpenCertificate(w.view().Certificate.V, w.led.CertificateKey); err != nil || body.Instance != instance {
			t.Errorf("the certificate says that the data of instance %q was erased (%v), it was that of %q", body.Instance, err, instance)
		}
		if w.data != "" || w.tenant || w.place != "provisioning" {
			t.Errorf("ready with data %q, tenant=%v, place=%s", w.data, w.tenant, w.place)
		}
	}
	w.whole()
}

// circle takes a node around once, calling before ahead of every turn; a client whose call fails without an answer asks
// again. It says how the circle ended.
func circle(w *world, before func()) string {
	w.t.Helper()
	step := func(want inventory.State) {
		w.turns(400, string(want), func() bool {
			if w.settled(want) {
				return true
			}
			before()
			return false
		})
	}
	ask := func(f func() error) {
		w.t.Helper()
		for try := 0; ; try++ {
			err := f()
			if err == nil {
				return
			}
			if try == 3 || !errors.Is(err, inventory.ErrUnavailable) {
				w.t.Fatal(err)
			}
		}
	}
	ctx := w.t.Context()
	step(inventory.Ready)
	ask(func() error {
		_, err := w.led.Claim(ctx, ledger.ClaimRequest{Tenant: "acme", Reservation: "r", SKU: "virtual", Actor: "test"})
		return err
	})
	ask(func() error {
		_, err := w.led.Confirm(ctx, ledger.ConfirmRequest{Tenant: "acme", Reservation: "r", Image: "img", Sealed: []byte("x"), Actor: "test"})
		return err
	})
	step(inventory.InUse)
	w.data = "secret"
	ask(func() error { _, err := w.led.Release(ctx, "acme", "r", "test", ""); return err })
	step(inventory.Ready)
	w.whole()
	v := w.view()
	res := inventory.Doc[inventory.Reservation]{}
	kv, err := w.store.Get(ctx, inventory.KeyReservation("acme", "r"))
	w.must(err)
	res, err = inventory.Decode[inventory.Reservation](kv)
	w.must(err)
	return fmt.Sprintf("data %q, place %s, power %s, generation %d, wipe %d, reservation %s, tainted %q, in use %d times",
		w.data, w.place, w.power, v.State.V.Generation, v.State.V.Wipe, res.V.Phase, v.State.V.Taint, w.entered(inventory.InUse))
}

// The daemon is killed before every turn of the circle, and after every act before its result is noted, and the circle
// ends the same.
func TestCircleSurvivesAKillAtEveryTurn(t *testing.T) {
	t.Parallel()
	undisturbed := newWorld(t)
	turns := 0
	want := circle(undisturbed, func() { turns++ })
	if turns < 30 || len(undisturbed.acts) < 10 {
		t.Fatalf("the circle has only %d turns, and acts %v", turns, undisturbed.acts)
	}
	for at := 1; at <= turns; at++ {
		w, n := newWorld(t), 0
		got := circle(w, func() {
			if n++; n == at {
				w.restart()
			}
		})
		if got != want {
			t.Errorf("killed before turn %d: ended with %s\nwant %s", at, got, want)
		}
	}
	for at, a := range undisturbed.acts {
		w := newWorld(t)
		w.killAt = at + 1
		if got := circle(w, func() {}); got != want {
			t.Errorf("killed after act %d, %s: ended with %s\nwant %s", at+1, a, got, want)
		}
	}
}

// Every single write of the circle fails once without an answer, done or not done, whoever writes it, with the daemon
// killed at that moment or not; and the circle ends the same.
func TestCircleSurvivesAFaultAtEveryWrite(t *testing.T) {
	t.Parallel()
	want := circle(newWorld(t), func() {})
	for _, c := range []struct{ done, kill bool }{{false, false}, {true, false}, {true, true}} {
		for at, n := 1, 1; at <= n; at++ {
			w := newWorld(t)
			n = 0
			kill := false
			w.fault = func(call memstore.Call, machine bool) error {
				if call.After != c.done {
					return nil
				}
				if n++; n != at {
					return nil
				}
				kill = c.kill
				return inventory.ErrUnavailable
			}
			got := circle(w, func() {
				if kill {
					kill = false
					w.restart()
				}
			})
			if got != want {
				t.Errorf("write %d failed (done: %v, killed: %v): ended with %s\nwant %s", at, c.done, c.kill, got, want)
			}
			if at == 1 && n < 30 {
				t.Fatalf("the circle has only %d writes", n)
			}
		}
	}
}
