package inventory_test

import (
	"testing"

	"github.com/hostler-project/hostler/inventory"
)

// Usage answers for site, rack and cause, and follows nodes that go, come back, and move between racks.
func TestUsage(t *testing.T) {
	l := inventory.DefaultLimits()
	l.Boot = inventory.Limit{Site: 4, Rack: 2, RackPercent: 50, Cause: 3}
	boots := func(cause string) inventory.NodeState {
		return inventory.NodeState{Cause: cause, Work: inventory.Work{Phase: "power-on"}}
	}
	u := inventory.NewUsage()
	for _, id := range []string{"a", "b", "c", "d", "e", "f"} { // a rack of 6: 3 at once
		u.SetRack(id, "r1")
	}
	u.SetRack("x", "r2") // of 1: the least is 2
	full := func(rack, cause, want string) {
		t.Helper()
		if got := u.Full(l, inventory.Booting, rack, cause); got != want {
			t.Errorf("in rack %q for %q: %q, want %q", rack, cause, got, want)
		}
	}
	full("r1", "lost", "")
	u.SetState("a", boots("lost"))
	u.SetState("b", boots("lost"))
	full("r1", "lost", "")
	u.SetState("c", boots("return"))
	full("r1", "lost", "3 of 3 boots at once are running in rack r1")
	full("r2", "lost", "")
	full("", "lost", "")
	u.SetState("x", boots("lost"))
	full("r2", "release", "4 of 4 boots at once are running at the site")
	u.SetState("c", inventory.NodeState{})
	full("r2", "lost", "3 of 3 boots at once are running for the same cause, lost")
	full("r2", "release", "")
	u.SetRack("x", "r1")
	full("r1", "release", "3 of 3 boots at once are running in rack r1")
	if over := u.Over(l, "x"); over != "" {
		t.Errorf("over: %s", over)
	}
	l.Boot.Site = 2
	if over := u.Over(l, "x"); over != "3 of 2 boots at once are running at the site" {
		t.Errorf("over: %q", over)
	}
	if n := u.Count(inventory.Destroying); n != 0 || u.Full(l, inventory.Destroying, "r1", "lost") != "" {
		t.Errorf("%d destroy", n)
	}
	for _, id := range []string{"a", "b", "x"} {
		u.SetState(id, inventory.NodeState{})
	}
	if n := u.Count(inventory.Booting); n != 0 {
		t.Errorf("%d boot at the end", n)
	}
}

// What was not declared, or cannot be read, is no permission.
func TestLimitsThatAreNotThere(t *testing.T) {
	op, err := inventory.Encode(inventory.KeyLimits, inventory.Limits{Schema: inventory.Schema, Boot: inventory.Limit{Site: 7}})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		kv   inventory.KV
		site int
	}{
		"declared":   {inventory.KV{Key: op.Key, Value: op.Value, Mod: 3}, 7},
		"absent":     {inventory.KV{Key: op.Key}, 20},
		"unreadable": {inventory.KV{Key: op.Key, Value: []byte("{"), Mod: 3}, 20},
		"newer":      {inventory.KV{Key: op.Key, Value: []byte(`{"schema":99,"boot":{"site":9000}}`), Mod: 3}, 20},
	} {
		if got := inventory.LimitsIn(c.kv).Boot.Site; got != c.site {
			t.Errorf("%s: %d boots at once, want %d", name, got, c.site)
		}
	}
}
