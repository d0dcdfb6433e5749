package ledger_test

import (
	"crypto/ed25519"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/audit"
	"github.com/hostler-project/hostler/inventory/ledger"
	"github.com/hostler-project/hostler/inventory/lifecycle"
	"github.com/hostler-project/hostler/inventory/memstore"
)

// A site is a ledger on a store in memory, a clock that the test moves, and nodes placed wherever a test wants them.
type site struct {
	t     *testing.T
	store *memstore.Store
	led   *ledger.Ledger
	now   time.Time
	ids   atomic.Int64
	key   ed25519.PrivateKey

	checker *audit.Checker
	broken  *audit.Broken // the first, by a transaction of the ledger
}

func newSite(t *testing.T) *site {
	s := &site{t: t, store: memstore.New(), now: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)}
	pub, key, err := ed25519.GenerateKey(nil)
	s.must(err)
	s.key, s.checker = key, audit.New(audit.Options{CertificateKey: pub})
	s.led = &ledger.Ledger{Store: s.store, Now: func() time.Time { return s.now }, NewID: s.id, CertificateKey: pub}
	s.put(inventory.KeySKU("small"), inventory.SKU{Schema: 1, Name: "small"})
	s.put(inventory.KeySKU("large"), inventory.SKU{Schema: 1, Name: "large"})
	return s
}

func (s *site) id() string { return fmt.Sprintf("%026d", s.ids.Add(1)) }

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) put(key string, v any) {
	s.t.Helper()
	op, err := inventory.Encode(key, v)
	s.must(err)
	s.do(op)
}

func (s *site) do(ops ...inventory.Op) {
	s.t.Helper()
	s.follow()
	_, err := s.store.Commit(s.t.Context(), inventory.Txn{Then: ops})
	s.must(err)
	all, err := s.store.List(s.t.Context(), inventory.Root, inventory.ListOptions{})
	s.must(err)
	s.checker.Load(all) // half of a placed node may be missing yet
}

func (s *site) view(id string) inventory.NodeView {
	s.t.Helper()
	r := &inventory.Read{Ctx: s.t.Context(), Store: s.store}
	v := inventory.View(r, id)
	s.must(r.Err)
	return v
}

func get[T any](s *site, key string) inventory.Doc[T] {
	s.t.Helper()
	kv, err := s.store.Get(s.t.Context(), key)
	s.must(err)
	d, err := inventory.Decode[T](kv)
	s.must(err)
	return d
}

// media of every node.
var media = []inventory.Medium{
	{Slot: "0000:00:04.0", Device: "nvme0", Kind: inventory.MediumNVMe, Serial: "D0", Size: 1 << 30},
	{Slot: "0000:00:05.0", Device: "nvme1", Kind: inventory.MediumNVMe, Serial: "D1", Size: 1 << 30},
}

// Where the prepared nodes stand.
const (
	generation = 5
	wipe       = 7
)

// certificate is what a node at this wipe needs.
func (s *site) certificate(id string, edit func(*inventory.CertificateBody)) inventory.Certificate {
	body := inventory.CertificateBody{Node: id, Generation: generation, Wipe: wipe}
	for _, m := range media {
		body.Media = append(body.Media, inventory.MediumProof{Medium: m, Method: inventory.MethodPurge, Passed: true})
	}
	if edit != nil {
		edit(&body)
	}
	c, err := ledger.SignCertificate(body, s.key)
	s.must(err)
	return c
}

// tainted are the states in which a node's media may hold somebody's data.
var tainted = []inventory.State{inventory.Inspecting, inventory.Firmware, inventory.Sanitizing, inventory.Provisioning, inventory.InUse,
	inventory.Servicing, inventory.Draining, inventory.Fencing, inventory.Quarantined, inventory.Retiring}

// claimed are the states in which a node has a claim.
var claimed = []inventory.State{inventory.Reserved, inventory.Provisioning, inventory.InUse, inventory.Servicing, inventory.Draining, inventory.Fencing}

// place puts a new node into a state, with everything that belongs to one there: SKU, facts, a signed certificate and a
// passed test of its wipe, a running session, an offer where it is ready, a claim where it has one.
func (s *site) place(state inventory.State) string {
	s.t.Helper()
	name := fmt.Sprintf("node-%d", s.ids.Load())
	id, err := s.led.Add(s.t.Context(), inventory.Spec{Name: name, SKU: "small", Rack: "r1"}, "test", "imported")
	s.must(err)
	st := get[inventory.NodeState](s, inventory.KeyState(id)).V
	st.State, st.Since, st.Generation, st.Wipe, st.Alive, st.Reason = state, s.now.Add(-time.Minute), generation, wipe, inventory.Alive, "placed"
	st.Attempt, st.Spent, st.Work, st.BurnInDue = 1, inventory.Duration(time.Second), inventory.Work{Phase: "old", Order: "old.1"}, false
	if slices.Contains(tainted, state) {
		st.Taint = inventory.Taint
	}
	if row, _ := lifecycle.Get(state); row.Owned {
		st.Work = inventory.Work{}
	}
	s.put(inventory.KeyState(id), st)
	s.put(inventory.KeyFacts(id), inventory.Facts{Schema: 1, Hardware: inventory.Hardware{Serial: "S", Media: media}, MediaEver: media})
	s.put(inventory.KeyCert(id, wipe), s.certificate(id, nil))
	s.put(inventory.KeyTest(id, s.id()), inventory.TestRun{Schema: 1, Node: id, Verdict: inventory.Pass, Generation: generation, Wipe: wipe, Finished: s.now})
	s.do(inventory.Delete(inventory.KeyHistory(id, 1))) // how it came here is archived
	s.put(inventory.KeySession(id), session(id, state))
	if state == inventory.Ready {
		s.put(inventory.KeyAvail(id), inventory.Avail{Schema: 1, SKU: "small", Wipe: wipe})
	}
	if slices.Contains(claimed, state) {
		s.claim(id, state)
	}
	s.put(inventory.KeyPublic(id), s.view(id).Offer(s.now))
	return id
}

// session is a node's boot session: running, but over where the machine is its tenant's.
func session(id string, state inventory.State) inventory.Session {
	sn := inventory.Session{Schema: 1, ID: "s-1", Node: id, Generation: generation, Phase: inventory.SessionRedeemed, Cert: []byte("PEM")}
	if row, _ := lifecycle.Get(state); row.Owned {
		sn.Phase, sn.Cert = inventory.SessionClosed, nil
	}
	return sn
}

func (s *site) claim(id string, state inventory.State) {
	res := inventory.Reservation{Schema: 1, ID: "r-" + id, Tenant: "acme", Phase: inventory.Committed, SKU: "small", Node: id, Instance: "i-" + id, Created: s.now, Expires: s.now.Add(10 * time.Minute)}
	if state == inventory.Reserved {
		res.Phase = inventory.Pending
	} else {
		s.put(inventory.KeyInstance("i-"+id), inventory.Instance{Schema: 1, ID: "i-" + id, Node: id, Tenant: "acme", Reservation: res.ID, Generation: generation, Image: "img", Phase: inventory.InstanceRunning, Ready: true})
		s.put(inventory.KeySealed("i-"+id), inventory.Sealed{Schema: 1, Age: []byte("secret")})
	}
	s.put(inventory.KeyReservation("acme", res.ID), res)
	s.put(inventory.KeyClaim(id), inventory.Claim{Schema: 1, Node: id, Tenant: "acme", Reservation: res.ID, Instance: res.Instance, Generation: generation, Since: s.now})
}

// untouched says that nothing at all was written since.
func (s *site) untouched(rev int64) {
	s.t.Helper()
	if now := s.store.Rev(); now != rev {
		s.t.Errorf("%d transactions were written", now-rev)
	}
}

// whole says that every invariant held at every revision that the ledger wrote. What the test itself put there is taken
// as it is: the checker begins anew after it.
func (s *site) whole() {
	s.t.Helper()
	s.follow()
	if s.broken != nil {
		s.t.Error(s.broken)
	}
}

// follow shows the checker what the ledger wrote since.
func (s *site) follow() {
	s.t.Helper()
	all, err := s.store.Since(s.checker.Rev() + 1)
	s.must(err)
	for _, b := range all {
		if broken := s.checker.Apply(b); broken != nil && s.broken == nil {
			s.broken = broken
		}
	}
}

// change is what every test writes as who and why.
var change = ledger.Change{Actor: "kim", Reason: "because"}

func edges() []lifecycle.Edge {
	var out []lifecycle.Edge
	for _, e := range lifecycle.Edges {
		if e.From != "" {
			out = append(out, e)
		}
	}
	return out
}
