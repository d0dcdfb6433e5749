package faults

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/hostler-project/hostler/bmc/bmctest"
	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/api"
	"github.com/hostler-project/hostler/inventory/etcd"
)

// Options say how large a site is.
type Options struct {
	Daemons int
	Quick   int   // warm machines without a controller, to claim and give back
	Whole   int   // machines with a controller and a port, that go to a tenant and back
	Quota   int64 // of etcd, in bytes; 0: etcd's own
	Steady  bool  // no member fails: the recorder watches one alone, and no compaction can overtake it
	More    func(ctx context.Context, s *Seed) error
	Config  map[string]any // more of site.yaml
}

// A Site is everything of one run.
type Site struct {
	Dir      string
	Cluster  *Cluster
	Daemons  []*Daemon
	Fleet    *Fleet
	Keys     *Keys
	Store    *etcd.Store // past the proxies
	Recorder *Recorder
	Admin    string // a token
	Rental   []string

	began   time.Time
	clients int // numbers given so far
	stop    context.CancelFunc
	closed  bool
}

// Tenants of the run; the last one claims nothing, and tries to release what is not its own.
var Tenants = []string{"acme", "globex", "mallory"}

// binary is a program that Main built.
func binary(name string) string { return filepath.Join(os.Getenv(dirVar), name) }

// Open starts a site: etcd, its records, machines, daemons, in this order.
func Open(ctx context.Context, o Options) (s *Site, err error) {
	s = &Site{began: time.Now()}
	ctx, s.stop = context.WithCancel(ctx)
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if s.Dir, err = os.MkdirTemp(os.Getenv(dirVar), "site-"); err != nil {
		return s, err
	}
	log := slog.New(slog.DiscardHandler)
	if s.Keys, err = newKeys(filepath.Join(s.Dir, "keys"), siteName); err != nil {
		return s, err
	}
	if s.Cluster, err = startCluster(ctx, binary("etcd"), s.Dir, o.Quota, log); err != nil {
		return s, err
	}
	if s.Store, err = etcd.Open(ctx, etcd.Config{Endpoints: s.Cluster.direct(), Timeout: 3 * time.Second}, log); err != nil {
		return s, err
	}
	fence := filepath.Join(s.Dir, "fence")
	if err = os.Mkdir(fence, 0o700); err != nil {
		return s, err
	}
	self, err := os.Executable()
	if err != nil {
		return s, err
	}
	var program []string
	if o.Whole > 0 {
		program = []string{self, fenceVerb, fence}
	}
	for n := range o.Daemons {
		d, err := newDaemon(n, binary("hostlerd"), s.Dir, s.Keys.Dir, s.Cluster.Endpoints(), program, o.Config)
		if err != nil {
			return s, err
		}
		s.Daemons = append(s.Daemons, d)
	}
	if err = s.seed(ctx, o); err != nil {
		return s, err
	}
	if s.Admin, err = newToken(ctx, s.Store, api.RoleAdmin, ""); err != nil {
		return s, err
	}
	for _, t := range Tenants {
		token, err := newToken(ctx, s.Store, api.RoleRental, t)
		if err != nil {
			return s, err
		}
		s.Rental = append(s.Rental, token)
	}
	seen := s.Store
	if o.Steady {
		seen = s.Cluster.Members[0].Store
	}
	if s.Recorder, err = record(ctx, seen, s.Keys); err != nil {
		return s, err
	}
	for _, d := range s.Daemons {
		if err = d.Start(); err != nil {
			return s, err
		}
		if _, err = d.Serving(ctx, s.Admin, 30*time.Second); err != nil {
			return s, err
		}
	}
	return s, nil
}

func apiToken(ctx context.Context, s inventory.Store, t inventory.Token) (string, error) {
	t.Expires = time.Now().Add(24 * time.Hour)
	return api.NewToken(ctx, s, t)
}

// seed makes the records and the machines that they are about.
func (s *Site) seed(ctx context.Context, o Options) error {
	seed := newSeed(s.Keys)
	s.Fleet = &Fleet{keys: s.Keys, store: s.Store, run: ctx, who: s.whose}
	for _, d := range s.Daemons {
		s.Fleet.agents = append(s.Fleet.agents, d.Agent)
	}
	if err := seed.begin(ctx); err != nil {
		return err
	}
	if err := seed.site(ctx); err != nil {
		return err
	}
	sealed, err := s.Keys.seal(api.BMCLogin{User: bmctest.User, Password: bmctest.Password})
	if err != nil {
		return err
	}
	if err := seed.put(ctx, inventory.KeyCredential("rack"), inventory.Credential{Schema: inventory.Schema, Age: sealed, Changed: time.Now(), Actor: "run"}); err != nil {
		return err
	}
	if err := seed.end(ctx); err != nil {
		return err
	}
	type warm struct {
		m       *Machine
		session inventory.Session
		id      *identity
	}
	var all []warm
	for i := range o.Quick + o.Whole {
		m, sku, addr := &Machine{fleet: s.Fleet}, Quick, ""
		if i >= o.Quick {
			sku = Whole
			m.bmc = &bmctest.Fake{On: true, Changed: m.switched, Serial: seed.nextSerial()}
			if err := m.bmc.Start(); err != nil {
				return err
			}
			addr = m.bmc.Addr
		}
		m.Spec = seed.spec(sku, addr, "rack")
		id, err := newIdentity()
		if err != nil {
			return err
		}
		session := inventory.Session{Schema: inventory.Schema, ID: "s-" + newID(), Purpose: string(inventory.Inspecting), Nonce: newID(), Phase: inventory.SessionRedeemed, Boots: 1,
			Created: time.Now(), Expires: time.Now().Add(time.Hour), KeyHash: id.hash, BootID: "seeded", Redeemed: time.Now()}
		session.TokenHash = s.Keys.Authority.TokenHash(session.ID, session.Nonce)
		if err := seed.begin(ctx); err != nil {
			return err
		}
		if m.ID, err = seed.ready(ctx, m.Spec, session); err != nil {
			return err
		}
		if err := seed.end(ctx); err != nil {
			return err
		}
		s.Fleet.Machines = append(s.Fleet.Machines, m)
		if err := s.Keys.issue(id, session.ID, m.ID); err != nil {
			return err
		}
		all = append(all, warm{m, session, id})
	}
	if o.More != nil {
		if err := o.More(ctx, seed); err != nil {
			return err
		}
	}
	if err := seed.copyTo(ctx, s.Store); err != nil {
		return err
	}
	for _, w := range all {
		w.m.warm(w.session.ID, w.session.BootID, w.id)
	}
	return nil
}

// whose tells which daemon sent a datagram: the one that holds the socket with that port.
func (s *Site) whose(from net.Addr) string {
	a, ok := from.(*net.UDPAddr)
	if !ok {
		return ""
	}
	inode := udpInode(a.Port)
	for _, d := range s.Daemons {
		if d.Process == nil || inode == "" {
			continue
		}
		dir := fmt.Sprintf("/proc/%d/fd", d.PID())
		fds, _ := os.ReadDir(dir) // ended
		for _, fd := range fds {
			if to, err := os.Readlink(filepath.Join(dir, fd.Name())); err == nil && to == "socket:["+inode+"]" {
				return d.Name
			}
		}
	}
	return "a daemon that has ended"
}

// Close ends everything and says what is left. A second Close does nothing.
func (s *Site) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	s.stop()
	for _, d := range s.Daemons {
		if d.Process != nil {
			_ = d.Continue() // a frozen one cannot end
			d.End(5 * time.Second)
		}
	}
	if s.Fleet != nil {
		s.Fleet.close()
	}
	if s.Store != nil {
		_ = s.Store.Close()
	}
	if s.Cluster != nil {
		s.Cluster.Close()
	}
	var err error
	for range 20 { // fence programs that were running
		left := Left()
		if err = nil; len(left) == 0 {
			break
		}
		err = fmt.Errorf("faults: still running after the end: %v", left)
		time.Sleep(100 * time.Millisecond)
	}
	return errors.Join(err, os.RemoveAll(s.Dir))
}

func output(ctx context.Context, program string, args ...string) (string, error) {
	b, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	return string(b), err
}
