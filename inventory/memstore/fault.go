package memstore

import (
	"context"
	"fmt"

	"github.com/hostler-project/hostler/inventory"
)

// A Call is one use of the store, as a fault function sees it.
type Call struct {
	Op    string        // get, list, commit, compact, grant, keepalive, revoke
	Key   string        // get: the key; list: the prefix
	Txn   inventory.Txn // commit
	After bool          // commit: it has taken effect already
}

// SetFault has f asked before every call, and for a commit once more after it took effect. What f returns is returned to
// the caller wrapped, so inventory.ErrUnavailable from the first place is an outcome that did not happen, from the second
// one that did, and the caller cannot tell. f runs without the lock: it may use the store, to be the writer who comes in
// between. nil removes it.
func (s *Store) SetFault(f func(Call) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

// SetFull switches etcd's NOSPACE state: transactions with a write get ErrNoSpace, reads and deletions still work.
func (s *Store) SetFull(full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.full = full
}

func (s *Store) before(ctx context.Context, c Call) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("memstore: %s: %w: %w", c.Op, inventory.ErrUnavailable, err)
	}
	s.mu.Lock()
	if !c.After {
		s.expire()
	}
	f := s.fault
	s.mu.Unlock()
	if f == nil {
		return nil
	}
	if err := f(c); err != nil {
		return fmt.Errorf("memstore: %s: %w", c.Op, err)
	}
	return nil
}
