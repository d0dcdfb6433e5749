package etcd_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/etcd"
)

// A store of 16 MiB is filled with rewrites until it refuses (reliability.md F-08). Meanwhile reads and deletions work,
// nothing that was acknowledged is lost, and Recover, from a client of its own beside the one that filled it, gives it
// its writes back.
func TestRecover(t *testing.T) {
	cfg := config(t)
	cfg.QuotaBytes = 16 << 20
	server := start(t, cfg)
	acked := map[string][]byte{}
	var refused error
	for i := 0; i < 1000 && refused == nil; i++ {
		key, value := fmt.Sprintf("/full/%d", i%7), bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 100<<10)
		if _, refused = server.Commit(t.Context(), inventory.Txn{Then: []inventory.Op{{Key: key, Value: value}}}); refused == nil {
			acked[key] = value
		}
	}
	if !errors.Is(refused, inventory.ErrNoSpace) {
		t.Fatalf("1000 writes of 200 kB into 16 MiB ended with %v", refused)
	}
	if err := inventory.Probe(t.Context(), server); !errors.Is(err, inventory.ErrNoSpace) {
		t.Errorf("the probe of a full store says %v", err)
	}
	r, err := server.Commit(t.Context(), inventory.Txn{Then: []inventory.Op{inventory.Delete("/full/6")}})
	if err != nil || !r.Done {
		t.Errorf("a deletion in a full store: %+v, %v", r, err)
	}
	delete(acked, "/full/6")

	s, err := etcd.Open(t.Context(), etcd.Config{Endpoints: []string{"http://" + cfg.ListenClient}}, logTo(t))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var said []string
	if err := s.Recover(t.Context(), func(line string) { said = append(said, line) }); err != nil {
		t.Fatalf("after %q: %v", said, err)
	}
	t.Logf("%q", said)
	for i, want := range []string{"is dropped", "is defragmented", "is disarmed", "takes writes"} {
		if len(said) != 4 || !strings.Contains(said[i], want) {
			t.Errorf("step %d of %q: want %q", i, said, want)
		}
	}
	rev := put(t, server, "/full/after", "x")
	if before, err := server.Get(t.Context(), "/full/after"); err != nil || before.Mod != rev {
		t.Errorf("the write after the recovery: %+v, %v", before, err)
	}
	for key, value := range acked {
		if kv, err := s.Get(t.Context(), key); err != nil || !bytes.Equal(kv.Value, value) {
			t.Errorf("%s: the acknowledged value is lost (%d bytes, %v)", key, len(kv.Value), err)
		}
	}
	if st := s.Status(t.Context()); len(st) != 1 || len(st[0].Faults) != 0 || st[0].Size > 4<<20 {
		t.Errorf("after the recovery: %+v", st)
	}
	if err := s.Recover(t.Context(), func(string) {}); err != nil {
		t.Errorf("once more, on a healthy store: %v", err)
	}
}

// Where the records alone fill the quota no maintenance helps, and it says so.
func TestRecoverTooSmall(t *testing.T) {
	cfg := config(t)
	cfg.QuotaBytes = 1 << 20
	s := start(t, cfg)
	for i := range 100 {
		_, err := s.Commit(t.Context(), inventory.Txn{Then: []inventory.Op{{Key: fmt.Sprintf("/small/%d", i), Value: make([]byte, 100<<10)}}})
		if errors.Is(err, inventory.ErrNoSpace) {
			break
		}
	}
	if err := s.Recover(t.Context(), func(string) {}); !errors.Is(err, inventory.ErrNoSpace) || !strings.Contains(err.Error(), "larger etcd.quota") {
		t.Errorf("got %v", err)
	}
}

// The probe of a healthy store makes no revision.
func TestProbe(t *testing.T) {
	s := start(t, config(t))
	rev := put(t, s, "/probe/a", "1")
	if err := inventory.Probe(t.Context(), s); err != nil {
		t.Error(err)
	}
	if after := put(t, s, "/probe/a", "2"); after != rev+1 {
		t.Errorf("the write after the probe is revision %d, want %d", after, rev+1)
	}
}
