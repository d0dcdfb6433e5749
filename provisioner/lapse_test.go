package provisioner

import (
	"log/slog"
	"testing"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/memstore"
)

// etcd is away for longer than a replica may believe in its hold, and comes back before the lease has ended: the replica
// goes on under the hold that it had. What its agents said meanwhile it could not hear, so none of them was silent, and no
// breaker opens (found by internal/faults: "6 of 32 nodes silent all at once" after an outage of ten seconds).
func TestAnOutageIsNobodysSilence(t *testing.T) {
	f := newFleet(t, 10, 1, nil)
	e := &Elector{Store: f.store, Me: inventory.Replica{ID: "r-a", Place: "lock"}, Now: f.clock, Log: slog.New(slog.DiscardHandler)}
	f.store.SetClock(f.clock)
	loop := f.replicas[0].loop
	loop.Owns, loop.Left, loop.Since = e.Owns, e.Left, e.Since
	second := func(keeps bool) {
		if keeps {
			e.Keep(t.Context())
			e.Balance(t.Context())
		}
		f.turn()
	}
	for n := 0; !f.all(inventory.Ready)(); n++ {
		if second(true); n > 400 {
			t.Fatalf("not ready: %s", f.say(0))
		}
	}
	for range 90 { // longer than an agent may be silent
		second(true)
	}
	term := e.Conds(f.order[0])
	f.silent = func(*machine) bool { return true } // what it says is not heard, and its next report comes in 20 seconds
	f.store.SetFault(func(memstore.Call) error { return inventory.ErrUnavailable })
	for range 4 {
		second(false)
	}
	if e.Holds(f.order[0]) {
		t.Fatal("it believes in its hold without a renewal: nothing lapsed")
	}
	f.store.SetFault(nil)
	for range 20 {
		second(true)
	}
	if now := e.Conds(f.order[0]); now[0] != term[0] {
		t.Fatal("the shard was taken anew: nothing lapsed")
	}
	for _, id := range f.order {
		if st := f.state(id); st.Alive != inventory.Alive || st.State != inventory.Ready {
			t.Errorf("%s is %s and %s: %s", id, st.State, st.Alive, loop.Live(id).Say)
		}
	}
	for range 70 { // but an agent that stays silent is, a minute after the replica could hear again
		second(true)
	}
	if st := f.state(f.order[0]); st.Alive != inventory.Silent {
		t.Errorf("after 70 seconds more it is %s: %s", st.Alive, loop.Live(f.order[0]).Say)
	}
}
