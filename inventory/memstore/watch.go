package memstore

import (
	"context"
	"fmt"
	"strings"

	"github.com/hostler-project/hostler/inventory"
)

// A watcher is what Commit hands events to; its pump takes them out. What waits is not bounded, as in etcd's client.
type watcher struct {
	prefix string
	from   int64
	wake   chan struct{} // holds one token while there is something to take
	told   int64         // up to here the pump has sent
	rev    int64         // up to here waiting is complete
	wait   []inventory.Event
	err    error
}

func (w *watcher) add(rev int64, events []inventory.Event) {
	for _, ev := range events {
		if ev.KV.Mod >= w.from && strings.HasPrefix(ev.KV.Key, w.prefix) {
			w.wait = append(w.wait, clone(ev))
		}
	}
	if w.rev = rev; rev >= w.from {
		w.poke()
	}
}

func (w *watcher) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Watch sends every change under prefix from revision from on. It is told of revisions that did not touch the prefix by
// batches without events. Like etcd, it may put several revisions in one Batch, and waits for a revision yet to come.
func (s *Store) Watch(ctx context.Context, prefix string, from int64) <-chan inventory.Batch {
	out := make(chan inventory.Batch)
	w := &watcher{prefix: prefix, from: max(from, 1), wake: make(chan struct{}, 1)}
	w.told = w.from - 1
	s.mu.Lock()
	if w.from < s.compacted {
		w.err = fmt.Errorf("memstore: watch %q from revision %d: %w", prefix, w.from, inventory.ErrCompacted)
		w.poke()
	} else {
		w.add(s.rev, s.log[s.since(w.from):])
		s.watchers[w] = struct{}{}
	}
	s.mu.Unlock()
	go s.pump(ctx, w, out)
	return out
}

// CutWatches ends every running watch with ErrCompacted, as a compaction under a slow watcher does.
func (s *Store) CutWatches() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for w := range s.watchers {
		w.err = fmt.Errorf("memstore: watch %q was cut: %w", w.prefix, inventory.ErrCompacted)
		w.poke()
	}
}

func (s *Store) pump(ctx context.Context, w *watcher, out chan<- inventory.Batch) {
	defer close(out)
	defer func() {
		s.mu.Lock()
		delete(s.watchers, w)
		s.mu.Unlock()
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		}
		s.mu.Lock()
		b := inventory.Batch{Rev: w.rev, Events: w.wait, Err: w.err}
		w.wait = nil
		s.mu.Unlock()
		if b.Err == nil && b.Rev <= w.told {
			continue
		}
		if b.Err != nil { // what was not sent yet is lost with the watch
			b = inventory.Batch{Rev: w.told, Err: b.Err}
		}
		select {
		case <-ctx.Done():
			return
		case out <- b:
		}
		if w.told = b.Rev; b.Err != nil {
			return
		}
	}
}
