package ledger

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/lifecycle"
)

// A Refusal is an answer, not a fault: the request was understood and the state of the world says no.
type Refusal struct {
	Why string
	Fix string // what a person can do
}

func (r *Refusal) Error() string {
	if r.Fix == "" {
		return r.Why
	}
	return r.Why + "; " + r.Fix
}

// Refuse makes a Refusal.
func Refuse(fix, format string, a ...any) error {
	return &Refusal{Why: fmt.Sprintf(format, a...), Fix: fix}
}

// How long a reservation lasts until confirm.
const (
	DefaultHold = 10 * time.Minute
	LongestHold = 60 * time.Minute
	Tombstone   = 30 * 24 * time.Hour
)

// A ClaimRequest asks for one node. Reservation is made by the client and is the idempotency key.
type ClaimRequest struct {
	Tenant, Project, Reservation string
	SKU                          string
	Node                         string // "": any
	Hold                         time.Duration
	Actor                        string
}

// Claim reserves one rentable node in one transaction. Asked again with the same reservation id it finds its own
// result. When no node is left it returns a *Refusal that says why.
func (l *Ledger) Claim(ctx context.Context, q ClaimRequest) (inventory.Reservation, error) {
	var none inventory.Reservation
	if q.Hold <= 0 {
		q.Hold = DefaultHold
	}
	if q.Hold > LongestHold {
		return none, Refuse("", "a reservation can be held for %v at most, not %v", LongestHold, q.Hold)
	}
	resKey := inventory.KeyReservation(q.Tenant, q.Reservation)
	taken := ""                 // what the last lost race was about
	passed := map[string]bool{} // nodes that this version does not understand: not for us to give away
	for try := 0; try < 64; try++ {
		r := &inventory.Read{Ctx: ctx, Store: l.Store}
		if old, err := inventory.Decode[inventory.Reservation](r.One(resKey)); r.Err != nil || err != nil {
			return none, cmp.Or(r.Err, err)
		} else if old.Exists() {
			return l.sameClaim(old.V, q)
		}
		ids, err := l.candidates(ctx, q)
		if err != nil {
			return none, err
		}
		ids = slices.DeleteFunc(ids, func(id string) bool { return passed[id] })
		if len(ids) == 0 {
			return none, l.nothingLeft(ctx, q, taken)
		}
		// Clients that come at once start at different nodes, so that they do not all lose against each other.
		id := ids[spread(q.Reservation, len(ids), try)]
		v := inventory.View(r, id)
		if r.Err != nil {
			return none, r.Err
		}
		if writable(v) != nil {
			passed[id], taken = true, "passed over: a record of it is not readable to this version"
			continue
		}
		if !v.Avail.Exists() || v.State.V.State != inventory.Ready { // its records were read one after the other
			taken = "taken by another claim a moment ago"
			continue
		}
		res, err := l.claim(ctx, v, q)
		if errors.Is(err, ErrConflict) {
			taken = "taken by another claim a moment ago"
			continue
		}
		return res, err
	}
	return none, Refuse("try again", "64 tries lost against other claims")
}

func (l *Ledger) claim(ctx context.Context, v inventory.NodeView, q ClaimRequest) (inventory.Reservation, error) {
	now := l.Now()
	res := inventory.Reservation{Schema: inventory.Schema, ID: q.Reservation, Tenant: q.Tenant, Project: q.Project,
		Phase: inventory.Pending, SKU: v.Spec.V.SKU, Node: v.ID, Instance: "i-" + l.NewID(), Created: now, Expires: now.Add(q.Hold), Hold: inventory.Duration(q.Hold)}
	claim := inventory.Claim{Schema: inventory.Schema, Node: v.ID, Tenant: q.Tenant, Reservation: q.Reservation,
		Instance: res.Instance, Generation: v.State.V.Generation + 1, Since: now}
	v.Reservation.KV = inventory.KV{Key: inventory.KeyReservation(q.Tenant, q.Reservation)} // must be absent
	_, err := l.Move(ctx, v, lifecycle.Claim, Change{
		Actor: q.Actor, Reason: fmt.Sprintf("claimed by %s under reservation %s", q.Tenant, q.Reservation),
		If:    []inventory.Cond{v.Avail.Unchanged(), inventory.Absent(inventory.KeyClaim(v.ID))},
		Claim: &claim, Reservation: &res,
	})
	return res, err
}

// sameClaim answers a repeated claim.
func (l *Ledger) sameClaim(old inventory.Reservation, q ClaimRequest) (inventory.Reservation, error) {
	switch {
	case q.SKU != "" && old.SKU != q.SKU:
		return old, Refuse("use a new reservation id", "reservation %s exists for SKU %s, not %s", q.Reservation, old.SKU, q.SKU)
	case q.Node != "" && old.Node != q.Node:
		return old, Refuse("use a new reservation id", "reservation %s is for node %s, not %s", q.Reservation, old.Node, q.Node)
	case old.Phase == inventory.Expired || old.Phase == inventory.Released:
		return old, Refuse("use a new reservation id", "reservation %s is over: %s (%s)", q.Reservation, old.Phase, old.Reason)
	}
	return old, nil
}

// candidates lists the rentable nodes that fit, in the order of their names' keys.
func (l *Ledger) candidates(ctx context.Context, q ClaimRequest) ([]string, error) {
	s, err := l.Store.List(ctx, inventory.PrefixAvail, inventory.ListOptions{})
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, kv := range s.KVs {
		a, err := inventory.Decode[inventory.Avail](kv)
		if err != nil {
			continue // written by a newer version: not for us to give away
		}
		id := inventory.Parts(kv.Key)[1]
		if (q.SKU == "" || a.V.SKU == q.SKU) && (q.Node == "" || q.Node == id) {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// nothingLeft says why no node can be claimed.
func (l *Ledger) nothingLeft(ctx context.Context, q ClaimRequest, taken string) error {
	s, err := l.Store.List(ctx, inventory.PrefixPublic, inventory.ListOptions{})
	if err != nil {
		return err
	}
	count := map[inventory.State]int{}
	total := 0
	for _, kv := range s.KVs {
		p, err := inventory.Decode[inventory.Public](kv)
		if err != nil || q.SKU != "" && p.V.SKU != q.SKU || q.Node != "" && p.V.ID != q.Node {
			continue
		}
		if q.Node != "" {
			why := cmp.Or(taken, "it is not on offer yet: hostlerd looks at it first")
			if len(p.V.Reasons) > 0 {
				why = p.V.Reasons[0]
			}
			return Refuse("hostler why "+p.V.Name, "node %s cannot be claimed: %s", p.V.Name, why)
		}
		total++
		count[p.V.State]++
	}
	if total == 0 {
		return Refuse("hostler node ls", "there is no node of SKU %q", q.SKU)
	}
	var parts []string
	for _, st := range lifecycle.States {
		if n := count[st.Name]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, st.Name))
		}
	}
	what := fmt.Sprintf("no node of SKU %s is rentable now: %s, of %d", q.SKU, strings.Join(parts, ", "), total)
	if taken != "" {
		what += "; the last one was " + taken
	}
	return Refuse("hostler watch", "%s", what)
}

// spread picks a starting place from the reservation id, and walks on from there at each try.
func spread(id string, n, try int) int {
	h := uint32(2166136261)
	for i := 0; i < len(id); i++ {
		h = (h ^ uint32(id[i])) * 16777619
	}
	return (int(h%uint32(n)) + try) % n
}

// A ConfirmRequest turns a reservation into a tenancy. Sealed holds user data and keys, already sealed.
type ConfirmRequest struct {
	Tenant, Reservation string
	Image, ImageName    string
	Hostname, SeedHash  string
	Sealed              []byte
	Actor               string
}

// Confirm moves the reserved node to provisioning: taint is set and the wipe number rises in the same transaction.
func (l *Ledger) Confirm(ctx context.Context, q ConfirmRequest) (inventory.Instance, error) {
	var in inventory.Instance
	err := l.retry(func() error {
		res, v, err := l.reserved(ctx, q.Tenant, q.Reservation)
		if err != nil {
			return err
		}
		switch res.V.Phase {
		case inventory.Pending:
			if v.State.V.State != inventory.Reserved { // its records were read one after the other: another confirm came between
				return ErrConflict
			}
		case inventory.Committed:
			if in = v.Instance.V; in.Image != q.Image || in.SeedHash != q.SeedHash {
				return Refuse("release it and claim again", "reservation %s is already confirmed with another image or seed", q.Reservation)
			}
			return nil
		default:
			return Refuse("claim again under a new id", "reservation %s is over: %s (%s)", q.Reservation, res.V.Phase, res.V.Reason)
		}
		// Whether it has run out is the reconciler's to say, who counts: no clock is asked here that may be wrong.
		if !v.SKU.Exists() {
			return Refuse("declare it in site.yaml", "the node's SKU %q is not declared any more", v.Spec.V.SKU)
		}
		if ok := v.SKU.V.Qualified; len(ok) > 0 && !slices.Contains(ok, q.Image) && !slices.Contains(ok, q.ImageName) {
			return Refuse("qualify it first", "image %s is not qualified on SKU %s", q.ImageName, v.Spec.V.SKU)
		}
		rv := res.V
		rv.Phase, rv.Image = inventory.Committed, q.Image
		in = inventory.Instance{Schema: inventory.Schema, ID: rv.Instance, Node: v.ID, Tenant: q.Tenant, Reservation: q.Reservation,
			Generation: v.State.V.Generation, Image: q.Image, ImageName: q.ImageName, Phase: inventory.InstanceProvisioning,
			ReadyReason: "the image is being written", Hostname: q.Hostname, SeedHash: q.SeedHash, Confirmed: l.Now()}
		sealed, err := inventory.Encode(inventory.KeySealed(in.ID), inventory.Sealed{Schema: inventory.Schema, Age: q.Sealed})
		if err != nil {
			return err
		}
		_, err = l.Move(ctx, v, lifecycle.Confirm, Change{Actor: q.Actor, Reason: "confirmed with image " + cmp.Or(q.ImageName, q.Image),
			If: []inventory.Cond{v.Claim.Unchanged()}, Then: []inventory.Op{sealed}, Instance: &in, Reservation: &rv})
		return err
	})
	return in, err
}

// Release gives a node back, from wherever its tenancy stands. Asked again it finds that it is done.
func (l *Ledger) Release(ctx context.Context, tenant, reservation, actor, reason string) (inventory.Reservation, error) {
	var out inventory.Reservation
	err := l.retry(func() error {
		res, v, err := l.reserved(ctx, tenant, reservation)
		if err != nil {
			return err
		}
		out = res.V
		if out.Phase == inventory.Released || out.Phase == inventory.Expired {
			return nil
		}
		out.Phase, out.Ended, out.Reason = inventory.Released, l.Now(), cmp.Or(reason, "released by "+actor)
		c := Change{Actor: actor, Reason: out.Reason}
		if v.State.V.State != inventory.Reserved { // there the edge itself closes claim and reservation
			c.Reservation = &out
			if in := v.Instance.V; v.Instance.Exists() && in.Phase != inventory.InstanceEnded {
				in.Phase, in.Ready, in.ReadyReason = inventory.InstanceDraining, false, out.Reason
				c.Instance = &in
			}
		}
		if _, err := lifecycle.Find(v.State.V.State, lifecycle.Release); err != nil {
			// Already on its way back (draining, fencing, quarantined): only the reservation has to say so.
			_, err = l.Note(ctx, v, c)
			return err
		}
		_, err = l.Move(ctx, v, lifecycle.Release, c)
		return err
	})
	return out, err
}

// Renew has a pending reservation wait anew, for as long as hold.
func (l *Ledger) Renew(ctx context.Context, tenant, reservation string, hold time.Duration) (inventory.Reservation, error) {
	var out inventory.Reservation
	err := inventory.Update(ctx, l.Store, inventory.KeyReservation(tenant, reservation), func(kv inventory.KV) ([]inventory.Cond, []inventory.Op, error) {
		d, err := inventory.Decode[inventory.Reservation](kv)
		if err != nil {
			return nil, nil, err
		}
		if !d.Exists() {
			return nil, nil, Refuse("hostler claim ls", "there is no reservation %s of tenant %s", reservation, tenant)
		}
		if d.V.Phase != inventory.Pending {
			return nil, nil, Refuse("", "reservation %s is %s: only a pending one can be renewed", reservation, d.V.Phase)
		}
		now := l.Now()
		out = d.V
		out.Expires, out.Hold = now.Add(hold), inventory.Duration(hold)
		gone := now.Sub(out.Created)
		if gone < 0 || gone > LongestHold { // a clock was set: it says nothing, and the state's own deadline ends it in time
			gone = 0
		}
		if hold <= 0 || gone+hold > LongestHold {
			return nil, nil, Refuse("confirm or release it", "a reservation can be held for %v in all", LongestHold)
		}
		op, err := d.Put(out)
		return nil, []inventory.Op{op}, err
	})
	return out, err
}

// reserved reads a reservation and its node, fresh.
func (l *Ledger) reserved(ctx context.Context, tenant, id string) (inventory.Doc[inventory.Reservation], inventory.NodeView, error) {
	r := &inventory.Read{Ctx: ctx, Store: l.Store}
	res, err := inventory.Decode[inventory.Reservation](r.One(inventory.KeyReservation(tenant, id)))
	if r.Err != nil || err != nil {
		return res, inventory.NodeView{}, cmp.Or(r.Err, err)
	}
	if !res.Exists() {
		return res, inventory.NodeView{}, Refuse("hostler claim ls", "there is no reservation %s of tenant %s", id, tenant)
	}
	v := inventory.View(r, res.V.Node)
	if r.Err != nil {
		return res, v, r.Err
	}
	if res.V.Phase == inventory.Pending || res.V.Phase == inventory.Committed {
		if !v.Claim.Exists() || v.Claim.V.Reservation != id || v.Claim.V.Tenant != tenant {
			if r.One(res.KV.Key).Mod != res.KV.Mod { // it ended between the two reads
				return res, v, cmp.Or(r.Err, ErrConflict)
			}
			return res, v, fmt.Errorf("ledger: reservation %s names node %s, whose claim is another's: hostler audit", id, v.Name())
		}
	}
	return res, v, nil
}

// retry runs f again while it loses against other writers.
func (l *Ledger) retry(f func() error) error {
	for try := 0; ; try++ {
		if err := f(); !errors.Is(err, ErrConflict) || try == 31 {
			return err
		}
	}
}
