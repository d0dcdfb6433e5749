package lifecycle

import (
	"flag"
	"os"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hostler-project/hostler/inventory"
)

var update = flag.Bool("update", false, "write docs/lifecycle.md from the table")

// What must hold for any table, so that a change of the lifecycle is a change of the table and nothing else.
func TestTableHolds(t *testing.T) {
	seen := map[inventory.State]bool{}
	reached := map[inventory.State]bool{}
	for _, s := range States {
		if seen[s.Name] {
			t.Errorf("%s: has two rows", s.Name)
		}
		seen[s.Name] = true
	}
	type key struct {
		from inventory.State
		on   Event
	}
	dup := map[key]bool{}
	for _, e := range Edges {
		if k := (key{e.From, e.On}); dup[k] {
			t.Errorf("%s on %s: two rows", e.From, e.On)
		} else {
			dup[k] = true
		}
		if e.From != "" && !seen[e.From] || !seen[e.To] {
			t.Errorf("%s on %s to %s: a state without a row", e.From, e.On, e.To)
		}
		reached[e.To] = true
		from, _ := Get(e.From)
		to, _ := Get(e.To)
		if e.To == inventory.Ready && e.From != inventory.BurnIn && e.From != inventory.Verifying && e.From != inventory.Reserved {
			t.Errorf("%s leads to ready: only a passed test may, or a reservation given back", e.From)
		}
		if e.To == inventory.Reserved && e.From != inventory.Ready {
			t.Errorf("%s leads to reserved: only ready may", e.From)
		}
		if e.Clean && e.From != inventory.Sanitizing && e.From != inventory.Retiring {
			t.Errorf("%s on %s takes the taint away: only sanitizing may", e.From, e.On)
		}
		if e.To == inventory.Quarantined && !e.Generation {
			t.Errorf("%s on %s: quarantine must raise the generation, or old orders stay valid", e.From, e.On)
		}
		if from.Owned && to.Destroys && e.On != Reinstall {
			t.Errorf("%s on %s leads from a tenant's node straight to destruction in %s", e.From, e.On, e.To)
		}
		if (e.On == Restored) != (e.By == Restorer) || (e.On == Restored) != e.Jump {
			t.Errorf("%s on %s: by %s, jump %v: a restore alone restores, and jumps", e.From, e.On, e.By, e.Jump)
		}
		if e.On == Restored && (!e.Taint || !e.Generation || !e.Wipe || from.Owned && e.To != e.From || to.Destroys) {
			t.Errorf("%s on %s: taint, new numbers, and nobody's tenant touched", e.From, e.On)
		}
		if (e.On == Claim || e.On == Confirm) != (e.By == API) && e.On != Release {
			t.Errorf("%s on %s: %s may not move a node there", e.From, e.On, e.By)
		}
	}
	for _, s := range States {
		if !reached[s.Name] {
			t.Errorf("%s: nothing leads here", s.Name)
		}
		_, failed := Find(s.Name, Failed)
		_, timeout := Find(s.Name, Timeout)
		timed := s.Deadline > 0 || s.Posts > 0
		if timed == s.Rest {
			t.Errorf("%s: must either rest or have a deadline", s.Name)
		}
		if timed != (timeout == nil) {
			t.Errorf("%s: a deadline and a Timeout row must come together", s.Name)
		}
		if s.Step != "" && timed && failed != nil && s.Name != inventory.Reserved && s.Name != inventory.Draining {
			t.Errorf("%s: its step can fail but Failed leads nowhere", s.Name)
		}
		if _, err := Find(s.Name, Restored); err != nil {
			t.Errorf("%s: a restore does not know what to do: %v", s.Name, err)
		}
		if len(Exits(s.Name)) < 2 {
			t.Errorf("%s: no way out", s.Name)
		}
		if s.Means == "" {
			t.Errorf("%s: says nothing", s.Name)
		}
	}
}

// Every state can lead to ready again or to retired: nothing is a trap. And no walk from a tainted state reaches ready
// without sanitizing and a test after it.
func TestEveryWayIsClean(t *testing.T) {
	for _, s := range States {
		if !canReach(s.Name, inventory.Ready) && !canReach(s.Name, inventory.Retired) {
			t.Errorf("%s: leads neither to ready nor to retired", s.Name)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		at, tainted, tested := inventory.Discovered, true, false
		for range 60 {
			e := rapid.SampledFrom(Exits(at)).Draw(t, "edge")
			if e.Taint {
				tainted = true
			}
			if e.Wipe || tainted {
				tested = false
			}
			if e.Clean {
				tainted = false
			}
			if (e.From == inventory.BurnIn || e.From == inventory.Verifying) && e.On == Done {
				tested = true
			}
			at = e.To
			if (at == inventory.Ready || at == inventory.Reserved) && (tainted || !tested) {
				t.Fatalf("reached %s by %s with tainted=%v tested=%v", at, e.On, tainted, tested)
			}
		}
	})
}

func canReach(from, to inventory.State) bool {
	seen := map[inventory.State]bool{from: true}
	for queue := []inventory.State{from}; len(queue) > 0; queue = queue[1:] {
		for _, e := range Exits(queue[0]) {
			if e.To == to {
				return true
			}
			if !seen[e.To] {
				seen[e.To] = true
				queue = append(queue, e.To)
			}
		}
	}
	return false
}

func TestAllowed(t *testing.T) {
	for _, c := range []struct {
		state         inventory.State
		p99, override time.Duration
		want          time.Duration
	}{
		{inventory.Ready, 0, 0, 0},
		{inventory.Inspecting, 0, 0, time.Hour},
		{inventory.Inspecting, 40 * time.Minute, 0, 2 * time.Hour},
		{inventory.Sanitizing, time.Hour, 0, 30 * time.Minute},
		{inventory.Sanitizing, 0, time.Minute, time.Minute},
		{inventory.Provisioning, 0, 0, 90 * time.Minute},
		{"nonsense", 0, 0, 0},
	} {
		if got := Allowed(c.state, c.p99, c.override); got != c.want {
			t.Errorf("Allowed(%s, %v, %v) = %v, want %v", c.state, c.p99, c.override, got, c.want)
		}
	}
}

func TestDocsPageIsTheTable(t *testing.T) {
	const page = "../../docs/lifecycle.md"
	if *update {
		if err := os.WriteFile(page, []byte(Page()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(page)
	if err != nil || string(b) != Page() {
		t.Errorf("%s is not what the table says (%v); run: make docs", page, err)
	}
}
