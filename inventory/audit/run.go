package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/ledger"
)

// Source is the name under which an auditor's alerts stand among a node's health.
const Source = "audit"

// Alert is how a breach stands among its node's health: it may not be rented until a person looked. Nothing else is done
// to it: what broke the record may be wrong about the machine, and a tenant may be in it.
func Alert(b Broken) inventory.Alert {
	return inventory.Alert{ID: Source + ":" + b.Invariant, Classes: []string{inventory.PreventAllocation},
		What: fmt.Sprintf("invariant %s was broken at revision %d: %s", b.Invariant, b.Rev, b.What),
		Next: "read hostler audit; when you know why: hostler audit clear " + b.Node + " --reason TEXT"}
}

// States of a row of a Verdict.
const (
	RowOK      = "ok"
	RowPending = "pending"
	RowBroken  = "broken"
)

// An InvariantRow is one invariant of a Verdict.
type InvariantRow struct {
	Invariant
	State string `json:"state" enum:"ok,pending,broken"`
	Count int    `json:"count,omitempty"` // breaches that stand
}

// A Verdict is what an audit has found so far.
type Verdict struct {
	Counts
	OK         bool           `json:"ok"`
	Began      time.Time      `json:"began,omitzero"`     // when this walk began
	From       int64          `json:"from"`               // revision at which it began
	Rev        int64          `json:"rev"`                // revision up to which it came
	Heard      time.Time      `json:"heard,omitzero"`     // when the store last spoke
	Lists      int            `json:"lists,omitempty"`    // how often it had to list: what changed between two walks was not seen
	Listed     time.Time      `json:"last_list,omitzero"` // when it last did
	Invariants []InvariantRow `json:"invariants"`         //
	Broken     []Breach       `json:"broken"`             // those that stand, oldest first
	More       int            `json:"more,omitempty"`     // that are not kept
	Standing   []string       `json:"standing,omitempty"` // ids of nodes that an alert of an audit keeps from being rented
}

// A Breach is a broken invariant as an auditor keeps it.
type Breach struct {
	Broken
	Found time.Time `json:"found,omitzero"`
}

// maxBreaches is how many breaches are kept: whoever has so many needs no more.
const maxBreaches = 100

// note keeps what is new, and gives it. A breach that a node has already is the same one seen again.
func (v *Verdict) note(found []Broken, now time.Time) (fresh []Broken) {
	for _, b := range found {
		same := func(o Breach) bool { return o.Invariant == b.Invariant && o.Node == b.Node }
		switch {
		case slices.ContainsFunc(v.Broken, same):
			continue
		case len(v.Broken) >= maxBreaches:
			v.More++
			continue
		}
		v.Broken = append(v.Broken, Breach{b, now})
		fresh = append(fresh, b)
	}
	return fresh
}

// take fills the rest in.
func (v *Verdict) take(c *Checker) {
	v.Rev, v.Counts, v.OK = c.Rev(), c.Counts(), len(v.Broken)+v.More == 0
	v.Invariants = nil
	for _, i := range Invariants {
		r := InvariantRow{Invariant: i, State: RowOK}
		for _, b := range v.Broken {
			if b.Invariant == i.ID {
				r.Count++
			}
		}
		if r.Count > 0 {
			r.State = RowBroken
		} else if i.Pending != "" {
			r.State = RowPending
		}
		v.Invariants = append(v.Invariants, r)
	}
	if v.Broken == nil {
		v.Broken = []Breach{}
	}
}

// An Auditor walks the live record for as long as the daemon lives. It only reads; what it finds it logs once, keeps,
// and hands to Alert.
type Auditor struct {
	Store   inventory.Store
	Options Options
	Now     func() time.Time
	Log     *slog.Logger
	// Alert keeps the node from being rented until a person looked. Nil: nobody is told but the log.
	Alert func(ctx context.Context, b Broken) error // Raise of the ledger

	mu    sync.Mutex
	c     *Checker
	v     Verdict
	alert []Broken // not written yet
	wake  chan struct{}
}

// Verdict is what was found so far.
func (a *Auditor) Verdict() Verdict {
	a.mu.Lock()
	defer a.mu.Unlock()
	v := a.v
	v.Broken = slices.Clone(v.Broken)
	if a.c != nil {
		v.take(a.c)
	} else {
		v.take(New(a.Options))
	}
	return v
}

// Run walks until ctx ends: it lists everything, follows every change, lists again where the store forgot what came
// between, and waits for a store that is away.
func (a *Auditor) Run(ctx context.Context) error {
	a.mu.Lock()
	a.wake = make(chan struct{}, 1)
	a.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.alerts(ctx)
	}()
	for ctx.Err() == nil {
		err := a.follow(ctx)
		switch {
		case ctx.Err() != nil:
		case errors.Is(err, inventory.ErrCompacted):
			a.Log.Warn("the store forgot revisions before they were audited; the audit begins again from the present", "err", err)
		case !errors.Is(err, inventory.ErrUnavailable):
			a.Log.Warn("the audit is interrupted and begins again", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	<-done
	return nil
}

func (a *Auditor) follow(ctx context.Context) error {
	c := New(a.Options)
	c.begin()
	rev, err := pages(ctx, a.Store, 0, func(s inventory.Snapshot) error {
		for _, kv := range s.KVs {
			c.take(inventory.Event{KV: kv})
		}
		return nil
	})
	if err != nil {
		return err
	}
	a.began(c, rev)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	for b := range a.Store.Watch(ctx, inventory.Root, rev+1) {
		if b.Err != nil {
			return b.Err
		}
		a.batch(b)
	}
	return fmt.Errorf("audit: the watch ended: %w", inventory.ErrUnavailable)
}

// began makes a new walk the one that counts. What an earlier one found and counted stays.
func (a *Auditor) began(c *Checker, rev int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	found, now := c.loaded(rev), a.Now()
	if a.c != nil {
		c.counts.Revisions += a.c.counts.Revisions
		c.counts.Transitions += a.c.counts.Transitions
		if a.c.era > c.era {
			c.say("I12", nil, "the era went back from %s to %s", a.c.era, c.era)
			found = append(found, c.judge(rev)...)
		}
	} else {
		a.v.Began, a.v.From = now, rev
	}
	a.c = c
	a.v.Lists++
	a.v.Listed, a.v.Heard = now, now
	a.tell(a.v.note(found, now))
}

func (a *Auditor) batch(b inventory.Batch) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.Now()
	a.v.Heard = now
	for _, e := range b.Events {
		a.cleared(e)
	}
	a.tell(a.v.note(a.c.all(b), now))
}

// cleared forgets what was found of a node whose alert a person took away: found again, it is told again.
func (a *Auditor) cleared(e inventory.Event) {
	p := inventory.Parts(e.KV.Key)
	if len(p) != 3 || p[0] != "health" || p[2] != Source || e.Deleted {
		return
	}
	if h, ok := read[inventory.HealthReport](e); ok && len(h.Alerts) == 0 {
		a.v.Broken = slices.DeleteFunc(a.v.Broken, func(b Breach) bool { return b.Node == p[1] })
		a.alert = slices.DeleteFunc(a.alert, func(b Broken) bool { return b.Node == p[1] })
	}
}

// tell logs what is new, and has its alert written.
func (a *Auditor) tell(fresh []Broken) {
	for _, b := range fresh {
		var before []string
		for _, s := range b.Before {
			before = append(before, s.String())
		}
		a.Log.Error("an invariant is broken", "invariant", b.Invariant, "node", b.Node, "revision", b.Rev, "what", b.What, "before", strings.Join(before, "; "))
		if b.Node != "" && a.Alert != nil {
			a.alert = append(a.alert, b)
		}
	}
	if len(a.alert) > 0 && a.wake != nil {
		select {
		case a.wake <- struct{}{}:
		default:
		}
	}
}

// retryAlert is the pause after an alert that could not be written.
const retryAlert = time.Second

// alerts writes alerts beside the walk, until each is written.
func (a *Auditor) alerts(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.wake:
		}
		for failed := false; ; {
			a.mu.Lock()
			if len(a.alert) == 0 {
				a.mu.Unlock()
				break
			}
			b := a.alert[0]
			a.alert = a.alert[1:]
			a.mu.Unlock()
			err := a.Alert(ctx, b)
			switch {
			case err == nil, ctx.Err() != nil:
				failed = false
				continue
			case !errors.Is(err, inventory.ErrUnavailable) && !errors.Is(err, inventory.ErrNoSpace) && !errors.Is(err, ledger.ErrConflict):
				a.Log.Error("the alert about a broken invariant cannot be written", "node", b.Node, "err", err)
				continue
			}
			if !failed {
				a.Log.Warn("the alert about a broken invariant could not be written yet", "node", b.Node, "err", err)
			}
			failed = true
			a.mu.Lock()
			a.alert = append(a.alert, b)
			a.mu.Unlock()
			select {
			case <-ctx.Done():
				return
			case <-time.After(retryAlert):
			}
		}
	}
}
