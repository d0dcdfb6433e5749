package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/hostler-project/hostler/inventory"
)

// rewatch is the pause before a watch that lost the cluster's leader is made again.
const rewatch = 500 * time.Millisecond

// Watch sends every change under prefix from revision from on. While nothing happens a batch without events comes from
// time to time (EmbeddedConfig.Progress; 10 minutes in a cluster with etcd's defaults), with the revision up to which the
// watch is complete, which may be the same again: so a reader knows that it still hears. Outages are passed over: it goes on from where it was.
// What the reader does not take is kept in memory, by etcd's client.
func (s *Store) Watch(ctx context.Context, prefix string, from int64) <-chan inventory.Batch {
	out := make(chan inventory.Batch)
	go func() {
		defer close(out)
		w := &watch{s: s, prefix: prefix, next: max(from, 1), out: out}
		for {
			err := w.follow(ctx)
			if ctx.Err() != nil {
				return
			}
			if s.client.Ctx().Err() != nil {
				err = fmt.Errorf("etcd: watch %s: the store was closed: %w", prefix, inventory.ErrUnavailable)
			} else if errors.Is(err, inventory.ErrUnavailable) {
				if w.broken != w.next { // once for each outage, not for each try
					s.log.Warn("etcd watch is interrupted; it goes on by itself", "prefix", prefix, "revision", w.next, "err", err)
					w.broken = w.next
				}
				select {
				case <-ctx.Done():
				case <-time.After(rewatch):
				}
				continue
			}
			w.send(ctx, inventory.Batch{Rev: w.next - 1, Err: err})
			return
		}
	}()
	return out
}

type watch struct {
	s      *Store
	prefix string
	next   int64 // the first revision that was not sent yet
	broken int64 // next as it was when an interruption was logged
	out    chan<- inventory.Batch
}

// follow sends what etcd sends until that ends, and says why it ended.
func (w *watch) follow(ctx context.Context) error {
	ctx, cancel := w.s.health.until(clientv3.WithRequireLeader(ctx))
	defer cancel()
	start, end := bounds(w.prefix)
	// Not WithFragment: then etcd puts whole revisions into one message, however large.
	ch := w.s.client.Watch(ctx, start, clientv3.WithRange(end), clientv3.WithRev(w.next), clientv3.WithProgressNotify())
	for r := range ch {
		if err := r.Err(); err != nil {
			return wrap("watch "+w.prefix, err)
		}
		var b inventory.Batch
		for _, ev := range r.Events {
			// The header's revision is the store's, which may be ahead of what this watch has seen.
			b.Rev = ev.Kv.ModRevision
			kv := fromKV(ev.Kv)
			if ev.Type == clientv3.EventTypeDelete {
				kv.Value = nil
			}
			b.Events = append(b.Events, inventory.Event{KV: kv, Deleted: kv.Value == nil})
		}
		if r.IsProgressNotify() {
			b.Rev = max(r.Header.Revision, w.next-1)
		}
		if b.Rev == 0 { // only says that the watch was made
			continue
		}
		if !w.send(ctx, b) {
			break
		}
		w.next = b.Rev + 1
	}
	return fmt.Errorf("etcd: watch %s ended: %w", w.prefix, inventory.ErrUnavailable)
}

func (w *watch) send(ctx context.Context, b inventory.Batch) bool {
	select {
	case <-ctx.Done():
		return false
	case w.out <- b:
		return true
	}
}
