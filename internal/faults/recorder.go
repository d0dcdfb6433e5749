package faults

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync"
	"time"

	"github.com/hostler-project/hostler/inventory"
)

// A Recorder watches everything that etcd stores, from before the first daemon on.
type Recorder struct {
	mu           sync.Mutex
	rev          int64
	revisions    int
	err          error
	reservations map[string]map[string]bool // id → phases that were stored
	nodeOf       map[string]string          // reservation → node
	claimed      map[string]string          // node → reservation of its claim, as of rev
	publics      []told
	moves        int                     // of nodes, from state to state
	terms        map[string][]termChange // shard key → when who held it
	judge        *judge
	cancel       context.CancelFunc
	done         chan struct{}
}

// A termChange is a shard's key as it was created anew: At is when the recorder saw it.
type termChange struct {
	At     time.Time
	Create int64
	Value  string // the replica
}

// record starts watching: first what is there, then every revision.
func record(ctx context.Context, s inventory.Store, keys *Keys) (*Recorder, error) {
	r := &Recorder{reservations: map[string]map[string]bool{}, nodeOf: map[string]string{}, claimed: map[string]string{}, terms: map[string][]termChange{}, done: make(chan struct{})}
	snap, err := s.List(ctx, inventory.Root, inventory.ListOptions{})
	if err != nil {
		return nil, err
	}
	r.judge = newJudge(keys)
	if err := r.judge.load(snap); err != nil {
		return nil, fmt.Errorf("faults: the seed breaks an invariant: %w", err)
	}
	r.rev = snap.Rev
	ctx, r.cancel = context.WithCancel(ctx)
	batches := s.Watch(ctx, inventory.Root, snap.Rev+1)
	go func() {
		defer close(r.done)
		for b := range batches {
			r.take(b)
		}
	}()
	return r, nil
}

func (r *Recorder) take(b inventory.Batch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if b.Err != nil {
		r.err = fmt.Errorf("faults: the recorder's watch ended at revision %d: %w", b.Rev, b.Err)
		return
	}
	last := r.rev
	for _, e := range b.Events {
		if e.KV.Mod < last {
			r.err = fmt.Errorf("faults: the recorder's watch went back from revision %d to %d", last, e.KV.Mod)
		}
		if e.KV.Mod > last {
			r.revisions++
			last = e.KV.Mod
		}
		r.event(e)
	}
	r.rev = max(b.Rev, last)
	r.judge.apply(b)
}

func (r *Recorder) event(e inventory.Event) {
	p := inventory.Parts(e.KV.Key)
	switch {
	case len(p) == 3 && p[0] == "reservations":
		v, err := inventory.Decode[inventory.Reservation](e.KV)
		if err != nil || e.Deleted {
			return
		}
		if r.reservations[v.V.ID] == nil {
			r.reservations[v.V.ID] = map[string]bool{}
		}
		r.reservations[v.V.ID][v.V.Phase] = true
		if old := r.nodeOf[v.V.ID]; old != "" && old != v.V.Node {
			r.err = fmt.Errorf("faults: reservation %s moved from node %s to %s", v.V.ID, old, v.V.Node)
		}
		r.nodeOf[v.V.ID] = v.V.Node
	case len(p) == 2 && p[0] == "claims":
		if e.Deleted {
			delete(r.claimed, p[1])
			return
		}
		v, err := inventory.Decode[inventory.Claim](e.KV)
		if err != nil {
			return
		}
		if old := r.claimed[p[1]]; old != "" && old != v.V.Reservation {
			r.err = fmt.Errorf("faults: double claim: node %s was %s's and became %s's at revision %d", p[1], old, v.V.Reservation, e.KV.Mod)
		}
		r.claimed[p[1]] = v.V.Reservation
	case len(p) == 2 && p[0] == "public":
		t := told{rev: e.KV.Mod, node: p[1]}
		if !e.Deleted {
			t.sum = sha256.Sum256(e.KV.Value)
		}
		r.publics = append(r.publics, t)
	case len(p) == 2 && p[0] == "shards" && !e.Deleted && e.KV.Create == e.KV.Mod:
		if v, err := inventory.Decode[inventory.ShardOwner](e.KV); err == nil {
			r.terms[e.KV.Key] = append(r.terms[e.KV.Key], termChange{time.Now(), e.KV.Create, v.V.Replica})
		}
	case len(p) == 3 && p[0] == "history" && !e.Deleted:
		if v, err := inventory.Decode[inventory.History](e.KV); err == nil && v.V.Kind == "transition" {
			r.moves++
		}
	}
}

// Reach waits until the recorder has seen a revision.
func (r *Recorder) Reach(ctx context.Context, rev int64, limit time.Duration) error {
	for end := time.Now().Add(limit); ; sleep(ctx, 20*time.Millisecond) {
		r.mu.Lock()
		at, err := r.rev, r.err
		r.mu.Unlock()
		switch {
		case err != nil:
			return err
		case at >= rev:
			return nil
		case time.Now().After(end):
			return fmt.Errorf("faults: the recorder is at revision %d, not %d", at, rev)
		}
	}
}

// Broken is what was found to be wrong so far.
func (r *Recorder) Broken() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return r.err
	}
	return r.judge.broken()
}

// Moves is how many transitions were written.
func (r *Recorder) Moves() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.moves
}

// Lost compares what clients were told with what was stored, and lists what was acknowledged and is not there.
func (r *Recorder) Lost(ops []Op) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, o := range ops {
		phases := r.reservations[o.Reservation]
		switch {
		case o.Outcome != OK:
		case o.Kind == claimOp && !phases[inventory.Pending]:
			out = append(out, fmt.Sprintf("claim %s at %v", o.Reservation, o.Return))
		case o.Kind == claimOp && r.nodeOf[o.Reservation] != o.Node:
			out = append(out, fmt.Sprintf("claim %s was told node %s, stored is %s", o.Reservation, o.Node, r.nodeOf[o.Reservation]))
		case o.Kind == releaseOp && !phases[inventory.Released]:
			out = append(out, fmt.Sprintf("release %s at %v", o.Reservation, o.Return))
		}
	}
	return out
}

// Node is the node that a reservation was stored for; "" where none was.
func (r *Recorder) Node(reservation string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.nodeOf[reservation]
}

// Rev is the revision up to which everything was seen.
func (r *Recorder) Rev() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rev
}

// Publics are all changes of public records so far.
func (r *Recorder) Publics() []told {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.publics
}

// stopRecording ends the watch: what comes after is another history.
func (r *Recorder) stopRecording() {
	r.cancel()
	<-r.done
}
