package sim

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/hostler-project/hostler/health/hardware"
	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/ledger"
	"github.com/hostler-project/hostler/inventory/memstore"
	"github.com/hostler-project/hostler/provisioner"
	"github.com/hostler-project/hostler/provisioner/agentapi"
	"github.com/hostler-project/hostler/provisioner/dhcp"
)

// A replica is one hostlerd: a watched copy, a reconciler, the boot directory and the agents' side. All of it is lost
// when it is killed.
type replica struct {
	*actor
	s       *Sim
	skew    time.Duration // of its wall clock
	ctx     context.Context
	stop    context.CancelFunc
	copy    *inventory.Copy
	told    <-chan inventory.Batch
	rev     int64 // its watch has given everything up to here
	watch   bool  // a delivery is under way
	looks   bool  // at the shards, soon
	led     *ledger.Ledger
	loop    *provisioner.Loop
	dir     *provisioner.Directory
	agents  *agentapi.Server
	elector *provisioner.Elector
	id      string
	busy    bool // a round is planned or under way
	again   bool
	polls   []*poll
}

// A poll is an agent's question that is not answered yet.
type poll struct {
	m    *machine
	a    *agent
	q    inventory.Report
	from time.Duration
	over bool
}

// startReplica starts a hostlerd: a new one, or one on the host of one that was killed.
func (s *Sim) startReplica(id string) {
	if slices.ContainsFunc(s.replicas, func(r *replica) bool { return r.id == id }) {
		return // its host has one lock
	}
	s.made++
	r := &replica{s: s, id: id, actor: &actor{name: fmt.Sprintf("hostlerd %d on %s", s.made, id)}, copy: inventory.NewCopy()}
	if s.maybe("clock wrong") { // it starts with a wall clock that is off
		s.setClock(r)
	}
	r.ctx, r.stop = context.WithCancel(bg)
	now := func() time.Time { return s.clock(r.skew)() }
	r.led = s.ledger(now)
	rules := s.rules()
	r.loop = &provisioner.Loop{Copy: r.copy, Ledger: r.led, Performer: r, Rules: rules, Now: now, NewID: s.ulid, NewNonce: s.ulid, Log: slog.New(slog.DiscardHandler),
		Go: func(act func()) { s.spawn(r.actor, s.upTo(5*time.Millisecond), act) }}
	r.loop.Init()
	r.elector = &provisioner.Elector{Store: patient{s.store}, TTL: ttl, Now: now, Busy: r.loop.Busy, Wake: r.poke, Log: slog.New(slog.DiscardHandler),
		Me: inventory.Replica{ID: id, Host: id, Since: start.Add(s.mono), Place: "the lock on " + id}}
	r.loop.Owns, r.loop.Left, r.loop.Since, r.led.Term = r.elector.Owns, r.elector.Left, r.elector.Since, r.elector.Conds
	r.told, _ = r.copy.Subscribe()
	r.dir = &provisioner.Directory{Copy: r.copy, Ledger: r.led, Loop: r.loop, Segments: segments, Now: now, Log: slog.New(slog.DiscardHandler),
		Service: provisioner.ServiceOS{Name: "service", Kernel: "vmlinuz", Initrd: "initrd"}, Pin: "sha256:0", CA: []byte("ca"),
		Token: s.token, Path: func(session string) string { return "path-of-" + session }, Agent: func(string) string { return "https://hostlerd" }}
	r.agents = &agentapi.Server{Store: s.store, Copy: r.copy, Authority: s.issuer, Loop: r, Order: func(v inventory.NodeView) inventory.Order { return provisioner.OrderFor(v, rules) },
		Entering: provisioner.Entering, Now: now, Log: slog.New(slog.DiscardHandler)}
	s.replicas = append(s.replicas, r)
	s.act("%s starts", r.name)
	s.spawn(r.actor, 0, r.run)
}

// segments are the site's networks; machines that nobody knows are written down on the second.
var segments = []dhcp.Segment{
	{Name: "s", Subnet: netip.MustParsePrefix("10.0.0.0/16"), Address: netip.MustParseAddr("10.0.0.1"), Mode: dhcp.Authoritative},
	{Name: "new", Subnet: netip.MustParsePrefix("10.1.0.0/16"), Address: netip.MustParseAddr("10.1.0.1"), Mode: dhcp.Enrol},
}

// begin is what hostlerd does to a store before anything else.
func (s *Sim) begin() error { return provisioner.Begin(bg, s.store, "sim", "era-1") }

// token is the secret of a session; tokenHash what the record keeps of it.
func (s *Sim) token(session, nonce string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %s %s", s.p.Seed, session, nonce))
	return hex.EncodeToString(sum[:])
}

func (s *Sim) rules() *provisioner.Rules {
	return &provisioner.Rules{Fence: "sim", Site: "sim",
		ChunkBase: func(inventory.NodeView, string) string { return "http://x" }, TrustedKey: func(string) string { return "key" },
		Token:   func(session, nonce string) string { return agentapi.HashToken(s.token(session, nonce)) },
		Address: func(sp inventory.Spec) string { return sp.IP },
		Sign: func(b inventory.CertificateBody) (inventory.Certificate, error) {
			return ledger.SignCertificate(b, s.key)
		},
		Compare: func(sku inventory.SKU, hw inventory.Hardware) []string {
			var out []string
			for _, m := range hardware.Compare(sku, hw) {
				out = append(out, m.String())
			}
			return out
		}}
}

// run fills the copy, and keeps the replica's hold on its shards; its rounds, its watch and its tick are events of their own.
func (r *replica) run() {
	for !r.fill() {
		if !r.s.wait(time.Second) {
			return
		}
	}
	r.tick()
	every := func(d time.Duration, do func()) {
		r.s.spawn(r.actor, r.s.upTo(time.Second), func() {
			for do(); r.s.wait(d); {
				do()
			}
		})
	}
	every(ttl/5, func() {
		if r.elector.Keep(r.ctx) {
			r.balance()
		}
	})
	every(2*ttl, r.balance)
}

// ttl is how long a replica that vanished keeps its shards. Longer than the product's, so that less of a history is
// spent on renewals.
const ttl = 15 * time.Second

// balanceSoon has the shards looked at, once for all that comes together.
func (r *replica) balanceSoon() {
	if !r.looks {
		r.looks = true
		r.s.spawn(r.actor, r.s.upTo(time.Second), func() { r.looks = false; r.balance() })
	}
}

func (r *replica) balance() {
	before := r.elector.Shards()
	r.elector.Balance(r.ctx)
	if n := r.elector.Shards(); n > before {
		r.s.act("%s has %d shards", r.name, n)
		r.s.seen["shards taken"] += n - before
	}
}

// patient is the store as an elector uses it: its timeouts are of the machine's clock, and time here is another.
type patient struct{ *memstore.Store }

func (p patient) Get(ctx context.Context, key string) (inventory.KV, error) {
	return p.Store.Get(context.WithoutCancel(ctx), key)
}

func (p patient) List(ctx context.Context, prefix string, o inventory.ListOptions) (inventory.Snapshot, error) {
	return p.Store.List(context.WithoutCancel(ctx), prefix, o)
}

func (p patient) Commit(ctx context.Context, t inventory.Txn) (inventory.Result, error) {
	return p.Store.Commit(context.WithoutCancel(ctx), t)
}

func (p patient) Grant(ctx context.Context, ttl time.Duration) (int64, error) {
	return p.Store.Grant(context.WithoutCancel(ctx), ttl)
}

func (p patient) KeepAlive(ctx context.Context, lease int64) error {
	return p.Store.KeepAlive(context.WithoutCancel(ctx), lease)
}

func (p patient) Revoke(ctx context.Context, lease int64) error {
	return p.Store.Revoke(context.WithoutCancel(ctx), lease)
}

// fill lists everything.
func (r *replica) fill() bool {
	rev, err := r.copy.Fill(r.ctx, r.s.store)
	if err != nil {
		return false
	}
	r.rev = rev
	r.drain()
	return true
}

// drain tells the loop what the copy told its subscribers.
func (r *replica) drain() {
	for {
		select {
		case b, ok := <-r.told:
			if !ok { // more came at once than fits: it begins again from the copy, as Loop.Run does
				r.s.seen["changes missed"]++
				r.told, _ = r.copy.Subscribe()
				r.loop.Missed()
				for _, p := range slices.Clone(r.polls) {
					r.answer(p, false)
				}
				continue
			}
			r.loop.Changed(b)
			r.wakePolls(b)
			if slices.ContainsFunc(b.Events, func(e inventory.Event) bool {
				return e.Deleted && strings.HasPrefix(e.KV.Key, inventory.PrefixShards)
			}) {
				r.balanceSoon()
			}
			continue
		default:
		}
		break
	}
	r.poke()
}

// watchSoon plans a delivery of what was written.
func (r *replica) watchSoon() {
	if r.watch || r.dead {
		return
	}
	r.watch = true
	d := r.s.between(100*time.Microsecond, 3*time.Millisecond)
	if r.s.maybe("watch late") {
		d = r.s.between(time.Second, 40*time.Second)
	}
	r.s.after(d, r.deliver)
}

func (r *replica) deliver() {
	switch {
	case r.dead:
		return
	case r.paused > r.s.mono:
		r.s.after(r.paused-r.s.mono, r.deliver)
		return
	case r.s.away > r.s.mono:
		r.s.after(r.s.away-r.s.mono+r.s.upTo(time.Second), r.deliver)
		return
	}
	from := r.rev + 1
	if r.rev > 5 && r.s.maybe("watch repeats") {
		from = max(1, r.rev-r.s.rng.Int64N(20))
	}
	batches, err := r.s.store.Since(from)
	if err != nil && from <= r.rev {
		batches, err = r.s.store.Since(r.rev + 1)
	}
	if errors.Is(err, inventory.ErrCompacted) {
		r.s.fire("compacted under a watch")
		r.s.spawn(r.actor, 0, func() {
			for !r.fill() {
				if !r.s.wait(time.Second) {
					return
				}
			}
			r.watch = false
			r.watchSoon()
		})
		return
	}
	r.watch = false
	if len(batches) > 1 && r.s.maybe("watch merges") {
		one := inventory.Batch{Rev: batches[len(batches)-1].Rev}
		for _, b := range batches {
			one.Events = append(one.Events, b.Events...)
		}
		batches = []inventory.Batch{one}
	}
	for _, b := range batches {
		r.copy.Apply(b)
		r.rev = max(r.rev, b.Rev)
	}
	r.drain()
}

// poke plans a round of the reconciler, unless one is planned.
func (r *replica) poke() {
	switch {
	case r.dead:
	case r.busy:
		r.again = true
	default:
		r.busy = true
		r.s.spawn(r.actor, r.s.between(50*time.Microsecond, 2*time.Millisecond), func() {
			r.loop.Round(r.ctx)
			r.busy = false
			if r.again {
				r.again = false
				r.poke()
			}
		})
	}
}

// tick is the reconciler's own clock, for what happens because nothing happens.
func (r *replica) tick() {
	if r.dead {
		return
	}
	r.poke()
	r.s.after(4*time.Second, r.tick)
}

// kill is a kill -9: all that was in memory is gone.
func (r *replica) kill() {
	r.s.act("%s is killed", r.name)
	r.stop()
	r.s.bury(r.actor)
	for i, other := range r.s.replicas {
		if other == r {
			r.s.replicas = append(r.s.replicas[:i:i], r.s.replicas[i+1:]...)
			break
		}
	}
}

// speaks says whether the replica answers on the network.
func (r *replica) speaks() bool { return !r.dead && r.paused <= r.s.mono && r.copy.Rev() > 0 }

// server is the replica that a machine reaches: the one that holds its node's shard where it speaks, else any.
func (s *Sim) server(node string) *replica {
	var any *replica
	for _, r := range s.replicas {
		if !r.speaks() {
			continue
		}
		if r.elector.Holds(node) {
			return r
		}
		any = r
	}
	return any
}

// Heard and Told implement agentapi.Reconciler.
func (r *replica) Heard(node string, q inventory.Report) { r.loop.Heard(node, q); r.poke() }

// Told notes that an agent was told to enter.
func (r *replica) Told(node string) { r.loop.Told(node); r.poke() }

// wakePolls answers agents that wait where something about their node has changed.
func (r *replica) wakePolls(b inventory.Batch) {
	if len(r.polls) == 0 {
		return
	}
	touched := map[string]bool{}
	for _, e := range b.Events {
		if p := inventory.Parts(e.KV.Key); len(p) > 1 {
			touched[p[1]] = true
		}
	}
	for _, p := range append([]*poll{}, r.polls...) {
		if touched[p.m.id] && !p.over {
			r.answer(p, false)
		}
	}
}

// answer gives an agent its next order, when there is one or when it has waited long enough.
func (r *replica) answer(p *poll, now bool) {
	if p.over {
		return
	}
	n, ready := r.agents.Next(p.m.id, p.a.session, p.q)
	if !ready && !now {
		return
	}
	r.poke()
	p.over = true
	for i, q := range r.polls {
		if q == p {
			r.polls = append(r.polls[:i:i], r.polls[i+1:]...)
			break
		}
	}
	p.m.answered(p.a, n)
}
