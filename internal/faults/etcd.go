package faults

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hostler-project/hostler/inventory/etcd"
)

// A Member is one etcd process, with a proxy before what clients dial and one before what its peers dial.
type Member struct {
	*Process
	Name         string
	Client, Peer *Proxy
	Store        *etcd.Store // straight to this member

	bin, dir, log            string
	listenClient, listenPeer string
	args                     []string
}

// A Cluster is three members.
type Cluster struct {
	Members []*Member
	Log     *slog.Logger
}

// startCluster starts three members and waits for a leader. quota is in bytes; 0 is etcd's own.
func startCluster(ctx context.Context, bin, dir string, quota int64, log *slog.Logger) (*Cluster, error) {
	c := &Cluster{Log: log}
	var initial []string
	for i := range 3 {
		m := &Member{Name: fmt.Sprintf("etcd%d", i), bin: bin}
		m.dir, m.log = filepath.Join(dir, m.Name), filepath.Join(dir, m.Name+".log")
		var err error
		if m.listenClient, err = freePort(); err == nil {
			m.listenPeer, err = freePort()
		}
		if err == nil {
			m.Client, err = newProxy(m.Name+" client", "", m.listenClient)
		}
		if err == nil {
			m.Peer, err = newProxy(m.Name+" peer", "", m.listenPeer)
		}
		if err == nil {
			m.Store, err = etcd.Open(expired(), etcd.Config{Endpoints: []string{"http://" + m.listenClient}, Timeout: 2 * time.Second}, slog.New(slog.DiscardHandler))
		}
		if err != nil {
			return nil, err
		}
		c.Members = append(c.Members, m)
		initial = append(initial, m.Name+"=http://"+m.Peer.Addr)
	}
	for _, m := range c.Members {
		m.args = []string{"--name", m.Name, "--data-dir", m.dir, "--listen-client-urls", "http://" + m.listenClient, "--advertise-client-urls", "http://" + m.Client.Addr,
			"--listen-peer-urls", "http://" + m.listenPeer, "--initial-advertise-peer-urls", "http://" + m.Peer.Addr, "--initial-cluster", strings.Join(initial, ","),
			"--initial-cluster-state", "new", "--heartbeat-interval", "100", "--election-timeout", "1000", "--auto-compaction-mode", "periodic", "--auto-compaction-retention", "1h",
			"--log-level", "warn", "--quota-backend-bytes", fmt.Sprint(quota)}
		if err := m.Start(); err != nil {
			return nil, err
		}
	}
	_, err := c.Leader(ctx, 30*time.Second)
	return c, err
}

// expired is a context that is over: Open then does not wait for a member that does not run yet.
func expired() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// Start starts the member, on the folder that it has.
func (m *Member) Start() (err error) {
	m.Process, err = start(m.Name, m.log, m.bin, nil, m.args...)
	return err
}

// Endpoints are the proxies that daemons dial.
func (c *Cluster) Endpoints() []string {
	var out []string
	for _, m := range c.Members {
		out = append(out, "http://"+m.Client.Addr)
	}
	return out
}

// direct are the members' own addresses, for those who must see past the faults.
func (c *Cluster) direct() []string {
	var out []string
	for _, m := range c.Members {
		out = append(out, "http://"+m.listenClient)
	}
	return out
}

// Leader waits until a member that answers says that it leads.
func (c *Cluster) Leader(ctx context.Context, limit time.Duration) (*Member, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		for _, m := range c.Members {
			if m.Process == nil || !m.Alive() {
				continue
			}
			one, stop := context.WithTimeout(ctx, 500*time.Millisecond)
			st := m.Store.Status(one)
			stop()
			if len(st) == 1 && st[0].Err == nil && st[0].Leader {
				return m, nil
			}
		}
		select {
		case <-ctx.Done():
			return nil, errors.New("faults: no etcd member leads")
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Close ends all members.
func (c *Cluster) Close() {
	for _, m := range c.Members {
		if m.Process != nil {
			m.Kill()
		}
		_ = m.Store.Close()
		m.Client.Cut()
		m.Peer.Cut()
	}
}

// reset forgets what the members stored.
func (m *Member) reset() error { return os.RemoveAll(m.dir) }

// freePort is a port of loopback that nobody listens on; the namespace is ours alone.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
