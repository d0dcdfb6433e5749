package ledger_test

import (
	"testing"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/ledger"
	"github.com/hostler-project/hostler/inventory/lifecycle"
)

// ail makes a node one that became unhealthy an hour ago.
func (s *site) ail(id string) {
	s.t.Helper()
	st := s.view(id).State.V
	st.Unwell = inventory.Unwell{Since: s.now.Add(-time.Hour), By: inventory.BySilence}
	s.put(inventory.KeyState(id), st)
}

// The trouble of a node is over when it is proven well (ready, or its tenant's) or somebody has looked (out of
// quarantine), and by no other move; when it began stays in the record.
func TestWhichMovesEndATrouble(t *testing.T) {
	for _, e := range edges() {
		if e.On == lifecycle.Restored {
			continue // what happened since the backup is not known
		}
		s := newSite(t)
		id := s.place(e.From)
		s.ail(id)
		_, err := s.led.Move(t.Context(), s.view(id), e.On, change)
		s.must(err)
		over := false
		switch {
		case e.To == inventory.Ready, e.To == inventory.InUse:
			over = true
		case e.From == inventory.Quarantined:
			over = true
		}
		if got := s.view(id).State.V.Unwell; got.Over != over || !got.Since.Equal(s.now.Add(-time.Hour)) || got.By != inventory.BySilence {
			t.Errorf("%s on %s: %+v, want over %v", e.From, e.On, got, over)
		}
	}
}

// An agent that speaks again ends the trouble, but not that of a quarantined node: there somebody has to look.
func TestWhichNotesEndATrouble(t *testing.T) {
	for _, c := range []struct {
		name     string
		state    inventory.State
		was, now string
		over     bool
	}{
		{"speaks again", inventory.Ready, inventory.Silent, inventory.Alive, true},
		{"has spoken all along", inventory.Ready, inventory.Alive, inventory.Alive, false},
		{"falls silent", inventory.Ready, inventory.Alive, inventory.Silent, false},
		{"stays silent", inventory.Ready, inventory.Unknown, inventory.Silent, false},
		{"speaks again in quarantine", inventory.Quarantined, inventory.Silent, inventory.Alive, false},
	} {
		s := newSite(t)
		id := s.place(c.state)
		s.ail(id)
		st := s.view(id).State.V
		st.Alive = c.was
		s.put(inventory.KeyState(id), st)
		ch := change
		ch.Edit = func(st *inventory.NodeState) { st.Alive = c.now }
		_, err := s.led.Note(t.Context(), s.view(id), ch)
		s.must(err)
		if got := s.view(id).State.V.Unwell; got.Over != c.over {
			t.Errorf("%s: %+v, want over %v", c.name, got, c.over)
		}
	}
}

// One trouble is told once: a node that is unwell does not become so again, one that was well in between does.
func TestATroubleIsToldOnce(t *testing.T) {
	s := newSite(t)
	id := s.place(inventory.Ready)
	falls := func(by string) inventory.Unwell {
		s.now = s.now.Add(time.Minute)
		_, err := s.led.Note(t.Context(), s.view(id), ledger.Change{Actor: "kim", Reason: "because", Unwell: by})
		s.must(err)
		return s.view(id).State.V.Unwell
	}
	first := falls(inventory.BySilence)
	if !first.Since.Equal(s.now) || first.By != inventory.BySilence || first.Over {
		t.Errorf("the first: %+v", first)
	}
	if again := falls(inventory.ByLoss); again != first {
		t.Errorf("what follows from it: %+v", again)
	}
	_, err := s.led.Move(t.Context(), s.view(id), lifecycle.Quarantine, change)
	s.must(err)
	_, err = s.led.Move(t.Context(), s.view(id), lifecycle.Return, change)
	s.must(err)
	if next := falls(inventory.ByNoBoot); next.By != inventory.ByNoBoot || !next.Since.Equal(s.now) || next.Over {
		t.Errorf("the next: %+v", next)
	}
	s.whole()
}
