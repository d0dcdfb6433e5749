package etcd_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/etcd"
	"github.com/hostler-project/hostler/inventory/storetest"
)

func TestStore(t *testing.T) {
	s := start(t, config(t))
	storetest.Run(t, func(*testing.T) inventory.Store { return s })
}

func TestFull(t *testing.T) {
	cfg := config(t)
	cfg.QuotaBytes = 1 << 20
	s := start(t, cfg)
	storetest.Full(t, s)
	st := s.Status(t.Context())
	if len(st) != 1 || st[0].Err != nil || st[0].Quota != 1<<20 || !strings.Contains(strings.Join(st[0].Faults, " "), "NOSPACE") {
		t.Errorf("got status %+v, want one member with a NOSPACE alarm", st)
	}
}

func TestStatus(t *testing.T) {
	cfg := config(t)
	s := start(t, cfg)
	st := s.Status(t.Context())
	if len(st) != 1 || st[0].Err != nil || !st[0].Leader || st[0].Size == 0 || len(st[0].Faults) != 0 ||
		st[0].Version == "" || st[0].Endpoint != "http://"+cfg.ListenClient {
		t.Errorf("got %+v, want one healthy leader", st)
	}
}

// While etcd is down calls fail in time and a watch waits; when it is back, on the same folder, everything goes on.
func TestOutage(t *testing.T) {
	cfg := config(t)
	server := start(t, cfg)
	s, err := etcd.Open(t.Context(), etcd.Config{Endpoints: []string{"http://" + cfg.ListenClient}, Timeout: 400 * time.Millisecond}, logTo(t))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	rev := put(t, s, "/outage/a", "before")
	ch := s.Watch(t.Context(), "/outage/", rev)
	if b := <-ch; b.Err != nil || len(b.Events) != 1 {
		t.Fatalf("got %+v, want the first write", b)
	}

	begin := time.Now()
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("the server took %v to stop, because somebody watches", took)
	}
	for name, call := range map[string]func() error{
		"get":    func() error { _, err := s.Get(t.Context(), "/outage/a"); return err },
		"list":   func() error { _, err := s.List(t.Context(), "/outage/", inventory.ListOptions{}); return err },
		"commit": func() error { _, err := s.Commit(t.Context(), inventory.Txn{}); return err },
	} {
		begin := time.Now()
		if err := call(); !errors.Is(err, inventory.ErrUnavailable) || time.Since(begin) > 2*time.Second {
			t.Errorf("%s while etcd is down: got error %v after %v", name, err, time.Since(begin))
		}
	}
	if st := s.Status(t.Context()); len(st) != 1 || !errors.Is(st[0].Err, inventory.ErrUnavailable) {
		t.Errorf("status while etcd is down: %+v", st)
	}

	start(t, cfg)
	after := put(t, s, "/outage/a", "after")
	if after != rev+1 {
		t.Errorf("the write after the outage is revision %d, want %d", after, rev+1)
	}
	b := <-ch
	if b.Err != nil || len(b.Events) != 1 || string(b.Events[0].KV.Value) != "after" {
		t.Errorf("got %+v, want the write after the outage", b)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if b := <-ch; !errors.Is(b.Err, inventory.ErrUnavailable) {
		t.Errorf("after the store was closed the watch said %+v", b)
	}
}

// An idle watch is told that it is up to date, also of what did not touch its prefix.
func TestProgress(t *testing.T) {
	cfg := config(t)
	cfg.Progress = 100 * time.Millisecond
	s := start(t, cfg)
	from := put(t, s, "/progress/a", "1")
	ch := s.Watch(t.Context(), "/progress/", from)
	if b := <-ch; len(b.Events) != 1 {
		t.Fatalf("got %+v, want the first write", b)
	}
	other := put(t, s, "/elsewhere/a", "1")
	last, again := from, 0
	for again < 3 {
		b := <-ch
		if b.Err != nil || len(b.Events) != 0 || b.Rev < last || b.Rev > other {
			t.Fatalf("got %+v after revision %d, want nothing new up to revision %d", b, last, other)
		}
		if last = b.Rev; last == other {
			again++
		}
	}
}

// A cluster that is down is no reason not to start; a list without endpoints is.
func TestOpen(t *testing.T) {
	var log bytes.Buffer
	cfg := etcd.Config{Timeout: 300 * time.Millisecond}
	if _, err := etcd.Open(t.Context(), cfg, slog.New(slog.NewTextHandler(&log, nil))); err == nil || !strings.Contains(err.Error(), "etcd.endpoints") {
		t.Errorf("without endpoints: got error %v", err)
	}
	cfg.Endpoints = []string{"http://" + freePort(t)}
	s, err := etcd.Open(t.Context(), cfg, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(log.String(), "does not answer") || !strings.Contains(log.String(), cfg.Endpoints[0]) {
		t.Errorf("the log does not tell which etcd is silent: %s", log.String())
	}
}

func TestStartRefused(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, c := range []struct {
		name   string
		change func(*etcd.EmbeddedConfig)
		want   string
	}{
		{"no folder", func(c *etcd.EmbeddedConfig) { c.Dir = "" }, "folder"},
		{"the port is taken", func(c *etcd.EmbeddedConfig) { c.ListenClient = taken.Addr().String() }, taken.Addr().String()},
		{"not an address", func(c *etcd.EmbeddedConfig) { c.ListenPeer = "no port" }, "no port"},
		{"a folder that cannot be", func(c *etcd.EmbeddedConfig) { c.Dir = "/dev/null/etcd" }, "/dev/null/etcd"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := config(t)
			c.change(&cfg)
			e, err := etcd.StartEmbedded(t.Context(), cfg, logTo(t))
			if err == nil {
				e.Close()
				t.Fatal("it started")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error does not name %q: %v", c.want, err)
			}
		})
	}
}

// etcd's own log comes through slog, and a healthy life of it has nothing to say.
func TestQuiet(t *testing.T) {
	var log bytes.Buffer
	e, err := etcd.StartEmbedded(t.Context(), config(t), slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	put(t, e, "/quiet/a", "1")
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	if log.Len() > 0 {
		t.Errorf("it said:\n%s", log.String())
	}
}

func config(t *testing.T) etcd.EmbeddedConfig {
	return etcd.EmbeddedConfig{Dir: filepath.Join(t.TempDir(), "etcd"), ListenClient: freePort(t), ListenPeer: freePort(t)}
}

func start(t *testing.T, cfg etcd.EmbeddedConfig) *etcd.Embedded {
	t.Helper()
	e, err := etcd.StartEmbedded(t.Context(), cfg, logTo(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

func logTo(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }

func put(t *testing.T, s inventory.Store, key, value string) int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		r, err := s.Commit(ctx, inventory.Txn{Then: []inventory.Op{{Key: key, Value: []byte(value)}}})
		if err == nil {
			return r.Rev
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
