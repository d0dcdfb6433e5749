package memstore

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hostler-project/hostler/inventory"
)

// A lease is what keys hang on until it ends.
type lease struct {
	ttl   time.Duration
	until time.Time
	keys  map[string]struct{}
}

// SetClock has leases end by now; nil is the machine's clock. A lease ends in the first call after its time, so that a
// run by a simulated clock repeats exactly.
func (s *Store) SetClock(now func() time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = now
}

func (s *Store) clock() time.Time {
	if s.now == nil {
		return time.Now()
	}
	return s.now()
}

// Grant makes a lease.
func (s *Store) Grant(ctx context.Context, ttl time.Duration) (int64, error) {
	if err := s.before(ctx, Call{Op: "grant"}); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.full {
		return 0, fmt.Errorf("memstore: grant a lease: %w", inventory.ErrNoSpace)
	}
	s.granted++
	ttl = (ttl + time.Second - 1).Truncate(time.Second)
	s.leases[s.granted] = &lease{ttl: ttl, until: s.clock().Add(ttl), keys: map[string]struct{}{}}
	return s.granted, nil
}

// KeepAlive renews a lease once.
func (s *Store) KeepAlive(ctx context.Context, id int64) error {
	if err := s.before(ctx, Call{Op: "keepalive"}); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.leases[id]
	if l == nil {
		return fmt.Errorf("memstore: keep lease %d alive: %w", id, inventory.ErrNoLease)
	}
	l.until = s.clock().Add(l.ttl)
	return nil
}

// Revoke ends a lease and deletes its keys.
func (s *Store) Revoke(ctx context.Context, id int64) error {
	if err := s.before(ctx, Call{Op: "revoke"}); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end(id)
	return nil
}

// expire ends what nobody renewed.
func (s *Store) expire() {
	if len(s.leases) == 0 {
		return
	}
	now := s.clock()
	for _, id := range slices.Sorted(maps.Keys(s.leases)) {
		if now.After(s.leases[id].until) {
			s.end(id)
		}
	}
}

// end deletes a lease's keys at one revision.
func (s *Store) end(id int64) {
	l := s.leases[id]
	if l == nil {
		return
	}
	delete(s.leases, id)
	var drop []inventory.Op
	for _, key := range slices.Sorted(maps.Keys(l.keys)) {
		drop = append(drop, inventory.Delete(key))
	}
	s.apply(drop)
}

// hang ties a written key to its lease, and frees it of the one before.
func (s *Store) hang(op inventory.Op) {
	for _, l := range s.leases {
		delete(l.keys, op.Key)
	}
	if op.Value != nil && op.Lease != 0 {
		s.leases[op.Lease].keys[op.Key] = struct{}{}
	}
}
