package storetest

import (
	"context"
	"fmt"

	"github.com/hostler-project/hostler/inventory"
)

var readCases = []testCase{
	{"get: a key that never was", func(e *env) {
		kv := e.get("nobody")
		e.same("kv", kv, inventory.KV{Key: e.prefix + "nobody"})
	}},
	{"get: create and mod revisions", func(e *env) {
		first := e.do(e.put("a", "1"))
		second := e.do(e.put("a", "2"))
		e.same("kv", e.get("a"), inventory.KV{Key: e.prefix + "a", Value: []byte("2"), Create: first, Mod: second})
	}},
	{"get: a key made again has a new create revision", func(e *env) {
		e.do(e.put("a", "1"))
		e.do(e.del("a"))
		again := e.do(e.put("a", "2"))
		e.same("kv", e.get("a"), inventory.KV{Key: e.prefix + "a", Value: []byte("2"), Create: again, Mod: again})
	}},
	{"get: an empty value is a value", func(e *env) {
		rev := e.do(inventory.Op{Key: e.prefix + "a", Value: []byte{}})
		e.same("kv", e.get("a"), inventory.KV{Key: e.prefix + "a", Value: []byte{}, Create: rev, Mod: rev})
	}},
	{"get: the answer is the caller's to change", func(e *env) {
		value := []byte("mine")
		e.do(inventory.Op{Key: e.prefix + "a", Value: value})
		value[0] = 'x'
		e.get("a").Value[0] = 'x'
		e.same("value", string(e.get("a").Value), "mine")
	}},
	{"get: an empty key is refused", func(e *env) {
		if _, err := e.s.Get(e.Context(), ""); err == nil {
			e.Error("get of an empty key worked")
		}
	}},
	{"list: keys in byte order, only of the prefix", func(e *env) {
		e.do(e.put("b/2", "x"), e.put("a", "x"), e.put("b/10", "x"), e.put("b", "x"), e.put("b0", "x"), e.put("B", "x"))
		e.same("names", e.names(e.list(inventory.ListOptions{}).KVs), []string{"B", "a", "b", "b/10", "b/2", "b0"})
		snap, err := e.s.List(e.Context(), e.prefix+"b/", inventory.ListOptions{})
		e.fails("list", err, nil)
		e.same("names under b/", e.names(snap.KVs), []string{"b/10", "b/2"})
	}},
	{"list: nothing there", func(e *env) {
		rev := e.do(e.put("a", "x"))
		snap, err := e.s.List(e.Context(), e.prefix+"none/", inventory.ListOptions{})
		e.fails("list", err, nil)
		e.same("snapshot", snap, inventory.Snapshot{Rev: rev})
	}},
	{"list: keys only", func(e *env) {
		rev := e.do(e.put("a", "x"))
		e.same("snapshot", e.list(inventory.ListOptions{KeysOnly: true}),
			inventory.Snapshot{Rev: rev, KVs: []inventory.KV{{Key: e.prefix + "a", Create: rev, Mod: rev}}})
	}},
	{"list: pages at one revision while others write", func(e *env) {
		var ops []inventory.Op
		for i := range 25 {
			ops = append(ops, e.put(fmt.Sprintf("k%02d", i), "old"))
		}
		rev := e.do(ops...)
		var all []inventory.KV
		o := inventory.ListOptions{Limit: 10, Rev: rev}
		for page := 0; ; page++ {
			snap := e.list(o)
			e.same("revision", snap.Rev, rev)
			all = append(all, snap.KVs...)
			if !snap.More {
				e.same("page of the end", page, 2)
				break
			}
			e.same("length of a page", len(snap.KVs), 10)
			o.After = snap.KVs[len(snap.KVs)-1].Key
			e.do(e.put("k24", "new"), e.del("k20"), e.put(fmt.Sprintf("k15-%d", page), "new"))
		}
		e.same("number of keys", len(all), 25)
		for _, kv := range all {
			e.same(kv.Key, string(kv.Value), "old")
		}
	}},
	{"list: exactly the limit is no more", func(e *env) {
		e.do(e.put("a", "x"), e.put("b", "x"))
		e.same("more", e.list(inventory.ListOptions{Limit: 2}).More, false)
		e.same("more", e.list(inventory.ListOptions{Limit: 1}).More, true)
	}},
	{"list: after", func(e *env) {
		e.do(e.put("a", "x"), e.put("b", "x"), e.put("c", "x"))
		for _, c := range []struct {
			after string
			want  []string
		}{
			{e.prefix + "a", []string{"b", "c"}},
			{e.prefix + "aa", []string{"b", "c"}},
			{e.prefix + "c", nil},
			{"/", []string{"a", "b", "c"}}, // before the prefix
			{"~", nil},                     // behind it
		} {
			e.same("after "+c.after, e.names(e.list(inventory.ListOptions{After: c.after}).KVs), c.want)
		}
	}},
	{"list: before", func(e *env) {
		e.do(e.put("a", "x"), e.put("b", "x"), e.put("c", "x"))
		for _, c := range []struct {
			after, before string
			want          []string
		}{
			{"", e.prefix + "c", []string{"a", "b"}},
			{"", e.prefix + "bb", []string{"a", "b"}},
			{"", e.prefix + "a", nil},
			{"", "/", nil},                     // before the prefix
			{"", "~", []string{"a", "b", "c"}}, // behind it
			{e.prefix + "a", e.prefix + "c", []string{"b"}},
			{e.prefix + "b", e.prefix + "b", nil},
			{e.prefix + "c", e.prefix + "b", nil},
		} {
			e.same("after "+c.after+" before "+c.before, e.names(e.list(inventory.ListOptions{After: c.after, Before: c.before}).KVs), c.want)
		}
	}},
	{"list: every past revision", func(e *env) {
		var revs []int64
		revs = append(revs, e.do(e.put("a", "1")), e.do(e.put("b", "1"), e.put("a", "2")), e.do(e.del("a")), e.do(e.put("a", "3")))
		want := []map[string]string{{"a": "1"}, {"a": "2", "b": "1"}, {"b": "1"}, {"a": "3", "b": "1"}}
		for i, rev := range revs {
			snap := e.list(inventory.ListOptions{Rev: rev})
			got := map[string]string{}
			for _, kv := range snap.KVs {
				got[kv.Key[len(e.prefix):]] = string(kv.Value)
			}
			e.same(fmt.Sprint("values at step ", i), got, want[i])
			e.same("revision", snap.Rev, rev)
		}
	}},
	{"list: a revision yet to come is refused", func(e *env) {
		rev := e.do(e.put("a", "1"))
		if snap, err := e.s.List(e.Context(), e.prefix, inventory.ListOptions{Rev: rev + 1000000}); err == nil {
			e.Errorf("got %+v", snap)
		}
	}},
	{"compact: older revisions are gone, that one and newer stay", func(e *env) {
		first := e.do(e.put("a", "1"), e.put("gone", "1"), e.put("quiet", "1"), e.put("later", "1"))
		second := e.do(e.put("a", "2"), e.del("gone"))
		third := e.do(e.put("b", "3"), e.put("later", "3"))
		e.compact(second)
		_, err := e.s.List(e.Context(), e.prefix, inventory.ListOptions{Rev: first})
		e.fails("list before it", err, inventory.ErrCompacted)
		e.same("keys at it", e.list(inventory.ListOptions{Rev: second}).KVs, []inventory.KV{
			{Key: e.prefix + "a", Value: []byte("2"), Create: first, Mod: second},
			{Key: e.prefix + "later", Value: []byte("1"), Create: first, Mod: first},
			{Key: e.prefix + "quiet", Value: []byte("1"), Create: first, Mod: first},
		})
		e.same("names after it", e.names(e.list(inventory.ListOptions{Rev: third}).KVs), []string{"a", "b", "later", "quiet"})
		e.same("names now", e.names(e.list(inventory.ListOptions{}).KVs), []string{"a", "b", "later", "quiet"})
		e.same("a", e.get("a"), inventory.KV{Key: e.prefix + "a", Value: []byte("2"), Create: first, Mod: second})
	}},
	{"compact: again is no error, the future is", func(e *env) {
		e.do(e.put("a", "1"))
		rev := e.do(e.put("a", "2"))
		e.compact(rev)
		e.compact(rev)
		e.compact(rev - 1)
		if err := e.s.Compact(e.Context(), rev+1000000); err == nil {
			e.Error("compacted a revision that is not there yet")
		}
	}},
	{"context: a cancelled call is an outcome nobody knows", func(e *env) {
		ctx, cancel := context.WithCancel(e.Context())
		cancel()
		_, err := e.s.Get(ctx, e.prefix+"a")
		e.fails("get", err, inventory.ErrUnavailable)
		_, err = e.s.List(ctx, e.prefix, inventory.ListOptions{})
		e.fails("list", err, inventory.ErrUnavailable)
		_, err = e.s.Commit(ctx, inventory.Txn{Then: []inventory.Op{e.put("a", "1")}})
		e.fails("commit", err, inventory.ErrUnavailable)
		e.fails("commit, the cause", err, context.Canceled)
		e.fails("compact", e.s.Compact(ctx, 1), inventory.ErrUnavailable)
	}},
}
