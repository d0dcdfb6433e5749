package audit_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/audit"
	"github.com/hostler-project/hostler/inventory/memstore"
)

// A follower is an auditor that runs on a site's store, with a log that a test reads.
type follower struct {
	*audit.Auditor
	t   *testing.T
	mu  sync.Mutex
	log bytes.Buffer
}

func (f *follower) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.log.Write(b)
}

func (f *follower) logged(what string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Count(f.log.String(), what)
}

func follow(t *testing.T, s *site) *follower {
	f := &follower{t: t}
	ctx, stop := context.WithCancel(t.Context())
	f.Auditor = &audit.Auditor{Store: s.store, Options: audit.Options{CertificateKey: s.led.CertificateKey}, Now: time.Now, Log: slog.New(slog.NewTextHandler(f, nil)),
		Alert: func(ctx context.Context, b audit.Broken) error {
			return s.led.Raise(ctx, b.Node, audit.Source, audit.Alert(b))
		}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := f.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { stop(); <-done })
	f.until("the first list", func(v audit.Verdict) bool { return v.Lists > 0 })
	return f
}

func (f *follower) until(what string, holds func(audit.Verdict) bool) audit.Verdict {
	f.t.Helper()
	for range 500 {
		if v := f.Verdict(); holds(v) {
			return v
		}
		time.Sleep(10 * time.Millisecond)
	}
	f.t.Fatalf("not in 5 s: %s; %+v", what, f.Verdict())
	return audit.Verdict{}
}

// A breach is logged once, kept, and keeps the node from being rented until somebody looked; if it is still there then,
// it is found again.
func TestAuditorFollows(t *testing.T) {
	s := newSite(t)
	id := s.node()
	s.walk(id, inventory.BurnIn)
	f := follow(t, s)
	from := f.Verdict()
	if !from.OK || from.From != s.store.Rev() || from.Rev != s.store.Rev() || from.Counts.Nodes != 1 {
		t.Errorf("at the beginning: %+v", from)
	}
	onSale(s, id)
	v := f.until("all seen", func(v audit.Verdict) bool { return v.Rev == s.store.Rev() })
	if !v.OK || v.Counts.Transitions != 1 || v.Counts.Revisions != s.store.Rev()-from.Rev {
		t.Errorf("after an honest way: %+v", v)
	}
	breach := func() {
		edit(s, inventory.KeySession(id), func(sn *inventory.Session) { sn.Phase = inventory.SessionBurnt })
	}
	breach()
	v = f.until("the breach", func(v audit.Verdict) bool { return !v.OK })
	if len(v.Broken) != 1 || v.Broken[0].Invariant != "I4" || v.Broken[0].Node != id || v.Broken[0].Found.IsZero() {
		t.Errorf("%+v", v.Broken)
	}
	f.until("the alert", func(audit.Verdict) bool { return len(s.view(id).Health) == 1 })
	now := s.view(id)
	if a := now.Health[0].V.Alerts[0]; now.Avail.Exists() || now.Public.V.Rentable || a.ID != "audit:I4" || len(a.Classes) != 1 || a.Classes[0] != inventory.PreventAllocation || !strings.Contains(a.Next, "hostler audit") {
		t.Errorf("on offer %v, alert %+v", now.Avail.Exists(), a)
	}
	breach()
	f.until("all seen", func(v audit.Verdict) bool { return v.Rev == s.store.Rev() })
	if n := f.logged("level=ERROR"); n != 1 {
		t.Errorf("%d errors were logged for one breach", n)
	}
	s.must(s.led.Clear(t.Context(), id, audit.Source, "kim looked"))
	f.until("cleared", func(v audit.Verdict) bool { return v.Rev == s.store.Rev() })
	breach()
	f.until("found again", func(v audit.Verdict) bool { return !v.OK && len(s.view(id).Alerts("")) == 1 })
	if n := f.logged("level=ERROR"); n != 2 {
		t.Errorf("%d errors were logged", n)
	}
}

// A store that forgets, or is away, is read anew; what was found stays found.
func TestAuditorListsAgain(t *testing.T) {
	s := newSite(t)
	id := s.node()
	s.walk(id, inventory.InUse)
	f := follow(t, s)
	s.forge(id, phase("power-off", ""))
	f.until("the breach", func(v audit.Verdict) bool { return !v.OK && len(s.view(id).Health) == 1 })
	seen := f.Verdict().Counts.Revisions

	s.store.SetFault(func(memstore.Call) error { return fmt.Errorf("etcd: %w", inventory.ErrUnavailable) })
	s.store.CutWatches()
	time.Sleep(50 * time.Millisecond)
	s.store.SetFault(nil)
	s.forge(id, phase("running", ""))
	s.must(s.store.Compact(t.Context(), s.store.Rev()))
	v := f.until("a second list", func(v audit.Verdict) bool { return v.Lists == 2 && v.Rev == s.store.Rev() })
	if v.OK || len(v.Broken) != 1 || v.Counts.Nodes != 1 || v.Counts.Revisions < seen {
		t.Errorf("after listing again: %+v", v)
	}
}

// An alert that the store does not take is written when it does.
func TestAlertIsWrittenLater(t *testing.T) {
	s := newSite(t)
	id := s.node()
	s.walk(id, inventory.InUse)
	f := follow(t, s)
	var mu sync.Mutex
	refused := 0
	s.store.SetFault(func(c memstore.Call) error {
		mu.Lock()
		defer mu.Unlock()
		if c.Op == "commit" && refused < 2 && f.logged("level=ERROR") > 0 {
			refused++
			return fmt.Errorf("etcd: %w", inventory.ErrUnavailable)
		}
		return nil
	})
	s.forge(id, phase("power-off", ""))
	f.until("the alert", func(audit.Verdict) bool { return len(s.view(id).Health) == 1 })
	if n := f.logged("could not be written yet"); n != 1 {
		t.Errorf("said %d times that it waits", n)
	}
}
