package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/hostler-project/hostler/inventory"
)

// Grant makes a lease. etcd counts in seconds, and gives at least one and a half times its election timeout.
func (s *Store) Grant(ctx context.Context, ttl time.Duration) (int64, error) {
	ctx, cancel := s.bound(ctx)
	defer cancel()
	r, err := s.client.Grant(ctx, int64((ttl+time.Second-1)/time.Second))
	if err != nil {
		return 0, wrap("grant a lease", err)
	}
	return int64(r.ID), nil
}

// KeepAlive renews a lease once. The client's own keeping alive is not used: its channel is no witness (etcd issue
// 9921, trillian issue 2654), a request with a deadline and an answer is.
func (s *Store) KeepAlive(ctx context.Context, lease int64) error {
	ctx, cancel := s.bound(ctx)
	defer cancel()
	if _, err := s.client.KeepAliveOnce(ctx, clientv3.LeaseID(lease)); err != nil {
		return wrap(fmt.Sprintf("keep lease %x alive", lease), err)
	}
	return nil
}

// Revoke ends a lease and deletes its keys.
func (s *Store) Revoke(ctx context.Context, lease int64) error {
	ctx, cancel := s.bound(ctx)
	defer cancel()
	_, err := s.client.Revoke(ctx, clientv3.LeaseID(lease))
	if err == nil {
		return nil
	}
	if err = wrap(fmt.Sprintf("revoke lease %x", lease), err); errors.Is(err, inventory.ErrNoLease) {
		return nil
	}
	return err
}
