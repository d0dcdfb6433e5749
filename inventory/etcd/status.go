package etcd

import "context"

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
	for _, endpoint := range s.client.Endpoints() {
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
