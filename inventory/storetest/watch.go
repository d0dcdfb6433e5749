package storetest

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hostler-project/hostler/inventory"
)

var watchCases = []testCase{
	{"watch: what happens from now on", func(e *env) {
		rev := e.do(e.put("a", "0"))
		ch := e.s.Watch(e.Context(), e.prefix, rev+1)
		put := e.do(e.put("a", "1"))
		gone := e.do(e.del("a"))
		again := e.do(inventory.Op{Key: e.prefix + "a", Value: []byte{}})
		e.same("events", e.watched(ch, rev+1, again), []inventory.Event{
			{KV: inventory.KV{Key: e.prefix + "a", Value: []byte("1"), Create: rev, Mod: put}},
			{KV: inventory.KV{Key: e.prefix + "a", Mod: gone}, Deleted: true},
			{KV: inventory.KV{Key: e.prefix + "a", Value: []byte{}, Create: again, Mod: again}},
		})
	}},
	{"watch: from every past revision, then on", func(e *env) {
		var revs []int64
		for i := range 6 {
			revs = append(revs, e.do(e.put("a", fmt.Sprint(i)), e.put("b", fmt.Sprint(i))))
		}
		for i, from := range revs {
			ch := e.s.Watch(e.Context(), e.prefix, from)
			next := e.do(e.put("c", fmt.Sprint(i)))
			got := e.watched(ch, from, next)
			e.same(fmt.Sprintf("events from revision %d on", from), len(got), 2*(len(revs)-i)+i+1)
			e.same("first revision", got[0].KV.Mod, from)
		}
	}},
	{"watch: only the prefix", func(e *env) {
		from := e.do(e.put("b", "0")) + 1
		ch := e.s.Watch(e.Context(), e.prefix+"b/", from)
		e.do(e.put("a", "1"), e.put("b", "1"), e.put("b/1", "1"), e.put("b0", "1"))
		e.do(e.put("c", "1"))
		last := e.do(e.put("b/2", "1"))
		var kvs []inventory.KV
		for _, ev := range e.watched(ch, from, last) {
			kvs = append(kvs, ev.KV)
		}
		e.same("names", e.names(kvs), []string{"b/1", "b/2"})
	}},
	{"watch: a revision yet to come", func(e *env) {
		rev := e.do(e.put("a", "0"))
		ch := e.s.Watch(e.Context(), e.prefix, rev+3)
		e.do(e.put("a", "1"))
		e.do(e.put("a", "2"))
		third := e.do(e.put("a", "3"))
		got := e.watched(ch, rev+3, third)
		e.same("events", len(got), 1)
		e.same("revision", got[0].KV.Mod, third)
	}},
	{"watch: a batch never splits a revision", func(e *env) {
		// Five revisions of 120 keys, about 6 MB: more than etcd puts into one message.
		value := bytes.Repeat([]byte("x"), 10<<10)
		var from, last int64
		for range 5 {
			var ops []inventory.Op
			for i := range 120 {
				ops = append(ops, inventory.Op{Key: e.prefix + fmt.Sprintf("%03d", i), Value: value})
			}
			if last = e.do(ops...); from == 0 {
				from = last
			}
		}
		seen, perRev := int64(0), map[int64]int{}
		for b := range e.s.Watch(e.Context(), e.prefix, from) {
			e.fails("watch", b.Err, nil)
			for _, ev := range b.Events {
				if ev.KV.Mod <= seen {
					e.Fatalf("revision %d goes on in a later batch", ev.KV.Mod)
				}
				perRev[ev.KV.Mod]++
			}
			if seen = b.Rev; seen >= last || e.Failed() {
				break
			}
		}
		for rev := from; rev <= last; rev++ {
			e.same(fmt.Sprint("events of revision ", rev), perRev[rev], 120)
		}
	}},
	{"watch: no gap and no repeat while many write", func(e *env) {
		const writers, each = 4, 25
		from := e.do(e.put("n", "0")) + 1
		ch := e.s.Watch(e.Context(), e.prefix, from)
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for i := range each {
					if _, err := e.s.Commit(e.Context(), inventory.Txn{Then: []inventory.Op{e.put(fmt.Sprint(w), fmt.Sprint(i))}}); err != nil {
						e.Errorf("commit: %v", err)
					}
				}
			})
		}
		got := e.watched(ch, from, from+writers*each-1)
		wg.Wait()
		e.same("events", len(got), writers*each)
		for i, ev := range got {
			e.same("revision", ev.KV.Mod, from+int64(i))
		}
	}},
	{"watch: from a compacted revision", func(e *env) {
		first := e.do(e.put("a", "1"))
		second := e.do(e.put("a", "2"))
		third := e.do(e.del("a"))
		e.compact(third)
		for _, from := range []int64{first, second} {
			ch := e.s.Watch(e.Context(), e.prefix, from)
			b, open := e.next(ch)
			e.same("open", open, true)
			e.fails("batch", b.Err, inventory.ErrCompacted)
			if b, open := e.next(ch); open {
				e.Errorf("after the error came %+v", b)
			}
		}
		e.same("events from the compacted revision itself", e.watched(e.s.Watch(e.Context(), e.prefix, third), third, third),
			[]inventory.Event{{KV: inventory.KV{Key: e.prefix + "a", Mod: third}, Deleted: true}})
	}},
	{"watch: a compaction does not hurt one that is up to date", func(e *env) {
		from := e.do(e.put("a", "1")) + 1
		ch := e.s.Watch(e.Context(), e.prefix, from)
		second := e.do(e.put("a", "2"))
		got := e.watched(ch, from, second)
		e.compact(second)
		third := e.do(e.put("a", "3"))
		got = append(got, e.watched(ch, second+1, third)...)
		e.same("events", len(got), 2)
	}},
	{"watch: ends with its context", func(e *env) {
		ctx, cancel := context.WithCancel(e.Context())
		rev := e.do(e.put("a", "1"))
		idle, unread := e.s.Watch(ctx, e.prefix, rev+1), e.s.Watch(ctx, e.prefix, rev)
		cancel()
		for _, ch := range []<-chan inventory.Batch{idle, unread} {
			for {
				b, open := e.next(ch)
				if !open {
					break
				}
				e.fails("a batch of a cancelled watch", b.Err, nil)
			}
		}
	}},
}

func (e *env) next(ch <-chan inventory.Batch) (inventory.Batch, bool) {
	e.Helper()
	select {
	case b, open := <-ch:
		return b, open
	case <-time.After(patience):
		e.Fatal("the watch says nothing and does not end")
		return inventory.Batch{}, false
	}
}
