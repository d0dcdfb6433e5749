package provisioner

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hostler-project/hostler/bmc"
	"github.com/hostler-project/hostler/inventory"
)

// actMargin is how much of a hold must be left for an act to begin.
const actMargin = 500 * time.Millisecond

// errHoldOver ends an act whose replica may not do it any more.
var errHoldOver = errors.New("this replica's hold on the node's shard is over; another goes on")

// A Warrant is what an act is done under: nodes and networks that can read it refuse one that is older than the last.
type Warrant struct {
	Term       int64 // of the replica's hold on the node's shard; 0: there is no such hold
	Generation int64 // of the node
}

type warrantKey struct{}

// WarrantOf gives the warrant of the act that ctx belongs to.
func WarrantOf(ctx context.Context) Warrant {
	w, _ := ctx.Value(warrantKey{}).(Warrant)
	return w
}

// warrant makes the context of an act. It ends with the hold on the node's shard, which is renewed meanwhile: what is
// left is looked at again and again, and once more right before each order that a machine gets (bmc.Guard), because a
// process that was paused goes on before its timers do. ok is false when the act must not begin.
func (l *Loop) warrant(ctx context.Context, v inventory.NodeView) (_ context.Context, end func(), ok bool) {
	w := Warrant{Generation: v.State.V.Generation}
	if l.Ledger.Term != nil {
		for _, c := range l.Ledger.Term(v.ID) {
			w.Term = c.Create
		}
	}
	ctx = context.WithValue(ctx, warrantKey{}, w)
	if l.Left == nil {
		return ctx, func() {}, true
	}
	since := l.since(v.ID)
	left := func() time.Duration {
		if !l.since(v.ID).Equal(since) {
			return 0
		}
		return l.Left(v.ID)
	}
	if left() < actMargin || l.Owns != nil && !l.Owns(v.ID) {
		return ctx, func() {}, false
	}
	ctx, cancel := context.WithCancelCause(ctx)
	over := fmt.Errorf("%w (term %d)", errHoldOver, w.Term)
	guard := func() error {
		if left() <= 0 {
			cancel(over)
			return over
		}
		return nil
	}
	ctx = context.WithValue(ctx, guardKey{}, guard)
	if l.Go != nil { // a simulation's time does not pass by itself: its acts ask
		return ctx, func() { cancel(nil) }, true
	}
	done := make(chan struct{})
	go func() {
		for guard() == nil {
			select {
			case <-done:
				return
			case <-ctx.Done():
				return
			case <-time.After(min(left(), actMargin)):
			}
		}
	}()
	return bmc.Guard(ctx, guard), func() { close(done); cancel(nil) }, true
}

type guardKey struct{}

// Allowed asks once more whether the act that ctx belongs to may go on.
func Allowed(ctx context.Context) error {
	if guard, ok := ctx.Value(guardKey{}).(func() error); ok {
		if err := guard(); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// since is when this replica took a node's shard.
func (l *Loop) since(node string) time.Time {
	if l.Since == nil {
		return time.Time{}
	}
	return l.Since(node)
}
