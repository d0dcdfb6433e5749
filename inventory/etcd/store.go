// Package etcd keeps the inventory in etcd: a cluster that somebody runs, or one server inside our own process.
//
// It owns the only connection to etcd of the program and is its only importer. A Store turns the few calls of
// inventory.Store into etcd's: a Commit is one Txn with compares on mod and create revisions, a prefix condition is a range
// compare, a Watch hands on whole revisions and comes back by itself after an outage. Every call has a deadline. Errors
// come back as the three that callers can act on (errors.go), everything else is a refusal.
//
// It does not know records, keeps no copy of anything, takes no locks.
package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/hostler-project/hostler/inventory"
)

// DefaultTimeout bounds a call whose Config says nothing else.
const DefaultTimeout = 5 * time.Second

// A Config says where a cluster is.
type Config struct {
	Endpoints []string      // http:// or https:// URLs of the members
	TLS       *tls.Config   // nil: as the URLs say, with the system's roots
	Timeout   time.Duration // of one call; 0 means DefaultTimeout
}

// A Store is an inventory.Store in etcd. Close it when nothing uses it any more.
type Store struct {
	client  *clientv3.Client
	timeout time.Duration
	log     *slog.Logger
	health  *health
}

var _ inventory.Lessor = (*Store)(nil)

// Open makes a store of a cluster. A cluster that does not answer now is no error, because it may later: that is logged,
// and calls give inventory.ErrUnavailable until it does. ctx bounds the opening, not the life of the store.
func Open(ctx context.Context, cfg Config, log *slog.Logger) (*Store, error) {
	s, err := connect(cfg, log)
	if err != nil {
		return nil, err
	}
	if err := s.ping(ctx); errors.Is(err, inventory.ErrUnavailable) {
		log.Warn("etcd does not answer; trying on", "endpoints", cfg.Endpoints, "err", err)
	} else if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func connect(cfg Config, log *slog.Logger) (*Store, error) {
	if len(cfg.Endpoints) == 0 {
		return nil, fmt.Errorf("etcd: no endpoint is given: etcd.endpoints needs at least one URL")
	}
	config := clientv3.Config{
		Endpoints:            cfg.Endpoints,
		TLS:                  cfg.TLS,
		Logger:               zap.NewNop(),     // it logs nothing but what it returns as well
		DialKeepAliveTime:    10 * time.Second, // a member that vanished ends its watches, which then go on elsewhere
		DialKeepAliveTimeout: 5 * time.Second,
		MaxCallSendMsgSize:   8 << 20, // the server refuses at 1.5 MiB and says so; let it
	}
	client, err := clientv3.New(config)
	if err != nil {
		return nil, fmt.Errorf("etcd: connect to %v: %v", cfg.Endpoints, err)
	}
	s := &Store{client: client, timeout: cfg.Timeout, log: log}
	if s.timeout <= 0 {
		s.timeout = DefaultTimeout
	}
	s.watchMembers(config)
	return s, nil
}

// Close ends the connection. Watches end with inventory.ErrUnavailable.
func (s *Store) Close() error {
	if err := s.client.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("etcd: close: %v", err)
	}
	return nil
}

// Get reads one key.
func (s *Store) Get(ctx context.Context, key string) (inventory.KV, error) {
	r, err := s.read(ctx, key)
	if err != nil {
		return inventory.KV{}, wrap("get "+key, err)
	}
	return one(key, r.Kvs), nil
}

// read reads, again where a member fell silent meanwhile: perhaps it was that one that was asked.
func (s *Store) read(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	for try := 0; ; try++ {
		one, cancel := s.bound(ctx)
		r, err := s.client.Get(one, key, opts...)
		again := err != nil && errors.Is(context.Cause(one), errSilent) && try < 3
		cancel()
		if !again {
			return r, err
		}
	}
}

// List reads the keys that begin with prefix.
func (s *Store) List(ctx context.Context, prefix string, o inventory.ListOptions) (inventory.Snapshot, error) {
	start, end := bounds(prefix)
	if o.After >= start {
		start = o.After + "\x00"
	}
	if o.Before != "" && (prefix == "" || o.Before < end) {
		end = o.Before
	}
	opts := []clientv3.OpOption{clientv3.WithRange(end), clientv3.WithRev(o.Rev), clientv3.WithLimit(int64(o.Limit))}
	if o.KeysOnly {
		opts = append(opts, clientv3.WithKeysOnly())
	}
	r, err := s.read(ctx, start, opts...)
	if err != nil {
		return inventory.Snapshot{}, wrap("list "+prefix, err)
	}
	snap := inventory.Snapshot{Rev: r.Header.Revision, More: r.More}
	if o.Rev != 0 {
		snap.Rev = o.Rev
	}
	for _, kv := range r.Kvs {
		got := fromKV(kv)
		if o.KeysOnly {
			got.Value = nil
		}
		snap.KVs = append(snap.KVs, got)
	}
	return snap, nil
}

// Commit does the transaction.
func (s *Store) Commit(ctx context.Context, t inventory.Txn) (inventory.Result, error) {
	if len(t.If) > inventory.MaxOps || len(t.Then) > inventory.MaxOps || len(t.Else) > inventory.MaxOps {
		return inventory.Result{}, fmt.Errorf("etcd: commit: %d conditions, %d writes, %d reads: at most %d of each",
			len(t.If), len(t.Then), len(t.Else), inventory.MaxOps)
	}
	ctx, cancel := s.bound(ctx)
	defer cancel()
	var ifs []clientv3.Cmp
	var thens, elses []clientv3.Op
	for _, c := range t.If {
		ifs = append(ifs, compare(c))
	}
	for _, op := range t.Then {
		if op.Value == nil {
			thens = append(thens, clientv3.OpDelete(op.Key))
		} else {
			thens = append(thens, clientv3.OpPut(op.Key, string(op.Value), clientv3.WithLease(clientv3.LeaseID(op.Lease))))
		}
	}
	for _, key := range t.Else {
		elses = append(elses, clientv3.OpGet(key))
	}
	r, err := s.client.Txn(ctx).If(ifs...).Then(thens...).Else(elses...).Commit()
	if err != nil {
		return inventory.Result{}, wrap("commit", err)
	}
	result := inventory.Result{Done: r.Succeeded, Rev: r.Header.Revision}
	if !r.Succeeded {
		for i, key := range t.Else {
			result.Else = append(result.Else, one(key, r.Responses[i].GetResponseRange().Kvs))
		}
	}
	return result, nil
}

// Compact drops revisions below rev. Dropping what is dropped already is no error.
func (s *Store) Compact(ctx context.Context, rev int64) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	_, err := s.client.Compact(ctx, rev)
	if err != nil && !errors.Is(err, rpctypes.ErrCompacted) {
		return wrap(fmt.Sprintf("compact to revision %d", rev), err)
	}
	return nil
}

// ping is a linearizable read, so it answers only where a quorum does.
func (s *Store) ping(ctx context.Context) error {
	_, err := s.Get(ctx, inventory.KeySchema)
	return err
}

func compare(c inventory.Cond) clientv3.Cmp {
	switch {
	case c.Prefix: // holds for an empty range too
		return clientv3.Compare(clientv3.ModRevision(c.Key), "<", c.Mod+1).WithPrefix()
	case c.Create != 0:
		return clientv3.Compare(clientv3.CreateRevision(c.Key), "=", c.Create)
	default: // an absent key has mod revision 0
		return clientv3.Compare(clientv3.ModRevision(c.Key), "=", c.Mod)
	}
}

// bounds is the range of keys that begin with prefix.
func bounds(prefix string) (start, end string) {
	if prefix == "" {
		return "\x00", "\x00" // etcd's way to write every key
	}
	return prefix, clientv3.GetPrefixRangeEnd(prefix)
}

func one(key string, kvs []*mvccpb.KeyValue) inventory.KV {
	if len(kvs) == 0 {
		return inventory.KV{Key: key}
	}
	return fromKV(kvs[0])
}

// fromKV keeps an empty value apart from none: the wire does not.
func fromKV(kv *mvccpb.KeyValue) inventory.KV {
	value := kv.Value
	if value == nil {
		value = []byte{}
	}
	return inventory.KV{Key: string(kv.Key), Value: value, Create: kv.CreateRevision, Mod: kv.ModRevision}
}
