package inventory

import (
	"context"
	"errors"
	"fmt"
)

// A KV is one key as read: Mod is the revision of its last write, Create that of its creation (0: it does not exist).
type KV struct {
	Key    string
	Value  []byte
	Create int64
	Mod    int64
}

// Exists says whether the key was there.
func (kv KV) Exists() bool { return kv.Mod != 0 }

// ListOptions narrow a List. The zero value lists everything at the newest revision.
type ListOptions struct {
	Rev      int64  // read at this revision; 0 means the newest. Compacted: ErrCompacted
	After    string // only keys greater than this one (the last key of the page before)
	Before   string // only keys less than this one; empty: to the end
	Limit    int    // at most this many; 0 means all
	KeysOnly bool
}

// A Snapshot is the answer of List: keys in byte order, all as of Rev.
type Snapshot struct {
	Rev  int64
	KVs  []KV
	More bool // Limit cut the list
}

// A Cond is one comparison of a transaction.
//
// With Prefix false, the key's Mod must equal Mod (0: the key must not exist); where Create is not 0 it must equal the
// key's creation revision instead (that is how a replica's term on a shard is compared). With Prefix true, no key under
// Key may have been written after revision Mod.
type Cond struct {
	Key    string
	Mod    int64
	Create int64
	Prefix bool
}

// Unchanged is the condition that the key still is as it was read, absence included.
func Unchanged(kv KV) Cond { return Cond{Key: kv.Key, Mod: kv.Mod} }

// Absent is the condition that the key does not exist.
func Absent(key string) Cond { return Cond{Key: key} }

// An Op writes or deletes one key. A nil Value deletes; deleting what is not there is no error. A write with a Lease is
// undone when that ends; one without frees the key of the lease that it hung on.
type Op struct {
	Key   string
	Value []byte
	Lease int64
}

// A Txn happens whole, or not at all: if every If holds, all Then are done at one revision. When one does not hold,
// Else keys are read in the same round trip, so that a loser learns why.
type Txn struct {
	If   []Cond
	Then []Op
	Else []string
}

// MaxOps is the largest number of conditions, and of writes, in one transaction (etcd's default limit is 128).
const MaxOps = 128

// A Result is the answer of Commit.
type Result struct {
	Done bool
	Rev  int64
	Else []KV // with Done false: the Else keys, in order (Mod 0 where absent)
}

// An Event is one change as a watcher sees it. A deletion has a nil Value.
type Event struct {
	KV      KV
	Deleted bool
}

// A Batch holds all events of one or more whole revisions, in order; Rev is the last one. A batch with no events tells
// that the watch has seen everything up to Rev. Err ends the watch: ErrCompacted means list again.
type Batch struct {
	Rev    int64
	Events []Event
	Err    error
}

// Store is what the record is kept in. Implementations: inventory/etcd and inventory/memstore; both pass the same
// conformance suite (inventory/storetest). Reads are linearizable.
type Store interface {
	// Get reads one key; one that is not there comes back with Mod 0 and no error.
	Get(ctx context.Context, key string) (KV, error)
	// List reads the keys that begin with prefix.
	List(ctx context.Context, prefix string, o ListOptions) (Snapshot, error)
	// Commit does the transaction. An error other than ErrUnavailable means it was not done; after ErrUnavailable the
	// outcome is unknown and the caller reads again.
	Commit(ctx context.Context, t Txn) (Result, error)
	// Watch sends every change under prefix from revision from on (from itself included), in order, without gap or
	// repeat. The channel closes when ctx ends or after a Batch with Err.
	Watch(ctx context.Context, prefix string, from int64) <-chan Batch
	// Compact drops revisions below rev; reads and watches of them get ErrCompacted.
	Compact(ctx context.Context, rev int64) error
}

var (
	// ErrUnavailable wraps every error where the store could not be reached or did not answer in time.
	ErrUnavailable = errors.New("inventory: the store is not available")
	// ErrCompacted says that the revision asked for is no longer kept: list again and watch from there.
	ErrCompacted = errors.New("inventory: that revision is compacted")
	// ErrNoSpace says that the store refuses writes because its quota is full; deletes still work.
	ErrNoSpace = errors.New("inventory: the store is full (etcd NOSPACE): hostlerd store recover gives it its space back")
	// ErrBehind says that the store has lost writes that were seen in it: nothing is written until a person has decided.
	ErrBehind = errors.New("inventory: safe mode")
)

// Probe asks whether the store takes writes, without a write: a transaction whose condition never holds, with a put that
// etcd's quota and quorum are asked about all the same. It makes no revision.
func Probe(ctx context.Context, s Store) error {
	_, err := s.Commit(ctx, Txn{If: []Cond{{Key: KeySchema, Mod: 1 << 62}}, Then: []Op{{Key: KeySchema, Value: []byte("{}")}}})
	return err
}

// Update reads key, lets change work on it and writes it back, again from the start when somebody else wrote in
// between. change gets the raw KV and returns the operations; returning none ends it without a write.
func Update(ctx context.Context, s Store, key string, change func(KV) ([]Cond, []Op, error)) error {
	for try := 0; try < 16; try++ {
		kv, err := s.Get(ctx, key)
		if err != nil {
			return err
		}
		conds, ops, err := change(kv)
		if err != nil || len(ops) == 0 {
			return err
		}
		r, err := s.Commit(ctx, Txn{If: append([]Cond{Unchanged(kv)}, conds...), Then: ops})
		if err != nil {
			return err
		}
		if r.Done {
			return nil
		}
	}
	return fmt.Errorf("inventory: update %s: 16 tries lost against other writers", key)
}
