package storetest

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/hostler-project/hostler/inventory"
)

var historyCases = []testCase{{"history: random histories behave as the model does", func(e *env) {
	n := 0
	rapid.Check(e.T, func(t *rapid.T) {
		n++
		h := &history{T: t, e: e, prefix: e.prefix + fmt.Sprintf("%d/", n)}
		snap, err := e.s.List(e.Context(), h.prefix, inventory.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		h.base = snap.Rev
		h.states = []map[string]inventory.KV{{}}
		for range rapid.IntRange(1, 8).Draw(t, "steps") {
			h.commit()
		}
		h.readBack()
	})
}}}

// A history is the model: the whole state after every revision since base, and every event, in plain lists.
type history struct {
	*rapid.T
	e      *env
	prefix string
	base   int64
	states []map[string]inventory.KV // states[i] is as of revision base+i
	events []inventory.Event
}

func (h *history) rev() int64                   { return h.base + int64(len(h.states)) - 1 }
func (h *history) now() map[string]inventory.KV { return h.states[len(h.states)-1] }
func (h *history) name(label string) string {
	return h.prefix + rapid.SampledFrom([]string{"a", "a/1", "a/2", "b"}).Draw(h.T, label)
}
func (h *history) aRevision(label string) int64 {
	return h.base + rapid.Int64Range(0, h.rev()-h.base).Draw(h.T, label)
}
func (h *history) lookup(key string) inventory.KV { kv := h.now()[key]; kv.Key = key; return kv }

func (h *history) commit() {
	var t inventory.Txn
	holds := true
	for range rapid.IntRange(0, 2).Draw(h.T, "conditions") {
		c := inventory.Cond{Key: h.name("condition on")}
		is := h.lookup(c.Key)
		switch rapid.IntRange(0, 2).Draw(h.T, "kind") {
		case 0:
			c.Mod = rapid.SampledFrom([]int64{0, is.Mod, h.aRevision("mod")}).Draw(h.T, "mod of")
			holds = holds && is.Mod == c.Mod
		case 1:
			c.Create = rapid.SampledFrom([]int64{max(is.Create, 1), h.aRevision("create")}).Draw(h.T, "create of")
			holds = holds && is.Create == c.Create
		case 2:
			c.Prefix, c.Mod = true, h.aRevision("not newer than")
			for key, kv := range h.now() {
				holds = holds && !(strings.HasPrefix(key, c.Key) && kv.Mod > c.Mod)
			}
		}
		t.If = append(t.If, c)
	}
	next, rev, events := maps.Clone(h.now()), h.rev()+1, []inventory.Event(nil)
	for _, key := range rapid.SliceOfNDistinct(rapid.Custom(func(d *rapid.T) string {
		return h.prefix + rapid.SampledFrom([]string{"a", "a/1", "a/2", "b"}).Draw(d, "name")
	}), 0, 3, rapid.ID[string]).Draw(h.T, "writes") {
		op := inventory.Op{Key: key}
		was := next[key]
		kv := inventory.KV{Key: key, Mod: rev}
		if rapid.Bool().Draw(h.T, "put") {
			op.Value = []byte(fmt.Sprint("value ", rev))
			kv.Value, kv.Create = op.Value, was.Create
			if !was.Exists() {
				kv.Create = rev
			}
			next[key] = kv
			events = append(events, inventory.Event{KV: kv})
		} else if was.Exists() {
			delete(next, key)
			events = append(events, inventory.Event{KV: kv, Deleted: true})
		}
		t.Then = append(t.Then, op)
	}
	t.Else = []string{h.name("else")}

	want := inventory.Result{Done: holds, Rev: h.rev()}
	if !holds {
		want.Else = []inventory.KV{h.lookup(t.Else[0])}
	} else if len(events) > 0 {
		want.Rev = rev
		h.states, h.events = append(h.states, next), append(h.events, events...)
	}
	got, err := h.e.s.Commit(h.e.Context(), t)
	if err != nil {
		h.Fatalf("commit %+v: %v", t, err)
	}
	h.same(fmt.Sprintf("result of %+v", t), got, want)
}

// readBack lists at every revision and watches from one of them.
func (h *history) readBack() {
	for i, state := range h.states {
		want := inventory.Snapshot{Rev: h.base + int64(i)}
		for _, key := range slices.Sorted(maps.Keys(state)) {
			want.KVs = append(want.KVs, state[key])
		}
		got, err := h.e.s.List(h.e.Context(), h.prefix, inventory.ListOptions{Rev: want.Rev})
		if err != nil {
			h.Fatalf("list at %d: %v", want.Rev, err)
		}
		h.same("snapshot", got, want)
	}
	from := h.aRevision("watch from") + 1
	want := slices.Clone(h.events)
	want = slices.DeleteFunc(want, func(ev inventory.Event) bool { return ev.KV.Mod < from })
	if len(want) == 0 {
		return
	}
	h.same("events", h.e.watched(h.e.s.Watch(h.e.Context(), h.prefix, from), from, h.rev()), want)
}

func (h *history) same(what string, got, want any) {
	if d := cmp.Diff(want, got); d != "" {
		h.Fatalf("%s (-want +got):\n%s", what, d)
	}
}
