// Package memstore keeps the inventory in memory, with etcd's semantics, for tests and simulations.
//
// It owns one Store type: one revision per transaction, create and mod revisions, reads at and watches from any revision
// that Compact has not dropped, the NOSPACE state, etcd's limits on a transaction. Every call is done under one lock, so
// it is linearizable, and answers are sorted, so a single-threaded run repeats exactly. The only goroutines are the pumps
// of Watch; a simulation that wants none reads Since instead. SetFault makes calls fail before or after they took effect.
//
// It does not persist anything and knows nothing about records: bytes under keys. The suite in inventory/storetest holds
// it and inventory/etcd to the same behaviour.
package memstore

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/hostler-project/hostler/inventory"
)

// maxBytes is etcd's default limit on the bytes of one request.
const maxBytes = 3 << 19

// A Store is an inventory.Store in memory. Make one with New; all methods may be used from several goroutines.
type Store struct {
	mu        sync.Mutex
	rev       int64                // newest revision; an empty store is at 1, as etcd's is
	compacted int64                // revisions below are gone
	names     []string             // every key that has a version, in byte order
	versions  map[string][]version // oldest first
	log       []inventory.Event    // every change from compacted on, oldest first
	watchers  map[*watcher]struct{}
	full      bool
	fault     func(Call) error
	leases    map[int64]*lease
	granted   int64            // leases so far
	now       func() time.Time // nil: the machine's clock
}

type version struct {
	kv   inventory.KV
	dead bool
}

var _ inventory.Lessor = (*Store)(nil)

// New makes an empty store at revision 1.
func New() *Store {
	return &Store{rev: 1, versions: map[string][]version{}, watchers: map[*watcher]struct{}{}, leases: map[int64]*lease{}}
}

// Rev is the newest revision.
func (s *Store) Rev() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rev
}

// Get reads one key.
func (s *Store) Get(ctx context.Context, key string) (inventory.KV, error) {
	if err := s.before(ctx, Call{Op: "get", Key: key}); err != nil {
		return inventory.KV{}, err
	}
	if key == "" {
		return inventory.KV{}, fmt.Errorf("memstore: get: the key is empty")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at(key, s.rev), nil
}

// List reads the keys that begin with prefix.
func (s *Store) List(ctx context.Context, prefix string, o inventory.ListOptions) (inventory.Snapshot, error) {
	if err := s.before(ctx, Call{Op: "list", Key: prefix}); err != nil {
		return inventory.Snapshot{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.rev
	if o.Rev != 0 {
		if at = o.Rev; at > s.rev {
			return inventory.Snapshot{}, fmt.Errorf("memstore: list %q at revision %d: the newest is %d", prefix, at, s.rev)
		}
		if at < s.compacted {
			return inventory.Snapshot{}, fmt.Errorf("memstore: list %q at revision %d: %w", prefix, at, inventory.ErrCompacted)
		}
	}
	snap := inventory.Snapshot{Rev: at}
	names := s.under(prefix)
	if i, found := slices.BinarySearch(names, o.After); found {
		names = names[i+1:]
	} else {
		names = names[i:]
	}
	for _, name := range names {
		if o.Before != "" && name >= o.Before {
			break
		}
		kv := s.at(name, at)
		if !kv.Exists() {
			continue
		}
		if o.Limit > 0 && len(snap.KVs) == o.Limit {
			snap.More = true
			break
		}
		if o.KeysOnly {
			kv.Value = nil
		}
		snap.KVs = append(snap.KVs, kv)
	}
	return snap, nil
}

// Commit does the transaction.
func (s *Store) Commit(ctx context.Context, t inventory.Txn) (inventory.Result, error) {
	if err := s.before(ctx, Call{Op: "commit", Txn: t}); err != nil {
		return inventory.Result{}, err
	}
	if err := check(t); err != nil {
		return inventory.Result{}, err
	}
	r, err := s.commit(t)
	if err != nil {
		return inventory.Result{}, err
	}
	if err := s.before(ctx, Call{Op: "commit", Txn: t, After: true}); err != nil {
		return inventory.Result{}, err
	}
	return r, nil
}

func (s *Store) commit(t inventory.Txn) (inventory.Result, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Like etcd, the quota is asked before the conditions: one write among the operations is enough to be refused.
	if s.full && slices.ContainsFunc(t.Then, func(op inventory.Op) bool { return op.Value != nil }) {
		return inventory.Result{}, fmt.Errorf("memstore: commit: %w", inventory.ErrNoSpace)
	}
	for _, c := range t.If {
		if s.holds(c) {
			continue
		}
		r := inventory.Result{Rev: s.rev}
		for _, key := range t.Else {
			r.Else = append(r.Else, s.at(key, s.rev))
		}
		return r, nil
	}
	for _, op := range t.Then {
		if op.Value != nil && op.Lease != 0 && s.leases[op.Lease] == nil {
			return inventory.Result{}, fmt.Errorf("memstore: commit: %w", inventory.ErrNoLease)
		}
	}
	s.apply(t.Then)
	return inventory.Result{Done: true, Rev: s.rev}, nil
}

// apply does operations at one revision.
func (s *Store) apply(ops []inventory.Op) {
	var events []inventory.Event
	for _, op := range ops {
		s.hang(op)
		was := s.at(op.Key, s.rev+1) // an earlier operation of this transaction counts
		ev := inventory.Event{KV: inventory.KV{Key: op.Key, Mod: s.rev + 1}}
		switch {
		case op.Value == nil && !was.Exists():
			continue
		case op.Value == nil:
			ev.Deleted = true
		default:
			ev.KV.Value = append([]byte{}, op.Value...)
			if ev.KV.Create = was.Create; ev.KV.Create == 0 {
				ev.KV.Create = s.rev + 1
			}
		}
		s.remember(version{kv: ev.KV, dead: ev.Deleted})
		events = append(events, ev)
	}
	if len(events) > 0 {
		s.rev++
		s.log = append(s.log, events...)
		for w := range s.watchers {
			w.add(s.rev, events)
		}
	}
}

// Compact drops revisions below rev. Dropping what is dropped already is no error.
func (s *Store) Compact(ctx context.Context, rev int64) error {
	if err := s.before(ctx, Call{Op: "compact"}); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if rev > s.rev {
		return fmt.Errorf("memstore: compact to revision %d: the newest is %d", rev, s.rev)
	}
	if rev <= s.compacted {
		return nil
	}
	s.compacted = rev
	s.log = slices.Clone(s.log[s.since(rev):])
	s.names = slices.DeleteFunc(s.names, func(name string) bool {
		vs := s.versions[name]
		// Keep what a read at rev sees, and everything newer.
		if i := firstAfter(vs, rev) - 1; i > 0 {
			vs = slices.Clone(vs[i:])
		}
		if vs[0].dead && vs[0].kv.Mod <= rev {
			vs = vs[1:]
		}
		if len(vs) == 0 {
			delete(s.versions, name)
			return true
		}
		s.versions[name] = vs
		return false
	})
	return nil
}

// Since gives every change from revision from on (from itself included), one Batch per revision, oldest first: what a
// Watch of everything would send, without a goroutine.
func (s *Store) Since(from int64) ([]inventory.Batch, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if from < s.compacted {
		return nil, fmt.Errorf("memstore: changes since revision %d: %w", from, inventory.ErrCompacted)
	}
	var batches []inventory.Batch
	for _, ev := range s.log[s.since(from):] {
		if n := len(batches); n == 0 || batches[n-1].Rev != ev.KV.Mod {
			batches = append(batches, inventory.Batch{Rev: ev.KV.Mod})
		}
		last := &batches[len(batches)-1]
		last.Events = append(last.Events, clone(ev))
	}
	return batches, nil
}

// check refuses what etcd refuses before it looks at any condition.
func check(t inventory.Txn) error {
	if len(t.If) > inventory.MaxOps || len(t.Then) > inventory.MaxOps || len(t.Else) > inventory.MaxOps {
		return fmt.Errorf("memstore: commit: %d conditions, %d writes, %d reads: at most %d of each",
			len(t.If), len(t.Then), len(t.Else), inventory.MaxOps)
	}
	put, size, seen := map[string]bool{}, 0, map[string]bool{}
	empty := slices.Contains(t.Else, "")
	for _, c := range t.If {
		empty = empty || c.Key == ""
	}
	for _, op := range t.Then {
		empty = empty || op.Key == ""
		size += len(op.Key) + len(op.Value)
		if seen[op.Key] && (put[op.Key] || op.Value != nil) {
			return fmt.Errorf("memstore: commit: key %s is written twice", op.Key)
		}
		seen[op.Key], put[op.Key] = true, put[op.Key] || op.Value != nil
	}
	if empty {
		return fmt.Errorf("memstore: commit: a key is empty")
	}
	if size > maxBytes {
		return fmt.Errorf("memstore: commit: %d bytes are more than %d", size, maxBytes)
	}
	return nil
}

func (s *Store) holds(c inventory.Cond) bool {
	if c.Prefix {
		for _, name := range s.under(c.Key) {
			if s.at(name, s.rev).Mod > c.Mod {
				return false
			}
		}
		return true
	}
	kv := s.at(c.Key, s.rev)
	if c.Create != 0 {
		return kv.Create == c.Create
	}
	return kv.Mod == c.Mod
}

// at reads key as of revision rev. The value is the caller's.
func (s *Store) at(key string, rev int64) inventory.KV {
	vs := s.versions[key]
	i := firstAfter(vs, rev) - 1
	if i < 0 || vs[i].dead {
		return inventory.KV{Key: key}
	}
	kv := vs[i].kv
	kv.Value = bytes.Clone(kv.Value)
	return kv
}

func (s *Store) remember(v version) {
	vs, had := s.versions[v.kv.Key]
	if !had {
		i, _ := slices.BinarySearch(s.names, v.kv.Key)
		s.names = slices.Insert(s.names, i, v.kv.Key)
	}
	s.versions[v.kv.Key] = append(vs, v)
}

// under gives the names that begin with prefix.
func (s *Store) under(prefix string) []string {
	from, _ := slices.BinarySearch(s.names, prefix)
	n := sort.Search(len(s.names)-from, func(i int) bool { return !strings.HasPrefix(s.names[from+i], prefix) })
	return s.names[from : from+n]
}

// since is the place in the log of the first event of revision rev or later.
func (s *Store) since(rev int64) int {
	return sort.Search(len(s.log), func(i int) bool { return s.log[i].KV.Mod >= rev })
}

func firstAfter(vs []version, rev int64) int {
	return sort.Search(len(vs), func(i int) bool { return vs[i].kv.Mod > rev })
}

func clone(ev inventory.Event) inventory.Event {
	ev.KV.Value = bytes.Clone(ev.KV.Value)
	return ev
}
