package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"sync"
	"time"

	"go.etcd.io/etcd/server/v3/embed"

	"github.com/hostler-project/hostler/inventory"
)

// An EmbeddedConfig says where the server inside our process keeps its files and listens. Only Dir is needed.
type EmbeddedConfig struct {
	Dir          string        // made with mode 0700 when it is not there
	ListenClient string        // host:port; default 127.0.0.1:2379
	ListenPeer   string        // host:port; default 127.0.0.1:2380
	QuotaBytes   int64         // writes are refused with inventory.ErrNoSpace above; default 512 MiB
	KeepHistory  time.Duration // revisions younger than this can be read and watched; default 10 min
	Progress     time.Duration // how often an idle watch is told that it is up to date; default 10 s, at least 100 ms
	ReadyIn      time.Duration // how long a start may take, replay of the log included; default 60 s
	Timeout      time.Duration // of one call; 0 means DefaultTimeout
}

// memberName is what the lone member is called.
const memberName = "hostler"

// An Embedded is a Store together with the one-member etcd that it is kept in.
type Embedded struct {
	*Store
	server *embed.Etcd
	close  func() error
}

// StartEmbedded starts an etcd inside this process and returns once it answers reads. It can be killed at any moment and
// started again on the same folder. A disk that fails under it ends the whole process, which is what etcd does.
func StartEmbedded(ctx context.Context, cfg EmbeddedConfig, log *slog.Logger) (*Embedded, error) {
	cfg = cfg.filled()
	sc, err := cfg.server(log)
	if err != nil {
		return nil, err
	}
	e := &Embedded{}
	e.close = sync.OnceValue(e.shut)
	ctx, cancel := context.WithTimeout(ctx, cfg.ReadyIn)
	defer cancel()

	// StartEtcd knows no context: it waits, for example, as long as another process has the database locked.
	type started struct {
		server *embed.Etcd
		err    error
	}
	done := make(chan started, 1)
	go func() {
		server, err := embed.StartEtcd(sc)
		done <- started{server, err}
	}()
	select {
	case st := <-done:
		if st.err != nil {
			return nil, fmt.Errorf("etcd: start in %s on %s: %v; does another hostlerd or etcd run here?", cfg.Dir, cfg.ListenClient, st.err)
		}
		e.server = st.server
	case <-ctx.Done():
		go func() {
			if st := <-done; st.err == nil {
				st.server.Close()
			}
		}()
		return nil, fmt.Errorf("etcd: start in %s: not up after %v: %w; does another process hold the folder?", cfg.Dir, cfg.ReadyIn, context.Cause(ctx))
	}
	if e.Store, err = ready(ctx, e.server, cfg, log); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

func ready(ctx context.Context, server *embed.Etcd, cfg EmbeddedConfig, log *slog.Logger) (*Store, error) {
	select {
	case <-server.Server.ReadyNotify():
	case err := <-server.Err():
		return nil, fmt.Errorf("etcd: start in %s: %v", cfg.Dir, err)
	case <-ctx.Done():
		return nil, fmt.Errorf("etcd: start in %s: not ready after %v: %w", cfg.Dir, cfg.ReadyIn, context.Cause(ctx))
	}
	s, err := connect(Config{Endpoints: []string{"http://" + cfg.ListenClient}, Timeout: cfg.Timeout}, log)
	if err != nil {
		return nil, err
	}
	for {
		err := s.ping(ctx)
		if err == nil {
			return s, nil
		}
		if ctx.Err() != nil || !errors.Is(err, inventory.ErrUnavailable) {
			return nil, errors.Join(fmt.Errorf("etcd: first read after the start: %w", err), s.Close())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// Failed tells when the server has ended by itself.
func (e *Embedded) Failed() <-chan error { return e.server.Err() }

// Close ends the connection, then the server, and waits until the files are closed. A second Close does nothing.
func (e *Embedded) Close() error { return e.close() }

func (e *Embedded) shut() error {
	var err error
	if e.Store != nil {
		err = e.Store.Close()
	}
	e.server.Close()
	return err
}

func (cfg EmbeddedConfig) filled() EmbeddedConfig {
	if cfg.ListenClient == "" {
		cfg.ListenClient = "127.0.0.1:2379"
	}
	if cfg.ListenPeer == "" {
		cfg.ListenPeer = "127.0.0.1:2380"
	}
	if cfg.QuotaBytes <= 0 {
		cfg.QuotaBytes = 512 << 20
	}
	if cfg.KeepHistory <= 0 {
		cfg.KeepHistory = 10 * time.Minute
	}
	if cfg.Progress <= 0 {
		cfg.Progress = 10 * time.Second
	}
	if cfg.ReadyIn <= 0 {
		cfg.ReadyIn = time.Minute
	}
	return cfg
}

// server is etcd's own configuration: nothing that matters is left to its defaults.
func (cfg EmbeddedConfig) server(log *slog.Logger) (*embed.Config, error) {
	if cfg.Dir == "" {
		return nil, fmt.Errorf("etcd: no folder is given for the embedded server")
	}
	client, err := url.Parse("http://" + cfg.ListenClient)
	if err != nil {
		return nil, fmt.Errorf("etcd: listen address %q: %v", cfg.ListenClient, err)
	}
	peer, err := url.Parse("http://" + cfg.ListenPeer)
	if err != nil {
		return nil, fmt.Errorf("etcd: listen address %q: %v", cfg.ListenPeer, err)
	}
	c := embed.NewConfig()
	c.Name = memberName
	c.Dir = cfg.Dir
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{*peer}, []url.URL{*peer}
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(bridge(log))
	c.EnableGRPCGateway = false

	// Space: the quota bounds the database, compaction what of it is history.
	c.QuotaBackendBytes = cfg.QuotaBytes
	c.AutoCompactionMode = embed.CompactorModePeriodic
	c.AutoCompactionRetention = cfg.KeepHistory.String()
	c.MaxTxnOps = inventory.MaxOps
	c.MaxRequestBytes = 3 << 19

	// Memory: raft keeps this many entries, of up to a request each; a lone member has no follower that needs them.
	c.SnapshotCount = 2000
	c.SnapshotCatchUpEntries = 100
	c.MaxSnapFiles, c.MaxWalFiles = 2, 2
	c.BackendFreelistType = "map"

	// Time: a lone member waits for nobody, so its election may be short. A write that takes a second is worth a warning; on a spinning disk 100 ms are everyday.
	c.TickMs, c.ElectionMs = 100, 500
	c.WatchProgressNotifyInterval = cfg.Progress
	c.WarningApplyDuration, c.WarningUnaryRequestDuration = time.Second, time.Second
	return c, nil
}
