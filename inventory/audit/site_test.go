package audit_test

import (
	"crypto/ed25519"
	"fmt"
	"testing"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/audit"
	"github.com/hostler-project/hostler/inventory/ledger"
	"github.com/hostler-project/hostler/inventory/lifecycle"
	"github.com/hostler-project/hostler/inventory/memstore"
)

// A site makes histories: honest ones through the ledger, as the steps and the API do, and broken ones by writing what
// no part of the product would.
type site struct {
	t     testing.TB
	store *memstore.Store
	led   *ledger.Ledger
	now   time.Time
	ids   int
	key   ed25519.PrivateKey
}

func newSite(t testing.TB) *site {
	s := &site{t: t, store: memstore.New(), now: time.Date(2026, 11, 25, 1, 0, 0, 0, time.UTC)}
	pub, key, err := ed25519.GenerateKey(nil)
	s.must(err)
	s.key = key
	s.led = &ledger.Ledger{Store: s.store, Now: func() time.Time { s.now = s.now.Add(time.Second); return s.now }, NewID: s.ulid, CertificateKey: pub}
	s.put(inventory.KeySKU("small"), inventory.SKU{Schema: 1, Name: "small"})
	s.put(inventory.KeySKU("large"), inventory.SKU{Schema: 1, Name: "large"})
	return s
}

func (s *site) ulid() string { s.ids++; return fmt.Sprintf("%026d", s.ids) }

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func encode(s *site, key string, v any) inventory.Op {
	s.t.Helper()
	op, err := inventory.Encode(key, v)
	s.must(err)
	return op
}

func get[T any](s *site, key string) T {
	s.t.Helper()
	kv, err := s.store.Get(s.t.Context(), key)
	s.must(err)
	d, err := inventory.Decode[T](kv)
	s.must(err)
	return d.V
}

// write commits without asking anybody.
func (s *site) write(ops ...inventory.Op) {
	s.t.Helper()
	r, err := s.store.Commit(s.t.Context(), inventory.Txn{Then: ops})
	s.must(err)
	if !r.Done {
		s.t.Fatal("not written")
	}
}

func (s *site) put(key string, v any) {
	s.t.Helper()
	s.write(encode(s, key, v))
}

// edit writes one record over.
func edit[T any](s *site, key string, f func(*T)) {
	s.t.Helper()
	v := get[T](s, key)
	f(&v)
	s.put(key, v)
}

func (s *site) view(id string) inventory.NodeView {
	s.t.Helper()
	r := &inventory.Read{Ctx: s.t.Context(), Store: s.store}
	v := inventory.View(r, id)
	s.must(r.Err)
	return v
}

// media of every node.
var media = []inventory.Medium{
	{Slot: "0000:00:04.0", Device: "nvme0", Kind: inventory.MediumNVMe, Serial: "D0", Size: 1 << 30},
	{Slot: "0000:00:05.0", Device: "nvme1", Kind: inventory.MediumNVMe, Serial: "D1", Size: 1 << 30},
}

// node adds one.
func (s *site) node() string {
	s.t.Helper()
	n := s.ids
	id, err := s.led.Add(s.t.Context(), inventory.Spec{Name: fmt.Sprintf("a%d", n), Serial: fmt.Sprintf("S%d", n), SKU: "small", Rack: "r1",
		MACs: []string{fmt.Sprintf("52:54:00:00:00:%02x", n)}}, "test", "imported")
	s.must(err)
	return id
}

func (s *site) move(id string, ev lifecycle.Event, c ledger.Change) {
	s.t.Helper()
	c.Actor, c.Reason = "test", "because"
	_, err := s.led.Move(s.t.Context(), s.view(id), ev, c)
	s.must(err)
}

func (s *site) note(id string, c ledger.Change) {
	s.t.Helper()
	c.Actor, c.Reason = "test", "because"
	_, err := s.led.Note(s.t.Context(), s.view(id), c)
	s.must(err)
}

// session arms and redeems a boot session.
func (s *site) session(id string) {
	s.t.Helper()
	st := s.view(id).State.V
	sn := inventory.Session{Schema: 1, ID: "s-" + s.ulid(), Node: id, Generation: st.Generation, Purpose: string(st.State), Phase: inventory.SessionArmed}
	s.note(id, ledger.Change{Session: &sn, Edit: func(st *inventory.NodeState) { st.Work = inventory.Work{Phase: "power-off"} }})
	sn.Phase, sn.Cert = inventory.SessionRedeemed, []byte("PEM")
	s.put(inventory.KeySession(id), sn)
}

// order gives the agent one.
func (s *site) order(id, kind string) {
	s.t.Helper()
	s.note(id, ledger.Change{Edit: func(st *inventory.NodeState) {
		st.Work = inventory.Work{Phase: kind, Order: fmt.Sprintf("%s.%d", kind, st.Seq+1)}
	}})
}

func (s *site) certificate(id string, f func(*inventory.CertificateBody)) inventory.Op {
	s.t.Helper()
	st := s.view(id).State.V
	body := inventory.CertificateBody{Node: id, Generation: st.Generation, Wipe: st.Wipe}
	for _, m := range media {
		body.Media = append(body.Media, inventory.MediumProof{Medium: m, Method: inventory.MethodPurge, Passed: true})
	}
	if f != nil {
		f(&body)
	}
	c, err := ledger.SignCertificate(body, s.key)
	s.must(err)
	return encode(s, inventory.KeyCert(id, body.Wipe), c)
}

func (s *site) test(id, verdict string) inventory.Op {
	s.t.Helper()
	st := s.view(id).State.V
	run := s.ulid()
	return encode(s, inventory.KeyTest(id, run), inventory.TestRun{Schema: 1, ID: run, Node: id, Verdict: verdict, Generation: st.Generation, Wipe: st.Wipe, Finished: s.now})
}

// road is the way of a healthy node, as the steps and the API take it: what happens in each state until the next.
var road = []struct {
	in inventory.State
	do func(*site, string)
}{
	{inventory.Discovered, func(s *site, id string) { s.move(id, lifecycle.Approve, ledger.Change{}) }},
	{inventory.Inspecting, func(s *site, id string) {
		s.session(id)
		s.order(id, inventory.OrderInspect)
		s.move(id, lifecycle.Done, ledger.Change{Then: []inventory.Op{encode(s, inventory.KeyFacts(id), inventory.Facts{Schema: 1, Hardware: inventory.Hardware{Media: media}, MediaEver: media})}})
	}},
	{inventory.Sanitizing, func(s *site, id string) {
		s.order(id, inventory.OrderSanitize)
		s.move(id, lifecycle.DoneBurnIn, ledger.Change{Then: []inventory.Op{s.certificate(id, nil)}})
	}},
	{inventory.BurnIn, func(s *site, id string) {
		s.order(id, inventory.OrderTest)
		s.note(id, ledger.Change{Then: []inventory.Op{s.test(id, inventory.Pass)}})
		s.move(id, lifecycle.Done, ledger.Change{})
	}},
	{inventory.Ready, func(s *site, id string) {
		s.note(id, ledger.Change{Edit: func(st *inventory.NodeState) { st.Alive = inventory.Alive }})
		s.offer(id)
		_, err := s.led.Claim(s.t.Context(), ledger.ClaimRequest{Tenant: "acme", Reservation: "r-" + id, Node: id, Actor: "acme"})
		s.must(err)
	}},
	{inventory.Reserved, func(s *site, id string) {
		_, err := s.led.Confirm(s.t.Context(), ledger.ConfirmRequest{Tenant: "acme", Reservation: "r-" + id, Image: "img", Sealed: []byte("x"), Actor: "acme"})
		s.must(err)
	}},
	{inventory.Provisioning, func(s *site, id string) {
		s.order(id, inventory.OrderWrite)
		s.order(id, inventory.OrderHandoff)
		s.note(id, ledger.Change{Edit: func(st *inventory.NodeState) { st.Work.Phase = "enter" }})
		sn := s.view(id).Session.V
		sn.Phase, sn.Cert = inventory.SessionClosed, nil
		s.move(id, lifecycle.Done, ledger.Change{Session: &sn, Edit: func(st *inventory.NodeState) { st.Work = inventory.Work{Phase: "attach"} }})
	}},
	{inventory.InUse, func(s *site, id string) {
		_, err := s.led.Release(s.t.Context(), "acme", "r-"+id, "acme", "")
		s.must(err)
	}},
	{inventory.Draining, func(s *site, id string) { s.move(id, lifecycle.Done, ledger.Change{}) }},
	{inventory.Fencing, func(s *site, id string) {
		s.session(id)
		s.move(id, lifecycle.Done, ledger.Change{})
	}},
}

// walk takes a node along the road until it is in a state for the n-th time.
func (s *site) walk(id string, to inventory.State) {
	s.t.Helper()
	for range 40 {
		at := s.view(id).State.V.State
		if at == to {
			return
		}
		for _, r := range road {
			if r.in == at {
				r.do(s, id)
			}
		}
	}
	s.t.Fatalf("%s is not on the road", to)
}

// offer puts a ready node on sale.
func (s *site) offer(id string) {
	s.t.Helper()
	_, err := s.led.Offer(s.t.Context(), s.view(id), s.store.Rev())
	s.must(err)
}

// again goes from inspecting, or from fencing, to ready.
func (s *site) again(id string) {
	s.t.Helper()
	s.walk(id, inventory.Sanitizing)
	s.order(id, inventory.OrderSanitize)
	s.move(id, lifecycle.Done, ledger.Change{Then: []inventory.Op{s.certificate(id, nil)}})
	s.order(id, inventory.OrderTest)
	s.note(id, ledger.Change{Then: []inventory.Op{s.test(id, inventory.Pass)}})
	s.move(id, lifecycle.Done, ledger.Change{})
}

// id is the first node.
func (s *site) id() string {
	return "n-" + fmt.Sprintf("%026d", 1)
}

// broken walks everything that was written, and gives the first breach; with last the last one.
func (s *site) broken(last bool) (found *audit.Broken, counts audit.Counts) {
	s.t.Helper()
	all, err := s.store.Since(1)
	s.must(err)
	c := audit.New(audit.Options{CertificateKey: s.led.CertificateKey})
	for _, b := range all {
		if broken := c.Apply(b); broken != nil && (found == nil || last) {
			found = broken
		}
	}
	return found, c.Counts()
}

// forge writes a state as no step would, with history and public record as they ought to be; ops go with it.
func (s *site) forge(id string, f func(*inventory.NodeState, *inventory.History), ops ...inventory.Op) {
	s.t.Helper()
	v := s.view(id)
	st := v.State.V
	st.Seq++
	h := inventory.History{Schema: 1, Seq: st.Seq, Kind: "step", From: st.State, To: st.State, Actor: "forger"}
	f(&st, &h)
	h.Generation, h.Wipe = st.Generation, st.Wipe
	v.State.V = st
	for _, op := range ops {
		if op.Key == inventory.KeyClaim(id) {
			v.Claim.KV.Mod = int64(len(op.Value))
		}
	}
	s.write(append([]inventory.Op{encode(s, inventory.KeyState(id), st), encode(s, inventory.KeyHistory(id, h.Seq), h), encode(s, inventory.KeyPublic(id), v.Offer(s.now))}, ops...)...)
}

// leap forges a transition along an edge, with its effects, past the ledger's gate.
func (s *site) leap(id string, ev lifecycle.Event, f func(*inventory.NodeState, *inventory.History), ops ...inventory.Op) {
	s.t.Helper()
	e, err := lifecycle.Find(s.view(id).State.V.State, ev)
	s.must(err)
	s.forge(id, func(st *inventory.NodeState, h *inventory.History) {
		h.Kind, h.Event, h.From, h.To = "transition", string(ev), e.From, e.To
		st.From, st.State, st.Work = e.From, e.To, inventory.Work{}
		if e.Generation {
			st.Generation++
		}
		if e.Wipe {
			st.Wipe++
		}
		if e.Taint {
			st.Taint = inventory.Taint
		}
		if e.Clean {
			st.Taint = ""
		}
		if f != nil {
			f(st, h)
		}
	}, ops...)
}
