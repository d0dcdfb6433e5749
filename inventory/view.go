package inventory

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// View collects one node with all that belongs to it. A record that cannot be read, or was written by a newer version,
// is told in Broken: such a node is shown, and never written.
func View(r Reader, id string) (v NodeView) {
	if c, ok := r.(interface{ Frozen(func(Reader)) }); ok {
		c.Frozen(func(r Reader) { v = view(r, id) })
		return v
	}
	return view(r, id)
}

func view(r Reader, id string) NodeView {
	v := NodeView{ID: id}
	var errs []error
	v.Spec = take[Spec](r, KeySpec(id), &errs)
	v.State = take[NodeState](r, KeyState(id), &errs)
	v.Facts = take[Facts](r, KeyFacts(id), &errs)
	v.Public = take[Public](r, KeyPublic(id), &errs)
	v.Avail = take[Avail](r, KeyAvail(id), &errs)
	v.Claim = take[Claim](r, KeyClaim(id), &errs)
	v.Session = take[Session](r, KeySession(id), &errs)
	v.Certificate = take[Certificate](r, KeyCert(id, v.State.V.Wipe), &errs)
	v.SKU.KV.Key = KeySKU(v.Spec.V.SKU)
	if v.Spec.V.SKU != "" {
		v.SKU = take[SKU](r, KeySKU(v.Spec.V.SKU), &errs)
	}
	if c := v.Claim.V; v.Claim.Exists() {
		v.Reservation = take[Reservation](r, KeyReservation(c.Tenant, c.Reservation), &errs)
		v.Instance = take[Instance](r, KeyInstance(c.Instance), &errs)
	}
	if tests := r.Under(PrefixTests + id + "/"); len(tests) > 0 {
		v.Test = decode[TestRun](r, tests[len(tests)-1], &errs) // ids are ULIDs: the last is the newest
	}
	for _, kv := range r.Under(PrefixHealth + id + "/") {
		v.Health = append(v.Health, decode[HealthReport](r, kv, &errs))
	}
	for _, kv := range r.Under(PrefixWishes + id + "/") {
		if w := decode[Wish](r, kv, &errs); w.V.Answer == "" || w.V.Answer == Doing {
			v.Wishes = append(v.Wishes, w)
		}
	}
	v.Broken = errors.Join(errs...)
	return v
}

func take[T any](r Reader, key string, errs *[]error) Doc[T] {
	kv := r.One(key)
	kv.Key = key
	return decode[T](r, kv, errs)
}

func decode[T any](r Reader, kv KV, errs *[]error) Doc[T] {
	f, remembers := r.(frozen)
	if remembers {
		if known, ok := f.read.Load(kv.Key); ok {
			if d, ok := known.(Doc[T]); ok && d.KV.Mod == kv.Mod {
				return d
			}
		}
	}
	d, err := Decode[T](kv)
	switch {
	case err != nil:
		*errs = append(*errs, err)
	case remembers && d.Exists():
		f.read.Store(kv.Key, d)
	}
	return d
}

// Answers of a wish.
const (
	Doing   = "doing"
	DoneOK  = "done"
	Refused = "refused"
	Stale   = "stale"
)

// Liveness of a node, as NodeState.Alive has it.
const (
	Alive   = "alive"
	Silent  = "silent"
	Unknown = "unknown"
)

// Name is what people call the node: its name, or its id while it has none.
func (v NodeView) Name() string {
	if v.Spec.V.Name != "" {
		return v.Spec.V.Name
	}
	return v.ID
}

// ClockSlack is how far the clocks of two replicas may be apart. A test that is dated further ahead than that was dated by
// a clock that was wrong, or ours is: its age is not known, so it is no proof.
const ClockSlack = 5 * time.Minute

// Blocked lists, in words, everything that keeps the node from being rented; empty means rentable. Absence is never
// permission: what is not known blocks.
func (v NodeView) Blocked(now time.Time) []string { return v.blocked(now, true) }

// blocked leaves out, where timed is false, what only time can change.
func (v NodeView) blocked(now time.Time, timed bool) []string {
	var out []string
	st := v.State.V
	say := func(format string, a ...any) { out = append(out, fmt.Sprintf(format, a...)) }
	if v.Broken != nil {
		say("a record of it cannot be read: %v", v.Broken)
	}
	if st.State != Ready {
		say("it is %s: %s", st.State, st.Reason)
	}
	if st.State == Ready && st.Alive != Alive {
		say("its agent is %s", cmp.Or(st.Alive, Unknown))
	}
	if st.Taint != "" {
		say("it is tainted: media may hold data")
	}
	if !v.Certificate.Exists() {
		say("no sanitize certificate for wipe %d", st.Wipe)
	}
	switch t := v.Test; {
	case !t.Exists():
		say("no test run")
	case t.V.Verdict != Pass:
		say("last test run: %s", t.V.Verdict)
	case t.V.Wipe != st.Wipe:
		say("last passed test run is of wipe %d, not %d", t.V.Wipe, st.Wipe)
	case !v.SKU.Exists():
		say("its SKU %q is not declared", v.Spec.V.SKU)
	case timed && v.SKU.V.TestMaxAge > 0 && st.Tested.Sub(now) > ClockSlack:
		say("last test run is dated %s, which is to come: its age is not known", st.Tested.Format(time.RFC3339))
	case timed && v.SKU.V.TestMaxAge > 0 && now.Sub(st.Tested) > time.Duration(v.SKU.V.TestMaxAge):
		say("last test run is older than %v", time.Duration(v.SKU.V.TestMaxAge))
	}
	for _, h := range v.Spec.V.Holds {
		if h.Until.IsZero() || timed && now.Before(h.Until) {
			say("hold %s by %s: %s", h.Kind, h.Actor, h.Reason)
		}
	}
	for _, a := range v.Alerts(PreventAllocation) {
		say("alert %s: %s", a.ID, a.What)
	}
	return out
}

// Alerts lists the node's alerts that have a class; "" lists all.
func (v NodeView) Alerts(class string) []Alert {
	var out []Alert
	for _, h := range v.Health {
		for _, a := range h.V.Alerts {
			if class == "" || slices.Contains(a.Classes, class) {
				out = append(out, a)
			}
		}
	}
	return out
}

// forTenantOnly says whether an alert only tells the tenant of something, as a fault of its own program.
func forTenantOnly(a Alert) bool { return len(a.Classes) == 1 && a.Classes[0] == TenantVisible }

// Offer is the public record of the node as it stands.
func (v NodeView) Offer(now time.Time) Public {
	st, sp := v.State.V, v.Spec.V
	p := Public{
		Schema: Schema, ID: v.ID, Name: v.Name(), SKU: sp.SKU, Rack: sp.Rack, Slot: sp.Slot,
		State: st.State, Since: st.Since, Generation: st.Generation, Wipe: st.Wipe, Tested: st.Tested,
		Sanitized: st.Taint == "" && v.Certificate.Exists(), Health: "healthy",
	}
	// Of a node that is offered the reconciler has said that its time is not over, and takes the offer back when it is:
	// another daemon, with another clock, does not contradict it.
	p.Reasons = v.blocked(now, !v.Avail.Exists())
	p.Rentable = len(p.Reasons) == 0
	ill := slices.DeleteFunc(v.Alerts(""), forTenantOnly)
	if st.State == Quarantined || len(ill) > 0 {
		p.Health, p.Detail = "unhealthy", st.Reason
		for _, a := range ill {
			p.Detail = a.What
		}
	}
	if v.Claim.Exists() {
		p.Tenant, p.Reservation, p.Instance = v.Claim.V.Tenant, v.Claim.V.Reservation, v.Claim.V.Instance
	}
	if v.Instance.Exists() && st.State == InUse {
		p.Ready = v.Instance.V.Ready
	}
	if len(p.Reasons) > 8 { // the record stays under 3 KiB whatever is wrong
		p.Reasons = p.Reasons[:8]
	}
	for i, r := range p.Reasons {
		p.Reasons[i] = clip(r, 200)
	}
	p.Detail = clip(p.Detail, 400)
	return p
}

// clip cuts text to at most n bytes of JSON, never within a letter.
func clip(s string, n int) string {
	for i, r := range s {
		if n -= jsonBytes(r); n < 0 {
			return s[:i]
		}
	}
	return s
}

// jsonBytes is what encoding/json makes of a letter, at most.
func jsonBytes(r rune) int {
	switch {
	case r < ' ', strings.ContainsRune("<>&\u2028\u2029\ufffd\x7f", r):
		return 6
	case r == '"', r == '\\':
		return 2
	}
	return utf8.RuneLen(r)
}
