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
	"github.com/hostler-project/hostler/inventory/memstore"
)

// fleet is many nodes under one or more replicas, each with its own copy of one store. The machines are simple: switched
// on, they boot our agent; the agent answers every order at once, unless it was told to work on it. What is looked at is
// how many do something at once.
type fleet struct {
	t        *testing.T
	store    *memstore.Store
	led      *ledger.Ledger
	key      ed25519.PrivateKey
	now      time.Time
	step     time.Duration
	ids      int
	replicas []*replica
	machines map[string]*machine
	order    []string // ids

	dead   bool                       // no machine boots
	silent func(m *machine) bool      // its agent is not heard
	works  func(inventory.Order) bool // agents work and work on this
	acts   map[Act]int
	begun  []func() // acts that a replica began: they happen when all have decided
}

type replica struct {
	loop *Loop
	copy *inventory.Copy
	rev  int64
}

type machine struct {
	n         int
	id        string
	on, agent bool
	boots     int
	session   string
	done      map[string]inventory.Report
}

func newFleet(t *testing.T, nodes, replicas int, spec func(i int, s *inventory.Spec)) *fleet {
	f := &fleet{t: t, store: memstore.New(), now: time.Date(2026, 11, 25, 3, 0, 0, 0, time.UTC), step: time.Second, machines: map[string]*machine{}, acts: map[Act]int{}}
	_, f.key, _ = ed25519.GenerateKey(nil)
	f.led = &ledger.Ledger{Store: f.store, Now: f.clock, NewID: f.ulid, CertificateKey: f.key.Public().(ed25519.PublicKey)}
	f.put(inventory.KeySKU("virtual"), inventory.SKU{Schema: 1, Name: "virtual", BurnInProfile: "smoke", VerifyProfile: "smoke", Trust: "network"})
	for i := range nodes {
		s := inventory.Spec{Name: fmt.Sprintf("n%03d", i), Serial: fmt.Sprintf("S%d", i), SKU: "virtual", Approve: "auto", BMC: inventory.BMCSpec{Addr: fmt.Sprint("bmc-", i)}}
		if spec != nil {
			spec(i, &s)
		}
		id, err := f.led.Add(t.Context(), s, "test", "imported")
		f.must(err)
		f.machines[id] = &machine{n: i, id: id, done: map[string]inventory.Report{}}
		f.order = append(f.order, id)
	}
	for i := range replicas {
		f.replicas = append(f.replicas, &replica{})
		f.restart(i)
		if replicas > 1 {
			f.replicas[i].loop.Owns = func(node string) bool { return f.machines[node].n%replicas == i }
		}
	}
	return f
}

// restart is a new daemon in place of a replica.
func (f *fleet) restart(i int) {
	r := f.replicas[i]
	owns := func(string) bool { return true }
	if r.loop != nil && r.loop.Owns != nil {
		owns = r.loop.Owns
	}
	r.copy, r.rev = inventory.NewCopy(), 0
	rules := (&world{key: f.key}).rules()
	rules.Compare = func(inventory.SKU, inventory.Hardware) []string { return nil }
	r.loop = &Loop{Copy: r.copy, Ledger: f.led, Performer: f, Now: f.clock, NewID: f.ulid, NewNonce: f.ulid, Log: slog.New(slog.DiscardHandler), Rules: rules, Owns: owns,
		Go: func(act func()) { f.begun = append(f.begun, act) }}
	r.loop.Init()
	f.sync(r)
}

func (f *fleet) clock() time.Time { return f.now }
func (f *fleet) ulid() string     { f.ids++; return fmt.Sprintf("%026d", f.ids) }
func (f *fleet) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *fleet) put(key string, v any) {
	f.t.Helper()
	op, err := inventory.Encode(key, v)
	f.must(err)
	_, err = f.store.Commit(f.t.Context(), inventory.Txn{Then: []inventory.Op{op}})
	f.must(err)
}

func (f *fleet) sync(r *replica) {
	all, err := f.store.Since(r.rev + 1)
	f.must(err)
	for _, b := range all {
		r.copy.Apply(b)
		r.loop.Changed(b)
		r.rev = b.Rev
	}
}

// Perform is every BMC: what it is asked for works.
func (f *fleet) Perform(_ context.Context, v inventory.NodeView, a Act) Result {
	m := f.machines[v.ID]
	f.acts[a]++
	switch a {
	case PowerOff:
		m.on, m.agent = false, false
	case PowerOn:
		m.on = true
		m.boots++
	case PowerCycle:
		m.on, m.agent = true, false
		m.boots++
	}
	if m.on {
		return Result{Power: "on"}
	}
	return Result{Power: "off"}
}

// turn lets every replica decide on what it knows, then everything happen.
func (f *fleet) turn() {
	f.now = f.now.Add(f.step)
	for _, r := range f.replicas { // all see the same store, then all write: they race
		f.sync(r)
	}
	for _, r := range f.replicas {
		r.loop.Round(f.t.Context())
	}
	begun := f.begun
	f.begun = nil
	for _, act := range begun {
		act()
	}
	for _, id := range f.order {
		f.machine(f.machines[id])
	}
}

func (f *fleet) turns(n int) {
	for range n {
		f.turn()
	}
}

// until turns until something holds.
func (f *fleet) until(n int, what string, holds func() bool) {
	f.t.Helper()
	for range n {
		if holds() {
			return
		}
		f.turn()
	}
	for _, id := range f.order[:min(3, len(f.order))] {
		f.t.Logf("%s: %s %q, says %q", id, f.state(id).State, f.state(id).Work.Phase, f.replicas[0].loop.Live(id).Say)
	}
	f.t.Fatalf("not %s after %d turns", what, n)
}

func (f *fleet) all(s inventory.State) func() bool {
	return func() bool {
		for _, id := range f.order {
			if f.state(id).State != s {
				return false
			}
		}
		return true
	}
}

func (f *fleet) machine(m *machine) {
	if m.on && !m.agent && !f.dead {
		v := f.view(m.id)
		if s := v.Session.V; bootFor(v).Kind == "service" {
			s.Phase, s.Redeemed = inventory.SessionRedeemed, f.now
			f.put(inventory.KeySession(m.id), s)
			m.agent, m.session = true, s.ID
		}
		return
	}
	if !m.agent || f.silent != nil && f.silent(m) {
		return
	}
	v := f.view(m.id)
	if v.Session.V.ID != m.session || v.Session.V.Phase != inventory.SessionRedeemed {
		return
	}
	o := OrderFor(v, f.replicas[0].loop.Rules)
	r := inventory.Report{Session: m.session, BootID: fmt.Sprint(m.boots), Order: o.ID, Agent: "digest"}
	switch done, ok := m.done[o.ID]; {
	case ok && Entering(v, o.ID):
		f.replicas[0].loop.Told(m.id)
		m.agent = false
		return
	case ok:
		r = done
	case o.Kind == inventory.OrderIdle, f.works != nil && f.works(o):
	default:
		r.Done, r.Started, r.Finished = true, f.now, f.now
		disk := inventory.Medium{Slot: "s", Device: "nvme0", Kind: inventory.MediumNVMe, Serial: fmt.Sprint("D", m.n), Size: 1 << 30}
		switch o.Kind {
		case inventory.OrderInspect:
			r.Hardware = &inventory.Hardware{Serial: fmt.Sprint("S", m.n), Media: []inventory.Medium{disk}}
		case inventory.OrderSanitize:
			r.Proofs = []inventory.MediumProof{{Medium: disk, Method: inventory.MethodPurge, Passed: true}}
		case inventory.OrderTest:
			r.Test = &inventory.TestRun{Verdict: inventory.Pass, Finished: f.now}
		case inventory.OrderWrite:
			r.Written = &inventory.Written{Image: o.Write.Image, Bytes: 1, ReadBack: 1}
		case inventory.OrderHandoff:
			r.Handoff = &inventory.HandoffResult{Method: "kexec"}
		}
		m.done[o.ID] = r
	}
	for _, x := range f.replicas {
		x.loop.Heard(m.id, r)
	}
}

func (f *fleet) view(id string) inventory.NodeView {
	return inventory.View(&inventory.Read{Ctx: context.Background(), Store: f.store}, id)
}

func (f *fleet) state(id string) inventory.NodeState {
	kv, err := f.store.Get(context.Background(), inventory.KeyState(id))
	f.must(err)
	d, err := inventory.Decode[inventory.NodeState](kv)
	f.must(err)
	return d.V
}

func (f *fleet) say(i int) string {
	for _, r := range f.replicas {
		if r.loop.Owns == nil || r.loop.Owns(f.order[i]) {
			return r.loop.Live(f.order[i]).Say
		}
	}
	return ""
}

// peaks walks every revision, checks each entry into an activity against the limits in force, and says how many were in
// each at most.
func (f *fleet) peaks() map[string]int {
	f.t.Helper()
	all, err := f.store.Since(1)
	f.must(err)
	use, limits, was, out := inventory.NewUsage(), inventory.DefaultLimits(), map[string]string{}, map[string]int{}
	for _, b := range all {
		entered := ""
		for _, e := range b.Events {
			p := inventory.Parts(e.KV.Key)
			switch {
			case e.KV.Key == inventory.KeyLimits:
				limits = inventory.LimitsIn(e.KV)
			case len(p) == 3 && p[2] == "spec":
				d, err := inventory.Decode[inventory.Spec](e.KV)
				f.must(err)
				use.SetRack(p[1], d.V.Rack)
			case len(p) == 3 && p[2] == "state":
				d, err := inventory.Decode[inventory.NodeState](e.KV)
				f.must(err)
				use.SetState(p[1], d.V)
				if a := inventory.Activity(d.V); a != was[p[1]] {
					was[p[1]], entered = a, p[1]
				}
			}
		}
		if entered != "" {
			if over := use.Over(limits, entered); over != "" {
				f.t.Errorf("revision %d: node %s entered: %s", b.Rev, entered, over)
			}
		}
		for _, a := range inventory.ActivityList {
			out[a] = max(out[a], use.Count(a))
		}
	}
	return out
}
