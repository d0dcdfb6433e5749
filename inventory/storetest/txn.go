package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"

	"github.com/hostler-project/hostler/inventory"
)

var txnCases = []testCase{
	{"txn: conditions", conditions},
	{"txn: all operations at one revision", func(e *env) {
		before := e.do(e.put("old", "1"))
		rev := e.do(e.put("a", "1"), e.put("b", "1"), e.del("old"), e.put("c", "1"))
		e.same("revision", rev, before+1)
		for _, name := range []string{"a", "b", "c"} {
			e.same(name, e.get(name), inventory.KV{Key: e.prefix + name, Value: []byte("1"), Create: rev, Mod: rev})
		}
		e.same("old exists", e.get("old").Exists(), false)
	}},
	{"txn: not done writes nothing and reads Else in order", func(e *env) {
		rev := e.do(e.put("a", "1"), e.put("b", "2"))
		r := e.commit(inventory.Txn{
			If:   []inventory.Cond{inventory.Absent(e.prefix + "a")},
			Then: []inventory.Op{e.put("a", "9"), e.del("b"), e.put("c", "9")},
			Else: []string{e.prefix + "b", e.prefix + "nobody", e.prefix + "a"},
		})
		e.same("result", r, inventory.Result{Rev: rev, Else: []inventory.KV{
			{Key: e.prefix + "b", Value: []byte("2"), Create: rev, Mod: rev},
			{Key: e.prefix + "nobody"},
			{Key: e.prefix + "a", Value: []byte("1"), Create: rev, Mod: rev},
		}})
		e.same("names", e.names(e.list(inventory.ListOptions{}).KVs), []string{"a", "b"})
	}},
	{"txn: done reads no Else", func(e *env) {
		r := e.commit(inventory.Txn{Then: []inventory.Op{e.put("a", "1")}, Else: []string{e.prefix + "a"}})
		e.same("done", r.Done, true)
		e.same("else", len(r.Else), 0)
	}},
	{"txn: deleting what is not there is no error and no revision", func(e *env) {
		rev := e.do(e.put("a", "1"))
		e.same("revision", e.do(e.del("nobody")), rev)
		e.same("revision", e.do(e.del("nobody"), e.put("a", "2")), rev+1)
		e.same("revision", e.do(e.del("a"), e.del("a")), rev+2)
	}},
	{"txn: only conditions", func(e *env) {
		rev := e.do(e.put("a", "1"))
		e.same("result", e.commit(inventory.Txn{If: []inventory.Cond{inventory.Unchanged(e.get("a"))}}), inventory.Result{Done: true, Rev: rev})
	}},
	{"txn: refused whole", func(e *env) {
		many := func(n int) (ops []inventory.Op, conds []inventory.Cond, keys []string) {
			for i := range n {
				key := e.prefix + fmt.Sprintf("many/%03d", i)
				ops = append(ops, inventory.Op{Key: key, Value: []byte("x")})
				conds, keys = append(conds, inventory.Absent(key)), append(keys, key)
			}
			return ops, conds, keys
		}
		ops, conds, keys := many(inventory.MaxOps + 1)
		big := bytes.Repeat([]byte("x"), 64<<10)
		var large []inventory.Op
		for i := range 32 {
			large = append(large, inventory.Op{Key: e.prefix + fmt.Sprint("large", i), Value: big})
		}
		for _, c := range []struct {
			name string
			txn  inventory.Txn
		}{
			{"too many writes", inventory.Txn{Then: ops}},
			{"too many conditions", inventory.Txn{If: conds, Then: ops[:1]}},
			{"too many reads", inventory.Txn{Then: ops[:1], Else: keys}},
			{"a key written twice", inventory.Txn{Then: []inventory.Op{e.put("b", "1"), e.put("a", "1"), e.put("a", "1")}}},
			{"a key written and deleted", inventory.Txn{Then: []inventory.Op{e.put("b", "1"), e.put("a", "1"), e.del("a")}}},
			{"a key deleted and written", inventory.Txn{Then: []inventory.Op{e.put("b", "1"), e.del("a"), e.put("a", "1")}}},
			{"an empty key", inventory.Txn{Then: []inventory.Op{e.put("b", "1"), {Value: []byte("1")}}}},
			{"an empty key in a condition", inventory.Txn{If: []inventory.Cond{{}}, Then: ops[:1]}},
			{"an empty prefix in a condition", inventory.Txn{If: []inventory.Cond{{Prefix: true, Mod: 1 << 40}}, Then: ops[:1]}},
			{"two megabytes", inventory.Txn{Then: large}},
		} {
			_, err := e.s.Commit(e.Context(), c.txn)
			if err == nil || errors.Is(err, inventory.ErrUnavailable) || errors.Is(err, inventory.ErrNoSpace) {
				e.Errorf("%s: got error %v, want a plain refusal", c.name, err)
			}
		}
		e.same("keys", len(e.list(inventory.ListOptions{}).KVs), 0)

		ops, conds, keys = many(inventory.MaxOps)
		e.same("as many as allowed: done", e.commit(inventory.Txn{If: conds, Then: ops, Else: keys}).Done, true)
		e.same("as many as allowed: else", len(e.commit(inventory.Txn{If: conds, Then: ops, Else: keys}).Else), inventory.MaxOps)
	}},
	{"txn: counters of many writers", func(e *env) {
		const writers, each = 8, 10
		e.do(e.put("n", "0"))
		first := e.get("n")
		errs := make(chan error, writers)
		var wg sync.WaitGroup
		for range writers {
			wg.Go(func() { errs <- count(e.Context(), e.s, first.Key, each) })
		}
		wg.Wait()
		close(errs)
		for err := range errs {
			e.fails("count", err, nil)
		}
		kv := e.get("n")
		e.same("counter", string(kv.Value), strconv.Itoa(writers*each))
		e.same("revision", kv.Mod, first.Mod+writers*each)
	}},
	{"txn: one of many creates", func(e *env) {
		won := make(chan string, 16)
		var wg sync.WaitGroup
		for i := range cap(won) {
			wg.Go(func() {
				me := fmt.Sprint(i)
				r, err := e.s.Commit(e.Context(), inventory.Txn{
					If:   []inventory.Cond{inventory.Absent(e.prefix + "claim")},
					Then: []inventory.Op{e.put("claim", me)},
					Else: []string{e.prefix + "claim"},
				})
				if err != nil {
					e.Errorf("commit: %v", err)
				} else if r.Done {
					won <- me
				} else if len(r.Else) != 1 || !r.Else[0].Exists() {
					e.Errorf("the loser does not see who won: %+v", r)
				}
			})
		}
		wg.Wait()
		close(won)
		var winners []string
		for w := range won {
			winners = append(winners, w)
		}
		e.same("winners", winners, []string{string(e.get("claim").Value)})
	}},
}

func conditions(e *env) {
	created := e.do(e.put("once", "1"), e.put("twice", "1"), e.put("gone", "1"), e.put("again", "1"), e.put("dir/a", "1"))
	last := e.do(e.put("twice", "2"), e.del("gone"), e.del("again"), e.put("dir/b", "1"), e.put("quiet/a", "1"), e.put("quiet/b", "1"))
	e.do(e.put("again", "2"), e.del("quiet/b"))
	for _, c := range []struct {
		name string
		cond inventory.Cond
		want bool
	}{
		{"mod as read", inventory.Cond{Key: "once", Mod: created}, true},
		{"mod of a key written since", inventory.Cond{Key: "twice", Mod: created}, false},
		{"mod of a later write", inventory.Cond{Key: "twice", Mod: last}, true},
		{"mod of a key that never was", inventory.Cond{Key: "never", Mod: created}, false},
		{"mod of a key deleted since", inventory.Cond{Key: "gone", Mod: created}, false},
		{"absent: never was", inventory.Absent("never"), true},
		{"absent: was deleted", inventory.Absent("gone"), true},
		{"absent: is there", inventory.Absent("once"), false},
		{"absent: a name that begins so", inventory.Absent("onc"), true},
		{"create of a key written since", inventory.Cond{Key: "twice", Create: created}, true},
		{"create decides, not mod", inventory.Cond{Key: "twice", Create: created, Mod: created}, true},
		{"create of a key made again", inventory.Cond{Key: "again", Create: created}, false},
		{"create of a key that never was", inventory.Cond{Key: "never", Create: created}, false},
		{"prefix not newer", inventory.Cond{Key: "dir/", Prefix: true, Mod: last}, true},
		{"prefix newer", inventory.Cond{Key: "dir/", Prefix: true, Mod: last - 1}, false},
		{"prefix: the older of two counts too", inventory.Cond{Key: "dir/", Prefix: true, Mod: created}, false},
		{"prefix: nothing there, at any revision", inventory.Cond{Key: "none/", Prefix: true}, true},
		{"prefix: something there, at revision 0", inventory.Cond{Key: "dir/", Prefix: true}, false},
		// The limit of etcd's range compare, which is why health records are never deleted.
		{"prefix: a deletion is not seen", inventory.Cond{Key: "quiet/", Prefix: true, Mod: last}, true},
	} {
		e.Run(c.name, func(t *testing.T) {
			e := &env{T: t, s: e.s, prefix: e.prefix}
			c.cond.Key = e.prefix + c.cond.Key
			e.same("done", e.commit(inventory.Txn{If: []inventory.Cond{c.cond}, Then: []inventory.Op{e.put("out", "x")}}).Done, c.want)
			e.same("out", e.get("out").Exists(), c.want)
			e.do(e.del("out"))
			// Among others it decides alone.
			all := []inventory.Cond{inventory.Absent(e.prefix + "never"), c.cond, inventory.Absent(e.prefix + "gone")}
			e.same("done among others", e.commit(inventory.Txn{If: all}).Done, c.want)
		})
	}
}

// count adds n to the number under key, one by one, by compare and swap.
func count(ctx context.Context, s inventory.Store, key string, n int) error {
	for n > 0 {
		kv, err := s.Get(ctx, key)
		if err != nil {
			return err
		}
		v, err := strconv.Atoi(string(kv.Value))
		if err != nil {
			return err
		}
		r, err := s.Commit(ctx, inventory.Txn{
			If:   []inventory.Cond{inventory.Unchanged(kv)},
			Then: []inventory.Op{{Key: key, Value: []byte(strconv.Itoa(v + 1))}},
		})
		if err != nil {
			return err
		}
		if r.Done {
			n--
		}
	}
	return nil
}

// Full fills a store that has little space left, until it refuses, and checks what still works then.
func Full(t *testing.T, s inventory.Store) {
	e := newEnv(t, s)
	value := bytes.Repeat([]byte("x"), 60<<10)
	var err error
	stored := 0
	for ; err == nil && stored < 2000; stored++ {
		_, err = s.Commit(t.Context(), inventory.Txn{Then: []inventory.Op{{Key: e.prefix + fmt.Sprintf("%04d", stored), Value: value}}})
	}
	e.fails("filling it", err, inventory.ErrNoSpace)
	before := e.list(inventory.ListOptions{KeysOnly: true})

	_, err = s.Commit(t.Context(), inventory.Txn{Then: []inventory.Op{e.del("0000"), e.put("history", "x")}})
	e.fails("a transaction that deletes and writes", err, inventory.ErrNoSpace)
	_, err = s.Commit(t.Context(), inventory.Txn{
		If:   []inventory.Cond{inventory.Absent(e.prefix + "never"), {Key: e.prefix + "never", Mod: 7}},
		Then: []inventory.Op{e.put("a", "x")},
	})
	e.fails("a write whose condition does not hold", err, inventory.ErrNoSpace)
	e.same("what is there", e.list(inventory.ListOptions{KeysOnly: true}), before)

	kv, err := s.Get(t.Context(), e.prefix+"nobody")
	e.fails("a read", err, nil)
	e.same("a read", kv.Exists(), false)
	r := e.commit(inventory.Txn{If: []inventory.Cond{inventory.Absent(kv.Key)}, Then: []inventory.Op{e.del("0000"), e.del("0001")}})
	e.same("a deletion", r.Done, true)
	e.same("a deletion's revision", r.Rev, before.Rev+1)
}
