package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	stdlog "log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"github.com/hostler-project/hostler/internal/version"
	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/api"
	"github.com/hostler-project/hostler/inventory/blob"
	"github.com/hostler-project/hostler/inventory/web"
	"github.com/hostler-project/hostler/provisioner"
	"github.com/hostler-project/hostler/provisioner/agentapi"
	"github.com/hostler-project/hostler/provisioner/barrier"
	"github.com/hostler-project/hostler/provisioner/dhcp"
	"github.com/hostler-project/hostler/provisioner/httpboot"
	"github.com/hostler-project/hostler/provisioner/metadata"
	"github.com/hostler-project/hostler/provisioner/tftp"
)

// The ports on a segment's address (design.md section 16).
const (
	bootPort  = 80
	agentPort = 8443
)

// A part is one thing that runs as long as the daemon does.
type part struct {
	name  string
	run   func(context.Context) error
	early bool // runs before the copy is filled
}

// listen opens every listener and gives the parts that serve them.
func (d *daemon) listen(ctx context.Context) ([]part, error) {
	parts := []part{{name: "reconciler", run: d.reconcile}, {name: "auditor", run: d.auditor.Run}, {"monitor", d.monitor.run, true}, {name: "witness", run: d.witness.run},
		{name: "events to other replicas", run: d.router.Run}}
	parts, err := d.listenPeers(parts)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", d.cfg.API.Listen)
	if err != nil {
		return nil, fmt.Errorf("api: %w (is another hostlerd running?)", err)
	}
	front := &barrier.Handler{Part: "api", Next: d.awaken(d.api()), Log: d.log}
	d.metrics.MustRegister(front)
	parts = append(parts, part{"api", serveHTTP(l, front), true})
	if len(d.segments) == 0 {
		return parts, nil
	}
	if parts, err = d.listenBoot(ctx, parts); err != nil {
		return nil, err
	}
	ds := &dhcp.Server{Segments: d.segments, Directory: d.dir, Log: d.log,
		Seen: func(q dhcp.Query) {
			d.log.Info("a machine that nobody knows", "asked", q.Type, "segment", q.Segment, "mac", q.MAC.String(), "uuid", q.UUID)
		},
		Rival: func(segment string, server netip.Addr) {
			d.monitor.rival(segment, server)
			d.log.Warn("another DHCP server answers on a segment of ours: find it and switch it off", "segment", segment, "server", server)
		}}
	dl, err := ds.Listen()
	if err != nil {
		return nil, err
	}
	d.metrics.MustRegister(ds)
	return append(parts, part{name: "dhcp", run: func(ctx context.Context) error { return ds.Serve(ctx, dl) }}), nil
}

// listenBoot opens TFTP, boot HTTP and the agents' TLS on every segment's address.
func (d *daemon) listenBoot(_ context.Context, parts []part) ([]part, error) {
	loaders := tftp.Map{}
	for name, path := range d.dir.Loaders {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("boot.loaders: %v", err)
		}
		loaders[name] = b
	}
	home := &metadata.Service{At: d.dir.At, Log: d.log, Home: d.router.PhonedHome, Secret: func(i string) string { return d.keys.Authority.Path("phone-home", i) }}
	boot := &httpboot.Handler{Boot: d.dir, Files: d.dir, Log: d.log, Images: &httpboot.Images{Open: d.lib.Open, Allowed: d.dir.MayRead}}
	d.metrics.MustRegister(boot)
	mux := http.NewServeMux()
	tenants := &barrier.Handler{Part: "metadata", Next: home.Handler(), Log: d.log}
	mux.Handle("/metadata", tenants)
	mux.Handle("/phone-home/", tenants)
	blobs, err := blob.NewDir(filepath.Join(d.cfg.Data, "blobs"))
	if err != nil {
		return nil, err
	}
	agents := &agentapi.Server{Store: d.store, Blobs: blobs, Copy: d.copy, Authority: d.keys.Authority, Loop: d.router, Entering: provisioner.Entering,
		Order: func(v inventory.NodeView) inventory.Order { return provisioner.OrderFor(v, d.loop.Rules) }, Seed: d.seed, Now: time.Now, Log: d.log}
	reports := &barrier.Handler{Part: "agents", Next: agents.Handler(), Log: d.log}
	d.metrics.MustRegister(tenants, reports)
	done := map[netip.Addr]bool{}
	for i, s := range d.segments {
		if done[s.Address] {
			continue
		}
		done[s.Address] = true
		ts := &tftp.Server{Address: netip.AddrPortFrom(s.Address, 0), Files: loaders, Log: d.log}
		tl, err := ts.Listen()
		if err != nil {
			return nil, fmt.Errorf("tftp on %s: %w", s.Address, err)
		}
		if i == 0 {
			d.metrics.MustRegister(ts)
		}
		bl, err := net.Listen("tcp", netip.AddrPortFrom(s.Address, bootPort).String())
		if err != nil {
			return nil, fmt.Errorf("boot HTTP: %w", err)
		}
		al, err := net.Listen("tcp", netip.AddrPortFrom(s.Address, agentPort).String())
		if err != nil {
			return nil, fmt.Errorf("agents' TLS: %w", err)
		}
		cert, err := d.keys.Authority.Server([]net.IP{s.Address.AsSlice()}, time.Now())
		if err != nil {
			return nil, err
		}
		hs := httpboot.NewServer(either(mux, boot), d.log)
		as := &http.Server{Handler: reports, TLSConfig: agents.TLS(cert), ReadHeaderTimeout: 10 * time.Second, ErrorLog: quiet(d.log)}
		parts = append(parts,
			part{name: "tftp", run: func(ctx context.Context) error { return ts.Serve(ctx, tl) }},
			part{name: "boot http", run: func(ctx context.Context) error { return run(ctx, hs, func() error { return hs.Serve(bl) }) }},
			part{name: "agents", run: func(ctx context.Context) error { return run(ctx, as, func() error { return as.ServeTLS(al, "", "") }) }})
	}
	return parts, nil
}

// either serves what mux has a pattern for, and leaves all else to the boot handler, whose own grammar of paths must see
// the request as it was sent.
func either(mux *http.ServeMux, boot http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, pattern := mux.Handler(r); pattern != "" {
			mux.ServeHTTP(w, r)
			return
		}
		boot.ServeHTTP(w, r)
	})
}

// serveHTTP serves a handler on a listener until ctx ends.
func serveHTTP(l net.Listener, h http.Handler) func(context.Context) error {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	return func(ctx context.Context) error { return run(ctx, s, func() error { return s.Serve(l) }) }
}

// quiet keeps net/http's own lines (handshakes that failed, for one) at debug.
func quiet(log *slog.Logger) *stdlog.Logger { return slog.NewLogLogger(log.Handler(), slog.LevelDebug) }

func run(ctx context.Context, s *http.Server, serve func() error) error {
	s.BaseContext = func(net.Listener) context.Context { return ctx } // long polls and event streams end with the daemon
	stop := context.AfterFunc(ctx, func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if s.Shutdown(end) != nil {
			_ = s.Close() // whoever is left after two seconds asks again
		}
	})
	defer stop()
	if err := serve(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// awaken answers, until the copy is filled, that it is not: whoever asks learns why the site is silent.
func (d *daemon) awaken(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-d.ready:
			h.ServeHTTP(w, r)
		default:
			why := "hostlerd has started and not read the store yet"
			if g := d.monitor.degraded(); g != nil {
				why += ": " + g.Why
			}
			api.WriteProblem(w, http.StatusServiceUnavailable, "is etcd running? journalctl -n 50 -u hostlerd", why)
		}
	})
}

// api is the API, the dashboard and the metrics.
func (d *daemon) api() http.Handler {
	s := &api.Server{Store: d.store, Copy: d.copy, Ledger: d.led, Images: d.lib, Sealer: d.keys, Now: time.Now, Log: d.log,
		CertificateKey: d.led.CertificateKey, Version: version.String(), Preview: d.dir.Preview, Live: d.live,
		Audit: d.auditor.Verdict, Doctor: d.doctor, Degraded: d.monitor.degraded}
	mux := http.NewServeMux()
	h := s.Handler()
	mux.Handle("/v1/", h)
	mux.Handle("/healthz", h)
	mux.Handle("/", (&web.Server{API: s, Site: d.cfg.Site}).Handler())
	mux.Handle("GET /metrics", promhttp.HandlerFor(d.metrics, promhttp.HandlerOpts{}))
	return mux
}

func (d *daemon) live(node string) api.Live {
	l := d.router.Live(node)
	out := api.Live{Say: l.Say, Progress: l.Progress, Heard: l.Heard, Still: l.Still, Held: l.Held}
	if l.Timed {
		left := inventory.Duration(l.Left.Round(time.Second))
		out.Left = &left
	}
	return out
}

// reconcile declares what the configuration says, takes the shards, and moves nodes. A store that is away or full at the
// start is waited for, like later.
func (d *daemon) reconcile(ctx context.Context) error {
	for told := ""; ; {
		err := d.witness.check(ctx)
		if err == nil {
			err = d.begin(ctx)
		}
		if err == nil {
			return d.move(ctx)
		}
		switch {
		case ctx.Err() != nil:
			return err
		case errors.Is(err, inventory.ErrBehind):
			if told != err.Error() {
				d.log.Error("no node is moved and nothing is written: hostlerd restore FILE, from a backup, or hostlerd store acknowledge", "err", err)
			}
		case errors.Is(err, inventory.ErrUnavailable), errors.Is(err, inventory.ErrNoSpace):
			d.log.Warn("the store takes no writes; no node is moved until it does", "err", err)
		default:
			return err
		}
		told = err.Error()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

// move runs elections and loop, and when both have ended gives the shards back. A lease outlives nothing: it is kept by
// the process that acts.
func (d *daemon) move(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.elector.Run(ctx) })
	g.Go(func() error { return d.loop.Run(ctx) })
	err := g.Wait()
	d.giveUp()
	return err
}

func (d *daemon) begin(ctx context.Context) error {
	if err := provisioner.Begin(ctx, d.store, d.cfg.Site, newID()); err != nil {
		return err
	}
	if err := d.declare(ctx); err != nil {
		return err
	}
	if err := d.adminToken(ctx); err != nil {
		return err
	}
	return nil
}

// adminToken writes <data>/admin.token at the first start.
func (d *daemon) adminToken(ctx context.Context) error {
	path := filepath.Join(d.cfg.Data, "admin.token")
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	secret, err := api.NewToken(ctx, d.store, inventory.Token{Name: "first-start", Role: api.RoleAdmin})
	if err != nil {
		return err
	}
	return renameio.WriteFile(path, []byte(secret+"\n"), 0o600)
}

// seed unseals an instance's seed and renders its files.
func (d *daemon) seed(v inventory.NodeView) (inventory.SeedFiles, error) {
	sealed, err := inventory.Decode[inventory.Sealed](d.sealed(v.Instance.V.ID))
	if err != nil || !sealed.Exists() {
		return inventory.SeedFiles{}, fmt.Errorf("no sealed seed of instance %s (%v)", v.Instance.V.ID, err)
	}
	plain, err := d.keys.Unseal(sealed.V.Age)
	if err != nil {
		return inventory.SeedFiles{}, err
	}
	var seed inventory.Seed
	if err := json.Unmarshal(plain, &seed); err != nil {
		return inventory.SeedFiles{}, errors.New("the seed is not readable") // never its text
	}
	s, ok := d.dir.Segment(v)
	if !ok || len(v.Spec.V.MACs) == 0 {
		return inventory.SeedFiles{}, fmt.Errorf("node %s is on no declared segment", v.Name())
	}
	ip, err := netip.ParseAddr(v.Spec.V.IP)
	if err != nil {
		return inventory.SeedFiles{}, err
	}
	home := fmt.Sprintf("http://%s/phone-home/%s/%s", s.Address, v.Instance.V.ID, d.keys.Authority.Path("phone-home", v.Instance.V.ID))
	return metadata.Render(v.Instance.V, seed, metadata.Network{MAC: v.Spec.V.MACs[0], Address: netip.PrefixFrom(ip, s.Subnet.Bits())}, home)
}

// sealed reads a sealed seed: it is in no copy.
func (d *daemon) sealed(instance string) inventory.KV {
	ctx, stop := context.WithTimeout(context.Background(), 5*time.Second)
	defer stop()
	r := &inventory.Read{Ctx: ctx, Store: d.store}
	return r.One(inventory.KeySealed(instance))
}

func decodeCredential(plain []byte) (user, password string, err error) {
	var c api.BMCLogin
	if json.Unmarshal(plain, &c) != nil || c.User == "" {
		return "", "", errors.New("it is not readable: set it again")
	}
	return c.User, c.Password, nil
}
