// Package storetest holds every inventory.Store to the same behaviour.
//
// Run walks a list of cases (reads, transactions, watches, random histories against a plain model); Full checks a store
// that refuses writes for want of space. A case works under a prefix of its own, so stores may share one server, and may
// compact, so nothing else may need old revisions of that server. It is no place for tests of records: only bytes.
package storetest

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hostler-project/hostler/inventory"
)

// patience is how long a case waits for a watch; only a broken store needs it.
const patience = 10 * time.Second

type testCase struct {
	name string
	run  func(*env)
}

// Run holds the stores that open gives to the contract of inventory.Store. A case calls open once.
func Run(t *testing.T, open func(t *testing.T) inventory.Store) {
	for _, c := range slices.Concat(readCases, txnCases, leaseCases, watchCases, historyCases) {
		t.Run(c.name, func(t *testing.T) { c.run(newEnv(t, open(t))) })
	}
}

// env is what a case works with: a store and a prefix that nobody else uses.
type env struct {
	*testing.T
	s      inventory.Store
	prefix string
}

func newEnv(t *testing.T, s inventory.Store) *env {
	return &env{T: t, s: s, prefix: "/storetest/" + rand.Text()[:10] + "/"}
}

func (e *env) get(name string) inventory.KV {
	e.Helper()
	kv, err := e.s.Get(e.Context(), e.prefix+name)
	if err != nil {
		e.Fatalf("get %s: %v", name, err)
	}
	return kv
}

func (e *env) list(o inventory.ListOptions) inventory.Snapshot {
	e.Helper()
	snap, err := e.s.List(e.Context(), e.prefix, o)
	if err != nil {
		e.Fatalf("list %+v: %v", o, err)
	}
	return snap
}

func (e *env) commit(t inventory.Txn) inventory.Result {
	e.Helper()
	r, err := e.s.Commit(e.Context(), t)
	if err != nil {
		e.Fatalf("commit: %v", err)
	}
	return r
}

// do commits operations without a condition and gives their revision.
func (e *env) do(ops ...inventory.Op) int64 {
	e.Helper()
	r := e.commit(inventory.Txn{Then: ops})
	if !r.Done {
		e.Fatalf("a transaction without a condition was not done")
	}
	return r.Rev
}

func (e *env) put(name, value string) inventory.Op {
	return inventory.Op{Key: e.prefix + name, Value: []byte(value)}
}

func (e *env) del(name string) inventory.Op { return inventory.Delete(e.prefix + name) }

func (e *env) compact(rev int64) {
	e.Helper()
	if err := e.s.Compact(e.Context(), rev); err != nil {
		e.Fatalf("compact to %d: %v", rev, err)
	}
}

// same compares what the store gave with what it should have given.
func (e *env) same(what string, got, want any) {
	e.Helper()
	if d := cmp.Diff(want, got); d != "" {
		e.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func (e *env) fails(what string, err, want error) {
	e.Helper()
	if !errors.Is(err, want) {
		e.Errorf("%s: got error %v, want %v", what, err, want)
	}
}

// names are the keys of KVs, without the prefix.
func (e *env) names(kvs []inventory.KV) []string {
	var names []string
	for _, kv := range kvs {
		names = append(names, kv.Key[len(e.prefix):])
	}
	return names
}

// watched is what a watch sent: checked for order and whole revisions, up to the revision that was asked for.
func (e *env) watched(ch <-chan inventory.Batch, from, until int64) []inventory.Event {
	e.Helper()
	events, last := []inventory.Event(nil), from-1
	ctx, cancel := context.WithTimeout(e.Context(), patience)
	defer cancel()
	for last < until {
		select {
		case <-ctx.Done():
			e.Fatalf("the watch stopped at revision %d, want %d", last, until)
		case b, open := <-ch:
			if !open || b.Err != nil {
				e.Fatalf("the watch ended at revision %d: %v", last, b.Err)
			}
			if b.Rev < last || len(b.Events) > 0 && b.Rev == last {
				e.Fatalf("a batch of revision %d after one of %d", b.Rev, last)
			}
			for _, ev := range b.Events {
				if ev.KV.Mod <= last || ev.KV.Mod > b.Rev {
					e.Fatalf("revision %d of %s is in a batch of revisions %d to %d", ev.KV.Mod, ev.KV.Key, last+1, b.Rev)
				}
			}
			if !slices.IsSortedFunc(b.Events, func(a, b inventory.Event) int { return int(a.KV.Mod - b.KV.Mod) }) {
				e.Fatalf("a batch is not in order of revision: %v", b.Events)
			}
			events, last = append(events, b.Events...), b.Rev
			if n := len(events); n > 0 && events[n-1].KV.Mod >= until {
				return events
			}
		}
	}
	return events
}
