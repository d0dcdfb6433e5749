package main

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"github.com/hostler-project/hostler/bmc"
	"github.com/hostler-project/hostler/health/hardware"
	"github.com/hostler-project/hostler/imaging"
	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/audit"
	"github.com/hostler-project/hostler/inventory/etcd"
	"github.com/hostler-project/hostler/inventory/ledger"
	"github.com/hostler-project/hostler/provisioner"
	"github.com/hostler-project/hostler/provisioner/dhcp"
	"github.com/hostler-project/hostler/provisioner/httpboot"
	"github.com/hostler-project/hostler/provisioner/peer"
)

// A daemon is everything that is wired once; parts.go adds what listens.
type daemon struct {
	cfg      Config
	log      *slog.Logger
	keys     keys
	store    inventory.Store
	copy     *inventory.Copy
	led      *ledger.Ledger
	loop     *provisioner.Loop
	elector  *provisioner.Elector
	router   *peer.Router
	lib      library
	dir      *provisioner.Directory
	segments []dhcp.Segment
	metrics  *prometheus.Registry
	monitor  *monitor
	witness  *witness
	started  time.Time
	ready    chan struct{} // closed when the copy is filled
	auditor  *audit.Auditor
}

// serve runs a site until ctx ends or a part fails. Every listener is opened before anything is served.
func serve(ctx context.Context, c Config, log *slog.Logger) error {
	if err := os.MkdirAll(c.Data, 0o700); err != nil {
		return err
	}
	k, err := loadKeys(c.Keys, c.Site)
	if err != nil {
		return err
	}
	lock, err := lockReplica(c)
	if err != nil {
		return err
	}
	defer func() { _ = lock.file.Close() }() // the process ends, and the lock with it
	g, ctx := errgroup.WithContext(ctx)
	store, closeStore, err := openStore(ctx, c, log, g)
	if err != nil {
		return err
	}
	defer closeStore()
	w := newWitness(c, store, log)
	d := &daemon{cfg: c, log: log, keys: k, store: w, witness: w, copy: inventory.NewCopy(), metrics: prometheus.NewRegistry(), started: time.Now(), ready: make(chan struct{})}
	d.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	d.metrics.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "hostler_breaker_open",
		Help: "1 while the site's breaker is open: no power or destructive act starts until a person closes it."}, d.breakerOpen))
	if err := d.wire(); err != nil {
		return err
	}
	if err := d.elect(store, lock); err != nil {
		return err
	}
	parts, err := d.listen(ctx)
	if err != nil {
		return err
	}
	g.Go(func() error { return d.copy.Run(ctx, store, func() { close(d.ready) }) })
	for _, p := range parts {
		g.Go(func() error {
			if !p.early { // nothing is answered from a copy that was never filled
				select {
				case <-d.ready:
				case <-ctx.Done():
					return nil
				}
			}
			if err := p.run(ctx); err != nil && ctx.Err() == nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			return nil
		})
	}
	g.Go(func() error {
		select {
		case <-d.ready:
			log.Info("serving", "api", c.API.Listen, "segments", len(c.Segments), "nodes", len(d.copy.Nodes()))
		case <-ctx.Done():
		}
		return nil
	})
	return g.Wait()
}

// openStore starts the embedded etcd, or opens the cluster.
func openStore(ctx context.Context, c Config, log *slog.Logger, g *errgroup.Group) (inventory.Lessor, func(), error) {
	if len(c.Etcd.Endpoints) > 0 {
		s, err := etcd.Open(ctx, etcd.Config{Endpoints: c.Etcd.Endpoints}, log)
		if err != nil {
			return nil, nil, err
		}
		return s, func() { _ = s.Close() }, nil // the process ends
	}
	e, err := etcd.StartEmbedded(ctx, etcd.EmbeddedConfig{Dir: filepath.Join(c.Data, "etcd"), ListenClient: c.Etcd.Listen, ListenPeer: c.Etcd.Peer, QuotaBytes: c.Etcd.Quota}, log)
	if err != nil {
		return nil, nil, err
	}
	g.Go(func() error {
		select {
		case err := <-e.Failed():
			return fmt.Errorf("embedded etcd: %w", err)
		case <-ctx.Done():
			return nil
		}
	})
	return e, func() { _ = e.Close() }, nil // the process ends
}

func (d *daemon) breakerOpen() float64 {
	if inventory.BreakerIn(d.copy.One(inventory.KeyBreaker)).Open {
		return 1
	}
	return 0
}

func newID() string { return ulid.Make().String() }

func nonce() string {
	b := make([]byte, 32)
	rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}

// wire puts the parts together.
func (d *daemon) wire() error {
	var err error
	if d.segments, err = d.cfg.segments(); err != nil {
		return err
	}
	for _, text := range d.cfg.Images.TrustedKeys {
		k, err := imaging.ParsePublicKey(text)
		if err != nil {
			return err
		}
		d.lib.Trusted = append(d.lib.Trusted, k)
	}
	d.lib.Root = filepath.Join(d.cfg.Data, "images")
	allowed := map[inventory.State]time.Duration{}
	for s, t := range d.cfg.Deadlines {
		allowed[s] = time.Duration(t)
	}
	d.led = &ledger.Ledger{Store: d.store, Now: time.Now, Allowed: allowed, NewID: newID,
		CertificateKey: d.keys.Certificate.Public().(ed25519.PublicKey)}
	d.monitor = &monitor{store: d.store, copy: d.copy, now: time.Now}
	d.metrics.MustRegister(d.monitor.gauge())
	own := *d.led // the reconciler's writes compare its term; the API's need none
	d.loop = &provisioner.Loop{Copy: d.copy, Ledger: &own, Now: time.Now, NewID: newID, NewNonce: nonce, Log: d.log, Rules: d.rules(),
		Performer: &provisioner.Hands{BMCs: &bmc.Pool{Log: d.log}, Target: d.target, Fence: d.fence()}}
	d.router = &peer.Router{Loop: d.loop, Copy: d.copy, Now: time.Now, Log: d.log,
		Holds: func(node string) bool { return d.elector == nil || d.elector.Holds(node) }}
	d.audit()
	d.metrics.MustRegister(d.progress()...)
	return d.directory()
}

func (d *daemon) fence() provisioner.Fence {
	if d.cfg.Fence.Driver == "exec" {
		return provisioner.ExecFence{Program: d.cfg.Fence.Program}
	}
	return provisioner.NoFence{}
}

// rules are what deciders need of configuration and keys.
func (d *daemon) rules() *provisioner.Rules {
	p := d.cfg.Patience
	return &provisioner.Rules{
		Patience: time.Duration(p.Boot), Silence: time.Duration(p.Silence), Lost: time.Duration(p.Lost), Readiness: time.Duration(p.Readiness),
		Fence: d.fence().Name(), Site: d.cfg.Site,
		ChunkBase: func(v inventory.NodeView, image string) string {
			s, _ := d.dir.Segment(v)
			return "http://" + s.Address.String() + "/image/" + image
		},
		TrustedKey: func(image string) string {
			r, err := inventory.Decode[inventory.ImageRecord](d.copy.One(inventory.KeyImage(image)))
			if err != nil {
				return ""
			}
			return r.V.SignedBy
		},
		Token: d.keys.Authority.TokenHash,
		Sign: func(b inventory.CertificateBody) (inventory.Certificate, error) {
			return ledger.SignCertificate(b, d.keys.Certificate)
		},
		Address: func(s inventory.Spec) string { return s.IP },
		Compare: func(sku inventory.SKU, hw inventory.Hardware) []string {
			var out []string
			for _, m := range hardware.Compare(sku, hw) {
				out = append(out, m.String())
			}
			return out
		},
	}
}

// directory wires what answers the boot protocols.
func (d *daemon) directory() error {
	d.dir = &provisioner.Directory{Copy: d.copy, Ledger: d.led, Loop: d.router, Segments: d.segments, Now: time.Now, Log: d.log,
		Loaders: map[string]string{}, Pin: d.keys.Authority.Pin(), CA: d.keys.Authority.PEM(), Token: d.keys.Authority.Token,
		Path: func(session string) string { return d.keys.Authority.Path("session", session) },
		Agent: func(segment string) string {
			for _, s := range d.segments {
				if s.Name == segment {
					return "https://" + netip.AddrPortFrom(s.Address, agentPort).String()
				}
			}
			return ""
		}}
	if len(d.segments) == 0 {
		return nil
	}
	os_, err := serviceOS(d.cfg.Boot.ServiceOS, d.cfg.Boot.Console)
	if err != nil {
		return err
	}
	d.dir.Service = os_
	files, err := os.ReadDir(d.cfg.Boot.Loaders)
	if err != nil {
		return fmt.Errorf("boot.loaders: %v", err)
	}
	for _, f := range files {
		if f.Type().IsRegular() || f.Type()&fs.ModeSymlink != 0 {
			d.dir.Loaders[f.Name()] = filepath.Join(d.cfg.Boot.Loaders, f.Name())
		}
	}
	for _, f := range dhcp.Firmwares {
		if d.dir.Loaders[f.Loader] == "" {
			d.log.Warn("machines with this firmware cannot be booted: their loader is not there", "firmware", f.Means, "loader", filepath.Join(d.cfg.Boot.Loaders, f.Loader))
		}
	}
	return nil
}

// serviceOS finds kernel and initrd, and names them by their bytes, so that no cache mixes two builds.
func serviceOS(dir, console string) (provisioner.ServiceOS, error) {
	s := provisioner.ServiceOS{Kernel: filepath.Join(dir, "vmlinuz"), Initrd: filepath.Join(dir, "initrd.cpio")}
	sum := sha256.New()
	for _, path := range []string{s.Kernel, s.Initrd} {
		f, err := os.Open(path)
		if err != nil {
			return s, fmt.Errorf("boot.service_os: %v (make images builds it)", err)
		}
		_, err = io.Copy(sum, f)
		if err = errors.Join(err, f.Close()); err != nil {
			return s, fmt.Errorf("boot.service_os: %v", err)
		}
	}
	s.Name = "service-" + hex.EncodeToString(sum.Sum(nil)[:8])
	for _, c := range strings.Fields(console) {
		s.Args = append(s.Args, httpboot.Arg{Key: "console", Value: c})
	}
	s.Args = append(s.Args, httpboot.Arg{Key: "panic", Value: "30"}, httpboot.Arg{Key: "quiet"}, httpboot.Arg{Key: "init_on_alloc", Value: "1"})
	return s, nil
}

// target is a node's controller with its credential unsealed.
func (d *daemon) target(v inventory.NodeView) (bmc.Target, error) {
	b := v.Spec.V.BMC
	if b.Addr == "" {
		return bmc.Target{}, fmt.Errorf("node %s has no BMC address: hostler node approve --bmc ADDR --credential REF", v.Name())
	}
	c, err := inventory.Decode[inventory.Credential](d.copy.One(inventory.KeyCredential(b.Credential)))
	if err != nil || !c.Exists() {
		return bmc.Target{}, fmt.Errorf("node %s: credential %q is not there: hostler bmc credential set %s", v.Name(), b.Credential, b.Credential)
	}
	plain, err := d.keys.Unseal(c.V.Age)
	if err != nil {
		return bmc.Target{}, fmt.Errorf("credential %q: %v", b.Credential, err)
	}
	user, password, err := decodeCredential(plain)
	if err != nil {
		return bmc.Target{}, fmt.Errorf("credential %q: %v", b.Credential, err)
	}
	serial := v.Spec.V.Serial
	if serial == "" {
		serial = v.Facts.V.Hardware.Serial
	}
	return bmc.Target{Addr: b.Addr, Protocol: b.Protocol, User: user, Password: bmc.Secret(password), Serial: serial,
		LegacyBoot: cmp.Or(v.Spec.V.Firmware, v.Facts.V.Hardware.Firmware) == "bios"}, nil
}

// declare writes the SKUs and limits of the configuration, where they differ.
func (d *daemon) declare(ctx context.Context) error {
	for _, s := range d.cfg.SKUs {
		s.Schema = inventory.Schema
		if err := declare(ctx, d.store, inventory.KeySKU(s.Name), s); err != nil {
			return fmt.Errorf("declare SKU %s: %w", s.Name, err)
		}
	}
	if err := declare(ctx, d.store, inventory.KeyLimits, d.cfg.Limits); err != nil {
		return fmt.Errorf("declare limits: %w", err)
	}
	return nil
}

func declare[T any](ctx context.Context, s inventory.Store, key string, v T) error {
	return inventory.Update(ctx, s, key, func(kv inventory.KV) ([]inventory.Cond, []inventory.Op, error) {
		kv.Key = key
		old, err := inventory.Decode[T](kv)
		if err != nil {
			return nil, nil, err
		}
		op, err := old.Put(v)
		if err != nil || string(op.Value) == string(kv.Value) {
			return nil, nil, err
		}
		return nil, []inventory.Op{op}, nil
	})
}
