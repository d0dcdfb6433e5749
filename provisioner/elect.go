package provisioner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hostler-project/hostler/inventory"
)

// An Elector holds this replica's shards, and is what the loop asks whether it may.
//
// Its record and its shards' keys hang on one lease. How long that is good is not what the store says but a sum on this
// machine's monotonic clock: the moment before the last renewal that succeeded was asked for, and the lease's time, less
// a fifth for the clocks of others. So a replica that was paused, cut off or forgotten knows it by itself, before anybody
// can have taken over. A shard's term is its key's creation revision: every write of the reconciler compares it.
//
// Shards are shared out evenly over the replicas that have a record. Each computes its own share, gives back what is
// above it (a shard at a time, when no act on one of its nodes is running), and takes what is free. Who takes a shard
// that was not given back waits until its former owner's acts are surely over.
type Elector struct {
	Store inventory.Lessor
	Me    inventory.Replica // all but Lease
	TTL   time.Duration     // of the lease; 0: DefaultTTL
	Now   func() time.Time  // with a monotonic reading
	Busy  func(shard int) bool
	Wake  func()          // something about the shards has changed
	Copy  *inventory.Copy // tells early that a shard is free; nil: every tick does
	Log   *slog.Logger

	mu      sync.Mutex
	lease   int64
	until   time.Time // our hold is over then, whatever the store believes
	holds   [inventory.Shards]hold
	orphans map[int]orphan
	told    string

	seen standing // as of the last look; of Balance alone
}

// DefaultTTL is how long a replica that vanished keeps its shards from others.
const DefaultTTL = 5 * time.Second

// hold is our hold on one shard.
type hold struct {
	term    int64     // creation revision of its key; 0: not ours
	since   time.Time // when we took it
	from    time.Time // the former owner's acts are over
	leaving bool      // no new act: it is given back when the last one is done
}

// orphan is a shard's key whose owner has no record.
type orphan struct {
	term int64
	seen time.Time
}

const (
	takeAtOnce  = 32 // shards in one transaction: two writes and two conditions each
	leaveAtOnce = 8  // shards that stand still while they are given back
)

// ErrTwice says that another hostlerd uses our id.
var ErrTwice = errors.New("provisioner: another hostlerd runs under this one's id, or did until a moment ago")

func (e *Elector) ttl() time.Duration {
	if e.TTL == 0 {
		return DefaultTTL
	}
	return e.TTL
}

// Run keeps the lease and the share until ctx ends. It gives nothing back: Release does.
func (e *Elector) Run(ctx context.Context) error {
	var g sync.WaitGroup
	look := make(chan struct{}, 1)
	poke := func() {
		select {
		case look <- struct{}{}:
		default:
		}
	}
	g.Go(func() {
		e.every(ctx, nil, func() {
			if e.Keep(ctx) {
				poke()
			}
		})
	})
	g.Go(func() { e.every(ctx, look, func() { e.Balance(ctx) }) })
	if e.Copy != nil {
		g.Go(func() { e.watch(ctx, poke) })
	}
	g.Wait()
	return nil
}

// watch has the shards looked at as soon as a replica goes or gives one back.
func (e *Elector) watch(ctx context.Context, poke func()) {
	batches, stop := e.Copy.Subscribe()
	defer func() { stop() }()
	for {
		select {
		case <-ctx.Done():
			return
		case b, ok := <-batches:
			if !ok { // we were too slow; the next tick tells
				batches, stop = e.Copy.Subscribe()
				continue
			}
			for _, ev := range b.Events {
				if ev.Deleted && strings.HasPrefix(ev.KV.Key, inventory.PrefixShards) {
					poke()
				}
			}
		}
	}
}

func (e *Elector) every(ctx context.Context, now <-chan struct{}, do func()) {
	tick := time.NewTicker(e.ttl() / 5)
	defer tick.Stop()
	for ctx.Err() == nil {
		do()
		select {
		case <-ctx.Done():
		case <-tick.C:
		case <-now:
		}
	}
}

// Keep makes or renews the lease, once, and says whether it was made. A store that does not answer costs at most a third
// of the lease's time.
func (e *Elector) Keep(ctx context.Context) (joined bool) {
	try, stop := context.WithTimeout(ctx, e.ttl()/3)
	defer stop()
	e.mu.Lock()
	lease := e.lease
	e.mu.Unlock()
	var err error
	if lease == 0 {
		try, stop = context.WithTimeout(ctx, e.ttl()) // it writes, which may be slow and has no hold to lose
		defer stop()
		joined, err = e.join(try)
	} else {
		sent := e.Now()
		if err = e.Store.KeepAlive(try, lease); err == nil {
			e.mu.Lock()
			e.until = e.bound(sent)
			e.mu.Unlock()
		} else if errors.Is(err, inventory.ErrNoLease) {
			e.drop()
		}
	}
	if ctx.Err() == nil {
		e.tell(err)
	}
	return joined
}

// tell logs an error once as long as it stays.
func (e *Elector) tell(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	e.mu.Lock()
	again := e.told == text || e.told != "" && text != "" && errors.Is(err, inventory.ErrUnavailable)
	if !again {
		e.told = text
	}
	e.mu.Unlock()
	switch {
	case again:
	case err == nil:
		e.Log.Info("this replica's lease is kept")
	default:
		e.Log.Warn("this replica cannot keep its lease; when its time is over its nodes are left alone", "err", err)
	}
}

// bound is when a lease that was renewed by a request sent then is over for us.
func (e *Elector) bound(sent time.Time) time.Time { return sent.Add(e.ttl() - e.ttl()/5) }

// drop forgets a lease that is gone: nothing is ours any more.
func (e *Elector) drop() {
	e.mu.Lock()
	e.lease, e.until = 0, time.Time{}
	e.holds = [inventory.Shards]hold{}
	e.mu.Unlock()
	e.wake()
}

func (e *Elector) wake() {
	if e.Wake != nil {
		e.Wake()
	}
}

// join grants a lease and writes our record.
func (e *Elector) join(ctx context.Context) (bool, error) {
	key := inventory.KeyReplica(e.Me.ID)
	kv, err := e.Store.Get(ctx, key)
	if err != nil {
		return false, err
	}
	old, err := inventory.Decode[inventory.Replica](kv)
	if err != nil {
		return false, err
	}
	if old.Exists() {
		if old.V.Place != e.Me.Place {
			return false, fmt.Errorf("%w (%s on %s): remove replica.id of one of the two data folders if both live", ErrTwice, e.Me.ID, old.V.Host)
		}
		// A life of ours that ended without a word. Its lock is ours now, so it does nothing more.
		if err := e.Store.Revoke(ctx, old.V.Lease); err != nil {
			return false, err
		}
		if _, err := e.Store.Commit(ctx, inventory.Txn{If: []inventory.Cond{old.Unchanged()}, Then: []inventory.Op{inventory.Delete(key)}}); err != nil {
			return false, err
		}
	}
	sent := e.Now()
	lease, err := e.Store.Grant(ctx, e.ttl())
	if err != nil {
		return false, err
	}
	me := e.Me
	me.Schema, me.Lease = inventory.Schema, lease
	op, err := inventory.Encode(key, me)
	if err != nil {
		return false, err
	}
	op.Lease = lease
	r, err := e.Store.Commit(ctx, inventory.Txn{If: []inventory.Cond{inventory.Absent(key)}, Then: []inventory.Op{op}})
	if err == nil && !r.Done {
		err = ErrTwice
	}
	if err != nil {
		return false, errors.Join(err, e.Store.Revoke(ctx, lease))
	}
	e.mu.Lock()
	e.lease, e.until = lease, e.bound(sent)
	e.mu.Unlock()
	return true, nil
}

// Balance reads who there is and who holds what, gives back what is too much, and takes what is due, once.
func (e *Elector) Balance(ctx context.Context) {
	e.mu.Lock()
	lease := e.lease
	e.mu.Unlock()
	if lease == 0 {
		return
	}
	if err := e.balance(ctx, lease); err != nil && ctx.Err() == nil {
		e.Log.Debug("shards are not shared out", "err", err)
	}
}

func (e *Elector) balance(ctx context.Context, lease int64) error {
	now, err := e.look(ctx)
	if err != nil || !slices.Contains(now.replicas, e.Me.ID) {
		return err
	}
	mine := e.compare(now, lease)
	share := now.share(e.Me.ID)
	if surplus := mine - share; surplus > 0 && now.wanting() > now.free() {
		e.leave(min(surplus, now.wanting()-now.free()))
	}
	if err := e.giveBack(ctx, func(n int) bool { return e.Busy == nil || !e.Busy(n) }); err != nil {
		return err
	}
	if err := e.bury(ctx, now); err != nil {
		return err
	}
	return e.take(ctx, now, lease, share-mine)
}

// standing is who there is and who holds what, as the store has it.
type standing struct {
	replicas []string // sorted
	owner    [inventory.Shards]inventory.Doc[inventory.ShardOwner]
	mark     [inventory.Shards]inventory.Doc[inventory.ShardMark]
}

func (e *Elector) look(ctx context.Context) (s standing, err error) {
	who, err := e.Store.List(ctx, inventory.PrefixReplicas, inventory.ListOptions{})
	if err != nil {
		return s, err
	}
	for _, kv := range who.KVs {
		s.replicas = append(s.replicas, kv.Key[len(inventory.PrefixReplicas):])
	}
	what, err := e.Store.List(ctx, inventory.PrefixShards, inventory.ListOptions{})
	if err != nil {
		return s, err
	}
	all := map[string]inventory.KV{}
	for _, kv := range what.KVs {
		all[kv.Key] = kv
	}
	for n := range inventory.Shards {
		if s.owner[n], err = reread(e.seen.owner[n], orAbsent(all, inventory.KeyShard(n))); err != nil {
			return s, err
		}
		if s.mark[n], err = reread(e.seen.mark[n], orAbsent(all, inventory.KeyShardMark(n))); err != nil {
			return s, err
		}
	}
	e.seen = s
	return s, nil
}

// reread reads a record, unless it is the one that was read before: most shards stay where they are.
func reread[T any](before inventory.Doc[T], kv inventory.KV) (inventory.Doc[T], error) {
	if before.KV.Key == kv.Key && before.KV.Mod == kv.Mod {
		return before, nil
	}
	return inventory.Decode[T](kv)
}

func orAbsent(all map[string]inventory.KV, key string) inventory.KV {
	kv := all[key]
	kv.Key = key
	return kv
}

// share is how many shards a replica should hold: the first ones, by id, hold one more where it does not divide.
func (s *standing) share(id string) int {
	n := len(s.replicas)
	share := inventory.Shards / n
	if slices.Index(s.replicas, id) < inventory.Shards%n {
		share++
	}
	return share
}

// wanting is how many shards all replicas lack.
func (s *standing) wanting() int {
	has := map[string]int{}
	for _, o := range s.owner {
		has[o.V.Replica]++
	}
	lack := 0
	for _, id := range s.replicas {
		lack += max(0, s.share(id)-has[id])
	}
	return lack
}

func (s *standing) free() int {
	n := 0
	for _, o := range s.owner {
		if !o.Exists() {
			n++
		}
	}
	return n
}

// compare brings our holds in line with the store, and counts those that we keep.
func (e *Elector) compare(s standing, lease int64) (mine int) {
	e.mu.Lock()
	if e.lease != lease {
		s = standing{} // read under another lease: it says nothing about the holds of this one
	}
	changed := false
	for n := range e.holds {
		h, o := &e.holds[n], s.owner[n]
		is := o.Exists() && o.V.Replica == e.Me.ID && o.V.Lease == lease
		switch {
		case h.term != 0 && (!is || o.KV.Create != h.term):
			e.Log.Warn("a shard was taken from this replica", "shard", n, "by", o.V.Replica)
			*h, changed = hold{}, true
		case is && h.term == 0: // taken by a request that nobody answered
			now := e.Now()
			*h, changed = hold{term: o.KV.Create, since: now, from: now.Add(e.ttl())}, true
		}
		if h.term != 0 && !h.leaving {
			mine++
		}
	}
	e.mu.Unlock()
	if changed {
		e.wake()
	}
	return mine
}

// leave stops work on some shards, so that they can be given back: those without a running act first.
func (e *Elector) leave(count int) {
	var idle, busy []int
	e.mu.Lock()
	held := e.holds
	e.mu.Unlock()
	for n, h := range held {
		switch {
		case h.leaving:
			count--
		case h.term == 0:
		case e.Busy != nil && e.Busy(n):
			busy = append(busy, n)
		default:
			idle = append(idle, n)
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, n := range append(idle, busy...)[:max(0, min(count, leaveAtOnce, len(idle)+len(busy)))] {
		e.holds[n].leaving = true
	}
}

// giveBack deletes the keys and marks of the shards that we leave and where nothing runs.
func (e *Elector) giveBack(ctx context.Context, done func(shard int) bool) error {
	e.mu.Lock()
	held := e.holds
	e.mu.Unlock()
	for n, h := range held {
		if h.term == 0 || !h.leaving || !done(n) {
			continue
		}
		key := inventory.KeyShard(n)
		drop := inventory.Txn{If: []inventory.Cond{{Key: key, Create: h.term}}, Then: []inventory.Op{inventory.Delete(key)}}
		if e.Now().After(h.from) { // else a third one's acts may still run: its mark stays
			drop.Then = append(drop.Then, inventory.Delete(inventory.KeyShardMark(n)))
		}
		if _, err := e.Store.Commit(ctx, drop); err != nil {
			return err
		}
		e.mu.Lock()
		if e.holds[n].term == h.term {
			e.holds[n] = hold{}
		}
		e.mu.Unlock()
		e.wake()
	}
	return nil
}

// bury deletes the keys of owners that have no record any more; both hang on one lease, so that only a key which some
// other version or a person wrote can be one.
func (e *Elector) bury(ctx context.Context, s standing) error {
	now := e.Now()
	still := map[int]orphan{}
	for n, o := range s.owner {
		if !o.Exists() || slices.Contains(s.replicas, o.V.Replica) {
			continue
		}
		was := e.orphans[n]
		if was.term != o.KV.Create {
			was = orphan{o.KV.Create, now}
		}
		still[n] = was
	}
	e.orphans = still
	for _, n := range slices.Sorted(maps.Keys(still)) {
		if now.Sub(still[n].seen) < e.ttl() {
			continue
		}
		if _, err := e.Store.Commit(ctx, inventory.Txn{If: []inventory.Cond{s.owner[n].Unchanged()}, Then: []inventory.Op{inventory.Delete(s.owner[n].KV.Key)}}); err != nil {
			return err
		}
	}
	return nil
}

// take takes up to count free shards.
func (e *Elector) take(ctx context.Context, s standing, lease int64, count int) error {
	var free []int
	for n, o := range s.owner {
		if !o.Exists() && len(free) < count {
			free = append(free, n)
		}
	}
	for shards := range slices.Chunk(free, takeAtOnce) {
		now := e.Now()
		var t inventory.Txn
		for _, n := range shards {
			own, err := inventory.Encode(inventory.KeyShard(n), inventory.ShardOwner{Schema: inventory.Schema, Replica: e.Me.ID, Lease: lease})
			if err != nil {
				return err
			}
			own.Lease = lease
			mark, err := inventory.Encode(inventory.KeyShardMark(n), inventory.ShardMark{Schema: inventory.Schema, Replica: e.Me.ID, Place: e.Me.Place,
				Since: now, TTL: inventory.Duration(e.ttl())})
			if err != nil {
				return err
			}
			t.If = append(t.If, inventory.Absent(own.Key), s.mark[n].Unchanged())
			t.Then = append(t.Then, own, mark)
		}
		r, err := e.Store.Commit(ctx, t)
		if err != nil {
			return err // what was taken all the same is found at the next look
		}
		if !r.Done {
			continue // another was first; the next look tells
		}
		e.mu.Lock()
		if e.lease == lease {
			for _, n := range shards {
				e.holds[n] = hold{term: r.Rev, since: now, from: e.after(s.mark[n])}
			}
		}
		e.mu.Unlock()
		e.Log.Info("shards taken", "count", len(shards), "term", r.Rev)
		e.wake()
	}
	return nil
}

// after is when the acts of a shard's former owner are surely over: at once when it gave the shard back or was a life of
// ours whose lock we hold; else after its lease's time, counted from when its key was seen gone.
func (e *Elector) after(mark inventory.Doc[inventory.ShardMark]) time.Time {
	now := e.Now()
	if !mark.Exists() || mark.V.Replica == e.Me.ID && mark.V.Place == e.Me.Place {
		return now
	}
	return now.Add(time.Duration(mark.V.TTL))
}

// Release gives everything back, so that others go on at once: shards on whose nodes an act still runs excepted. The loop
// must have ended.
func (e *Elector) Release(ctx context.Context) error {
	e.mu.Lock()
	lease := e.lease
	for n := range e.holds {
		e.holds[n].leaving = true
	}
	e.mu.Unlock()
	if lease == 0 {
		return nil
	}
	err := e.giveBack(ctx, func(n int) bool { return e.Busy == nil || !e.Busy(n) })
	e.drop()
	return errors.Join(err, e.Store.Revoke(ctx, lease))
}

// held is our hold on a node's shard while it is good.
func (e *Elector) held(node string) (h hold, left time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	h = e.holds[inventory.Shard(node)]
	if left = e.until.Sub(e.Now()); h.term == 0 || left <= 0 {
		return hold{}, 0
	}
	return h, left
}

// Owns says whether the loop may decide about a node.
func (e *Elector) Owns(node string) bool {
	h, _ := e.held(node)
	return h.term != 0 && !h.leaving && !e.Now().Before(h.from)
}

// Holds says whether a node's shard is ours, be it that we still wait for its former owner: what is seen of the node is
// for us to know.
func (e *Elector) Holds(node string) bool {
	h, _ := e.held(node)
	return h.term != 0
}

// Left is how long our hold on a node's shard is good from now, as far as we know now.
func (e *Elector) Left(node string) time.Duration {
	_, left := e.held(node)
	return left
}

// Since is when we took the node's shard; the zero time when it is not ours.
func (e *Elector) Since(node string) time.Time {
	h, _ := e.held(node)
	return h.since
}

// Conds are what a transaction of the reconciler about a node must compare. For a shard that is not ours they never hold.
func (e *Elector) Conds(node string) []inventory.Cond {
	h, _ := e.held(node)
	if h.term == 0 {
		h.term = 1 // revision 1 is the empty store
	}
	return []inventory.Cond{{Key: inventory.KeyShard(inventory.Shard(node)), Create: h.term}}
}

// Shards is how many shards are ours.
func (e *Elector) Shards() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := 0
	for _, h := range e.holds {
		if h.term != 0 {
			n++
		}
	}
	return n
}
