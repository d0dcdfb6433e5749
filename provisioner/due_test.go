package provisioner

import (
	"testing"
	"time"

	"github.com/hostler-project/hostler/inventory"
)

// A round in which nothing has happened asks once for each shard, not for each node; one about a single node looks at
// that node; and a shard that comes has all its nodes looked at, though nothing was written about them.
func TestARoundCostsWhatHappened(t *testing.T) {
	const nodes = 300
	f := newFleet(t, nodes, 1, func(_ int, s *inventory.Spec) { s.Approve = "" }) // nobody approves them: they rest
	r := f.replicas[0]
	asked, looks, mine := 0, 0, func(string) bool { return true }
	r.loop.Owns = func(id string) bool { asked++; return mine(id) }
	r.loop.NewID = func() string { looks++; return f.ulid() }
	round := func() (int, int) {
		asked, looks = 0, 0
		f.sync(r)
		r.loop.Round(t.Context())
		return asked, looks
	}
	if _, n := round(); n < nodes {
		t.Errorf("the first round looked at %d of %d nodes", n, nodes)
	}
	for range 5 {
		round()
	}
	if a, n := round(); a > inventory.Shards || n != 0 {
		t.Errorf("a round in which nothing happened asked %d times who owns a node and looked at %d", a, n)
	}
	id := f.order[7]
	r.loop.Heard(id, inventory.Report{})
	if a, n := round(); a > inventory.Shards+1 || n != 1 {
		t.Errorf("a round about one node asked %d times and looked at %d", a, n)
	}

	inShard := 0
	for _, other := range f.order {
		if inventory.Shard(other) == inventory.Shard(id) {
			inShard++
		}
	}
	mine = func(node string) bool { return inventory.Shard(node) != inventory.Shard(id) }
	if _, n := round(); n != 0 {
		t.Errorf("when a shard had gone, %d nodes were looked at", n)
	}
	r.loop.Heard(id, inventory.Report{})
	if _, n := round(); n != 0 {
		t.Errorf("a node of a shard that is another's was looked at")
	}
	mine = func(string) bool { return true }
	if _, n := round(); n != inShard {
		t.Errorf("when a shard came, %d of its %d nodes were looked at", n, inShard)
	}
	f.now = f.now.Add(2 * time.Hour)
	if _, n := round(); n != nodes {
		t.Errorf("when the time of all had come, %d of %d were looked at", n, nodes)
	}
}

// After a start there are thousands to look at. Those at which something is done do not wait for that, and the rest is
// looked at all the same.
func TestWorkDoesNotWaitForTheFirstLook(t *testing.T) {
	const work, rest = 20, 1500
	f := newFleet(t, work+rest, 1, func(i int, s *inventory.Spec) {
		if i >= work {
			s.Approve = ""
		}
	})
	f.put(inventory.KeyLimits, limits(func(l *inventory.Limits) { l.Boot = inventory.Limit{Site: 2} }))
	f.step = time.Millisecond
	r := f.replicas[0]
	r.loop.NewID = func() string { f.now = f.now.Add(10 * time.Millisecond); return f.ulid() } // what a look costs
	for _, n := range r.loop.nodes {
		n.eager = false // as after a start: nothing has happened yet
	}
	booted := func() (n int) {
		for _, id := range f.order[:work] {
			if f.machines[id].agent {
				n++
			}
		}
		return n
	}
	began := f.now
	f.until(200, "two rounds of boots are over", func() bool { return booted() >= 6 })
	if took := f.now.Sub(began); took > 9*time.Second {
		t.Errorf("six boots, two at a time, took %v: they waited for a look at %d nodes", took, rest)
	}
	f.turns(80)
	for _, id := range f.order {
		if r.loop.Live(id).Say == "" {
			t.Fatalf("%s was not looked at", id)
		}
	}
}
