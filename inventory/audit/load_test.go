package audit_test

import (
	"strings"
	"testing"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/audit"
	"github.com/hostler-project/hostler/inventory/ledger"
	"github.com/hostler-project/hostler/inventory/lifecycle"
)

func (s *site) load() *audit.Broken {
	s.t.Helper()
	snap, err := s.store.List(s.t.Context(), inventory.Root, inventory.ListOptions{})
	s.must(err)
	return audit.New(audit.Options{CertificateKey: s.led.CertificateKey}).Load(snap)
}

// A checker that begins in the middle finds what is broken there already.
func TestLoadChecksTheState(t *testing.T) {
	for _, c := range []struct {
		name, invariant, what string
		from                  inventory.State
		do                    func(*site, string)
	}{
		{"nothing", "", "", inventory.Ready, func(*site, string) {}},
		{"the beginning is archived", "", "", inventory.InUse, func(s *site, id string) {
			for i := range 5 {
				s.write(inventory.Delete(inventory.KeyHistory(id, int64(i+1))))
			}
		}},
		{"ready and tainted", "I3", "ready and tainted", inventory.Ready, func(s *site, id string) {
			s.forge(id, func(st *state, _ *history) { st.Taint = inventory.Taint })
		}},
		{"a gap", "I13", "history goes from 3 to 5", inventory.BurnIn, func(s *site, id string) { s.write(inventory.Delete(inventory.KeyHistory(id, 4))) }},
		{"a state ahead of its history", "I13", "names history 8 as the newest, there is 7", inventory.BurnIn, func(s *site, id string) {
			edit(s, inventory.KeyState(id), func(st *state) { st.Seq++ })
		}},
		{"a state that its history does not lead to", "I13", `ends in "burn-in", its state is "verifying"`, inventory.BurnIn, func(s *site, id string) {
			edit(s, inventory.KeyState(id), func(st *state) { st.State = inventory.Verifying })
		}},
		{"a history that jumps", "I13", `goes on from "burn-in", but the node was "inspecting"`, inventory.Sanitizing, func(s *site, id string) {
			edit(s, inventory.KeyHistory(id, 5), func(h *history) { h.From, h.Event, h.To = inventory.BurnIn, string(lifecycle.Done), inventory.Ready })
		}},
		{"a history with what is no row", "I13", "becomes sanitizing, not ready", inventory.Sanitizing, func(s *site, id string) {
			edit(s, inventory.KeyHistory(id, 5), func(h *history) { h.To = inventory.Ready })
		}},
		{"a claim whose reservation is gone", "I1", "which does not exist", inventory.InUse, func(s *site, id string) { s.write(inventory.Delete(reservation(id))) }},
		{"a claim that names another node", "I1", "names node n-other", inventory.InUse, func(s *site, id string) {
			edit(s, inventory.KeyClaim(id), func(c *inventory.Claim) { c.Node = "n-other" })
		}},
		{"a claim of another instance", "I1", "as instance i-other", inventory.InUse, func(s *site, id string) {
			edit(s, inventory.KeyClaim(id), func(c *inventory.Claim) { c.Instance = "i-other" })
		}},
		{"a claim of a node that is not there", "I1", "a node that does not exist", inventory.Discovered, func(s *site, id string) {
			s.put(inventory.KeyClaim("n-other"), inventory.Claim{Schema: 1, Node: "n-other"})
		}},
		{"an identity of a node that is not there", "I7", "it does not exist", inventory.Discovered, func(s *site, id string) {
			s.put(inventory.KeyID("mac", "x"), map[string]string{"node": "n-other"})
		}},
		{"an offer of a tainted node", "I14", "it is offered, and inspecting", inventory.Inspecting, func(s *site, id string) { s.write(avail(s, id, nil)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			id := s.node()
			s.walk(id, c.from)
			c.do(s, id)
			switch broken := s.load(); {
			case c.invariant == "" && broken != nil:
				t.Error(broken)
			case c.invariant != "" && (broken == nil || broken.Invariant != c.invariant || !strings.Contains(broken.What, c.what) || broken.Rev != s.store.Rev()):
				t.Errorf("want %s with %q, got %v", c.invariant, c.what, broken)
			}
		})
	}
}

// What a newer version wrote, and what is no record at all, is passed over with its node; nothing panics; and when the
// node can be read again, it is checked again.
func TestStrangeRecordsArePassedOver(t *testing.T) {
	for _, junk := range []string{`{"schema":2,"state":"ready","taint":"tainted"}`, `{"state":7,"schema":1}`, `[`, `null`, `7`, `""`, ``, "\xff\x00", `{"schema":1}x`, `{"schema":1,"state":"floating"}`} {
		s := newSite(t)
		id := s.node()
		s.walk(id, inventory.Ready)
		v := s.view(id)
		all, err := s.store.List(t.Context(), inventory.Root, inventory.ListOptions{})
		s.must(err)
		c := audit.New(audit.Options{})
		if broken := c.Load(all); broken != nil {
			t.Fatal(broken)
		}
		for i, key := range []string{inventory.KeyState(id), inventory.KeySpec(id), inventory.KeyFacts(id), inventory.KeyPublic(id), inventory.KeyAvail(id),
			inventory.KeyClaim(id), inventory.KeySession(id), inventory.KeyHealth(id, "x"), inventory.KeyCert(id, v.State.V.Wipe+1), inventory.KeyTest(id, "9"),
			inventory.KeyReservation("a", "b"), inventory.KeyID("mac", "y"), inventory.KeyEra, inventory.KeySealed("i"), inventory.KeyHistory(id, 999),
			inventory.PrefixNodes + id, inventory.PrefixCerts + id + "/x", inventory.PrefixHistory + id + "/x", inventory.PrefixNodes + id + "/other", "/elsewhere"} {
			rev := int64(1000 + i)
			c.Apply(inventory.Batch{Rev: rev, Events: []inventory.Event{{KV: inventory.KV{Key: key, Value: []byte(junk), Create: rev, Mod: rev}}}})
			again := audit.New(audit.Options{})
			again.Load(inventory.Snapshot{Rev: 1, KVs: append([]inventory.KV{{Key: key, Value: []byte(junk), Create: 1, Mod: 1}}, all.KVs...)})
		}
	}

	s := newSite(t)
	id := s.node()
	s.walk(id, inventory.Ready)
	good := s.view(id).State.V
	s.write(inventory.Op{Key: inventory.KeyState(id), Value: []byte(`{"schema":2,"state":"ready","taint":"tainted"}`)})
	s.write(inventory.Op{Key: inventory.KeyPublic(id), Value: []byte(`{"schema":1}`)})
	if broken, _ := s.broken(false); broken != nil {
		t.Errorf("a node that this version does not understand was judged: %v", broken)
	}
	good.Taint, good.Seq = inventory.Taint, good.Seq+1
	s.write(encode(s, inventory.KeyState(id), good), encode(s, inventory.KeyHistory(id, good.Seq), history{Schema: 1, Seq: good.Seq, Kind: "step", Generation: good.Generation, Wipe: good.Wipe}))
	if broken, _ := s.broken(false); broken == nil || broken.Invariant != "I3" {
		t.Errorf("it can be read again, and is ready and tainted: %v", broken)
	}
}

// The checker must keep up with a simulation: what it costs for each revision of honest lives.
func BenchmarkApply(b *testing.B) {
	s := newSite(b)
	for range 50 {
		id := s.node()
		s.walk(id, inventory.Fencing)
		s.again(id)
	}
	all, err := s.store.Since(1)
	s.must(err)
	revisions := 0
	for b.Loop() {
		c := audit.New(audit.Options{CertificateKey: s.led.CertificateKey})
		for _, batch := range all {
			if broken := c.Apply(batch); broken != nil {
				b.Fatal(broken)
			}
		}
		revisions += len(all)
	}
	b.ReportMetric(float64(revisions)/b.Elapsed().Seconds(), "revisions/s")
}

// A batch may hold several revisions: each is checked as it was.
func TestBatchesOfManyRevisions(t *testing.T) {
	s := newSite(t)
	id := s.node()
	s.walk(id, inventory.Ready)
	s.forge(id, func(st *state, _ *history) { st.Taint = inventory.Taint })
	at := s.store.Rev()
	s.forge(id, func(st *state, _ *history) { st.Taint = "" })
	s.note(id, ledger.Change{})
	all, err := s.store.Since(1)
	s.must(err)
	one := inventory.Batch{Rev: s.store.Rev()}
	for _, b := range all {
		one.Events = append(one.Events, b.Events...)
	}
	c := audit.New(audit.Options{CertificateKey: s.led.CertificateKey})
	broken := c.Apply(one)
	if broken == nil || broken.Invariant != "I3" || broken.Rev != at || c.Rev() != s.store.Rev() {
		t.Errorf("want I3 at revision %d, got %v; taken in up to %d of %d", at, broken, c.Rev(), s.store.Rev())
	}
	if c.Counts().Revisions != int64(len(all)) {
		t.Errorf("counts %+v of %d revisions", c.Counts(), len(all))
	}
	if again := c.Apply(one); again != nil {
		t.Errorf("what was seen already was judged again: %v", again)
	}
}
