package inventory

import (
	"context"
	"errors"
	"time"
)

// A Lessor is a Store that can tie keys to a lease: they are deleted, all at one revision, when nobody has renewed it for
// its time to live. Implementations: inventory/etcd and inventory/memstore.
//
// A lease says when the store deletes keys and nothing else. It is no permission: the store may keep one longer than its
// time (a new leader begins it anew), end it early (a restore), and tell the holder late or never. Who holds something by
// a lease goes by its own monotonic clock, from the moment before it last asked.
type Lessor interface {
	Store
	// Grant makes a lease. ttl is rounded up to seconds; the store may give more.
	Grant(ctx context.Context, ttl time.Duration) (lease int64, err error)
	// KeepAlive renews a lease once. ErrNoLease says that it is gone, and its keys with it.
	KeepAlive(ctx context.Context, lease int64) error
	// Revoke ends a lease and deletes its keys. One that is gone already is no error.
	Revoke(ctx context.Context, lease int64) error
}

// ErrNoLease says that a lease is not there: it expired or was revoked, or the store was restored from before it.
var ErrNoLease = errors.New("inventory: the lease is gone")

// A Replica is one running hostlerd. Its record hangs on the lease that its shards hang on.
type Replica struct {
	Schema  int       `json:"schema"`
	ID      string    `json:"id"`
	Host    string    `json:"host"`
	Version string    `json:"version"`
	Address string    `json:"address,omitempty"` // where other replicas reach it; empty: nowhere
	API     string    `json:"api,omitempty"`
	Since   time.Time `json:"since"`
	Lease   int64     `json:"lease"`
	// Place is where its lock is held, so that a later life with the same lock knows that this one is dead.
	Place string `json:"place"`
}

// A ShardOwner is the value of a shard's key. The key's creation revision is the owner's term; it hangs on the lease.
type ShardOwner struct {
	Schema  int    `json:"schema"`
	Replica string `json:"replica"`
	Lease   int64  `json:"lease"`
}

// A ShardMark stands beside a shard's key, without a lease, from when the shard is taken until it is given back by its
// owner. A mark without a key therefore says that the owner ended otherwise and may be in the middle of an act.
type ShardMark struct {
	Schema  int       `json:"schema"`
	Replica string    `json:"replica"`
	Place   string    `json:"place"`
	Since   time.Time `json:"since"`
	TTL     Duration  `json:"ttl"` // no act of that owner lasts longer than this without its lease
}
