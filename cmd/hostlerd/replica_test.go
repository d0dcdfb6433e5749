package main

import (
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/etcd"
)

// cluster is an etcd that belongs to none of the daemons.
func cluster(t *testing.T) (*etcd.Embedded, string) {
	t.Helper()
	listen := freePort(t)
	e, err := etcd.StartEmbedded(t.Context(), etcd.EmbeddedConfig{Dir: filepath.Join(t.TempDir(), "etcd"), ListenClient: listen, ListenPeer: freePort(t)}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return e, "http://" + listen
}

// owners counts the shards of each replica.
func owners(t *testing.T, s inventory.Store) map[string]int {
	t.Helper()
	out := map[string]int{}
	for n := range inventory.Shards {
		kv, err := s.Get(t.Context(), inventory.KeyShard(n))
		if err != nil {
			t.Fatal(err)
		}
		o, err := inventory.Decode[inventory.ShardOwner](kv)
		if err != nil {
			t.Fatal(err)
		}
		if o.Exists() {
			out[o.V.Replica]++
		}
	}
	return out
}

// shared waits for the shards to be held so: a map of how many replicas hold how many.
func shared(t *testing.T, s inventory.Store, what string, limit time.Duration, want ...int) time.Duration {
	t.Helper()
	begin := time.Now()
	for {
		got := owners(t, s)
		counts := map[int]int{}
		for _, n := range got {
			counts[n]++
		}
		for _, n := range want {
			counts[n]--
		}
		ok := len(got) == len(want)
		for _, n := range counts {
			ok = ok && n == 0
		}
		if ok {
			return time.Since(begin)
		}
		if time.Since(begin) > limit {
			t.Fatalf("%s: after %v the shards are held so: %v", what, limit, got)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Two daemons on one etcd share the shards out; what one gives back at its end the other has at once; started again it
// gets its share. Two on one folder are refused.
func TestTwoReplicas(t *testing.T) {
	store, endpoint := cluster(t)
	a, b := config(t), config(t)
	b.Keys = a.Keys
	for _, c := range []*Config{&a, &b} {
		c.Etcd.Endpoints, c.Replica.Lease = []string{endpoint}, inventory.Duration(2*time.Second)
		c.Replica.Listen = freePort(t)
		c.Replica.Address = c.Replica.Listen
		if err := c.Check(); err != nil {
			t.Fatal(err)
		}
	}
	var log buffer
	start(t, a, &log)
	t.Logf("alone: %v", shared(t, store, "alone", 5*time.Second, 64))
	stop := start(t, b, &log)
	t.Logf("shared out: %v", shared(t, store, "two", 10*time.Second, 32, 32))
	if err := stop(); err != nil {
		t.Error(err)
	}
	if took := shared(t, store, "one went", 5*time.Second, 64); took > time.Second {
		t.Errorf("the shards of a replica that ended cleanly were taken after %v", took)
	} else {
		t.Logf("taken over: %v", took)
	}
	kv, err := store.Get(t.Context(), inventory.KeyShardMark(0))
	if err != nil || !kv.Exists() {
		t.Errorf("no mark beside a shard that is held: %v", err)
	}
	start(t, b, &log)
	shared(t, store, "two again", 10*time.Second, 32, 32)
	if _, err := lockReplica(a); err == nil || !strings.Contains(err.Error(), "another hostlerd") {
		t.Errorf("a second lock on the folder: %v", err)
	}
}
