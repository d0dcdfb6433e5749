package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/etcd"
)

// runCommand is hostlerd's command line with a configuration of its own.
func runCommand(t *testing.T, c Config, in string, args ...string) (string, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "site.yaml")
	b, err := yaml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := command()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetIn(strings.NewReader(in))
	cmd.SetArgs(append(args, "--config", file))
	err = cmd.ExecuteContext(t.Context())
	return out.String(), err
}

// fill writes to a running site's store until it refuses.
func fill(t *testing.T, c Config) {
	t.Helper()
	s, err := openRunning(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i := range 1000 {
		_, err := s.Commit(t.Context(), inventory.Txn{Then: []inventory.Op{{Key: fmt.Sprintf("/ballast/%d", i%5), Value: make([]byte, 200<<10)}}})
		switch {
		case errors.Is(err, inventory.ErrNoSpace):
			return
		case err != nil:
			t.Fatal(err)
		}
	}
	t.Fatal("the store does not get full")
}

// degraded: within ten seconds /healthz, the metric and doctor say that the store takes no writes, why, and what helps.
func degraded(t *testing.T, c Config, why, fix string) {
	t.Helper()
	eventually(t, "degraded mode shows", 10*time.Second, func() bool {
		_, health := call(t, c, "GET", "/healthz", "", "")
		_, metrics := call(t, c, "GET", "/metrics", "", "")
		code, report := call(t, c, "GET", "/v1/doctor", "", token(c))
		return strings.Contains(health, why) && strings.Contains(metrics, "hostler_store_writable 0") && code == 200 &&
			strings.Contains(report, `"well":false`) && strings.Contains(report, fix)
	})
}

func eventually(t *testing.T, what string, patience time.Duration, ok func() bool) {
	t.Helper()
	begin := time.Now()
	for !ok() {
		if time.Since(begin) > patience {
			t.Fatalf("not within %v: %s", patience, what)
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Logf("%s after %v", what, time.Since(begin).Round(10*time.Millisecond))
}

// A daemon that loses its store serves on from its copy: doctor and machines' boots; writes are refused with the reason,
// degraded mode shows, and all of it is over when the store is back. Started without a store, it says so instead of nothing.
func TestStoreAway(t *testing.T) {
	c := config(t)
	cfg := etcd.EmbeddedConfig{Dir: filepath.Join(t.TempDir(), "etcd"), ListenClient: c.Etcd.Listen, ListenPeer: c.Etcd.Peer}
	log := slog.New(slog.DiscardHandler)
	server, err := etcd.StartEmbedded(t.Context(), cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	c.Etcd.Endpoints = []string{"http://" + c.Etcd.Listen}
	var said buffer
	stop := start(t, c, &said)
	admin := token(c)
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	degraded(t, c, "not available", "systemctl start etcd")
	if code, text := call(t, c, "POST", "/v1/tokens", `{"name":"kim","role":"technician","ttl":"1h"}`, admin); code != 503 || !strings.Contains(text, "not available") {
		t.Errorf("a write while the store is away: %d %s", code, text)
	}
	if err := stop(); err != nil {
		t.Errorf("it ended with %v", err)
	}

	ctx, end := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, c, slog.New(slog.NewTextHandler(&said, nil))) }()
	eventually(t, "it says that there is no store", 15*time.Second, func() bool {
		code, text := call(t, c, "GET", "/v1/doctor", "", admin)
		return code == 503 && strings.Contains(text, "not available") && strings.Contains(text, "is etcd running?")
	})
	if server, err = etcd.StartEmbedded(t.Context(), cfg, log); err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	eventually(t, "all is well when the store is back", 15*time.Second, func() bool {
		_, text := call(t, c, "GET", "/healthz", "", "")
		return strings.Contains(text, `"ok":true`)
	})
	end()
	if err := <-ended; err != nil {
		t.Errorf("it ended with %v", err)
	}
}

// A daemon whose store is full goes on reading and says what is wrong and which command helps; that command, beside it,
// gives it its writes back. Started on a full store it comes up all the same.
func TestFullStore(t *testing.T) {
	c := config(t)
	c.Etcd.Quota = 16 << 20
	var log buffer
	stop := start(t, c, &log)
	admin := token(c)
	wish := func() (int, string) {
		return call(t, c, "POST", "/v1/tokens", `{"name":"kim","role":"technician","ttl":"1h"}`, admin)
	}
	if code, text := wish(); code != 200 {
		t.Fatalf("a write before: %d %s", code, text)
	}
	fill(t, c)
	degraded(t, c, "NOSPACE", "hostlerd store recover")
	for _, when := range []string{"running", "started again"} {
		if code, text := wish(); code != 503 || !strings.Contains(text, "NOSPACE") || !strings.Contains(text, "hostlerd store recover") {
			t.Errorf("%s: a write into the full store: %d %s", when, code, text)
		}
		if code, text := call(t, c, "GET", "/v1/nodes", "", admin); code != 200 {
			t.Errorf("%s: a read of the full store: %d %s", when, code, text)
		}
		if when == "running" {
			if err := stop(); err != nil {
				t.Errorf("it ended with %v", err)
			}
			stop = start(t, c, &log)
		}
	}
	if out, err := runCommand(t, c, "n\n", "store", "recover"); err == nil || !strings.Contains(out, "Go on?") || !strings.Contains(out, "NOSPACE") {
		t.Errorf("asked and told no: %s, %v", out, err)
	}
	out, err := runCommand(t, c, "", "store", "recover", "--yes")
	if err != nil || !strings.Contains(out, "takes writes") {
		t.Errorf("recover: %v, %s", err, out)
	}
	if code, text := wish(); code != 200 {
		t.Errorf("a write after the recovery: %d %s", code, text)
	}
	eventually(t, "healthy again", 10*time.Second, func() bool {
		_, text := call(t, c, "GET", "/healthz", "", "")
		return strings.Contains(text, `"ok":true`)
	})
	if err := stop(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	if _, err := runCommand(t, c, "", "store", "recover", "--yes"); err == nil || !strings.Contains(err.Error(), "is hostlerd running?") {
		t.Errorf("without a daemon: %v", err)
	}
}
