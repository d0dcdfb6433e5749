package main

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/api"
	"github.com/hostler-project/hostler/inventory/doctor"
	"github.com/hostler-project/hostler/inventory/etcd"
)

// A monitor asks the store, time and again, whether it still takes writes, and remembers what doctor and /healthz tell:
// nobody should have to fail first to learn it.
type monitor struct {
	store inventory.Store
	copy  *inventory.Copy
	now   func() time.Time

	mu      sync.Mutex
	write   doctor.Write
	members []doctor.Member
	history doctor.History
	lag     doctor.Copy
	rivals  map[string]map[string]time.Time // segment → server → first seen
}

// Between two looks, for one try to write, and for the members: together under the ten seconds after which trouble shows.
const (
	lookEvery = time.Second
	writeFor  = 3 * time.Second
	lookFor   = 2 * time.Second
)

// membered is what a store with members can tell beside an inventory.Store; one in memory cannot.
type membered interface {
	Status(ctx context.Context) []etcd.Status
	Compacted(ctx context.Context) (int64, error)
}

func (m *monitor) run(ctx context.Context) error {
	for n := 0; ; n++ {
		m.look(ctx, n%60 == 1)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(lookEvery):
		}
	}
}

// look asks once; deep looks also ask what is rarely of interest.
func (m *monitor) look(ctx context.Context, deep bool) {
	m.tryWrite(ctx)
	ctx, stop := context.WithTimeout(ctx, lookFor)
	defer stop()
	s, ok := beneath(m.store).(membered)
	if ok {
		m.askMembers(ctx, s)
	}
	m.compare(ctx)
	if ok && deep {
		m.askHistory(ctx, s)
	}
}

func (m *monitor) tryWrite(ctx context.Context) {
	try, stop := context.WithTimeout(ctx, writeFor)
	defer stop()
	begin := m.now()
	err := inventory.Probe(try, m.store)
	w := doctor.Write{At: begin, Took: m.now().Sub(begin), Full: errors.Is(err, inventory.ErrNoSpace), Safe: errors.Is(err, inventory.ErrBehind)}
	if ctx.Err() != nil {
		return // the daemon ends
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		w.Err, w.Since = err.Error(), begin
		if m.write.Err != "" {
			w.Since = m.write.Since
		}
	}
	m.write = w
}

func (m *monitor) askMembers(ctx context.Context, s membered) {
	var members []doctor.Member
	for _, st := range s.Status(ctx) {
		d := doctor.Member{Endpoint: st.Endpoint, Version: st.Version, Size: st.Size, InUse: st.InUse, Quota: st.Quota, Leader: st.Leader, Faults: st.Faults}
		if st.Err != nil {
			d.Err = st.Err.Error()
		}
		members = append(members, d)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.members = members
}

// compare holds the copy against the store.
func (m *monitor) compare(ctx context.Context) {
	snap, err := m.store.List(ctx, inventory.PrefixMeta, inventory.ListOptions{Limit: 1, KeysOnly: true})
	if err != nil {
		return // the write before it said so
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	lag := doctor.Copy{Lag: max(snap.Rev-m.copy.Rev(), 0), Since: m.now()}
	if m.lag.Lag > 0 {
		lag.Since = m.lag.Since
	}
	m.lag, m.history.Revision = lag, snap.Rev
}

func (m *monitor) askHistory(ctx context.Context, s membered) {
	c, err := s.Compacted(ctx)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err == nil && c != m.history.Compacted {
		m.history.Compacted, m.history.Moved = c, m.now()
	}
}

// rival notes another DHCP server.
func (m *monitor) rival(segment string, server netip.Addr) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.rivals == nil {
		m.rivals = map[string]map[string]time.Time{}
	}
	if m.rivals[segment] == nil {
		m.rivals[segment] = map[string]time.Time{}
	}
	if len(m.rivals[segment]) < 8 && m.rivals[segment][server.String()].IsZero() {
		m.rivals[segment][server.String()] = m.now()
	}
}

// degraded says why the store takes no writes; nil while it does.
func (m *monitor) degraded() *api.Degraded {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.write.Err == "" {
		return nil
	}
	return &api.Degraded{Why: m.write.Err, Since: m.write.Since, Fix: "hostler doctor"}
}

// fill gives what is known to doctor.
func (m *monitor) fill(f *doctor.Facts) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f.Members, f.Write, f.History, f.Copy = m.members, m.write, m.history, m.lag
	for i, s := range f.Segments {
		for server, seen := range m.rivals[s.Name] {
			f.Segments[i].Rivals = append(f.Segments[i].Rivals, doctor.Rival{Server: server, Seen: seen})
		}
	}
}

// gauge is the metric of degraded mode.
func (m *monitor) gauge() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "hostler_store_writable", Help: "1 while the store takes writes, 0 while it does not (full, no quorum, away)."}, func() float64 {
		if m.degraded() != nil {
			return 0
		}
		return 1
	})
}
