package sim

import (
	"errors"
	"fmt"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/memstore"
)

// errLost is a request or an answer that the network lost: the outcome is unknown to the caller.
var errLost = fmt.Errorf("the network lost it: %w", inventory.ErrUnavailable)

// hook is asked before every call of the store, and for a commit once more when it took effect. This is where code waits
// for the store, where others come in between, and where the store fails.
func (s *Sim) hook(c memstore.Call) error {
	if s.store.Rev() != s.checked { // by this commit, or by a lease that ended
		s.written()
	}
	p := s.cur
	if p == nil {
		return nil // the site's own declarations, and the checks
	}
	if p.dead {
		return inventory.ErrUnavailable
	}
	latency := s.between(200*time.Microsecond, 4*time.Millisecond)
	if s.maybe("store slow") {
		latency = s.between(100*time.Millisecond, 3*time.Second)
	}
	if !s.wait(latency) {
		return inventory.ErrUnavailable
	}
	if s.away > s.mono { // a client gives up after a few seconds
		s.wait(min(s.away-s.mono, 5*time.Second))
		return inventory.ErrUnavailable
	}
	switch {
	case c.Op == "commit" && c.After && s.maybe("answer lost"):
		s.wait(s.upTo(2 * time.Second))
		return errLost
	case c.Op == "commit" && !c.After && s.maybe("request late"):
		// The caller gives up, and the store does it all the same, later.
		s.after(s.upTo(10*time.Second), func() {
			if r, err := s.store.Commit(bg, c.Txn); err == nil && r.Done {
				s.seen["late request took effect"]++
			}
		})
		s.wait(s.upTo(2 * time.Second))
		return errLost
	case !c.After && s.maybe("request lost"):
		s.wait(s.upTo(2 * time.Second))
		return errLost
	}
	return nil
}

// written takes in what a commit wrote: it goes into the hash, past the checker, against the truth and to the watchers.
func (s *Sim) written() {
	batches, err := s.store.Since(s.checked + 1)
	if err != nil {
		s.must(err)
		return
	}
	for _, b := range batches {
		s.checked = b.Rev
		for _, e := range b.Events {
			fmt.Fprintf(s.hash, "%d %s %v %s\n", e.KV.Mod, e.KV.Key, e.Deleted, e.KV.Value)
		}
		if broken := s.checker.Apply(b); broken != nil {
			s.fail("%w", broken)
		}
		s.recorded(b)
	}
	if len(batches) > 0 {
		for _, r := range s.replicas {
			r.watchSoon()
		}
	}
}

// compact drops the past, sometimes more of it than a copy has seen.
func (s *Sim) compact() {
	if err := s.store.Compact(bg, s.store.Rev()); err != nil && !errors.Is(err, inventory.ErrUnavailable) {
		s.must(err)
	}
}

// fill makes the store full for a while: NOSPACE, deletes still work.
func (s *Sim) fill() {
	s.store.SetFull(true)
	s.after(s.between(time.Second, 2*time.Minute), func() { s.store.SetFull(false) })
}
