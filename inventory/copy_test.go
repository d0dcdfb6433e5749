package inventory_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/memstore"
)

func commit(t *testing.T, s inventory.Store, ops ...inventory.Op) int64 {
	t.Helper()
	r, err := s.Commit(t.Context(), inventory.Txn{Then: ops})
	if err != nil || !r.Done {
		t.Fatal(r, err)
	}
	return r.Rev
}

func set(key, value string) inventory.Op { return inventory.Op{Key: key, Value: []byte(value)} }

// follow runs a copy of s inside a bubble until the test ends.
func follow(t *testing.T, s inventory.Store) *inventory.Copy {
	c := inventory.NewCopy()
	ctx, stop := context.WithCancel(t.Context())
	ready := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := c.Run(ctx, s, func() { close(ready) }); err != nil {
			t.Error(err)
		}
	})
	<-ready
	t.Cleanup(func() { stop(); wg.Wait() })
	return c
}

// The copy lists, follows, holds no history, and catches up after its watch was cut and after the store was away.
func TestCopyFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		commit(t, s, set(inventory.KeySpec("n-1"), `{}`), set(inventory.KeyHistory("n-1", 1), `{}`))
		c := follow(t, s)
		if !c.One(inventory.KeySpec("n-1")).Exists() || c.One(inventory.KeyHistory("n-1", 1)).Exists() {
			t.Error("after the first list: spec is missing, or history is there")
		}

		rev := commit(t, s, set(inventory.KeySpec("n-2"), `{}`), set(inventory.KeyHistory("n-2", 1), `{}`), inventory.Delete(inventory.KeySpec("n-1")))
		if err := c.Reach(t.Context(), rev); err != nil {
			t.Fatal(err)
		}
		if got := c.Nodes(); !slices.Equal(got, []string{"n-2"}) || c.One(inventory.KeyHistory("n-2", 1)).Exists() {
			t.Errorf("after a change: nodes %v", got)
		}

		batches, stop := c.Subscribe()
		defer stop()
		s.SetFault(func(memstore.Call) error { return inventory.ErrUnavailable }) // away while it wants to list again
		s.CutWatches()
		synctest.Wait()
		s.SetFault(nil)
		rev = commit(t, s, set(inventory.KeySpec("n-3"), `{}`), inventory.Delete(inventory.KeySpec("n-2")))
		if err := c.Reach(t.Context(), rev); err != nil {
			t.Fatal(err)
		}
		if got := c.Nodes(); !slices.Equal(got, []string{"n-3"}) {
			t.Errorf("after the store was away: nodes %v", got)
		}
		b := <-batches
		told := map[string]bool{}
		for _, e := range b.Events {
			told[e.KV.Key+fmt.Sprint(e.Deleted)] = true
		}
		if !told[inventory.KeySpec("n-3")+"false"] || !told[inventory.KeySpec("n-2")+"true"] {
			t.Errorf("subscribers were not told what changed meanwhile: %v", told)
		}
	})
}

// A subscriber that does not read finds its channel closed; the copy goes on.
func TestSlowSubscriberIsDropped(t *testing.T) {
	c := inventory.NewCopy()
	slow, _ := c.Subscribe()
	for i := range 1100 {
		c.Apply(inventory.Batch{Rev: int64(i + 2)})
	}
	n := 0
	for range slow {
		n++
	}
	if n != 1024 || c.Rev() != 1101 {
		t.Errorf("it got %d batches, the copy is at %d", n, c.Rev())
	}
}

func TestReachEndsWithItsCaller(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := inventory.NewCopy().Reach(ctx, 5); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// A copy lists only what is directly below a folder, sorted, and so does a read of the store.
func TestUnder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		commit(t, s, set("/hostler/v1/wishes/n-1/b", "{}"), set("/hostler/v1/wishes/n-1/a", "{}"), set("/hostler/v1/wishes/n-1/c/d", "{}"), set("/hostler/v1/wishes/n-10/a", "{}"))
		for name, r := range map[string]inventory.Reader{"copy": follow(t, s), "read": &inventory.Read{Ctx: t.Context(), Store: s}} {
			var got []string
			for _, kv := range r.Under("/hostler/v1/wishes/n-1/") {
				got = append(got, kv.Key)
			}
			if want := []string{"/hostler/v1/wishes/n-1/a", "/hostler/v1/wishes/n-1/b"}; !slices.Equal(got, want) {
				t.Errorf("%s: got %v", name, got)
			}
		}
	})
}

// After the first error a Read says so, and everything reads as absent.
func TestReadKeepsItsError(t *testing.T) {
	s := memstore.New()
	commit(t, s, set(inventory.KeySpec("n-1"), `{"schema":1,"name":"a"}`))
	s.SetFault(func(c memstore.Call) error {
		if c.Key == inventory.KeyState("n-1") {
			return inventory.ErrUnavailable
		}
		return nil
	})
	r := &inventory.Read{Ctx: t.Context(), Store: s}
	v := inventory.View(r, "n-1")
	if !errors.Is(r.Err, inventory.ErrUnavailable) || v.State.Exists() || len(r.Under(inventory.PrefixNodes)) != 0 {
		t.Errorf("got %v", r.Err)
	}
}

// A transaction is seen whole or not at all, however reads and changes interleave.
func TestViewIsOfOneRevision(t *testing.T) {
	c := inventory.NewCopy()
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		defer close(done)
		for rev := int64(2); rev < 3000; rev++ {
			var b inventory.Batch
			for _, key := range []string{inventory.KeySpec("n-1"), inventory.KeyState("n-1"), inventory.KeyAvail("n-1")} {
				b.Events = append(b.Events, inventory.Event{KV: inventory.KV{Key: key, Value: []byte(`{}`), Mod: rev}})
			}
			b.Rev = rev
			c.Apply(b)
		}
	})
	for {
		v := inventory.View(c, "n-1")
		if v.Spec.KV.Mod != v.State.KV.Mod || v.State.KV.Mod != v.Avail.KV.Mod {
			t.Fatalf("spec of revision %d, state of %d, avail of %d", v.Spec.KV.Mod, v.State.KV.Mod, v.Avail.KV.Mod)
		}
		select {
		case <-done:
			wg.Wait()
			return
		default:
		}
	}
}

// A view takes the newest test, open wishes alone, and what a claim names.
func TestViewCollects(t *testing.T) {
	s := memstore.New()
	put := func(key string, v any) {
		t.Helper()
		op, err := inventory.Encode(key, v)
		if err != nil {
			t.Fatal(err)
		}
		commit(t, s, op)
	}
	put(inventory.KeySpec("n-1"), inventory.Spec{SKU: "s"})
	put(inventory.KeySKU("s"), inventory.SKU{Name: "s"})
	put(inventory.KeyTest("n-1", "01A"), inventory.TestRun{ID: "old"})
	put(inventory.KeyTest("n-1", "01B"), inventory.TestRun{ID: "new"})
	put(inventory.KeyClaim("n-1"), inventory.Claim{Tenant: "acme", Reservation: "r", Instance: "i-1"})
	put(inventory.KeyReservation("acme", "r"), inventory.Reservation{ID: "r"})
	put(inventory.KeyInstance("i-1"), inventory.Instance{ID: "i-1"})
	put(inventory.KeyWish("n-1", "1"), inventory.Wish{ID: "1", Answer: inventory.DoneOK})
	put(inventory.KeyWish("n-1", "2"), inventory.Wish{ID: "2", Answer: inventory.Doing})
	put(inventory.KeyWish("n-1", "3"), inventory.Wish{ID: "3"})
	v := inventory.View(&inventory.Read{Ctx: t.Context(), Store: s}, "n-1")
	if v.Broken != nil || v.Test.V.ID != "new" || v.Reservation.V.ID != "r" || v.Instance.V.ID != "i-1" || v.SKU.V.Name != "s" {
		t.Errorf("got %+v", v)
	}
	if len(v.Wishes) != 2 || v.Wishes[0].V.ID != "2" || v.Wishes[1].V.ID != "3" {
		t.Errorf("got wishes %+v", v.Wishes)
	}
	put(inventory.KeyHealth("n-1", "bmc"), map[string]any{"schema": 7})
	if v := inventory.View(&inventory.Read{Ctx: t.Context(), Store: s}, "n-1"); !errors.Is(v.Broken, inventory.ErrNewer) {
		t.Errorf("a report of a newer version: broken is %v", v.Broken)
	}
}

// A watch that tells a change again, alone or merged with newer ones, does not put the past back (reliability F-16).
func TestCopyIsNotTakenBack(t *testing.T) {
	at := func(rev int64, key, value string) inventory.Event {
		kv := inventory.KV{Key: key, Mod: rev, Create: 1, Value: []byte(value)}
		return inventory.Event{KV: kv, Deleted: value == ""}
	}
	a, b := inventory.KeySpec("n-1"), inventory.KeySpec("n-2")
	all := []inventory.Batch{
		{Rev: 2, Events: []inventory.Event{at(2, a, "old"), at(2, b, "old")}},
		{Rev: 3, Events: []inventory.Event{at(3, a, "new")}},
		{Rev: 4, Events: []inventory.Event{at(4, b, "")}},
	}
	merged := inventory.Batch{Rev: 4, Events: []inventory.Event{at(2, a, "old"), at(2, b, "old"), at(3, a, "new"), at(4, b, "")}}
	for name, told := range map[string][]inventory.Batch{
		"in order":        all,
		"each one twice":  {all[0], all[0], all[1], all[1], all[2], all[2]},
		"all again":       {all[0], all[1], all[2], all[0], all[1], all[2]},
		"merged":          {merged},
		"merged at last":  {all[0], all[1], merged},
		"old after newer": {all[0], all[1], all[2], all[1], all[0]},
	} {
		c := inventory.NewCopy()
		for _, batch := range told {
			c.Apply(batch)
		}
		if got := c.One(a); string(got.Value) != "new" || got.Mod != 3 || c.One(b).Exists() || c.Rev() != 4 {
			t.Errorf("%s: %s at %d, %v, copy at %d", name, got.Value, got.Mod, c.One(b).Exists(), c.Rev())
		}
	}
}

// A compaction that overtakes the copy costs it no second: not where its watch is overtaken, nor where its list is, nor
// where that happens again and again.
func TestCopyComesBackFromCompaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		commit(t, s, set(inventory.KeySpec("n-1"), `{}`))
		c := follow(t, s)
		lists := 0
		s.SetFault(func(call memstore.Call) error {
			if call.Op != "list" {
				return nil
			}
			if lists++; lists <= 10 {
				return inventory.ErrCompacted
			}
			return nil
		})
		began := time.Now()
		s.CutWatches()
		rev := commit(t, s, set(inventory.KeySpec("n-2"), `{}`))
		if err := c.Reach(t.Context(), rev); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 500*time.Millisecond || lists < 11 {
			t.Errorf("it took %v and %d lists", took, lists)
		}
	})
}

// What the copy does not hold comes in by no way: neither by the list nor by the watch.
func TestCopyHoldsNoSeeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		commit(t, s, set(inventory.KeySealed("i-1"), `{}`), set(inventory.KeyHistory("n-1", 1), `{}`), set(inventory.KeyInstance("i-1"), `{}`), set(inventory.KeyTest("n-1", "t"), `{}`))
		c := follow(t, s)
		rev := commit(t, s, set(inventory.KeySealed("i-2"), `{}`), set(inventory.KeyHistory("n-2", 1), `{}`), set(inventory.KeyInstance("i-2"), `{}`), set(inventory.KeyTest("n-2", "t"), `{}`))
		if err := c.Reach(t.Context(), rev); err != nil {
			t.Fatal(err)
		}
		for _, n := range []string{"1", "2"} {
			if c.One(inventory.KeySealed("i-"+n)).Exists() || c.One(inventory.KeyHistory("n-"+n, 1)).Exists() || !c.One(inventory.KeyInstance("i-"+n)).Exists() || !c.One(inventory.KeyTest("n-"+n, "t")).Exists() {
				t.Errorf("%s: a seed or history is there, or an instance or a test is not", n)
			}
		}
	})
}
