//go:build faults

package faults

import (
	"fmt"
	"testing"
	"time"
)

// limits let many machines work at once: what is counted here is whose acts they are.
var limits = map[string]any{
	"boot":    map[string]any{"site": 100, "rack": 100, "rack_percent": 100, "cause": 0},
	"destroy": map[string]any{"site": 100, "rack": 100, "rack_percent": 100, "cause": 0},
	"breaker": map[string]any{"percent": 100, "nodes": 1000, "within": "10m"},
}

// A replica is frozen for several lease times in the middle of its acts, the other takes over, the frozen one goes on
// (F-03): nothing of it reaches a machine or a port any more.
func TestTerms(t *testing.T) {
	const lease = 3 * time.Second
	site := open(t, Options{Daemons: 2, Whole: 12, Config: map[string]any{"limits": limits, "replica": map[string]any{"lease": lease.String()}}})
	c := site.Clients(t.Context(), 10, Whole, true)
	must(t, c.Acked(t.Context(), 60*time.Second))
	time.Sleep(10 * time.Second) // until machines are at every stage of their way
	began, before, over := time.Now(), c.Count(), 0
	for n := range 4 {
		frozen, other := site.Daemons[n%2], site.Daemons[(n+1)%2]
		taken := site.Recorder.Taken(other.replica())
		must(t, frozen.Stop())
		time.Sleep(3*lease + lease/2)
		if now := site.Recorder.Taken(other.replica()); now > taken {
			over += now - taken
		} else {
			t.Errorf("%s took nothing over while %s was frozen for %v", other.Name, frozen.Name, 3*lease)
		}
		must(t, frozen.Continue())
		time.Sleep(2 * lease)
	}
	gap := c.Gap(began)
	ops := c.End()
	n, err := site.Terms()
	must(t, err)
	if n.Power == 0 || n.Fence == 0 {
		t.Errorf("%d power orders and %d acts of the fence: too few to show anything", n.Power, n.Fence)
	}
	for i, o := range n.Old {
		if i < 5 {
			t.Errorf("an act with an old term: %s", o)
		}
	}
	table.Add(Row{"hostlerd SIGSTOP for 3 lease times, SIGCONT (F-03)", 4, len(ops) - before, gap,
		fmt.Sprintf("%d shards taken over; %d power orders (%d of daemons that had ended), %d fence acts, %d with an old term", over, n.Power, n.Unplaced, n.Fence, len(n.Old))})
	verdict(t, site, ops)
}
