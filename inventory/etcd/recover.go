package etcd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/hostler-project/hostler/inventory"
)

// maintainFor bounds one act of maintenance: a defragmentation rewrites the whole database.
const maintainFor = 5 * time.Minute

// Recover gives a store that is full its space back, and then its writes: history is compacted to the present revision,
// every member is defragmented, one after the other, the NOSPACE alarm is disarmed, and a write that is not kept proves
// it. In that order: disarmed before the space is there, the alarm would come again at once. It changes no record, works
// beside whoever uses the store, and may be called again at any time. say hears each step when it is done.
func (s *Store) Recover(ctx context.Context, say func(string)) error {
	tell := func(format string, a ...any) { say(fmt.Sprintf(format, a...)) }
	rev, err := s.compactAll(ctx)
	if err != nil {
		return err
	}
	tell("history before revision %d is dropped", rev)

	members, err := s.members(ctx)
	if err != nil {
		return err
	}
	var failed error
	for _, m := range members {
		before := s.status(ctx, m)
		if err := s.defragment(ctx, m); err != nil {
			tell("member %s is not defragmented: %v", m, err)
			failed = errors.Join(failed, err)
			continue
		}
		after := s.status(ctx, m)
		tell("member %s is defragmented: %d bytes, were %d, of %d", m, after.Size, before.Size, after.Quota)
	}
	if n, err := s.disarm(ctx); err != nil {
		return errors.Join(failed, err)
	} else if n > 0 {
		tell("the NOSPACE alarm of %d member(s) is disarmed", n)
	}
	if err := inventory.Probe(ctx, s); err != nil {
		if errors.Is(err, inventory.ErrNoSpace) {
			err = fmt.Errorf("the records alone fill the quota: set a larger etcd.quota and start again: %w", err)
		}
		return errors.Join(failed, err)
	}
	tell("the store takes writes")
	return failed
}

func (s *Store) compactAll(ctx context.Context) (int64, error) {
	kv, err := s.List(ctx, inventory.PrefixMeta, inventory.ListOptions{Limit: 1, KeysOnly: true})
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, maintainFor)
	defer cancel()
	// Physical: it returns when the space is free inside the file, which the defragmentation then gives back.
	_, err = s.client.Compact(ctx, kv.Rev, clientv3.WithCompactPhysical())
	if err != nil && !errors.Is(err, rpctypes.ErrCompacted) {
		return 0, wrap(fmt.Sprintf("compact to revision %d", kv.Rev), err)
	}
	return kv.Rev, nil
}

// members are the addresses of all members, also of those that are not among the endpoints we were given; where they
// are, by the address that we were given.
func (s *Store) members(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	list, err := s.client.MemberList(ctx)
	if err != nil {
		return nil, wrap("list members", err)
	}
	given := map[uint64]string{}
	for _, endpoint := range s.health.members {
		if r, err := s.client.Status(ctx, endpoint); err == nil {
			given[r.Header.MemberId] = cmp.Or(given[r.Header.MemberId], endpoint)
		}
	}
	var out []string
	for _, m := range list.Members {
		switch {
		case given[m.ID] != "":
			out = append(out, given[m.ID])
		case len(m.ClientURLs) > 0:
			out = append(out, m.ClientURLs[0])
		}
	}
	return out, nil
}

func (s *Store) defragment(ctx context.Context, endpoint string) error {
	ctx, cancel := context.WithTimeout(ctx, maintainFor)
	defer cancel()
	if _, err := s.client.Defragment(ctx, endpoint); err != nil {
		return wrap("defragment "+endpoint, err)
	}
	return nil
}

// disarm ends NOSPACE alarms. Others (a corrupt member) are not for a program to end.
func (s *Store) disarm(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	list, err := s.client.AlarmList(ctx)
	if err != nil {
		return 0, wrap("list alarms", err)
	}
	n := 0
	for _, a := range list.Alarms {
		if a.Alarm != pb.AlarmType_NOSPACE {
			continue
		}
		if _, err := s.client.AlarmDisarm(ctx, (*clientv3.AlarmMember)(a)); err != nil {
			return n, wrap("disarm the NOSPACE alarm", err)
		}
		n++
	}
	return n, nil
}
