package etcd

import (
	"context"
	"errors"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/hostler-project/hostler/inventory"
)

// A Status is what one member says of itself.
type Status struct {
	Endpoint string
	Version  string
	Size     int64    // bytes of the database file
	InUse    int64    // bytes of it that hold something; the rest is given back by a defragmentation
	Quota    int64    // bytes at which writes are refused
	Leader   bool     // this member leads
	Faults   []string // what it complains of: no leader, alarms such as NOSPACE
	Err      error    // it did not answer; the rest is empty then
}

// Status asks every member.
func (s *Store) Status(ctx context.Context) []Status {
	var all []Status
	for _, endpoint := range s.health.members {
		all = append(all, s.status(ctx, endpoint))
	}
	return all
}

func (s *Store) status(ctx context.Context, endpoint string) Status {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	r, err := s.client.Status(ctx, endpoint)
	if err != nil {
		return Status{Endpoint: endpoint, Err: wrap("status of "+endpoint, err)}
	}
	return Status{
		Endpoint: endpoint,
		Version:  r.Version,
		Size:     r.DbSize,
		InUse:    r.DbSizeInUse,
		Quota:    r.DbSizeQuota,
		Leader:   r.Leader != 0 && r.Leader == r.Header.MemberId,
		Faults:   r.Errors,
	}
}

// Compacted is the revision below which nothing is kept; 0 where nothing was ever compacted.
func (s *Store) Compacted(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	// A watch of the first revision is told at once what is gone, or gets the first event that is still there.
	r, ok := <-s.client.Watch(clientv3.WithRequireLeader(ctx), inventory.KeySchema, clientv3.WithRev(1))
	switch {
	case r.CompactRevision > 0:
		return r.CompactRevision, nil
	case !ok || r.Err() != nil:
		return 0, wrap("ask what is compacted", errors.Join(r.Err(), ctx.Err()))
	}
	return 0, nil
}
