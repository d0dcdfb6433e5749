package provisioner

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/memstore"
)

// electors are replicas on one store with one clock that only the test moves.
type electors struct {
	*testing.T
	store *memstore.Store
	now   time.Time
	all   []*Elector
	nodes [inventory.Shards]string // a node of each shard
}

func newElectors(t *testing.T) *electors {
	es := &electors{T: t, store: memstore.New(), now: time.Date(2026, 11, 25, 1, 0, 0, 0, time.UTC)}
	es.store.SetClock(es.clock)
	for n := 0; slices.Contains(es.nodes[:], ""); n++ {
		id := fmt.Sprintf("n-%d", n)
		es.nodes[inventory.Shard(id)] = id
	}
	return es
}

func (es *electors) clock() time.Time { return es.now }

func (es *electors) start(id string) *Elector {
	e := &Elector{Store: es.store, Me: inventory.Replica{ID: id, Place: "lock of " + id}, Now: es.clock, Log: slog.New(slog.DiscardHandler)}
	es.all = append(es.all, e)
	return e
}

// rounds lets time pass, in which the replicas given do what they do.
func (es *electors) rounds(n int, alive ...*Elector) {
	es.Helper()
	for range n {
		for _, e := range alive {
			e.Keep(es.Context())
			e.Balance(es.Context())
		}
		es.check()
		for range 10 {
			es.now = es.now.Add(DefaultTTL / 50)
			es.check()
		}
	}
}

// check: no node has two masters, and what is written under a hold that is over is refused.
func (es *electors) check() {
	es.Helper()
	for _, node := range es.nodes {
		owners := 0
		for _, e := range es.all {
			if e.Owns(node) {
				owners++
			}
		}
		if owners > 1 {
			es.Fatalf("%s has %d owners", node, owners)
		}
	}
}

// owned is how many nodes a replica may decide about.
func (es *electors) owned(e *Elector) int {
	n := 0
	for _, node := range es.nodes {
		if e.Owns(node) {
			n++
		}
	}
	return n
}

func (es *electors) want(what string, counts map[*Elector]int) {
	es.Helper()
	for e, n := range counts {
		if got := es.owned(e); got != n {
			es.Errorf("%s: %s owns %d shards, want %d", what, e.Me.ID, got, n)
		}
	}
}

func TestShardsAreSharedOut(t *testing.T) {
	es := newElectors(t)
	a, b, c := es.start("a"), es.start("b"), es.start("c")
	a.Keep(t.Context())
	a.Balance(t.Context())
	es.want("alone, at once", map[*Elector]int{a: 64})

	es.rounds(8, a, b)
	es.want("two", map[*Elector]int{a: 32, b: 32})
	rev := es.store.Rev()
	es.rounds(20, a, b)
	if es.store.Rev() != rev {
		t.Errorf("%d writes where nothing changed", es.store.Rev()-rev)
	}
	before := a.Conds(es.nodes[63])
	es.rounds(8, a, b, c)
	es.want("three", map[*Elector]int{a: 22, b: 21, c: 21})
	if after := a.Conds(es.nodes[63]); !a.Owns(es.nodes[63]) && after[0].Create == before[0].Create {
		t.Error("what was given away still has its old term")
	}

	if err := c.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	es.want("c went", map[*Elector]int{c: 0})
	es.rounds(1, a, b)
	if got := es.owned(a) + es.owned(b); got != 64 {
		t.Errorf("after a clean end the others own %d shards in their next round", got)
	}
	es.rounds(2, a, b)
	es.want("two again", map[*Elector]int{a: 32, b: 32})
}

// A shard on whose node an act runs is given away last, and only when the act is over.
func TestBusyShardIsGivenBackAfterItsAct(t *testing.T) {
	es := newElectors(t)
	a, b := es.start("a"), es.start("b")
	busy := map[int]bool{}
	a.Busy = func(n int) bool { return busy[n] }
	for n := range 40 {
		busy[n] = true
	}
	es.rounds(1, a)
	es.rounds(10, a, b)
	if got := es.owned(b); got != 24 {
		t.Errorf("b owns %d: want those where nothing runs", got)
	}
	for n := range 40 {
		if b.Holds(es.nodes[n]) {
			t.Errorf("shard %d changed hands under an act", n)
		}
	}
	clear(busy)
	es.rounds(2, a, b)
	es.want("the acts are over", map[*Elector]int{a: 32, b: 32})
}

// A replica vanishes: nobody acts for its nodes until its own acts are surely over, then another does. It comes back,
// ten lives of the lease later, and knows by its own clock, before it asks anybody, that it may nothing.
func TestReplicaIsPaused(t *testing.T) {
	es := newElectors(t)
	a, b := es.start("a"), es.start("b")
	es.rounds(8, a, b)
	var mine string
	for _, n := range es.nodes {
		if b.Owns(n) {
			mine = n
		}
	}
	old := b.Conds(mine)
	paused := es.now
	for a.Since(mine).IsZero() {
		es.rounds(1, a)
	}
	if es.now.Sub(paused) > 7*time.Second {
		t.Errorf("taken after %v", es.now.Sub(paused))
	}
	for !a.Owns(mine) {
		if b.Left(mine) > 0 {
			t.Error("taken while its owner may act")
		}
		es.rounds(1, a)
	}
	if d := a.Since(mine); es.now.Sub(d) < DefaultTTL {
		t.Errorf("acts %v after it was taken", es.now.Sub(d))
	}
	es.rounds(50, a)
	es.want("b sleeps", map[*Elector]int{a: 64, b: 0})
	if b.Left(mine) != 0 {
		t.Errorf("the sleeper has %v left", b.Left(mine))
	}
	if r, err := es.store.Commit(t.Context(), inventory.Txn{If: old}); err != nil || r.Done {
		t.Errorf("the old term still holds: %+v, %v", r, err)
	}
	if r, err := es.store.Commit(t.Context(), inventory.Txn{If: b.Conds(mine)}); err != nil || r.Done {
		t.Errorf("a hold that is over writes: %+v, %v", r, err)
	}
	es.rounds(10, a, b)
	es.want("b is back", map[*Elector]int{a: 32, b: 32})
}

// The store cannot be asked for a while: the hold ends by the clock, and is good again with the same term if nobody came.
func TestStoreIsAway(t *testing.T) {
	es := newElectors(t)
	a := es.start("a")
	es.rounds(2, a)
	term := a.Conds(es.nodes[0])
	es.store.SetClock(func() time.Time { return time.Time{} }) // a store that is down ends no lease
	away := true
	es.store.SetFault(func(memstore.Call) error {
		if away {
			return inventory.ErrUnavailable
		}
		return nil
	})
	es.rounds(2, a)
	es.want("for a while", map[*Elector]int{a: 64})
	es.rounds(2, a)
	es.want("for longer", map[*Elector]int{a: 0})
	away = false
	es.rounds(1, a)
	es.want("back", map[*Elector]int{a: 64})
	if got := a.Conds(es.nodes[0]); got[0] != term[0] {
		t.Errorf("another term: %v, was %v", got, term)
	}
}

// Somebody ends the lease early. The owner learns it at its next renewal; who takes over waits for it all the same.
func TestLeaseEndsEarly(t *testing.T) {
	es := newElectors(t)
	a, b := es.start("a"), es.start("b")
	es.rounds(8, a, b)
	if err := es.store.Revoke(t.Context(), b.lease); err != nil {
		t.Fatal(err)
	}
	a.Balance(t.Context())
	if got := a.Shards(); got != 64 {
		t.Errorf("a holds %d", got)
	}
	es.want("at once", map[*Elector]int{a: 32, b: 32}) // b does not know yet, and a waits
	es.rounds(6, a)
	es.want("b slept on", map[*Elector]int{a: 64, b: 0})
}

func TestFormerLife(t *testing.T) {
	for _, c := range []struct {
		name, place string
		rounds      int // until it owns everything
	}{
		{"same lock: at once", "lock of a", 1},
		{"another lock: waits for the lease and the acts", "a copy of the folder", 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			es := newElectors(t)
			es.rounds(3, es.start("a"))
			es.all = nil // killed
			next := es.start("a")
			next.Me.Place = c.place
			n := 0
			for es.owned(next) < 64 {
				if n++; n > 30 {
					t.Fatalf("owns %d", es.owned(next))
				}
				es.rounds(1, next)
			}
			if n != c.rounds {
				t.Errorf("it took %d rounds, want %d", n, c.rounds)
			}
		})
	}
}

// What was taken by a request that nobody answered is found, and acted on only when whoever had it is surely done.
func TestTakenWithoutAnAnswer(t *testing.T) {
	es := newElectors(t)
	a := es.start("a")
	lost := 0
	es.store.SetFault(func(c memstore.Call) error {
		if c.After && len(c.Txn.Then) > 2 && lost == 0 {
			lost++
			return inventory.ErrUnavailable
		}
		return nil
	})
	es.rounds(2, a)
	es.want("half is waited for", map[*Elector]int{a: 32})
	es.rounds(5, a)
	es.want("found", map[*Elector]int{a: 64})
	if lost != 1 {
		t.Error("nothing was lost")
	}
}

// The keys of a version without leases, or of a person, are not for ever.
func TestOrphans(t *testing.T) {
	es := newElectors(t)
	for n := range inventory.Shards {
		_, err := es.store.Commit(t.Context(), inventory.Txn{Then: []inventory.Op{{Key: inventory.KeyShard(n), Value: []byte(`{"replica":"host1"}`)}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	a := es.start("a")
	es.rounds(8, a)
	es.want("later", map[*Elector]int{a: 64})
}

// A full store makes no lease, but keeps the ones that there are.
func TestStoreIsFull(t *testing.T) {
	es := newElectors(t)
	a, b := es.start("a"), es.start("b")
	es.rounds(2, a)
	es.store.SetFull(true)
	es.rounds(20, a, b)
	es.want("full", map[*Elector]int{a: 64, b: 0})
	es.store.SetFull(false)
	es.rounds(8, a, b)
	es.want("not any more", map[*Elector]int{a: 32, b: 32})
}

// holding is a performer whose act the test holds up.
type holding struct {
	begun chan context.Context
	go_   chan struct{}
}

func (h *holding) Perform(ctx context.Context, _ inventory.NodeView, _ Act) Result {
	h.begun <- ctx
	<-h.go_
	return Result{Err: Allowed(ctx)}
}

// An act is under way when its replica is paused. When it goes on, the next order to the machine is refused by the clock,
// before any timer ran; the act comes back as failed, nothing is remembered of it under the next hold, and none begins.
func TestActOfAPausedReplica(t *testing.T) {
	w := newWorld(t)
	w.store.SetClock(w.clock)
	e := &Elector{Store: w.store, Me: inventory.Replica{ID: "a", Place: "a"}, Now: w.clock, Log: slog.New(slog.DiscardHandler)}
	h := &holding{make(chan context.Context), make(chan struct{})}
	w.led.Term = e.Conds
	w.loop.Owns, w.loop.Left, w.loop.Since, w.loop.Performer, w.loop.Go = e.Owns, e.Left, e.Since, h, nil
	e.Busy = w.loop.Busy
	turn := func() { w.sync(); w.loop.Round(t.Context()) }
	begun := func() context.Context {
		for range 100 {
			turn()
			select {
			case ctx := <-h.begun:
				return ctx
			case <-time.After(10 * time.Millisecond):
			}
		}
		t.Fatal("no act begins: " + w.loop.Live(w.id).Say)
		return nil
	}

	turn()
	if v := w.view(); v.State.V.State != inventory.Discovered {
		t.Fatalf("it moved without a hold: %s", v.State.V.State)
	}
	e.Keep(t.Context())
	e.Balance(t.Context())
	ctx := begun()
	if err := Allowed(ctx); err != nil {
		t.Fatal(err)
	}
	if got, want := WarrantOf(ctx).Term, e.Conds(w.id)[0].Create; got != want || got < 2 {
		t.Errorf("the act's term is %d, the hold's %d", got, want)
	}
	if !w.loop.Busy(inventory.Shard(w.id)) {
		t.Error("the shard is not busy")
	}
	w.now = w.now.Add(10 * DefaultTTL)
	if err := Allowed(ctx); err == nil || !strings.Contains(err.Error(), "hold on the node's shard is over") || ctx.Err() == nil {
		t.Errorf("after the pause: %v, %v", err, ctx.Err())
	}
	rev := w.store.Rev()
	turn()
	if w.store.Rev() != rev {
		t.Error("it wrote after the pause")
	}
	close(h.go_)
	for w.loop.Busy(inventory.Shard(w.id)) {
		time.Sleep(time.Millisecond)
	}
	turn()
	select {
	case <-h.begun:
		t.Error("an act began after the pause")
	case <-time.After(20 * time.Millisecond):
	}
	e.Keep(t.Context()) // learns that the lease is gone
	e.Keep(t.Context())
	e.Balance(t.Context())
	if got, old := WarrantOf(begun()).Term, WarrantOf(ctx).Term; got <= old {
		t.Errorf("the next hold's term is %d, the one before was %d", got, old)
	}
}
