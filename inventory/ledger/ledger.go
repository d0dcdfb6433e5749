// Package ledger writes every move of a node, each as one transaction: the state, the public record, the history entry
// and whatever ends with it (offer, claim, session) change together or not at all.
//
// The reconciler moves nodes with Move, tells how far a step is with Note, and offers ready ones with Offer; the API's
// three transactions are Claim, Confirm and Release. What may follow what is not decided here but in the lifecycle
// table; what opens the way to ready is in gate.go. Whoever loses against another writer gets ErrConflict, reads again
// and decides again. The package knows no hardware and keeps nothing in memory.
package ledger

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/lifecycle"
)

// ErrConflict says that somebody else wrote first: read again, decide again.
var ErrConflict = errors.New("ledger: somebody else changed the node first")

// A Ledger writes moves to one store.
type Ledger struct {
	Store inventory.Store
	Now   func() time.Time
	// Term gives the condition that this replica still owns the node's shard. Nil: the caller needs none (the API).
	Term func(node string) []inventory.Cond
	// Allowed overrides a state's deadline; nil or 0 keeps the table's.
	Allowed map[inventory.State]time.Duration
	// CertificateKey is what certificates of the gate to ready must be signed with.
	CertificateKey ed25519.PublicKey
	NewID          func() string // a ULID
}

// A Change is what a writer says beside the event: who, why, and what else must hold or be written with it.
type Change struct {
	Actor  string
	Reason string
	Cause  string                     // what set the node going, where the event alone does not say it ("alert X")
	Unwell string                     // it became unhealthy with this, by what: counts towards the breaker
	Edit   func(*inventory.NodeState) // last touch to the new state record
	If     []inventory.Cond
	Then   []inventory.Op

	Instance    *inventory.Instance // written with it
	Reservation *inventory.Reservation
	Claim       *inventory.Claim
	Session     *inventory.Session
}

// Move takes the node along the edge that the table has for ev, and returns the revision of the write. v is the node as
// the caller saw it; if anything that matters has changed since, nothing is written and ErrConflict comes back.
func (l *Ledger) Move(ctx context.Context, v inventory.NodeView, ev lifecycle.Event, c Change) (int64, error) {
	t, err := l.move(v, ev, c)
	if err != nil {
		return 0, err
	}
	return l.commit(ctx, t)
}

func (l *Ledger) commit(ctx context.Context, t inventory.Txn) (int64, error) {
	r, err := l.Store.Commit(ctx, t)
	if err != nil {
		return 0, err
	}
	if !r.Done {
		return 0, ErrConflict
	}
	return r.Rev, nil
}

// writable refuses a node of which this version does not understand every record.
func writable(v inventory.NodeView) error {
	if v.Broken != nil {
		return fmt.Errorf("ledger: %s is read-only: %w", v.Name(), v.Broken)
	}
	if _, known := lifecycle.Get(v.State.V.State); !known {
		return fmt.Errorf("ledger: %s is in state %q, which this version does not know: it is read-only; upgrade hostlerd", v.Name(), v.State.V.State)
	}
	return nil
}

// move builds the transaction of a move.
func (l *Ledger) move(v inventory.NodeView, ev lifecycle.Event, c Change) (inventory.Txn, error) {
	var none inventory.Txn
	if err := writable(v); err != nil {
		return none, err
	}
	old := v.State.V
	edge, err := lifecycle.Find(old.State, ev)
	if err != nil {
		return none, err
	}
	now := l.Now()
	st := l.enter(v, edge, now)
	if !stays(edge) {
		st.Reason = c.Reason
	}
	if lifecycle.Begins(ev) && !stays(edge) {
		st.Cause = cmp.Or(c.Cause, string(ev))
	}
	if edge.To == inventory.Ready || edge.To == inventory.InUse || edge.From == inventory.Quarantined {
		getWell(&st) // proven well, or somebody has looked
	}
	fallIll(&st, c, now)
	if edge.EndClaim && v.Claim.Exists() && st.Taint != "" {
		st.Instance = v.Claim.V.Instance
	}
	t := inventory.Txn{If: append(c.If, l.term(v.ID)...), Then: c.Then}
	if edge.To == inventory.Ready && edge.From != inventory.Reserved {
		conds, err := l.gate(v)
		if err != nil {
			return none, err
		}
		t.If = append(t.If, conds...)
		st.Tested = now // its run has just ended; the agent's clock dates its report, ours its age
	}
	if c.Edit != nil {
		c.Edit(&st)
	}

	next := v // as the node will stand: the public record is made from it
	if st.Wipe != old.Wipe {
		next.Certificate = inventory.Doc[inventory.Certificate]{} // the one that was read is of the wipe before
	}
	if v.Avail.Exists() {
		t.Then = append(t.Then, inventory.Delete(v.Avail.KV.Key))
		next.Avail = inventory.Doc[inventory.Avail]{}
	}
	if edge.By == lifecycle.Restorer {
		restored(&next, edge, st.Generation, &c, now)
	}
	if err := l.carry(&t, &next, edge, c, now); err != nil {
		return none, err
	}
	return t, l.write(&t, next, st, inventory.History{
		Kind: "transition", From: old.State, To: edge.To, Event: string(ev), Reason: c.Reason, Actor: c.Actor}, now)
}

// fallIll notes that a node became unhealthy, unless it is so already; getWell that it is well again. When it began stays
// in the record: the breaker counts it.
func fallIll(st *inventory.NodeState, c Change, now time.Time) {
	if c.Unwell != "" && (st.Unwell.Since.IsZero() || st.Unwell.Over) {
		st.Unwell = inventory.Unwell{Since: now, By: c.Unwell}
	}
}

func getWell(st *inventory.NodeState) { st.Unwell.Over = !st.Unwell.Since.IsZero() }

// enter is the state record after taking the edge.
func (l *Ledger) enter(v inventory.NodeView, e lifecycle.Edge, now time.Time) inventory.NodeState {
	st := v.State.V
	if !stays(e) {
		st.Attempt++
		if e.From != e.To {
			st.Attempt = 0
		}
		st.Schema, st.From, st.State, st.Since = inventory.Schema, e.From, e.To, now
		st.Work, st.Spent = inventory.Work{}, 0
		st.Allowed = inventory.Duration(lifecycle.Allowed(e.To, time.Duration(v.SKU.V.Boot), l.Allowed[e.To]))
	}
	step := int64(1)
	if e.Jump {
		step = lifecycle.Jump
	}
	if e.Generation {
		st.Generation += step
	}
	if e.Wipe {
		st.Wipe += step
	}
	if e.Taint {
		st.Taint = inventory.Taint
	}
	if e.Clean {
		st.Taint = ""
	}
	return st
}

// carry writes what changes with the edge beside the state: session, claim, reservation, instance.
func (l *Ledger) carry(t *inventory.Txn, next *inventory.NodeView, e lifecycle.Edge, c Change, now time.Time) error {
	v := *next
	if e.Generation && v.Session.Exists() {
		s := v.Session.V
		if e.On == lifecycle.Claim {
			// The warm node goes on under the new generation: same boot, same agent, new orders.
			s.Generation++
		} else if s.Phase == inventory.SessionArmed || s.Phase == inventory.SessionRedeemed {
			s.Phase, s.Reason, s.Cert = inventory.SessionClosed, c.Reason, nil
		}
		if err := put(t, &next.Session, s, true); err != nil {
			return err
		}
	} else if c.Session != nil {
		next.Session.KV.Key = inventory.KeySession(v.ID)
		if err := put(t, &next.Session, *c.Session, true); err != nil {
			return err
		}
	}
	if c.Claim != nil {
		next.Claim.KV.Key = inventory.KeyClaim(v.ID)
		if err := put(t, &next.Claim, *c.Claim, true); err != nil {
			return err
		}
	}
	if c.Instance != nil {
		next.Instance.KV.Key = inventory.KeyInstance(c.Instance.ID)
		if err := put(t, &next.Instance, *c.Instance, false); err != nil {
			return err
		}
	}
	if c.Reservation != nil {
		next.Reservation.KV.Key = inventory.KeyReservation(c.Reservation.Tenant, c.Reservation.ID)
		if err := put(t, &next.Reservation, *c.Reservation, true); err != nil {
			return err
		}
	}
	if e.EndClaim && v.Claim.Exists() {
		return l.endClaim(t, next, c.Reason, e.On == lifecycle.Expire || e.On == lifecycle.Timeout && e.From == inventory.Reserved, now)
	}
	return nil
}

// endClaim closes the claim: the tenant's use of the node is over, for certain.
func (l *Ledger) endClaim(t *inventory.Txn, next *inventory.NodeView, reason string, expired bool, now time.Time) error {
	claim := next.Claim
	t.If = append(t.If, claim.Unchanged())
	t.Then = append(t.Then, inventory.Delete(claim.KV.Key), inventory.Delete(inventory.KeySealed(claim.V.Instance)))
	if r := next.Reservation; r.Exists() && (r.V.Phase == inventory.Pending || r.V.Phase == inventory.Committed) {
		rv := r.V
		rv.Phase, rv.Ended, rv.Reason = inventory.Released, now, reason
		if expired {
			rv.Phase = inventory.Expired
		}
		if err := put(t, &next.Reservation, rv, true); err != nil {
			return err
		}
	}
	if in := next.Instance; in.Exists() && in.V.Phase != inventory.InstanceEnded {
		iv := in.V
		iv.Phase, iv.Ready, iv.ReadyReason, iv.Ended = inventory.InstanceEnded, false, reason, now
		if err := put(t, &next.Instance, iv, true); err != nil {
			return err
		}
	}
	next.Claim = inventory.Doc[inventory.Claim]{KV: inventory.KV{Key: claim.KV.Key}}
	return nil
}

// put adds the write of a record to the transaction and shows it in the view; guard also demands that it is unchanged.
func put[T any](t *inventory.Txn, d *inventory.Doc[T], v T, guard bool) error {
	op, err := d.Put(v)
	if err != nil {
		return err
	}
	if guard {
		t.If = append(t.If, d.Unchanged())
	}
	t.Then = append(t.Then, op)
	d.V = v
	if d.KV.Mod == 0 {
		d.KV.Mod = -1 // exists from now on, in this view
	}
	return nil
}

// write adds state, history and public record.
func (l *Ledger) write(t *inventory.Txn, next inventory.NodeView, st inventory.NodeState, h inventory.History, now time.Time) error {
	st.Seq++
	op, err := next.State.Put(st)
	if err != nil {
		return err
	}
	t.If = append(t.If, next.State.Unchanged())
	t.Then = append(t.Then, op)
	next.State.V = st

	h.Schema, h.Seq, h.Time, h.Generation, h.Wipe = inventory.Schema, st.Seq, now, st.Generation, st.Wipe
	hist := inventory.KeyHistory(next.ID, st.Seq)
	if op, err = inventory.Encode(hist, h); err != nil {
		return err
	}
	t.If = append(t.If, inventory.Absent(hist))
	t.Then = append(t.Then, op)
	if h.Kind == "step" {
		return nil // nothing that the rental layer can see has changed
	}
	next.Public.KV.Key = inventory.KeyPublic(next.ID)
	if op, err = next.Public.Put(next.Offer(now)); err != nil {
		return err
	}
	t.Then = append(t.Then, op)
	return nil
}

// Current makes sure, by a fresh read, that the node's record is still the one that v shows, that this replica still
// owns it, and that more is as it was. It is asked right before every act to the outside world: a record that moved on, a replica that was replaced
// and a store that cannot be reached start nothing.
func (l *Ledger) Current(ctx context.Context, v inventory.NodeView, more ...inventory.Cond) error {
	for _, c := range slices.Concat(l.term(v.ID), []inventory.Cond{v.State.Unchanged()}, more) {
		kv, err := l.Store.Get(ctx, c.Key)
		switch {
		case err != nil:
			return err
		case c.Create != 0 && kv.Create != c.Create, c.Create == 0 && kv.Mod != c.Mod:
			return ErrConflict
		}
	}
	return nil
}

func (l *Ledger) term(node string) []inventory.Cond {
	if l.Term == nil {
		return nil
	}
	return l.Term(node)
}

// Note writes how far the step of the present state is, before the act that it announces: phase, try, order, and what
// belongs to it (a new session). It is a history entry of its own.
func (l *Ledger) Note(ctx context.Context, v inventory.NodeView, c Change) (int64, error) {
	if err := writable(v); err != nil {
		return 0, err
	}
	now := l.Now()
	st := v.State.V
	if c.Edit != nil {
		c.Edit(&st)
	}
	if st.Alive == inventory.Alive && v.State.V.Alive != inventory.Alive && st.State != inventory.Quarantined {
		getWell(&st)
	}
	fallIll(&st, c, now)
	t := inventory.Txn{If: append(c.If, l.term(v.ID)...), Then: c.Then}
	next := v
	if err := l.carry(&t, &next, lifecycle.Edge{}, c, now); err != nil {
		return 0, err
	}
	kind := "step"
	if c.Instance != nil || st.Alive != v.State.V.Alive {
		kind = "fact" // shows in the public record
	}
	if st.Alive != inventory.Alive && v.Avail.Exists() {
		t.Then = append(t.Then, inventory.Delete(v.Avail.KV.Key))
		next.Avail = inventory.Doc[inventory.Avail]{}
	}
	err := l.write(&t, next, st, inventory.History{Kind: kind, From: st.State, To: st.State, Phase: st.Work.Phase, Reason: c.Reason, Actor: c.Actor}, now)
	if err != nil {
		return 0, err
	}
	return l.commit(ctx, t)
}

// EndClaim closes the claim of a node whose power was confirmed off outside an edge that does it (quarantine).
func (l *Ledger) EndClaim(ctx context.Context, v inventory.NodeView, c Change) (int64, error) {
	if err := writable(v); err != nil {
		return 0, err
	}
	if !v.Claim.Exists() {
		return 0, fmt.Errorf("ledger: %s has no claim that could end", v.Name())
	}
	now := l.Now()
	t := inventory.Txn{If: append(c.If, l.term(v.ID)...), Then: c.Then}
	next := v
	if err := l.endClaim(&t, &next, c.Reason, false, now); err != nil {
		return 0, err
	}
	st := v.State.V
	st.Instance = v.Claim.V.Instance
	if c.Edit != nil {
		c.Edit(&st)
	}
	if err := l.write(&t, next, st, inventory.History{Kind: "fact", From: st.State, To: st.State, Reason: c.Reason, Actor: c.Actor}, now); err != nil {
		return 0, err
	}
	return l.commit(ctx, t)
}
