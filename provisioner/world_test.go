package provisioner

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hostler-project/hostler/health/hardware"
	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/audit"
	"github.com/hostler-project/hostler/inventory/ledger"
	"github.com/hostler-project/hostler/inventory/lifecycle"
	"github.com/hostler-project/hostler/inventory/memstore"
)

// world is one node with fakes that behave: a BMC that powers a machine, a machine whose boot starts an agent, an agent
// that does its orders, a fence with three places. Time is a number. Nothing in it runs by itself: turn moves it on.
// Every use of the store, act and order passes a point, where a probe may have it fail, or kill the daemon.
type world struct {
	t       testing.TB
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
	begun   []func() // acts that the daemon began: they happen when it has looked
	acting  Act
	who     string // at work just now: loop, api, agent, tenant, twin; "" the test itself
	points  int    // how many were passed
	fated   bool   // the daemon is killed as soon as it has seen the reply that it waits for
	probe   func(point) error
	written func(memstore.Call) // told of every commit that took effect
	halt    func() bool         // a turn ends early once it holds after the daemon's look
	last    inventory.NodeView
	lastRev int64

	power, boots string // on or off; what the next power-on boots
	booted       string // session whose service OS runs in the machine
	agent        bool   // our agent has redeemed it, and works
	redeemed     string // session that it redeemed
	bootID       int
	place        string // provisioning, isolated, tenant
	tenant       bool   // the tenant's system runs
	disks        []inventory.Medium
	memory       int64
	data         string // what the disks hold
	ups          int    // how often the machine was switched on
	acts         []Act
	images       []string                    // what was written where, for whom
	done         map[string]inventory.Report // the agent's answers by order

	// What goes wrong.
	bmc     func(Act) error                           // what an act comes back with; nil: it works
	answer  func(inventory.Order, *inventory.Report)  // last touch to the report of an order that was done
	phones  bool                                      // the tenant system phones home until that is in the record
	mute    bool                                      // the agent does not speak
	dead    bool                                      // the machine does not boot
	crash   func(inventory.Order) bool                // the machine resets in the middle of an order
	endless func(inventory.Order) bool                // the agent works and works
	allowed map[inventory.State]time.Duration         // the site's deadlines
	killAt  int                                       // kill the daemon after the act of this number took effect, before it is noted
	fault   func(c memstore.Call, machine bool) error // of commits; machine: by the agent's side
	away    bool                                      // the daemon cannot reach the store
}

// A point is a moment at which something can break: before or after a commit, a read, an act or an order of the agent,
// or when what came of an act or order is noted in the daemon's memory, and nowhere else.
type point struct {
	who, kind, when, name string
}

// What a probe may return for an order, besides an error that loses the message.
var (
	errReset  = errors.New("the machine resets")
	errAnswer = errors.New("the agent answers that it did not work")
)

// killed is what a probe panics with: the daemon does nothing after it.
type killed struct{}

func newWorld(t testing.TB) *world {
	w := emptyWorld(t)
	var err error
	w.id, err = w.led.Add(t.Context(), inventory.Spec{Name: "a", Serial: "SER-A", SKU: "virtual", Approve: "auto", MACs: []string{"52:54:00:00:00:01"}, IP: "10.0.0.2", Segment: "s", BMC: inventory.BMCSpec{Addr: "bmc-a"}}, "test", "imported")
	w.must(err)
	w.sync()
	return w
}

// emptyWorld has the machine, but nobody knows of it.
func emptyWorld(t testing.TB) *world {
	w := &world{t: t, store: memstore.New(), now: time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC), step: time.Second, power: "off", place: "provisioning", boots: "pxe",
		memory: 8 << 30, done: map[string]inventory.Report{}}
	_, w.key, _ = ed25519.GenerateKey(nil)
	for i := range 2 {
		w.disks = append(w.disks, inventory.Medium{Slot: fmt.Sprintf("0000:00:0%d.0", i+4), Device: fmt.Sprintf("nvme%d", i), Kind: inventory.MediumNVMe, Serial: fmt.Sprintf("D%d", i), Size: 1 << 30})
	}
	w.wire()
	w.put(inventory.KeySKU("virtual"), inventory.SKU{Schema: 1, Name: "virtual", BurnInProfile: "smoke", VerifyProfile: "smoke", Trust: "network", MinMemory: 4 << 30,
		Media: []inventory.MediaSpec{{Slot: "nvme0", Kind: inventory.MediumNVMe, Boot: true}, {Slot: "nvme1", Kind: inventory.MediumNVMe}}})
	w.restart()
	return w
}

// wire ties ledger and store to this world.
func (w *world) wire() {
	w.led = &ledger.Ledger{Store: w.store, Now: w.clock, NewID: w.ulid, Allowed: w.allowed, CertificateKey: w.key.Public().(ed25519.PublicKey)}
	w.store.SetFault(func(c memstore.Call) error {
		if w.away && w.who == "loop" {
			return inventory.ErrUnavailable
		}
		if c.After && w.written != nil {
			w.written(c)
		}
		if w.fault != nil && c.Op == "commit" {
			if err := w.fault(c, w.who == "agent"); err != nil {
				return err
			}
		}
		if c.Op == "commit" && len(c.Txn.If) == 1 && c.Txn.If[0].Mod == 1<<62 {
			return nil // inventory.Probe: it writes nothing, and there are too many for each to be a moment
		}
		switch {
		case w.who == "" || w.probe == nil: // nothing breaks here: no name has to be found
			if w.who != "" {
				w.points++
			}
			return nil
		case c.Op != "commit":
			return w.at("read", "before", c.Key)
		case c.After:
			return w.at("commit", "after", commitName(c.Txn))
		}
		return w.at("commit", "before", commitName(c.Txn))
	})
}

// at passes a point.
func (w *world) at(kind, when, name string) error {
	w.points++
	if w.probe == nil || w.who == "" || w.who == "twin" {
		return nil
	}
	return w.probe(point{w.who, kind, when, name})
}

// commitName says what a transaction does to a node, whichever node and time it is.
func commitName(t inventory.Txn) string {
	for _, op := range t.Then {
		p := inventory.Parts(op.Key)
		switch {
		case len(p) == 3 && p[0] == "history":
			var h inventory.History
			if json.Unmarshal(op.Value, &h) == nil {
				return strings.Join(strings.Fields(fmt.Sprintf("%s %s %s %s", h.Kind, h.From, h.Event, h.Phase)), " ")
			}
		case p[0] == "avail":
			return "avail"
		}
	}
	if len(t.Then) == 0 {
		return "nothing"
	}
	return inventory.Parts(t.Then[0].Key)[0]
}

// as does something in the name of one of the daemon's parts, which may be killed in the middle of it: then as says false.
func (w *world) as(who string, f func()) (lived bool) {
	before := w.who
	defer func() {
		w.who = before
		if r := recover(); r != nil {
			if _, ok := r.(killed); !ok {
				panic(r)
			}
			w.restart()
		}
	}()
	w.who = who
	f()
	if w.fated {
		w.restart()
	}
	return true
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
	w.copy, w.rev, w.begun, w.fated = inventory.NewCopy(), 0, nil, false
	w.loop = w.newLoop(w.copy)
	w.loop.Go = func(f func()) { w.begun = append(w.begun, f) }
	w.loop.Init()
	w.sync()
}

func (w *world) newLoop(c *inventory.Copy) *Loop {
	return &Loop{Copy: c, Ledger: w.led, Performer: w, Now: w.clock, NewID: w.ulid, NewNonce: w.ulid, Log: slog.New(slog.DiscardHandler), Rules: w.rules()}
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
	if ids := w.copy.Nodes(); w.id == "" && len(ids) > 0 {
		w.id = ids[0]
	}
}

// Perform is the fake BMC and fence.
func (w *world) Perform(_ context.Context, _ inventory.NodeView, a Act) Result {
	w.acting = a
	if err := w.at("act", "before", string(a)); err != nil {
		return Result{Power: w.power, Err: err}
	}
	r := w.do(a)
	if len(w.acts) == w.killAt {
		panic(killed{})
	}
	if err := w.at("act", "after", string(a)); err != nil {
		r.Err = err
	}
	return r
}

func (w *world) do(a Act) Result {
	w.acts = append(w.acts, a)
	if row, _ := lifecycle.Get(w.view().State.V.State); row.Owned && a != FenceAttach {
		w.t.Errorf("act %s on a node that is %s", a, row.Name)
	}
	if w.bmc != nil {
		if err := w.bmc(a); err != nil {
			return Result{Power: w.power, Err: err, Fatal: errors.Is(err, errFatal)}
		}
	}
	off := func() {
		w.reset()
		w.power, w.tenant = "off", false
	}
	on := func() {
		if w.power == "off" {
			w.ups++
			w.power = "on"
		}
	}
	switch a {
	case PowerOff:
		off()
	case PowerOn:
		on()
	case PowerCycle:
		off()
		on()
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

// clone is the same world once more, with a test of its own: what happens in one does not happen in the other. What was
// set to go wrong stays behind.
func (w *world) clone(t testing.TB) *world {
	c := *w
	c.t, c.store, c.begun, c.who, c.probe, c.written, c.halt, c.last = t, memstore.New(), nil, "", nil, nil, nil, inventory.NodeView{}
	c.bmc, c.answer, c.crash, c.endless, c.fault, c.mute, c.dead, c.points = nil, nil, nil, nil, nil, false, false, 0
	c.disks, c.acts, c.images, c.done = slices.Clone(w.disks), slices.Clone(w.acts), slices.Clone(w.images), maps.Clone(w.done)
	all, err := w.store.Since(1)
	c.must(err)
	for _, b := range all {
		var then []inventory.Op
		for _, e := range b.Events {
			op := inventory.Op{Key: e.KV.Key}
			if !e.Deleted {
				op.Value = e.KV.Value
			}
			then = append(then, op)
		}
		r, err := c.store.Commit(context.Background(), inventory.Txn{Then: then})
		c.must(err)
		if r.Rev != b.Rev {
			c.t.Fatalf("revision %d became %d", b.Rev, r.Rev)
		}
	}
	c.wire()
	rev := w.rev
	c.restart()
	c.loop.remember(w.loop)
	c.loop.touchAll()
	if c.rev < rev {
		c.t.Fatalf("the clone is at revision %d, not %d", c.rev, rev)
	}
	return &c
}

// node is what a loop remembers of a node.
func (l *Loop) node(id string) *track {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.nodeLocked(id)
}

// remember gives a loop what another one has in memory.
func (l *Loop) remember(of *Loop) {
	l.Init()
	l.started, l.clock, l.timed, l.still = of.started, of.clock, of.timed, of.still
	for id, n := range of.nodes {
		c := *n
		c.seen.Results = maps.Clone(n.seen.Results)
		c.seen.Busy, c.next, c.timer, c.failing = "", time.Time{}, none, 0
		l.nodes[id] = &c
		l.mark(&c)
	}
}

// twin is a second daemon that believes what the first believes: it decides the same from the same view.
func (w *world) twin() *Loop {
	c := inventory.NewCopy()
	all, err := w.store.Since(1)
	w.must(err)
	for _, b := range all {
		if b.Rev <= w.rev {
			c.Apply(b)
		}
	}
	l := w.newLoop(c)
	l.Go = func(f func()) { f() }
	l.remember(w.loop)
	return l
}

// view reads the node fresh, unless nothing was written since the last time.
func (w *world) view() inventory.NodeView {
	who := w.who
	w.who = ""
	defer func() { w.who = who }()
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
		w.as("loop", func() { w.loop.Round(context.Background()) })
		if w.halt != nil && w.halt() {
			return
		}
	}
	begun := w.begun
	w.begun = nil
	for _, f := range begun {
		w.as("loop", func() {
			f()
			_ = w.at("act", "noted", string(w.acting))
		})
	}
	w.machine()
	w.sync()
}

// machine is the server: when it is on and on the provisioning network, an armed session boots our service OS, whose
// agent redeems it and works.
func (w *world) machine() {
	v := w.view()
	if w.power == "on" && w.boots == "pxe" && w.booted == "" && !w.tenant && !w.dead && w.place == "provisioning" {
		w.loop.AskedDHCP(w.id)
		w.loop.AskedBoot(w.id)
		if bootFor(v).Kind == "service" {
			w.booted = v.Session.V.ID
		}
	}
	if w.tenant && w.phones && w.place == "tenant" && !v.Instance.V.Ready {
		w.as("tenant", func() {
			w.loop.PhonedHome(w.id, PhoneHome{Instance: v.Instance.V.ID})
			_ = w.at("call", "noted", "phone-home")
		})
	}
	switch s := v.Session.V; {
	case w.booted == "" || w.booted != s.ID || w.place != "provisioning":
	case !w.agent:
		w.as("agent", func() { w.redeem(v) })
	case !w.mute && s.Phase == inventory.SessionRedeemed:
		w.as("agent", func() { w.work(v) })
	}
}

// redeem is the agent's first message; the same key may ask again.
func (w *world) redeem(v inventory.NodeView) {
	s := v.Session.V
	if s.Phase == inventory.SessionArmed {
		s.Phase, s.Redeemed, s.BootID = inventory.SessionRedeemed, w.now, fmt.Sprint(w.bootID)
		op, err := v.Session.Put(s)
		w.must(err)
		r, err := w.store.Commit(context.Background(), inventory.Txn{If: []inventory.Cond{v.Session.Unchanged()}, Then: []inventory.Op{op}})
		if err != nil || !r.Done {
			return
		}
	}
	if s.Phase == inventory.SessionRedeemed {
		w.agent, w.redeemed = true, s.ID
	}
}

// reset is a machine that boots again by itself; what its agent had in memory is gone.
func (w *world) reset() {
	w.agent, w.booted = false, ""
	clear(w.done)
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
			w.enter()
			return
		}
	} else if w.endless != nil && w.endless(o) {
		r.Progress = &inventory.Progress{What: "working", Done: 1, Total: 100, Unit: "blocks"}
	} else if o.Kind != inventory.OrderIdle {
		if w.at("order", "before", o.Kind) != nil {
			return // the order did not reach it: it asks again
		}
		r.Done, r.Started, r.Finished = true, w.now, w.now
		w.perform(o, &r)
		if w.answer != nil {
			w.answer(o, &r)
		}
		w.done[o.ID] = r
	}
	if r.Done {
		switch err := w.at("order", "after", o.Kind); {
		case errors.Is(err, errReset):
			w.reset()
			return
		case errors.Is(err, errAnswer):
			r = inventory.Report{Session: r.Session, BootID: r.BootID, Order: r.Order, Agent: r.Agent, Done: true, Error: "busy", Retry: true}
			w.done[o.ID] = r
		case err != nil:
			return // the report was lost: it is sent again
		}
	}
	w.loop.Heard(w.id, r)
	if r.Done {
		_ = w.at("order", "noted", o.Kind)
	}
}

// enter is an agent that asks whether it may enter the tenant's system, is told so, and goes.
func (w *world) enter() {
	if w.at("order", "before", "enter") != nil {
		return
	}
	w.loop.Told(w.id)
	if w.at("order", "noted", "enter") != nil {
		return // it was not told after all: it asks again
	}
	w.agent, w.tenant, w.booted = false, true, ""
	_ = w.at("order", "after", "enter")
}

func (w *world) perform(o inventory.Order, r *inventory.Report) {
	st := w.view().State.V
	row, _ := lifecycle.Get(st.State)
	if (o.Kind == inventory.OrderSanitize || o.Kind == inventory.OrderWrite) && (!row.Destroys || o.Generation != st.Generation || w.tenant) {
		w.t.Errorf("order %s of generation %d on a node that is %s, generation %d, its tenant's system runs: %v", o.Kind, o.Generation, st.State, st.Generation, w.tenant)
	}
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
		w.images = append(w.images, fmt.Sprintf("wipe %d: %s to %s", o.Wipe, o.Write.Image, o.Write.Medium))
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
