package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/hostler-project/hostler/bmc/bmctest"
	"github.com/hostler-project/hostler/inventory"
)

// An Act is something that reached a machine.
type Act struct {
	At         time.Time
	Node       string
	Kind       string // on, off, order …
	By         string // the daemon whose socket a power order came from
	Generation int64  // of orders
}

// A Fleet is all machines of a site.
type Fleet struct {
	Machines []*Machine

	keys   *Keys
	store  inventory.Store // the record, past the faults: what a machine would be served at boot
	agents []string        // base URLs of the replicas
	who    func(from net.Addr) string

	mu   sync.Mutex
	acts []Act
	run  context.Context
	wg   sync.WaitGroup
}

// A Machine is one server: its controller switches it, and what runs in it is an agent, a tenant's system, or nothing.
type Machine struct {
	ID   string
	Spec inventory.Spec

	fleet *Fleet
	bmc   *bmctest.Fake // nil: nobody switches this machine, it only runs

	mu    sync.Mutex
	boots int
	off   context.CancelFunc // ends what runs in it
}

func (f *Fleet) note(a Act) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.acts = append(f.acts, a)
}

// Acts are those so far.
func (f *Fleet) Acts() []Act {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]Act(nil), f.acts...)
}

func (f *Fleet) pause(from, to time.Duration) time.Duration { return from + rand.N(to-from) }

// switched is a power order as the controller carries it out. Off ends at once what runs in the machine, also when it
// was off; on starts a boot only in a machine that is off.
func (m *Machine) switched(on bool, from net.Addr) {
	kind := "off"
	if on {
		kind = "on"
	}
	m.fleet.note(Act{At: time.Now(), Node: m.ID, Kind: kind, By: m.fleet.who(from)})
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.off != nil && !on {
		m.off()
		m.off = nil
	}
	if on && m.off == nil {
		m.power(m.boot)
	}
}

// power runs something in the machine until it is switched off. The caller holds mu.
func (m *Machine) power(run func(ctx context.Context, bootID string)) {
	ctx, off := context.WithCancel(m.fleet.run)
	m.off = off
	m.boots++
	id := fmt.Sprintf("%s-boot-%d", m.ID, m.boots)
	m.fleet.wg.Go(func() { run(ctx, id) })
}

// boot is a boot from the network: the service OS starts when an armed session waits for this node, as DHCP and the boot
// script would have it.
func (m *Machine) boot(ctx context.Context, bootID string) {
	sleep(ctx, m.fleet.pause(200*time.Millisecond, 600*time.Millisecond))
	id, err := newIdentity()
	if err != nil {
		panic(err) // no randomness
	}
	for ctx.Err() == nil {
		one, stop := context.WithTimeout(ctx, 2*time.Second)
		kv, err := m.fleet.store.Get(one, inventory.KeySession(m.ID))
		stop()
		if s, derr := inventory.Decode[inventory.Session](kv); err == nil && derr == nil && (s.V.Phase == inventory.SessionArmed || s.V.KeyHash == id.hash) {
			a := m.newAgent(s.V.ID, bootID, id)
			if err := a.redeem(ctx, m.fleet.keys.Authority.Token(s.V.ID, s.V.Nonce)); err == nil {
				a.work(ctx) // then a tenant's system runs, or nothing: either way nobody asks any more
				return
			}
		}
		sleep(ctx, 300*time.Millisecond)
	}
}

// warm starts a machine whose agent has long redeemed its session.
func (m *Machine) warm(session, bootID string, id *identity) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.power(func(ctx context.Context, _ string) { m.newAgent(session, bootID, id).work(ctx) })
}

// close ends every machine and controller.
func (f *Fleet) close() {
	for _, m := range f.Machines {
		if m.bmc != nil {
			m.bmc.Close()
		}
	}
	f.wg.Wait()
}
