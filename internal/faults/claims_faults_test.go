//go:build faults

package faults

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/etcd"
)

// replicas is how many daemons a site has.
const replicas = 2

// gapLimit is P5: claims are unavailable at most this long when etcd's leader is lost.
const gapLimit = 5 * time.Second

// A storm is a site under claims, to which faults happen.
type storm struct {
	*testing.T
	*Site
	c *Clients
}

// every does a fault n times and has it undone; between two the clients must have got through again. gap is the longest
// time in which they did not, limit what it may be; 0 for a fault that takes the service away on purpose.
func (s *storm) every(name string, n int, limit time.Duration, do func() (undo func())) {
	s.Helper()
	before, fired := s.c.Count(), 0
	var longest time.Duration
	for range n {
		must(s.T, s.c.Acked(s.Context(), 20*time.Second))
		began := time.Now()
		undo := do()
		fired++
		if limit == 0 {
			undo()
		}
		err := s.c.Acked(s.Context(), 20*time.Second)
		longest = max(longest, s.c.Gap(began))
		if limit > 0 {
			undo()
		}
		must(s.T, err)
	}
	result := "ok"
	if limit > 0 && longest > limit {
		result = fmt.Sprintf("LONGER THAN %v", limit)
		s.Errorf("%s: %v without an acknowledged claim or release", name, longest)
	}
	table.Add(Row{name, fired, s.c.Count() - before, longest, result})
}

// Clients claim few nodes while the store and the daemon break under them.
func TestClaims(t *testing.T) {
	site := open(t, Options{Daemons: replicas, Quick: 32})
	s := &storm{t, site, site.Clients(t.Context(), 8, Quick, false)}
	must(t, s.c.Acked(t.Context(), 30*time.Second))
	watchers := site.Watch(t.Context(), 4)

	began, n := time.Now(), s.c.Count()
	time.Sleep(10 * time.Second)
	table.Add(Row{"none, 8 clients", 0, s.c.Count() - n, s.c.Gap(began), "ok"})
	more := site.Clients(t.Context(), 56, Quick, false)
	began = time.Now()
	time.Sleep(45 * time.Second)
	table.Add(Row{"none, 64 clients", 0, more.Count(), more.Gap(began), "ok"})
	ops := more.End()
	s.c.Grow(24)

	s.every("etcd leader SIGKILL (F-05)", 5, gapLimit, func() func() {
		m := s.leader()
		m.Kill()
		return func() { must(t, m.Start()) }
	})
	s.every("etcd leader SIGSTOP (F-05)", 5, gapLimit, func() func() {
		m := s.leader()
		must(t, m.Stop())
		return func() { time.Sleep(time.Second); must(t, m.Continue()) }
	})
	s.every("answers of etcd's leader lost (F-06)", 2, 2*gapLimit, func() func() {
		m := s.leader()
		must(t, m.Client.Toxic("timeout", "downstream", map[string]any{"timeout": 0}))
		s.deaf(m)
		return m.Client.Heal
	})
	s.every("one etcd member cut off from all", 2, gapLimit, func() func() {
		m := s.leader()
		m.Client.Cut()
		m.Peer.Cut()
		s.deaf(m)
		return func() { must(t, m.Client.Join()); must(t, m.Peer.Join()) }
	})
	s.every("etcd slow: 300 ms each way", 1, gapLimit, func() func() {
		for _, m := range s.Cluster.Members {
			must(t, m.Client.Toxic("latency", "downstream", map[string]any{"latency": 300, "jitter": 50}))
		}
		if took := s.ask(s.Cluster.Members[0]); took < 200*time.Millisecond {
			t.Errorf("a read through the slow line took only %v", took)
		}
		time.Sleep(8 * time.Second)
		return func() {
			for _, m := range s.Cluster.Members {
				m.Client.Heal()
			}
		}
	})
	s.every("all of etcd down for 10 s (F-07)", 1, 0, func() func() {
		for _, m := range s.Cluster.Members {
			m.Kill()
		}
		s.failClosed()
		return func() {
			for _, m := range s.Cluster.Members {
				must(t, m.Start())
			}
		}
	})
	s.every("compaction every 100 ms (F-10)", 1, gapLimit, func() func() {
		for i := range 100 {
			if i == 30 || i == 60 { // whoever watches has to come back to a revision that is gone
				for _, m := range s.Cluster.Members {
					m.Client.Cut()
				}
				time.Sleep(500 * time.Millisecond)
			}
			must(t, s.Store.Compact(t.Context(), s.Recorder.Rev())) // not under the recorder itself
			for _, m := range s.Cluster.Members {
				must(t, m.Client.Join())
			}
			time.Sleep(100 * time.Millisecond)
		}
		if _, err := s.Store.List(t.Context(), inventory.PrefixMeta, inventory.ListOptions{Rev: 10}); err == nil {
			t.Error("revision 10 can still be read")
		}
		return func() {}
	})
	killed := 0
	s.every("hostlerd SIGKILL, one of two, started again", 6, 2*gapLimit, func() func() {
		d := s.Daemons[killed%replicas]
		killed++
		d.Kill()
		return func() { must(t, d.Start()) }
	})
	ops = append(ops, s.c.End()...)
	verdict(t, site, ops)
	heard, cuts, relisted, merged, wrong := watchers.End()
	table.Say("watches: %d changes heard by 4 watchers, %d cuts taken up again, %d lists after 410, %d batches of a daemon that had to list again itself; out of order, missing or twice: %d", heard, cuts, relisted, merged, len(wrong))
	for _, w := range wrong {
		t.Errorf("watch: %s", w)
	}
	if heard == 0 || cuts == 0 {
		t.Error("the watchers heard nothing, or were never cut off")
	}
}

func (s *storm) leader() *Member {
	s.Helper()
	m, err := s.Cluster.Leader(s.Context(), 10*time.Second)
	must(s.T, err)
	return m
}

// ask reads through a member's proxy, as a daemon does, and says how long it took; 0 when there was no answer.
func (s *storm) ask(m *Member) time.Duration {
	c, err := etcd.Open(expired(), etcd.Config{Endpoints: []string{"http://" + m.Client.Addr}, Timeout: 1500 * time.Millisecond}, quiet)
	must(s.T, err)
	defer c.Close()
	began := time.Now()
	if _, err := c.Get(context.WithoutCancel(s.Context()), inventory.KeySchema); err != nil {
		return 0
	}
	return time.Since(began)
}

// deaf makes sure that a member does not answer those who dial its proxy.
func (s *storm) deaf(m *Member) {
	s.Helper()
	if s.ask(m) > 0 {
		s.Errorf("%s still answers through its proxy", m.Name)
	}
}

// failClosed is what must be while all of etcd is away: no write is acknowledged, the API says 503 and why, reads come from
// the copy.
func (s *storm) failClosed() {
	s.Helper()
	began := time.Now()
	time.Sleep(time.Second) // answers that were on their way
	acked := s.c.acked()
	for time.Since(began) < 10*time.Second {
		time.Sleep(500 * time.Millisecond)
	}
	if n := s.c.acked() - acked; n > 0 {
		s.Errorf("%d writes were acknowledged while all of etcd was down", n)
	}
}
