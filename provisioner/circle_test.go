package provisioner

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/ledger"
	"github.com/hostler-project/hostler/inventory/lifecycle"
	"github.com/hostler-project/hostler/inventory/memstore"
)

// world is one node with fakes that behave: a BMC that powers a machine, a machine whose boot starts an agent, an agent
// that does its orders, a fence with three places. Time is a number. Nothing in it runs by itself: turn moves it on.
type world struct {
	t     *testing.T
	store inventory.Store
	copy  *inventory.Copy
	led   *ledger.Ledger
	loop  *Loop
	now   time.Time
	ids   int
	key   ed25519.PrivateKey
	id    string

	power, boots string // on or off; what the next power-on boots
	agent        bool   // our agent runs in the machine
	redeemed     string // session that it redeemed
	bootID       int
	place        string // provisioning, isolated, tenant
	tenant       bool   // the tenant's system runs
	disks        []inventory.Medium
	data         string // what the disks hold
	acts         []Act
	done         map[string]inventory.Report // the agent's answers by order
	broken       map[string]string           // order kind → error to answer with, once
	reports      []inventory.Report
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, store: memstore.New(), now: time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC), power: "off", place: "provisioning", boots: "pxe",
		done: map[string]inventory.Report{}, broken: map[string]string{}}
	_, w.key, _ = ed25519.GenerateKey(nil)
	for i := range 2 {
		w.disks = append(w.disks, inventory.Medium{Slot: fmt.Sprintf("0000:00:0%d.0", i+4), Device: fmt.Sprintf("nvme%d", i), Kind: inventory.MediumNVMe, Serial: fmt.Sprintf("D%d", i), Size: 1 << 30})
	}
	w.led = &ledger.Ledger{Store: w.store, Now: w.clock, NewID: w.ulid, CertificateKey: w.key.Public().(ed25519.PublicKey)}
	w.restart()
	op, err := inventory.Encode(inventory.KeySKU("virtual"), inventory.SKU{Schema: 1, Name: "virtual", BurnInProfile: "smoke", VerifyProfile: "smoke", Trust: "network"})
	w.must(err)
	_, err = w.store.Commit(t.Context(), inventory.Txn{Then: []inventory.Op{op}})
	w.must(err)
	w.id, err = w.led.Add(t.Context(), inventory.Spec{Name: "a", Serial: "SER-A", SKU: "virtual", Approve: "auto", MACs: []string{"52:54:00:00:00:01"}, BMC: inventory.BMCSpec{Addr: "bmc-a"}}, "test", "imported")
	w.must(err)
	return w
}

func (w *world) clock() time.Time { return w.now }
func (w *world) ulid() string     { w.ids++; return fmt.Sprintf("%026d", w.ids) }
func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// restart is a kill -9 and a new daemon: all that was in memory is gone.
func (w *world) restart() {
	w.copy = inventory.NewCopy()
	w.loop = &Loop{Copy: w.copy, Ledger: w.led, Performer: w, Now: w.clock, NewID: w.ulid, NewNonce: w.ulid, Log: slog.New(slog.DiscardHandler),
		Rules: &Rules{Fence: "fake", Site: "test",
			ChunkBase: func(inventory.NodeView, string) string { return "http://x" }, TrustedKey: func(string) string { return "key" },
			Token: func(s, n string) string { return s + n }, Address: func(inventory.Spec) string { return "192.0.2.1" },
			Sign: func(b inventory.CertificateBody) (inventory.Certificate, error) {
				return ledger.SignCertificate(b, w.key)
			},
			Compare: func(_ inventory.SKU, hw inventory.Hardware) []string {
				if len(hw.Media) < 2 {
					return []string{"slot nvme1: expected nvme, found nothing"}
				}
				return nil
			}}}
	w.loop.Init()
	w.sync()
}

// sync brings the copy up to date, as its watch would.
func (w *world) sync() {
	s, err := w.store.List(context.Background(), inventory.Root, inventory.ListOptions{})
	w.must(err)
	b := inventory.Batch{Rev: s.Rev}
	have := map[string]bool{}
	for _, kv := range s.KVs {
		have[kv.Key] = true
		if w.copy.One(kv.Key).Mod != kv.Mod {
			b.Events = append(b.Events, inventory.Event{KV: kv})
		}
	}
	for _, d := range []string{inventory.PrefixAvail, inventory.PrefixClaims} {
		for _, kv := range w.copy.Under(d) {
			if !have[kv.Key] {
				b.Events = append(b.Events, inventory.Event{KV: kv, Deleted: true})
			}
		}
	}
	w.copy.Apply(b)
	w.loop.Changed(b)
}

// Perform is the fake BMC and fence; the loop calls it beside itself, so it only notes the act, and turn does it.
func (w *world) Perform(_ context.Context, _ inventory.NodeView, a Act) Result {
	ch := make(chan Result)
	pending <- pendingAct{a, ch}
	return <-ch
}

type pendingAct struct {
	act Act
	end chan Result
}

var pending = make(chan pendingAct, 8)

func (w *world) do(a Act) Result {
	w.acts = append(w.acts, a)
	if st := w.view().State.V.State; st == inventory.InUse && a != FenceAttach {
		w.t.Errorf("act %s on a node that is in use", a)
	}
	switch a {
	case PowerOff:
		w.power, w.agent, w.tenant = "off", false, false
	case PowerOn:
		if w.power == "off" {
			w.bootID++
			w.power = "on"
		}
	case BootNetwork:
		w.boots = "pxe"
	case BootDisk:
		w.boots = "disk"
	case FenceIsolate:
		w.place = "isolated"
	case FenceProvide:
		w.place = "provisioning"
	case FenceAttach:
		w.place = "tenant"
	}
	return Result{Power: w.power}
}

func (w *world) view() inventory.NodeView {
	return inventory.View(&inventory.Read{Ctx: context.Background(), Store: w.store}, w.id)
}

// turn lets everything take one step: the loop decides, acts happen, the machine boots, the agent works.
func (w *world) turn() {
	w.now = w.now.Add(time.Second)
	w.sync()
	w.loop.Round(context.Background())
	w.sync()
	w.loop.Round(context.Background())
	if w.loop.node(w.id).seen.Busy != "" {
		p := <-pending
		p.end <- w.do(p.act)
		for w.busy() {
			time.Sleep(50 * time.Microsecond)
		}
	}
	w.machine()
	w.sync()
}

func (w *world) busy() bool {
	w.loop.mu.Lock()
	defer w.loop.mu.Unlock()
	return w.loop.nodes[w.id].seen.Busy != ""
}

// machine is the server: when it is on and on the provisioning network, an armed session boots our agent.
func (w *world) machine() {
	v := w.view()
	s := v.Session.V
	if w.power == "on" && w.boots == "pxe" && !w.agent && !w.tenant && w.place == "provisioning" && s.Phase == inventory.SessionArmed {
		s.Phase, s.Redeemed, s.BootID = inventory.SessionRedeemed, w.now, fmt.Sprint(w.bootID)
		op, err := v.Session.Put(s)
		w.must(err)
		_, err = w.store.Commit(context.Background(), inventory.Txn{If: []inventory.Cond{v.Session.Unchanged()}, Then: []inventory.Op{op}})
		w.must(err)
		w.agent, w.redeemed = true, s.ID
		return
	}
	if w.agent && w.place == "provisioning" && s.ID == w.redeemed && s.Phase == inventory.SessionRedeemed {
		w.work(v)
	}
}

func (w *world) work(v inventory.NodeView) {
	o := OrderFor(v, w.loop.Rules)
	r := inventory.Report{Session: w.redeemed, BootID: fmt.Sprint(w.bootID), Order: o.ID, Agent: "digest"}
	if done, ok := w.done[o.ID]; ok {
		r = done
		if Entering(v, o.ID) {
			w.agent, w.tenant = false, true
			w.loop.Entered(w.id)
			return
		}
	} else if o.Kind != inventory.OrderIdle {
		r.Done, r.Started, r.Finished = true, w.now, w.now
		if e := w.broken[o.Kind]; e != "" {
			r.Error = e
			delete(w.broken, o.Kind)
		} else {
			w.perform(o, &r)
		}
		w.done[o.ID] = r
	}
	w.loop.Heard(w.id, r)
}

func (w *world) perform(o inventory.Order, r *inventory.Report) {
	switch o.Kind {
	case inventory.OrderInspect:
		r.Hardware = &inventory.Hardware{Serial: "SER-A", Media: w.disks}
	case inventory.OrderSanitize:
		for _, m := range o.Media {
			r.Proofs = append(r.Proofs, inventory.MediumProof{Medium: m, Method: inventory.MethodPurge, Passed: true})
		}
		w.data = ""
	case inventory.OrderTest:
		r.Test = &inventory.TestRun{Profile: o.Profile, Verdict: inventory.Pass, Finished: w.now}
	case inventory.OrderWrite:
		r.Written = &inventory.Written{Image: o.Write.Image, Serial: o.Write.Medium.Serial, Bytes: 100, ReadBack: 100}
		w.data = "image"
	case inventory.OrderHandoff:
		r.Handoff = &inventory.HandoffResult{Method: "kexec"}
	}
}

// until turns until the node is in a state (and rentable, for ready).
func (w *world) until(want inventory.State) {
	w.t.Helper()
	for range 200 {
		v := w.view()
		if v.State.V.State == want && (want != inventory.Ready || v.Avail.Exists()) && (want != inventory.InUse || w.place == "tenant") {
			return
		}
		w.turn()
	}
	v := w.view()
	w.t.Fatalf("not %s after 200 turns: %s, phase %q, %q; says %q", want, v.State.V.State, v.State.V.Work.Phase, v.State.V.Reason, w.loop.Live(w.id).Say)
}

func (w *world) rent(reservation string) {
	w.t.Helper()
	_, err := w.led.Claim(w.t.Context(), ledger.ClaimRequest{Tenant: "acme", Reservation: reservation, SKU: "virtual", Actor: "test"})
	w.must(err)
	_, err = w.led.Confirm(w.t.Context(), ledger.ConfirmRequest{Tenant: "acme", Reservation: reservation, Image: "img", Sealed: []byte("x"), Actor: "test"})
	w.must(err)
}

// The whole circle: from a powered-off box to a tenant and back, and once more.
func TestCircle(t *testing.T) {
	w := newWorld(t)
	w.until(inventory.Ready)
	for i := range 2 {
		res := fmt.Sprintf("r%d", i)
		w.rent(res)
		w.until(inventory.InUse)
		if !w.tenant || w.place != "tenant" {
			t.Fatalf("in use, but tenant=%v place=%s", w.tenant, w.place)
		}
		w.data = "secret of the tenant"
		w.loop.PhonedHome(w.id, PhoneHome{Instance: w.view().Instance.V.ID})
		for range 3 {
			w.turn()
		}
		if !w.view().Public.V.Ready {
			t.Error("the tenant's system phoned home, but the public record is not ready")
		}
		_, err := w.led.Release(t.Context(), "acme", res, "test", "")
		w.must(err)
		w.until(inventory.Ready)
		if w.data != "" || w.tenant || w.place != "provisioning" {
			t.Errorf("ready with data %q, tenant=%v, place=%s", w.data, w.tenant, w.place)
		}
	}
	historyHasNoGap(t, w)
}

func historyHasNoGap(t *testing.T, w *world) {
	t.Helper()
	s, err := w.store.List(t.Context(), inventory.PrefixHistory+w.id+"/", inventory.ListOptions{})
	w.must(err)
	at := inventory.State("")
	for i, kv := range s.KVs {
		h, err := inventory.Decode[inventory.History](kv)
		w.must(err)
		if h.V.Seq != int64(i+1) {
			t.Errorf("history entry %d has number %d", i+1, h.V.Seq)
		}
		if h.V.Kind == "transition" {
			if h.V.From != at {
				t.Errorf("history %d goes on from %q, but the node was %q", h.V.Seq, h.V.From, at)
			}
			if _, err := lifecycle.Find(h.V.From, lifecycle.Event(h.V.Event)); err != nil {
				t.Error(err)
			}
			at = h.V.To
		}
	}
	if at != w.view().State.V.State {
		t.Errorf("history ends in %q, the node is %q", at, w.view().State.V.State)
	}
}

// The daemon is killed before every single turn of the circle, and the circle ends the same.
func TestCircleSurvivesAKillAtEveryTurn(t *testing.T) {
	for at := 1; at < 70; at++ {
		w := newWorld(t)
		n := 0
		step := func(want inventory.State) {
			for range 200 {
				v := w.view()
				if v.State.V.State == want && (want != inventory.Ready || v.Avail.Exists()) && (want != inventory.InUse || w.place == "tenant") {
					return
				}
				if n++; n == at {
					w.restart()
				}
				w.turn()
			}
			v := w.view()
			t.Fatalf("killed at turn %d: not %s: %s, phase %q, %q; says %q", at, want, v.State.V.State, v.State.V.Work.Phase, v.State.V.Reason, w.loop.Live(w.id).Say)
		}
		step(inventory.Ready)
		w.rent("r")
		step(inventory.InUse)
		w.data = "secret"
		_, err := w.led.Release(t.Context(), "acme", "r", "test", "")
		w.must(err)
		step(inventory.Ready)
		if w.data != "" {
			t.Fatalf("killed at turn %d: ready with data %q", at, w.data)
		}
		historyHasNoGap(t, w)
		if n < at {
			t.Logf("the circle has %d turns", n)
			return
		}
	}
}
