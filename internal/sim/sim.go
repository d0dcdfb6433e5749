// Package sim is ring 0 of the tests: the whole control plane as one seeded event loop over fakes that behave.
//
// What runs is the product's own code: replicas of the reconciler with their watched copies, the ledger, the boot
// directory, the agents' redeem and next order, over a store in memory with etcd's semantics. Around it are fakes:
// machines with disks, BMCs and fences that lie, agents that lie and die, rental layers that misbehave, operators, a
// network and a clock. One queue, ordered by virtual time and then by a number drawn from the seed, decides what happens
// next; code that waits (for the store, for an act) is a coroutine that the queue resumes, so a daemon can be killed or
// paused at every such point. No goroutine, map order or wall clock decides anything: a seed replays byte for byte.
//
// The fakes keep the truth: what data is on each disk, whose system runs, power, place in the network. After every event
// the truth is compared with the record (truth.go), every revision goes through inventory/audit, and when the faults have
// stopped every node must come to rest. Which faults there are, how often and as what of reliability.md, is the table in
// faults.go. The package is for tests: no program contains it.
package sim

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"

	"math/rand/v2"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/audit"
	"github.com/hostler-project/hostler/inventory/ledger"
	"github.com/hostler-project/hostler/inventory/memstore"
	"github.com/hostler-project/hostler/provisioner"
)

// Params are all that a run depends on.
type Params struct {
	Seed        uint64
	Nodes       int   // 0: drawn from the seed, 1 to 12
	Transitions int64 // stop the faults after this many state-to-state moves
	Calm        bool  // no faults at all
	Rack        int   // machines in a rack; 0: 16
	Log         bool  // keep the whole trace, not only its tail
}

// A Result is what a run came to.
type Result struct {
	Params      Params
	Transitions int64
	Revisions   int64
	Virtual     time.Duration
	Fired       map[string]int // faults, by name
	Seen        map[string]int // what else is worth counting
	Hash        [32]byte       // of every change of the store and every act, in order
	Err         error          // the first thing that must not be
	Trace       []string       // the last of what happened
}

// A Sim is one run.
type Sim struct {
	p       Params
	rng     *rand.Rand
	queue   queue
	drawn   uint64
	mono    time.Duration // virtual time since the start
	cur     *proc
	idle    []*line
	fired   map[string]int
	seen    map[string]int
	on      map[string]float64 // faults of this seed, by name, and how likely
	faulty  bool
	ending  bool
	err     error
	trace   []string
	hash    hash.Hash
	ids     uint64
	key     ed25519.PrivateKey
	issuer  issuer
	store   *memstore.Store
	checked int64 // up to this revision the checker has seen all
	checker *audit.Checker
	last    map[string]lastSeen // what the truth check knows of each node's record

	replicas []*replica
	made     int // replicas so far
	api      *actor
	field    *actor // machines: killed only with their own epoch
	led      *ledger.Ledger
	machines []*machine
	byNode   map[string]*machine
	byIP     map[string]*machine
	renters  []*renter
	away     time.Duration // the store is away until then
	dark     time.Duration // the monitoring network is cut until then
	bmcDark  time.Duration // the BMC network is cut until then
	nobody   bool          // no person looks at the breaker
	watch    watcher
}

// A watcher sees what happens before anything comes of it; a scripted history asserts by it. Each function may be nil.
type watcher struct {
	revision func(inventory.Batch)                     // s.last is the record as of before
	act      func(*replica, *machine, provisioner.Act) // it begins
	order    func(*machine, inventory.Order)           // an agent begins it
}

var start = time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)

// Run plays one history: faults until enough has happened, then quiet, then the question whether all came to rest.
func Run(p Params) Result {
	s := build(p)
	s.play()
	for _, r := range s.replicas {
		s.bury(r.actor)
	}
	s.bury(s.api)
	s.bury(s.field)
	for _, l := range s.idle {
		l.stop()
	}
	res := Result{Params: s.p, Transitions: s.checker.Counts().Transitions, Revisions: s.checker.Counts().Revisions, Virtual: s.mono, Fired: s.fired, Seen: s.seen, Err: s.err, Trace: s.trace}
	s.hash.Sum(res.Hash[:0])
	return res
}

func build(p Params) *Sim {
	s := &Sim{p: p, rng: rand.New(rand.NewPCG(p.Seed, 0x686f73746c6572)), fired: map[string]int{}, seen: map[string]int{}, hash: sha256.New(), faulty: !p.Calm,
		store: memstore.New(), last: map[string]lastSeen{}, byNode: map[string]*machine{}, byIP: map[string]*machine{}, on: map[string]float64{}}
	s.checked = s.store.Rev()
	s.api, s.field = &actor{name: "api"}, &actor{name: "field"}
	var seed [ed25519.SeedSize]byte
	copy(seed[:], fmt.Sprintf("certificates of seed %d", p.Seed))
	s.key = ed25519.NewKeyFromSeed(seed[:])
	s.checker = audit.New(audit.Options{CertificateKey: s.key.Public().(ed25519.PublicKey)})
	s.led = s.ledger(s.apiClock)
	s.drawFaults()
	s.store.SetFault(s.hook)
	s.store.SetClock(s.clock(0))
	if s.p.Rack == 0 {
		s.p.Rack = 16
	}
	if drawn := 1 + s.rng.IntN(12); s.p.Nodes == 0 { // drawn in any case: with the number given the rest is the same
		s.p.Nodes = drawn
	}
	s.must(s.declare())
	for i := range s.p.Nodes {
		s.machines = append(s.machines, s.newMachine(i))
	}
	for _, tenant := range []string{"acme", "zeta"} {
		s.renters = append(s.renters, &renter{s: s, tenant: tenant, most: s.p.Nodes + 1, pace: s.p.Nodes})
	}
	return s
}

// play runs the three parts of a history.
func (s *Sim) play() {
	s.after(0, func() { s.startReplica("host 1") })
	s.after(s.upTo(time.Minute), func() { s.startReplica("host 2") })
	for _, m := range s.machines {
		s.after(s.upTo(20*time.Second), m.arrive)
	}
	for _, r := range s.renters {
		s.after(s.upTo(time.Minute), r.tick)
	}
	s.after(s.upTo(time.Minute), s.operator)
	s.after(s.upTo(time.Minute), s.chaos)
	limit := s.mono + 400*time.Hour
	for s.err == nil && s.checker.Counts().Transitions < s.p.Transitions {
		if !s.step() || s.mono > limit {
			s.fail("%d transitions in %v of virtual time: the site stands still", s.checker.Counts().Transitions, s.mono)
		}
	}
	if s.err == nil {
		s.settle()
	}
}

// fail notes the first thing that must not be.
func (s *Sim) fail(format string, a ...any) {
	if s.err == nil {
		s.err = fmt.Errorf(format, a...)
		s.note("BROKEN: %v", s.err)
	}
}

func (s *Sim) must(err error) {
	if err != nil {
		s.fail("%v", err)
	}
}

// note is a line of the trace.
func (s *Sim) note(format string, a ...any) {
	line := fmt.Sprintf("%12.3fs  ", s.mono.Seconds()) + fmt.Sprintf(format, a...)
	if !s.p.Log && len(s.trace) >= 2*kept {
		s.trace = append(s.trace[:0], s.trace[kept:]...)
	}
	s.trace = append(s.trace, line)
}

const kept = 200

// ulid is the next id; in order of time, as ULIDs are.
func (s *Sim) ulid() string { s.ids++; return fmt.Sprintf("%026d", s.ids) }

func (s *Sim) chance(p float64) bool { return s.rng.Float64() < p }

// upTo draws a length of time.
func (s *Sim) upTo(d time.Duration) time.Duration { return time.Duration(s.rng.Int64N(int64(d) + 1)) }

// between draws a length of time.
func (s *Sim) between(a, b time.Duration) time.Duration { return a + s.upTo(max(b-a, 0)) }

func (s *Sim) ledger(now func() time.Time) *ledger.Ledger {
	return &ledger.Ledger{Store: s.store, Now: now, NewID: s.ulid, CertificateKey: s.key.Public().(ed25519.PublicKey)}
}

// declare writes the site's own records.
func (s *Sim) declare() error {
	sku := inventory.SKU{Schema: 1, Name: "gpu", BurnInProfile: "smoke", VerifyProfile: "smoke", Trust: "network", MinMemory: 4 << 30,
		TestMaxAge: inventory.Duration(6 * time.Hour),
		Media:      []inventory.MediaSpec{{Slot: "nvme0", Kind: inventory.MediumNVMe, Boot: true}, {Slot: "nvme1", Kind: inventory.MediumNVMe}}}
	_, err := s.put(inventory.Encode(inventory.KeySKU(sku.Name), sku))
	return errors.Join(err, s.begin())
}

// put writes one record, whatever is there.
func (s *Sim) put(op inventory.Op, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	r, err := s.store.Commit(bg, inventory.Txn{Then: []inventory.Op{op}})
	return r.Rev, err
}
