package inventory_test

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/hostler-project/hostler/inventory"
)

// What a newer program added to a record is there again after this one has rewritten it; what this one knows comes from
// the new value alone.
func TestUnknownFieldsSurviveARewrite(t *testing.T) {
	for _, c := range []struct {
		name, stored, want string
		edit               func(*inventory.NodeState)
	}{
		{"an unknown word", `{"schema":1,"state":"ready","mood":"good"}`, `"good"`, func(*inventory.NodeState) {}},
		{"an unknown record", `{"schema":1,"state":"ready","mood":{"a":[1,2]}}`, `{"a":[1,2]}`, func(st *inventory.NodeState) { st.Reason = "new" }},
		{"an unknown null", `{"schema":1,"state":"ready","mood":null}`, `null`, func(*inventory.NodeState) {}},
		{"a large number", `{"schema":1,"state":"ready","mood":9007199254740993}`, `9007199254740993`, func(*inventory.NodeState) {}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := rewrite(t, c.stored, c.edit)
			if string(got["mood"]) != c.want {
				t.Errorf("got mood %s, want %s", got["mood"], c.want)
			}
		})
	}
}

// A field that the rewrite empties is gone, whatever was in it.
func TestAnEmptiedFieldDoesNotComeBack(t *testing.T) {
	for _, c := range []struct{ name, key, stored string }{
		{"a word", "taint", `{"schema":1,"state":"ready","taint":"tainted"}`},
		{"a record", "work", `{"schema":1,"state":"ready","work":{"phase":"enter","order":"hand-off.9"}}`},
		{"a record with a field of a newer version", "work", `{"schema":1,"state":"ready","work":{"phase":"enter","colour":"red"}}`},
		{"a length of time", "spent", `{"schema":1,"state":"ready","spent":"1m0s"}`},
		{"a time", "tested", `{"schema":1,"state":"ready","tested":"2026-11-22T03:00:00Z"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := rewrite(t, c.stored, func(st *inventory.NodeState) {
				*st = inventory.NodeState{Schema: st.Schema, State: st.State}
			})
			if v, there := got[c.key]; there {
				t.Errorf("%s is still %s", c.key, v)
			}
		})
	}
}

func rewrite(t *testing.T, stored string, edit func(*inventory.NodeState)) map[string]json.RawMessage {
	t.Helper()
	d, err := inventory.Decode[inventory.NodeState](inventory.KV{Key: "/k", Value: []byte(stored), Mod: 4, Create: 4})
	if err != nil {
		t.Fatal(err)
	}
	edit(&d.V)
	op, err := d.Put(d.V)
	if err != nil || op.Key != "/k" {
		t.Fatal(op.Key, err)
	}
	var got map[string]json.RawMessage
	if err := json.Unmarshal(op.Value, &got); err != nil {
		t.Fatal(err)
	}
	return got
}

// Whatever is stored and whatever is written over it, every unknown field survives and every known one is the new value's.
func TestRewriteProperty(t *testing.T) {
	words := rapid.StringMatching(`[a-z]{1,8}`)
	rapid.Check(t, func(t *rapid.T) {
		extra := rapid.MapOf(rapid.Map(words, func(s string) string { return "x-" + s }), words).Draw(t, "unknown")
		before := inventory.NodeState{Schema: 1, State: inventory.Ready, Taint: rapid.SampledFrom([]string{"", inventory.Taint}).Draw(t, "taint"),
			Work: inventory.Work{Phase: words.Draw(t, "phase")}, Alive: words.Draw(t, "alive")}
		after := inventory.NodeState{Schema: 1, State: inventory.Quarantined, Reason: words.Draw(t, "reason"),
			Allowed: inventory.Duration(rapid.Int64Range(0, 1e15).Draw(t, "allowed")), Spent: inventory.Duration(rapid.SampledFrom([]time.Duration{0, time.Minute}).Draw(t, "spent"))}
		b, err := json.Marshal(before)
		if err != nil {
			t.Fatal(err)
		}
		var all map[string]any
		if err := json.Unmarshal(b, &all); err != nil {
			t.Fatal(err)
		}
		for k, v := range extra {
			all[k] = v
		}
		if b, err = json.Marshal(all); err != nil {
			t.Fatal(err)
		}
		d, err := inventory.Decode[inventory.NodeState](inventory.KV{Key: "/k", Value: b, Mod: 1})
		if err != nil {
			t.Fatal(err)
		}
		op, err := d.Put(after)
		if err != nil {
			t.Fatal(err)
		}
		again, err := inventory.Decode[inventory.NodeState](inventory.KV{Key: "/k", Value: op.Value, Mod: 2})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(after, again.V); diff != "" {
			t.Fatalf("-want +got:\n%s", diff)
		}
		var got map[string]any
		if err := json.Unmarshal(op.Value, &got); err != nil {
			t.Fatal(err)
		}
		for k, v := range extra {
			if got[k] != v {
				t.Fatalf("%s: got %v, want %q", k, got[k], v)
			}
		}
	})
}

func TestDecodeSaysWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		name, stored string
		newer        bool
	}{
		{"a newer schema", `{"schema":2,"state":"ready"}`, true},
		{"a much newer schema with a state of its own", `{"schema":99,"state":"orbiting"}`, true},
		{"not JSON", `{"schema":1`, false},
		{"not an object", `[1]`, false},
		{"a wrong type", `{"schema":1,"generation":"three"}`, false},
		{"a length of time in words", `{"schema":1,"allowed":"soon"}`, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := inventory.Decode[inventory.NodeState](inventory.KV{Key: "/nodes/n-1/state", Value: []byte(c.stored), Mod: 7})
			if err == nil || errors.Is(err, inventory.ErrNewer) != c.newer {
				t.Errorf("got error %v", err)
			}
			if !d.Exists() || d.Unchanged() != (inventory.Cond{Key: "/nodes/n-1/state", Mod: 7}) {
				t.Errorf("where it was read is lost: %+v", d.KV)
			}
		})
	}
	d, err := inventory.Decode[inventory.NodeState](inventory.KV{Key: "/k"})
	if err != nil || d.Exists() || d.Unchanged() != inventory.Absent("/k") {
		t.Errorf("a missing key: got %+v, %v", d, err)
	}
}
