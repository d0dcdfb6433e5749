package ledger

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/lifecycle"
)

// Identities are the registered identities of a spec: each belongs to one node only.
func Identities(s inventory.Spec) map[string]string {
	ids := map[string]string{}
	add := func(kind, value string) {
		if value != "" && !Worthless(kind, value) {
			ids[inventory.KeyID(kind, value)] = value
		}
	}
	add("name", s.Name)
	add("serial", s.Serial)
	add("uuid", s.UUID)
	add("ip", s.IP)
	for _, m := range s.MACs {
		add("mac", m)
	}
	return ids
}

// worthless UUIDs and serials are what boards ship with: they identify nothing (reliability.md F-24).
var worthless = map[string][]string{
	"uuid": {"00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff", "03000200-0400-0500-0006-000700080009",
		"00020003-0004-0005-0006-000700080009", "12345678-1234-5678-90ab-cddeefaabbcc", "78563412-3412-7856-90ab-cddeefaabbcc"},
	"serial": {"to be filled by o.e.m.", "default string", "system serial number", "not specified", "none", "0123456789",
		"n/a", "na", "not applicable", "unknown", "default", "empty", "chassis serial number", "oem", "o.e.m.", "123456789", "1234567890", "0", "00000000", "xxxxxxxx"},
}

// Worthless says whether a value is one of those that vendors put into every board.
func Worthless(kind, value string) bool {
	return slices.Contains(worthless[kind], strings.ToLower(value))
}

// Add writes a new node: spec, state discovered, identities, history. An identity that belongs to another node makes it
// a *Refusal that names both.
func (l *Ledger) Add(ctx context.Context, spec inventory.Spec, actor, reason string) (string, error) {
	edge, err := lifecycle.Find("", lifecycle.Appear)
	if err != nil {
		return "", err
	}
	id := "n-" + l.NewID()
	now := l.Now()
	spec.Schema, spec.Added = inventory.Schema, now
	v := inventory.NodeView{ID: id}
	v.State.KV.Key, v.Public.KV.Key, v.Spec.KV.Key = inventory.KeyState(id), inventory.KeyPublic(id), inventory.KeySpec(id)
	var t inventory.Txn
	if err := put(&t, &v.Spec, spec, true); err != nil {
		return "", err
	}
	if err := register(&t, id, Identities(spec), nil); err != nil {
		return "", err
	}
	st := l.enter(v, edge, now)
	st.Reason, st.BurnInDue = reason, true
	err = l.write(&t, v, st, inventory.History{Kind: "transition", To: edge.To, Event: string(edge.On), Reason: reason, Actor: actor}, now)
	if err != nil {
		return "", err
	}
	return id, l.commitIdentities(ctx, t)
}

// Edit changes a node's spec and moves its registered identities along.
func (l *Ledger) Edit(ctx context.Context, v inventory.NodeView, spec inventory.Spec) error {
	if err := writable(v); err != nil {
		return err
	}
	var t inventory.Txn
	old := Identities(v.Spec.V)
	next := v
	if err := put(&t, &next.Spec, spec, true); err != nil {
		return err
	}
	if err := register(&t, v.ID, Identities(spec), old); err != nil {
		return err
	}
	// What is offered was offered as it was: a hold or another SKU takes it back, and the reconciler offers it anew.
	if (len(spec.Holds) > 0 || spec.SKU != v.Spec.V.SKU) && v.Avail.Exists() {
		t.If, t.Then = append(t.If, v.Avail.Unchanged()), append(t.Then, inventory.Delete(v.Avail.KV.Key))
		next.Avail = inventory.Doc[inventory.Avail]{}
	}
	op, err := next.Public.Put(next.Offer(l.Now()))
	if err != nil {
		return err
	}
	t.If = append(t.If, v.State.Unchanged())
	t.Then = append(t.Then, op)
	return l.commitIdentities(ctx, t)
}

type holder struct {
	Node string `json:"node"`
}

func register(t *inventory.Txn, id string, now, before map[string]string) error {
	for _, key := range slices.Sorted(maps.Keys(now)) { // in order: the same try has the same answer
		if before[key] != "" {
			continue
		}
		op, err := inventory.Encode(key, holder{id})
		if err != nil {
			return err
		}
		t.If, t.Then, t.Else = append(t.If, inventory.Absent(key)), append(t.Then, op), append(t.Else, key)
	}
	for key := range before {
		if now[key] == "" {
			t.Then = append(t.Then, inventory.Delete(key))
		}
	}
	slices.SortFunc(t.Then, func(a, b inventory.Op) int { return strings.Compare(a.Key, b.Key) })
	return nil
}

func (l *Ledger) commitIdentities(ctx context.Context, t inventory.Txn) error {
	r, err := l.Store.Commit(ctx, t)
	if err != nil {
		return err
	}
	if r.Done {
		return nil
	}
	for _, kv := range r.Else {
		if h, err := inventory.Decode[holder](kv); err == nil && h.Exists() {
			p := inventory.Parts(kv.Key)
			return Refuse("hostler node show "+h.V.Node, "%s %s already belongs to node %s", p[1], strings.Join(p[2:], "/"), h.V.Node)
		}
	}
	return ErrConflict
}

// Holder is the node that an identity belongs to; "" when none.
func Holder(r inventory.Reader, kind, value string) string {
	h, err := inventory.Decode[holder](r.One(inventory.KeyID(kind, value)))
	if err != nil {
		return ""
	}
	return h.V.Node
}
