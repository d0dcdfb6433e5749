package ledger_test

import (
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/ledger"
	"github.com/hostler-project/hostler/inventory/lifecycle"
)

// Each proof that is missing alone keeps a node from ready, and from being offered; nothing is written.
func TestGate(t *testing.T) {
	cert := func(edit func(*inventory.CertificateBody)) func(*site, string) {
		return func(s *site, id string) { s.put(inventory.KeyCert(id, wipe), s.certificate(id, edit)) }
	}
	test := func(edit func(*inventory.TestRun)) func(*site, string) {
		return func(s *site, id string) {
			run := inventory.TestRun{Schema: 1, Node: id, Verdict: inventory.Pass, Generation: generation, Wipe: wipe, Finished: s.now}
			edit(&run)
			s.put(inventory.KeyTest(id, s.id()), run)
		}
	}
	for _, c := range []struct {
		name, want string
		edit       func(*site, string)
	}{
		{"everything there", "", func(*site, string) {}},
		{"tainted", "it is tainted", func(s *site, id string) {
			st := s.view(id).State.V
			st.Taint = inventory.Taint
			s.put(inventory.KeyState(id), st)
		}},
		{"no certificate", "no sanitize certificate for wipe 7", func(s *site, id string) { s.do(inventory.Delete(inventory.KeyCert(id, wipe))) }},
		{"certificate of the wipe before", "no sanitize certificate for wipe 8", func(s *site, id string) {
			st := s.view(id).State.V
			st.Wipe++
			s.put(inventory.KeyState(id), st)
		}},
		{"certificate that says another wipe", "wipe 6, not wipe 7", cert(func(b *inventory.CertificateBody) { b.Wipe = 6 })},
		{"certificate of another node", "node n-other", cert(func(b *inventory.CertificateBody) { b.Node = "n-other" })},
		{"certificate signed by another key", "the signature does not hold", func(s *site, id string) {
			_, other, _ := ed25519.GenerateKey(nil)
			good, err := ledger.OpenCertificate(s.certificate(id, nil), s.led.CertificateKey)
			s.must(err)
			c, err := ledger.SignCertificate(good, other)
			s.must(err)
			s.put(inventory.KeyCert(id, wipe), c)
		}},
		{"certificate changed after signing", "the signature does not hold", func(s *site, id string) {
			c := s.certificate(id, nil)
			c.Body = []byte(strings.Replace(string(c.Body), `"passed":true`, `"passed": true`, 1))
			s.put(inventory.KeyCert(id, wipe), c)
		}},
		{"certificate without a signature", "the signature does not hold", func(s *site, id string) {
			c := s.certificate(id, nil)
			c.Signature = nil
			s.put(inventory.KeyCert(id, wipe), c)
		}},
		{"certificate without one medium", "nvme1 serial D1", cert(func(b *inventory.CertificateBody) { b.Media = b.Media[:1] })},
		{"certificate with a medium that did not pass", "nvme0 serial D0", cert(func(b *inventory.CertificateBody) { b.Media[0].Passed = false })},
		{"a medium was there once that nobody erased", "serial GONE", func(s *site, id string) {
			s.put(inventory.KeyFacts(id), inventory.Facts{Schema: 1, Hardware: inventory.Hardware{Media: media},
				MediaEver: append([]inventory.Medium{{Kind: inventory.MediumNVMe, Serial: "GONE", Slot: "x"}}, media...)})
		}},
		{"no facts", "no hardware facts", func(s *site, id string) { s.do(inventory.Delete(inventory.KeyFacts(id))) }},
		{"no media in the facts", "no hardware facts", func(s *site, id string) { s.put(inventory.KeyFacts(id), inventory.Facts{Schema: 1}) }},
		{"no test", "no passed test run", func(s *site, id string) { s.do(inventory.Delete(s.view(id).Test.KV.Key)) }},
		{"failed test", "no passed test run", test(func(r *inventory.TestRun) { r.Verdict = inventory.Fail })},
		{"inconclusive test", "no passed test run", test(func(r *inventory.TestRun) { r.Verdict = inventory.Inconclusive })},
		{"aborted test", "no passed test run", test(func(r *inventory.TestRun) { r.Verdict = inventory.Aborted })},
		{"test without a verdict", "no passed test run", test(func(r *inventory.TestRun) { r.Verdict = "" })},
		{"test of another wipe", "no passed test run", test(func(r *inventory.TestRun) { r.Wipe = 6 })},
		{"test of the generation before", "no passed test run", test(func(r *inventory.TestRun) { r.Generation = 4 })},
		{"test of a later generation", "no passed test run", test(func(r *inventory.TestRun) { r.Generation = 6 })},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, from := range []inventory.State{inventory.BurnIn, inventory.Verifying} {
				s := newSite(t)
				id := s.place(from)
				c.edit(s, id)
				rev := s.store.Rev()
				_, err := s.led.Move(t.Context(), s.view(id), lifecycle.Done, change)
				if c.want == "" {
					s.must(err)
					continue
				}
				if !errors.Is(err, ledger.ErrGate) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "node-") {
					t.Errorf("from %s: got %v", from, err)
				}
				s.untouched(rev)
			}
		})
	}
}

func TestOpenCertificate(t *testing.T) {
	s := newSite(t)
	c := s.certificate("n-1", nil)
	if b, err := ledger.OpenCertificate(c, s.led.CertificateKey); err != nil || b.Node != "n-1" || b.Schema != 1 || c.KeyID != ledger.KeyID(s.led.CertificateKey) {
		t.Errorf("got %+v, %v", b, err)
	}
	if _, err := ledger.OpenCertificate(c, nil); err == nil {
		t.Error("without a key every certificate would hold")
	}
	bad := inventory.Certificate{Body: []byte("{"), Signature: ed25519.Sign(s.key, []byte("{"))}
	if _, err := ledger.OpenCertificate(bad, s.led.CertificateKey); err == nil || !strings.Contains(err.Error(), "not readable") {
		t.Errorf("got %v", err)
	}
}

// What keeps a ready node from being offered; nothing is written.
func TestOffer(t *testing.T) {
	health := func(s *site, id string, classes ...string) {
		s.put(inventory.KeyHealth(id, "bmc"), inventory.HealthReport{Schema: 1, Source: "bmc", Alerts: []inventory.Alert{{ID: "fan", What: "fan 3 stands", Classes: classes}}})
	}
	for _, c := range []struct {
		name     string
		before   func(*site, string) // the view that is offered shows this
		after    func(*site, string) // it does not show this
		conflict bool
		want     string
	}{
		{name: "good"},
		{name: "hold", before: func(s *site, id string) {
			sp := s.view(id).Spec.V
			sp.Holds = []inventory.Hold{{Kind: "cordon", Actor: "kim", Reason: "dust"}}
			s.put(inventory.KeySpec(id), sp)
		}, want: "hold cordon by kim: dust"},
		{name: "blocking alert", before: func(s *site, id string) { health(s, id, inventory.PreventAllocation) }, want: "fan 3 stands"},
		{name: "silent", before: func(s *site, id string) {
			st := s.view(id).State.V
			st.Alive = inventory.Silent
			s.put(inventory.KeyState(id), st)
		}, want: "its agent is silent"},
		{name: "gate", before: func(s *site, id string) {
			s.put(inventory.KeyCert(id, wipe), s.certificate(id, func(b *inventory.CertificateBody) { b.Media = nil }))
		}, want: "does not prove"},
		{name: "given back unused", before: func(s *site, id string) { // the test is of the generation before the claim
			st := s.view(id).State.V
			st.Generation++
			s.put(inventory.KeyState(id), st)
		}},
		{name: "a health report came meanwhile", after: func(s *site, id string) { health(s, id) }, conflict: true},
		{name: "a hold came meanwhile", after: func(s *site, id string) {
			sp := s.view(id).Spec.V
			sp.Holds = []inventory.Hold{{Kind: "cordon"}}
			s.put(inventory.KeySpec(id), sp)
		}, conflict: true},
		{name: "its SKU changed meanwhile", after: func(s *site, _ string) {
			s.put(inventory.KeySKU("small"), inventory.SKU{Schema: 1, Name: "small", MinCPUs: 64})
		}, conflict: true},
		{name: "a claim is there", after: func(s *site, id string) { s.claim(id, inventory.Reserved) }, conflict: true},
		{name: "offered already", after: func(s *site, id string) { s.put(inventory.KeyAvail(id), inventory.Avail{Schema: 1}) }, conflict: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			id := s.place(inventory.Ready)
			s.do(inventory.Delete(inventory.KeyAvail(id)))
			if c.before != nil {
				c.before(s, id)
			}
			v, seen := s.view(id), s.store.Rev()
			if c.after != nil {
				c.after(s, id)
			}
			rev := s.store.Rev()
			_, err := s.led.Offer(t.Context(), v, seen)
			switch {
			case c.conflict:
				if !errors.Is(err, ledger.ErrConflict) {
					t.Errorf("got %v", err)
				}
				s.untouched(rev)
			case c.want != "":
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v", err)
				}
				s.untouched(rev)
			default:
				s.must(err)
				if v := s.view(id); !v.Avail.Exists() || v.Avail.V.SKU != "small" || !v.Public.V.Rentable {
					t.Errorf("got %+v, %+v", v.Avail.V, v.Public.V)
				}
			}
		})
	}
}

func TestWithdraw(t *testing.T) {
	s := newSite(t)
	id := s.place(inventory.Ready)
	s.put(inventory.KeyHealth(id, "bmc"), inventory.HealthReport{Schema: 1, Alerts: []inventory.Alert{{ID: "fan", What: "fan 3 stands", Classes: []string{inventory.PreventAllocation}}}})
	v := s.view(id)
	_, err := s.led.Withdraw(t.Context(), v)
	s.must(err)
	if now := s.view(id); now.Avail.Exists() || now.Public.V.Rentable || now.Public.V.Health != "unhealthy" || now.Public.V.Detail != "fan 3 stands" {
		t.Errorf("got %+v", now.Public.V)
	}
	if _, err := s.led.Withdraw(t.Context(), v); !errors.Is(err, ledger.ErrConflict) {
		t.Errorf("withdrawn twice from one view: got %v", err)
	}
}
