package etcd_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/hostler-project/hostler/inventory"
)

// The probe asks a real etcd for its quota and its majority, and makes no revision; a full etcd refuses it as it
// refuses every write, also where the condition would not hold.
func TestProbeOfAFullStore(t *testing.T) {
	cfg := config(t)
	cfg.QuotaBytes = 1 << 20
	s := start(t, cfg)
	rev := func() int64 {
		t.Helper()
		snap, err := s.List(t.Context(), inventory.Root, inventory.ListOptions{Limit: 1})
		if err != nil {
			t.Fatal(err)
		}
		return snap.Rev
	}
	before := rev()
	for range 5 {
		if err := inventory.Probe(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	if now := rev(); now != before {
		t.Errorf("five probes took etcd from revision %d to %d", before, now)
	}
	var err error
	for i := 0; i < 200 && err == nil; i++ {
		_, err = s.Commit(t.Context(), inventory.Txn{Then: []inventory.Op{{Key: fmt.Sprintf("%sfill/%d", inventory.Root, i), Value: make([]byte, 100_000)}}})
	}
	if !errors.Is(err, inventory.ErrNoSpace) {
		t.Fatalf("etcd is not full: %v", err)
	}
	if err := inventory.Probe(t.Context(), s); !errors.Is(err, inventory.ErrNoSpace) {
		t.Errorf("a probe of a full etcd: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := inventory.Probe(t.Context(), s); err == nil {
		t.Error("a probe of an etcd that is gone")
	}
}
