package provisioner

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/ledger"
	"github.com/hostler-project/hostler/inventory/lifecycle"
)

// A Performer does acts to the outside world. It must return when ctx ends.
type Performer interface {
	Perform(ctx context.Context, v inventory.NodeView, a Act) Result
}

// Loop is the reconciler: one goroutine that decides, node by node, whenever something about a node has changed or its
// time has come. Acts run beside it and come back as events; nothing else moves nodes.
type Loop struct {
	Copy      *inventory.Copy
	Ledger    *ledger.Ledger
	Performer Performer
	Rules     *Rules
	Now       func() time.Time
	NewID     func() string // a ULID
	NewNonce  func() string // 32 random bytes, hex
	Log       *slog.Logger
	Owns      func(node string) bool // shards held by this replica; nil: all
	// Left is how long this replica's hold on a node's shard is good as of now; nil: no bound. An act begins only well
	// before its end and is over with it.
	Left  func(node string) time.Duration
	Since func(node string) time.Time // when it took the shard; nil: always had it
	Go    func(act func())            // runs an act beside the loop; nil: in a goroutine. A simulation has its own way

	budget *budget // this, clock and alive are of the deciding goroutine alone
	clock  clock
	alive  bucket
	swept  time.Time
	past   []pastRev // the store's revisions of the last day

	started time.Time
	wake    chan struct{}
	census  *census // of the loop's own goroutine
	mu      sync.Mutex
	nodes   map[string]*track
	marked  map[string]*track // nodes to look at in the next round
	timers  timers
	shards  [inventory.Shards]shardSeen
	pulse   Pulse
	timed   int    // nodes with a deadline
	still   string // why all deadlines stand still
}

// track is what the loop remembers of one node; all of it can be lost.
type track struct {
	id       string
	since    time.Time // of the hold on its shard that all this belongs to
	made     time.Time // silence before it is nobody's fault: a hold that lapsed for a moment leaves nothing remembered
	seen     Seen
	seq      int64     // history number that seen.Results and Report belong to
	decided  Decision  // the last one, for why
	at       time.Time // when
	next     time.Time // decide again at the latest
	timer    int       // its place among the timers
	dirty    bool
	eager    bool          // something happened to it: it goes before those that are only looked at
	stood    bool          // it was not ours when it was last looked at
	waitRev  int64         // a write of ours that the copy does not show yet
	granted  int64         // the revision of the reservation that seen.Held is of
	counting time.Duration // what the clock showed when the node's time was last counted
	timed    bool
	failing  time.Duration // pause after a failed write
}

// Run decides until ctx ends. The copy must be filled.
func (l *Loop) Run(ctx context.Context) error {
	l.Init()
	batches, stop := l.Copy.Subscribe()
	defer func() { stop() }()
	l.recount()
	l.touchAll()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		l.Round(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-l.wake:
		case b, ok := <-batches:
			if !ok { // we were too slow: everything may have changed
				batches, stop = l.Copy.Subscribe()
				l.Missed()
				continue
			}
			l.Changed(b)
			l.allTold(batches)
		}
	}
}

// allTold takes in what was told meanwhile: places in a budget become free by it, and a subscription does not wait long.
func (l *Loop) allTold(batches <-chan inventory.Batch) {
	for {
		select {
		case b, ok := <-batches:
			if !ok {
				return // Run finds that too
			}
			l.Changed(b)
		default:
			return
		}
	}
}

// Init prepares a loop; Run calls it, and simulations that call Round themselves.
func (l *Loop) Init() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.nodes == nil {
		l.started, l.nodes, l.marked, l.wake = l.Now(), map[string]*track{}, map[string]*track{}, make(chan struct{}, 1)
		l.clock.awake = l.started
	}
}

// Missed says that changes were not told: everything is counted and looked at afresh.
func (l *Loop) Missed() {
	l.recount()
	l.census = nil
	l.touchAll()
}

// Changed marks the nodes that a batch of changes is about.
func (l *Loop) Changed(b inventory.Batch) {
	if l.budget != nil {
		l.budget.count(b)
	}
	if l.census != nil {
		l.census.changed(b)
	}
	for _, e := range b.Events {
		p := inventory.Parts(e.KV.Key)
		if len(p) < 2 {
			continue
		}
		switch p[0] {
		case "nodes", "claims", "sessions", "certs", "tests", "wishes", "health", "avail":
			l.touch(p[1])
		case "reservations", "instances": // looking at every node for each claim would cost thousands of looks
			if id := nodeIn(e.KV); id != "" {
				l.touch(id)
			} else {
				l.touchAll()
			}
		case "skus":
			l.touchAll()
		case "policies":
			if e.KV.Key == inventory.KeyLimits {
				l.touchAll()
			}
		case "breakers":
			l.touchAll()
		}
	}
}

// nodeIn is the node that a reservation or an instance names; "" where that cannot be read.
func nodeIn(kv inventory.KV) string {
	d, err := inventory.Decode[struct {
		Node string `json:"node"`
	}](kv)
	if err != nil {
		return ""
	}
	return d.V.Node
}

// Round decides about every node whose time has come. What takes long is left for the next round: after a start there are
// thousands to look at, and those at which something is being done must not wait for that.
func (l *Loop) Round(ctx context.Context) {
	began := l.Now()
	defer l.beat(began)
	if l.budget == nil {
		l.recount()
		l.touchAll()
	}
	l.keepTime(ctx)
	l.sweep(ctx)
	l.grant()
	defer l.grant()     // whoever queued up in this round may go on in the next
	l.watchBreaker(ctx) // also while no node is due: the store may take it now
	ids, eager := l.due(l.Now())
	for i, id := range ids {
		switch {
		case ctx.Err() != nil:
			return
		case i >= eager+fewest && l.Now().Sub(began) > longRound:
			l.Wake()
			return
		case !l.Copy.Node(id):
			l.leave(id)
		case l.Owns == nil || l.Owns(id):
			l.one(ctx, id)
		default:
			l.stand(id)
		}
	}
}

// keepTime brings the clock of deadlines up to now.
func (l *Loop) keepTime(ctx context.Context) {
	l.mu.Lock()
	timed := l.timed > 0
	l.mu.Unlock()
	l.tick(ctx, timed)
	l.mu.Lock()
	l.still = l.clock.stopped
	l.mu.Unlock()
}

func (l *Loop) setTimed(n *track, timed bool) {
	if n.timed != timed {
		n.timed = timed
		l.timed--
		if timed {
			l.timed += 2
		}
	}
}

// grant wakes the nodes whose turn has come.
func (l *Loop) grant() {
	for _, id := range l.budget.grant(l.Owns) {
		l.touch(id)
	}
}

// stand lets no time count for a node that is not this replica's to move.
func (l *Loop) stand(id string) {
	l.budget.forget(id)
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.nodeLocked(id)
	l.setTimed(n, false)
	l.clear(n)
	n.dirty, n.stood, n.decided = true, true, Decision{} // it is marked again when it becomes ours
}

// leave takes a node that has no record off the list of those to look at.
func (l *Loop) leave(id string) {
	l.budget.forget(id)
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.nodeLocked(id)
	l.setTimed(n, false)
	l.clear(n)
	n.dirty = true
}

// one decides about one node, again and again while it writes, so that a node never waits for the next tick.
func (l *Loop) one(ctx context.Context, id string) {
	for range 16 {
		l.watchBreaker(ctx)
		in, due := l.input(id)
		if !due {
			return
		}
		d := Decide(in)
		if d.Liveness != "" && !l.alive.take(in.Now, l.Copy, in.View.Avail.Exists()) {
			d = wait(200*time.Millisecond, "%s; to be written when the storm of such writes allows", d.Say)
		}
		l.budget.decided(in.View, d)
		if !l.apply(ctx, in, d) {
			return
		}
	}
}

// input collects what the next decision about a node depends on; due is false while nothing can have changed.
func (l *Loop) input(id string) (Input, bool) {
	now := l.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.nodeLocked(id)
	if !n.dirty && now.Before(n.next) || l.Copy.Rev() < n.waitRev {
		return Input{}, false
	}
	if l.census == nil {
		l.census = take(l.Copy)
	}
	rev := l.Copy.Rev()
	v := inventory.View(l.Copy, id)
	if v.State.V.Seq != n.seq { // a new chapter: results and reports of the one before do not count
		n.seq, n.seen.Results, n.seen.Counted, n.counting = v.State.V.Seq, map[Act]Result{}, 0, l.clock.ran
	}
	if n.stood {
		n.stood, n.counting = false, l.clock.ran
	}
	if n.decided.Still == "" {
		n.seen.Counted += l.clock.ran - n.counting
		n.seen.Held += l.clock.ran - n.counting
	}
	if mod := v.Reservation.KV.Mod; mod != n.granted { // claimed, or renewed
		n.granted, n.seen.Held = mod, 0
	}
	n.counting = l.clock.ran
	l.clear(n)
	seen := n.seen
	seen.Results = make(map[Act]Result, len(n.seen.Results))
	for k, r := range n.seen.Results {
		seen.Results[k] = r
	}
	started := l.started
	if n.made.After(started) {
		started = n.made // silence before we had the shard is nobody's fault either
	}
	return Input{Now: now, Started: started, Awake: later(now, l.clock.since(now), n.made), Breaker: l.budget.breakerNow(), View: v, Rev: rev, Seen: seen, ID: l.NewID(), Nonce: l.NewNonce(), Rules: l.Rules,
		Turn: l.budget.turn(v), Holder: func(kind, value string) string { return ledger.Holder(l.Copy, kind, value) },
		Found: func(kind, value string) []string { return l.census.who[inventory.KeyID(kind, value)] },
		Other: func(node string) inventory.NodeView { return inventory.View(l.Copy, node) }}, true
}

// apply does what a decision says, and reports whether to decide again at once.
func (l *Loop) apply(ctx context.Context, in Input, d Decision) bool {
	v := in.View
	spend := func(st *inventory.NodeState) { st.Spent += inventory.Duration(in.Seen.Counted) }
	var rev int64
	var err error
	if d.Enters != "" {
		if err = l.budget.enter(v, d.Enters, &d.Change); err != nil {
			l.Log.Error("a budget cannot be written", "node", v.ID, "err", err)
			return false
		}
	}
	if d.Starts {
		d.Change.If = append(d.Change.If, inventory.Unchanged(l.budget.breaker))
	}
	wrote := true
	switch {
	case d.Act != "":
		if err = l.Ledger.Current(ctx, v, d.Change.If...); err == nil {
			l.perform(ctx, v, d.Act)
		}
		wrote = false
	case d.Event != "":
		rev, err = l.Ledger.Move(ctx, v, d.Event, d.Change)
	case d.Note:
		edit := d.Change.Edit
		d.Change.Edit = func(st *inventory.NodeState) {
			spend(st)
			if edit != nil {
				edit(st)
			}
		}
		rev, err = l.Ledger.Note(ctx, v, d.Change)
	case d.Offer:
		rev, err = l.Ledger.Offer(ctx, v, in.Rev)
	case d.Withdraw:
		rev, err = l.Ledger.Withdraw(ctx, v)
	case d.EndClaim:
		rev, err = l.Ledger.EndClaim(ctx, v, d.Change)
	case d.Raise != nil:
		anybody := *l.Ledger // the other node may be another replica's: an alert needs no term
		anybody.Term = nil
		err = anybody.Raise(ctx, d.Raise.Node, identityAlert, d.Raise.Alert)
		wrote = false
	default:
		wrote = false
	}
	if wrote {
		l.clock.result(l.Now(), err)
	}
	if err == nil && wrote {
		if d.Enters != "" {
			l.budget.entered(v, becomes(v, d), rev)
		}
		l.budget.fellIll(v, d, in.Now)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.nodeLocked(v.ID)
	n.decided, n.at = d, in.Now
	_, timed := Left(in)
	l.setTimed(n, timed)
	switch {
	case err != nil:
		l.lookAt(n, in.Now.Add(l.failed(n, v, d, err)))
		return false
	case wrote:
		n.failing, n.waitRev = 0, rev
		l.mark(n)
		if d.Event != "" {
			l.Log.Info("node moved", "node", v.ID, "name", v.Name(), "from", v.State.V.State, "event", d.Event, "reason", d.Say)
		}
		return l.Copy.Rev() >= rev
	}
	again := time.Hour
	if d.Again > 0 {
		again = d.Again
	}
	l.lookAt(n, in.Now.Add(again))
	return false
}

// failed says how long to leave a node alone after a write that did not happen. Losing against another writer is usual.
func (l *Loop) failed(n *track, v inventory.NodeView, d Decision, err error) time.Duration {
	l.clear(n)
	if errors.Is(err, ledger.ErrConflict) {
		n.failing = min(max(2*n.failing, 20*time.Millisecond), 2*time.Second)
		if n.failing == 2*time.Second { // seven times in a row: not the usual race
			l.Log.Warn("our writes keep losing; another hostlerd may have taken this node's shard", "node", v.ID, "decision", d.Say)
		}
		return n.failing
	}
	n.failing = min(max(2*n.failing, 200*time.Millisecond), 10*time.Second)
	n.decided.Say = d.Say + ": " + err.Error()
	l.Log.Warn("could not write a decision; trying again", "node", v.ID, "state", v.State.V.State, "decision", d.Say, "err", err, "after", n.failing)
	return n.failing
}

// perform runs an act beside the loop, as long as the hold on the node's shard is good.
func (l *Loop) perform(ctx context.Context, v inventory.NodeView, a Act) {
	l.mu.Lock()
	n := l.nodeLocked(v.ID)
	n.seen.Busy = a
	seq, tries := n.seq, n.seen.Results[a].Tries
	l.mu.Unlock()
	ctx, end, ok := l.warrant(ctx, v)
	if !ok {
		end()
		l.change(v.ID, func(n *track) { n.seen.Busy = "" })
		return
	}
	beside := l.Go
	if beside == nil {
		beside = func(act func()) { go act() }
	}
	beside(func() {
		defer end()
		r := l.Performer.Perform(ctx, v, a)
		r.At, r.Tries = l.Now(), tries+1
		if r.Err != nil && ctx.Err() == nil {
			l.Log.Warn("act failed", "node", v.ID, "act", a, "try", r.Tries, "err", r.Err)
		}
		l.change(v.ID, func(n *track) {
			n.seen.Busy = ""
			if n.seq == seq {
				n.seen.Results[a] = r
			}
		})
	})
}

// change edits what is remembered of a node and has it decided again.
func (l *Loop) change(id string, f func(*track)) {
	l.Init()
	l.mu.Lock()
	n := l.nodeLocked(id)
	f(n)
	n.eager = true
	l.mark(n)
	l.mu.Unlock()
	l.Wake()
}

func (l *Loop) touch(id string) { l.change(id, func(*track) {}) }

// touchAll has every node looked at, after those to which something happened.
func (l *Loop) touchAll() {
	l.Init()
	l.mu.Lock()
	for _, id := range l.Copy.Nodes() {
		l.mark(l.nodeLocked(id))
	}
	l.mu.Unlock()
	l.Wake()
}

func (l *Loop) nodeLocked(id string) *track {
	n := l.nodes[id]
	since := l.since(id)
	if n == nil || !n.since.Equal(since) { // what another hold saw and counted is worth nothing to this one
		was := n
		n = &track{id: id, since: since, made: later(l.Now(), since, l.Now()), timer: none, counting: l.clock.ran}
		n.seen.Results = map[Act]Result{}
		if was != nil {
			n.seen.Busy = was.seen.Busy
			l.setTimed(was, false)
			l.drop(was)
		}
		l.nodes[id] = n
		l.mark(n)
		if h := &l.shards[inventory.Shard(id)]; h.node == "" {
			h.node = id
		}
	}
	return n
}

// Busy says whether an act on a node of a shard is running.
func (l *Loop) Busy(shard int) bool {
	return l.acting(func(id string) bool { return inventory.Shard(id) == shard })
}

// Acting says whether any act is running.
func (l *Loop) Acting() bool { return l.acting(func(string) bool { return true }) }

func (l *Loop) acting(on func(node string) bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, n := range l.nodes {
		if n.seen.Busy != "" && on(id) {
			return true
		}
	}
	return false
}

// Wake has the loop look at every node again.
func (l *Loop) Wake() {
	l.Init()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Live is what this daemon can say of a node beside its record.
type Live struct {
	Say      string
	Since    time.Time
	Progress *inventory.Progress
	Heard    time.Time
	Left     time.Duration // of the state's deadline
	Timed    bool
	Still    string // why the deadline stands still; "" while it runs
	Held     bool   // the open breaker holds it up
}

// Live tells it; the zero value when nothing is known yet.
func (l *Loop) Live(id string) Live {
	l.Init()
	v := inventory.View(l.Copy, id)
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.nodes[id]
	if n == nil {
		return Live{}
	}
	out := Live{Say: n.decided.Say, Since: n.at, Progress: n.seen.Progress, Heard: n.seen.Heard}
	out.Left, out.Timed = Left(Input{View: v, Seen: n.seen})
	out.Still, out.Held = cmp.Or(n.decided.Still, l.still), n.decided.Held
	if _, known := lifecycle.Get(v.State.V.State); !known {
		out.Say = Decide(Input{View: v, Rules: l.Rules}).Say
	}
	return out
}
