package memstore_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/memstore"
	"github.com/hostler-project/hostler/inventory/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(*testing.T) inventory.Store { return memstore.New() })
}

func TestFull(t *testing.T) {
	s := memstore.New()
	put(t, s, "/a", "1")
	s.SetFault(func(c memstore.Call) error {
		if c.After { // the quota is used up by the third write
			s.SetFull(s.Rev() >= 4)
		}
		return nil
	})
	storetest.Full(t, s)
	s.SetFault(nil)
	s.SetFull(false)
	put(t, s, "/a", "2")
}

// A commit that fails before or after it took effect looks the same to its caller.
func TestFaultLeavesTheOutcomeUnknown(t *testing.T) {
	for _, c := range []struct {
		name  string
		after bool
		want  string
	}{{"before", false, "1"}, {"after", true, "2"}} {
		t.Run(c.name, func(t *testing.T) {
			s := memstore.New()
			put(t, s, "/a", "1")
			s.SetFault(func(call memstore.Call) error {
				if call.Op == "commit" && call.After == c.after {
					return fmt.Errorf("the wire broke: %w", inventory.ErrUnavailable)
				}
				return nil
			})
			_, err := s.Commit(t.Context(), inventory.Txn{Then: []inventory.Op{{Key: "/a", Value: []byte("2")}}})
			if !errors.Is(err, inventory.ErrUnavailable) {
				t.Errorf("got error %v", err)
			}
			if kv, err := s.Get(t.Context(), "/a"); err != nil || string(kv.Value) != c.want {
				t.Errorf("got %s, %v; want %s", kv.Value, err, c.want)
			}
		})
	}
}

// The fault function can be the other writer that comes in between.
func TestFaultCanWrite(t *testing.T) {
	s := memstore.New()
	put(t, s, "/a", "1")
	raced := false
	s.SetFault(func(c memstore.Call) error {
		if c.Op == "commit" && !raced {
			raced = true
			put(t, s, "/a", "theirs")
		}
		return nil
	})
	tries := 0
	err := inventory.Update(t.Context(), s, "/a", func(kv inventory.KV) ([]inventory.Cond, []inventory.Op, error) {
		tries++
		return nil, []inventory.Op{{Key: "/a", Value: append(kv.Value, '+')}}, nil
	})
	if kv, _ := s.Get(t.Context(), "/a"); err != nil || tries != 2 || string(kv.Value) != "theirs+" {
		t.Errorf("got %q after %d tries, %v", kv.Value, tries, err)
	}
}

func TestSince(t *testing.T) {
	s := memstore.New()
	put(t, s, "/a", "1") // revision 2
	if _, err := s.Commit(t.Context(), inventory.Txn{Then: []inventory.Op{{Key: "/b", Value: []byte("2")}, inventory.Delete("/a")}}); err != nil {
		t.Fatal(err)
	}
	put(t, s, "/c", "3")
	got, err := s.Since(3)
	want := []inventory.Batch{
		{Rev: 3, Events: []inventory.Event{
			{KV: inventory.KV{Key: "/b", Value: []byte("2"), Create: 3, Mod: 3}},
			{KV: inventory.KV{Key: "/a", Mod: 3}, Deleted: true},
		}},
		{Rev: 4, Events: []inventory.Event{{KV: inventory.KV{Key: "/c", Value: []byte("3"), Create: 4, Mod: 4}}}},
	}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, d)
	}
	if err := s.Compact(t.Context(), 4); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Since(4); err != nil || len(got) != 1 {
		t.Errorf("from the compacted revision itself: got %v, %v", got, err)
	}
	if _, err := s.Since(3); !errors.Is(err, inventory.ErrCompacted) {
		t.Errorf("from before it: got error %v", err)
	}
	if got, err := s.Since(5); err != nil || len(got) != 0 {
		t.Errorf("from what is to come: got %v, %v", got, err)
	}
}

// A cut watch tells its reader to list again.
func TestCutWatches(t *testing.T) {
	s := memstore.New()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ch := s.Watch(ctx, "/", 1)
	s.CutWatches()
	for b := range ch {
		if b.Err == nil {
			continue
		}
		if !errors.Is(b.Err, inventory.ErrCompacted) {
			t.Errorf("got error %v", b.Err)
		}
		return
	}
	t.Error("the watch ended without a word")
}

func put(t *testing.T, s *memstore.Store, key, value string) {
	t.Helper()
	if _, err := s.Commit(t.Context(), inventory.Txn{Then: []inventory.Op{{Key: key, Value: []byte(value)}}}); err != nil {
		t.Fatal(err)
	}
}
