package provisioner

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hostler-project/hostler/health/hardware"
	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/audit"
	"github.com/hostler-project/hostler/inventory/ledger"
	"github.com/hostler-project/hostler/inventory/memstore"
)

// world is one node with fakes that behave: a BMC that powers a machine, a machine whose boot starts an agent, an agent
// that does its orders, a fence with three places. Time is a number. Nothing in it runs by itself: turn moves it on.
type world struct {
	t       *testing.T
	store   *memstore.Store
	rev     int64 // up to here the copy was told
	copy    *inventory.Copy
	led     *ledger.Ledger
	loop    *Loop
	now     time.Time
	step    time.Duration // of one turn
	ids     int
	key     ed25519.PrivateKey
	id      string
	pending chan pendingAct
	last    inventory.NodeView
	lastRev int64

	power, boots string // on or off; what the next power-on boots
	agent        bool   // our agent runs in the machine
	redeemed     string // session that it redeemed
	bootID       int
	place        string // provisioning, isolated, tenant
	tenant       bool   // the tenant's system runs
	disks        []inventory.Medium
	memory       int64
	data         string // what the disks hold
	acts         []Act
	done         map[string]inventory.Report // the agent's answers by order

	// What goes wrong.
	bmc      func(Act) error                           // what an act comes back with; nil: it works
	answer   func(inventory.Order, *inventory.Report)  // last touch to the report of an order that was done
	mute     bool                                      // the agent does not speak
	dead     bool                                      // the machine does not boot
	crash    func(inventory.Order) bool                // the machine resets in the middle of an order
	endless  func(inventory.Order) bool                // the agent works and works
	killAt   int                                       // kill the daemon after the act of this number took effect, before it is noted
	fault    func(c memstore.Call, machine bool) error // of commits; machine: by the agent's side
	inMach   bool
	away     bool // the daemon cannot reach the store
	deciding bool
}

type pendingAct struct {
	act Act
	end chan Result
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, store: memstore.New(), now: time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC), step: time.Second, power: "off", place: "provisioning", boots: "pxe",
		memory: 8 << 30, done: map[string]inventory.Report{}, pending: make(chan pendingAct)}
	_, w.key, _ = ed25519.GenerateKey(nil)
	for i := range 2 {
		w.disks = append(w.disks, inventory.Medium{Slot: fmt.Sprintf("0000:00:0%d.0", i+4), Device: fmt.Sprintf("nvme%d", i), Kind: inventory.MediumNVMe, Serial: fmt.Sprintf("D%d", i), Size: 1 << 30})
	}
	w.led = &ledger.Ledger{Store: w.store, Now: w.clock, NewID: w.ulid, CertificateKey: w.key.Public().(ed25519.PublicKey)}
	w.put(inventory.KeySKU("virtual"), inventory.SKU{Schema: 1, Name: "virtual", BurnInProfile: "smoke", VerifyProfile: "smoke", Trust: "network", MinMemory: 4 << 30,
		Media: []inventory.MediaSpec{{Slot: "nvme0", Kind: inventory.MediumNVMe, Boot: true}, {Slot: "nvme1", Kind: inventory.MediumNVMe}}})
	var err error
	w.id, err = w.led.Add(t.Context(), inventory.Spec{Name: "a", Serial: "SER-A", SKU: "virtual", Approve: "auto", MACs: []string{"52:54:00:00:00:01"}, IP: "10.0.0.2", Segment: "s", BMC: inventory.BMCSpec{Addr: "bmc-a"}}, "test", "imported")
	w.must(err)
	w.restart()
	w.store.SetFault(func(c memstore.Call) error {
		if w.away && w.deciding {
			return inventory.ErrUnavailable
		}
		if w.fault == nil || c.Op != "commit" {
			return nil
		}
		return w.fault(c, w.inMach)
	})
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

func (w *world) put(key string, v any) {
	w.t.Helper()
	op, err := inventory.Encode(key, v)
	w.must(err)
	_, err = w.store.Commit(w.t.Context(), inventory.Txn{Then: []inventory.Op{op}})
	w.must(err)
}

// restart is a kill -9 and a new daemon: all that was in memory is gone.
func (w *world) restart() {
	w.copy, w.rev = inventory.NewCopy(), 0
	w.loop = &Loop{Copy: w.copy, Ledger: w.led, Performer: w, Now: w.clock, NewID: w.ulid, NewNonce: w.ulid, Log: slog.New(slog.DiscardHandler), Rules: w.rules()}
	w.loop.Init()
	w.sync()
}

func (w *world) rules() *Rules {
	return &Rules{Fence: "fake", Site: "test",
		ChunkBase: func(inventory.NodeView, string) string { return "http://x" }, TrustedKey: func(string) string { return "key" },
		Token: func(s, n string) string { return s + n }, Address: func(inventory.Spec) string { return "192.0.2.1" },
		Sign: func(b inventory.CertificateBody) (inventory.Certificate, error) {
			return ledger.SignCertificate(b, w.key)
		},
		Compare: func(sku inventory.SKU, hw inventory.Hardware) []string {
			var out []string
			for _, m := range hardware.Compare(sku, hw) {
				out = append(out, m.String())
			}
			return out
		}}
}

// sync brings the copy up to date, as its watch would.
func (w *world) sync() {
	all, err := w.store.Since(w.rev + 1)
	w.must(err)
	for _, b := range all {
		w.copy.Apply(b)
		w.loop.Changed(b)
		w.rev = b.Rev
	}
}

// Perform is the fake BMC and fence; the loop calls it beside itself, so it only notes the act, and turn does it.
func (w *world) Perform(_ context.Context, _ inventory.NodeView, a Act) Result {
	ch := make(chan Result)
	w.pending <- pendingAct{a, ch}
	return <-ch
}

func (w *world) do(a Act) Result {
	w.acts = append(w.acts, a)
	if st := w.view().State.V.State; st == inventory.InUse && a != FenceAttach {
		w.t.Errorf("act %s on a node that is in use", a)
	}
	if w.bmc != nil {
		if err := w.bmc(a); err != nil {
			return Result{Power: w.power, Err: err, Fatal: errors.Is(err, errFatal)}
		}
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

var errFatal = errors.New("wrong credentials")

// view reads the node fresh, unless nothing was written since the last time.
func (w *world) view() inventory.NodeView {
	if rev := w.store.Rev(); w.last.ID == "" || w.lastRev != rev {
		w.last, w.lastRev = inventory.View(&inventory.Read{Ctx: context.Background(), Store: w.store}, w.id), rev
	}
	return w.last
}

// turn lets everything take one step: the loop decides, acts happen, the machine boots, the agent works.
func (w *world) turn() {
	w.now = w.now.Add(w.step)
	for range 2 {
		w.sync()
		w.deciding = true
		w.loop.Round(context.Background())
		w.deciding = false
	}
	if w.busy() {
		p, loop := <-w.pending, w.loop
		r := w.do(p.act)
		if len(w.acts) == w.killAt {
			w.restart()
		}
		p.end <- r
		for busy(loop, w.id) {
			time.Sleep(50 * time.Microsecond)
		}
	}
	w.machine()
	w.sync()
}

func (w *world) busy() bool { return busy(w.loop, w.id) }

func busy(l *Loop, id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.nodeLocked(id).seen.Busy != ""
}

// machine is the server: when it is on and on the provisioning network, an armed session boots our agent.
func (w *world) machine() {
	w.inMach = true
	defer func() { w.inMach = false }()
	v := w.view()
	s := v.Session.V
	if w.power == "on" && w.boots == "pxe" && !w.agent && !w.tenant && !w.dead && w.place == "provisioning" {
		w.loop.AskedDHCP(w.id)
		w.loop.AskedBoot(w.id)
		if bootFor(v).Kind == "service" {
			s.Phase, s.Redeemed, s.BootID = inventory.SessionRedeemed, w.now, fmt.Sprint(w.bootID)
			op, err := v.Session.Put(s)
			w.must(err)
			if _, err = w.store.Commit(context.Background(), inventory.Txn{If: []inventory.Cond{v.Session.Unchanged()}, Then: []inventory.Op{op}}); err == nil || w.view().Session.V.Phase == inventory.SessionRedeemed {
				w.agent, w.redeemed = true, s.ID // the same key may ask again
			}
			return
		}
	}
	if w.agent && !w.mute && w.place == "provisioning" && s.ID == w.redeemed && s.Phase == inventory.SessionRedeemed {
		w.work(v)
	}
}

// reset is a machine that boots again by itself.
func (w *world) reset() {
	w.agent = false
	w.bootID++
}

func (w *world) work(v inventory.NodeView) {
	o := OrderFor(v, w.loop.Rules)
	r := inventory.Report{Session: w.redeemed, BootID: fmt.Sprint(w.bootID), Order: o.ID, Agent: "digest"}
	if w.crash != nil && o.Kind != inventory.OrderIdle && w.crash(o) {
		w.reset()
		return
	}
	if done, ok := w.done[o.ID]; ok {
		r = done
		if Entering(v, o.ID) {
			w.loop.Told(w.id)
			w.agent, w.tenant = false, true
			return
		}
	} else if w.endless != nil && w.endless(o) {
		r.Progress = &inventory.Progress{What: "working", Done: 1, Total: 100, Unit: "blocks"}
	} else if o.Kind != inventory.OrderIdle {
		r.Done, r.Started, r.Finished = true, w.now, w.now
		w.perform(o, &r)
		if w.answer != nil {
			w.answer(o, &r)
		}
		w.done[o.ID] = r
	}
	w.loop.Heard(w.id, r)
}

func (w *world) perform(o inventory.Order, r *inventory.Report) {
	switch o.Kind {
	case inventory.OrderInspect:
		r.Hardware = &inventory.Hardware{Serial: "SER-A", CPUs: 2, MemoryBytes: w.memory, Media: slices.Clone(w.disks), NICs: []inventory.NIC{{Name: "eth0", MAC: "52:54:00:00:00:01"}}}
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

// settled says whether the node is in a state, and all that goes with it has happened: on offer where it is ready, on
// its tenant's network where it is in use.
func (w *world) settled(want inventory.State) bool {
	v := w.view()
	return v.State.V.State == want && (want != inventory.Ready || v.Avail.Exists()) && (want != inventory.InUse || w.place == "tenant" && v.State.V.Work.Phase == "running")
}

// until turns until the node has settled in a state.
func (w *world) until(want inventory.State) {
	w.t.Helper()
	w.turns(1000, string(want), func() bool { return w.settled(want) })
}

// turns turns until something holds, at most n times.
func (w *world) turns(n int, what string, holds func() bool) {
	w.t.Helper()
	for range n {
		if holds() {
			return
		}
		w.turn()
	}
	v := w.view()
	w.t.Fatalf("not %s after %d turns: %s, phase %q, %q; says %q", what, n, v.State.V.State, v.State.V.Work.Phase, v.State.V.Reason, w.loop.Live(w.id).Say)
}

// in says that the node is in a state for a reason that has these words.
func (w *world) in(want inventory.State, words ...string) {
	w.t.Helper()
	st := w.view().State.V
	for _, word := range words {
		if st.State != want || !strings.Contains(st.Reason, word) {
			w.t.Errorf("%s: %q; want %s with %q", st.State, st.Reason, want, word)
		}
	}
}

func (w *world) rent(reservation string) {
	w.t.Helper()
	_, err := w.led.Claim(w.t.Context(), ledger.ClaimRequest{Tenant: "acme", Reservation: reservation, SKU: "virtual", Actor: "test"})
	w.must(err)
	_, err = w.led.Confirm(w.t.Context(), ledger.ConfirmRequest{Tenant: "acme", Reservation: reservation, Image: "img", Sealed: []byte("x"), Actor: "test"})
	w.must(err)
}

func (w *world) release(reservation string) {
	w.t.Helper()
	_, err := w.led.Release(w.t.Context(), "acme", reservation, "test", "")
	w.must(err)
}

// wish writes a wish for the node's present generation, and gives its answer back once there is one.
func (w *world) wish(verb, arg string) inventory.Wish {
	w.t.Helper()
	id := w.ulid()
	key := inventory.KeyWish(w.id, id)
	w.put(key, inventory.Wish{Schema: 1, ID: id, Node: w.id, Verb: verb, Arg: arg, Actor: "kim", Generation: w.view().State.V.Generation, Created: w.now, Expires: w.now.Add(time.Hour)})
	return w.answered(key)
}

func (w *world) answered(key string) inventory.Wish {
	w.t.Helper()
	var d inventory.Doc[inventory.Wish]
	w.turns(50, "answered", func() bool {
		kv, err := w.store.Get(w.t.Context(), key)
		w.must(err)
		d, err = inventory.Decode[inventory.Wish](kv)
		w.must(err)
		return d.V.Answer != ""
	})
	return d.V
}

// history is the node's history.
func (w *world) history() []inventory.History {
	w.t.Helper()
	s, err := w.store.List(w.t.Context(), inventory.PrefixHistory+w.id+"/", inventory.ListOptions{})
	w.must(err)
	var out []inventory.History
	for _, kv := range s.KVs {
		h, err := inventory.Decode[inventory.History](kv)
		w.must(err)
		out = append(out, h.V)
	}
	return out
}

// entered counts how often the node came into a state.
func (w *world) entered(state inventory.State) int {
	n := 0
	for _, h := range w.history() {
		if h.Kind == "transition" && h.To == state {
			n++
		}
	}
	return n
}

func (w *world) count(a Act) int {
	n := 0
	for _, done := range w.acts {
		if done == a {
			n++
		}
	}
	return n
}

// whole says that every invariant held at every revision so far.
func (w *world) whole() {
	w.t.Helper()
	all, err := w.store.Since(1)
	w.must(err)
	c := audit.New(audit.Options{CertificateKey: w.led.CertificateKey})
	for _, b := range all {
		if broken := c.Apply(b); broken != nil {
			w.t.Fatal(broken)
		}
	}
}
