package agentapi_test

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hostler-project/hostler/inventory"
)

// Only a certificate of ours opens anything behind redeem.
func TestWhoMayReport(t *testing.T) {
	s := newSite(t)
	a := s.redeemed()
	good := a.cert
	for _, path := range []string{"/v1/agent/report", "/v1/agent/seed"} {
		method := map[string]string{"/v1/agent/report": "POST", "/v1/agent/seed": "GET"}[path]
		a.cert = nil
		if code, text, err := a.call(method, path, []byte(`{"session":"s-1"}`)); code != http.StatusForbidden || text != "denied\n" || err != nil {
			t.Errorf("%s without a certificate: %d %q, %v", path, code, text, err)
		}
		// One of another authority for the same names does not get through the handshake.
		csr, err := x509.ParseCertificateRequest(a.csr())
		s.must(err)
		a.cert, err = newAuthority(t).Issue(csr, session, node, 1, time.Now())
		s.must(err)
		if code, text, err := a.call(method, path, []byte(`{"session":"s-1"}`)); err == nil && code != http.StatusForbidden {
			t.Errorf("%s with a foreign certificate: %d %q", path, code, text)
		}
		// One of ours that ran out neither.
		a.cert, err = s.auth.Issue(csr, session, node, 1, time.Now().AddDate(-1, 0, 0))
		s.must(err)
		if code, text, err := a.call(method, path, []byte(`{"session":"s-1"}`)); err == nil && code != http.StatusForbidden {
			t.Errorf("%s with a certificate that ran out: %d %q", path, code, text)
		}
	}
	if len(s.loop.heard) != 0 {
		t.Error("the reconciler heard of one of them")
	}
	a.cert = good
	if _, err := a.report("", false, ""); err != nil || len(s.loop.heard) != 1 {
		t.Errorf("the right one: %v, heard %d times", err, len(s.loop.heard))
	}
}

// What ends a session ends what its certificate is good for, whatever the certificate says.
func TestRevoked(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(*inventory.NodeState, *inventory.Session)
		want string // "": goes on
	}{
		{"nothing happened", func(*inventory.NodeState, *inventory.Session) {}, ""},
		{"closed", func(_ *inventory.NodeState, sn *inventory.Session) {
			sn.Phase, sn.Reason = inventory.SessionClosed, "handed over"
		}, "this boot session is closed: handed over"},
		{"another session", func(_ *inventory.NodeState, sn *inventory.Session) { sn.ID = "s-2" }, "another boot session has begun"},
		{"armed anew", func(_ *inventory.NodeState, sn *inventory.Session) { sn.Phase = inventory.SessionArmed }, "this boot session is armed"},
		{"generation rose without it", func(st *inventory.NodeState, _ *inventory.Session) { st.Generation++ }, "the node's generation is another"},
		{"generation rose with it, as a claim does", func(st *inventory.NodeState, sn *inventory.Session) { st.Generation++; sn.Generation++ }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			a := s.redeemed()
			s.edit(func(st *inventory.NodeState, sn *inventory.Session) {
				st.Work = inventory.Work{Phase: inventory.OrderInspect, Order: "inspect.7"}
				c.edit(st, sn)
			})
			n, err := a.report("", false, "?wait=20")
			s.must(err)
			if c.want == "" {
				if n.Revoked != "" || n.Order == nil || n.Order.ID != "inspect.7" || n.Order.Generation != s.view().State.V.Generation || len(s.loop.heard) != 1 {
					t.Errorf("got %+v", n)
				}
				return
			}
			if !strings.HasPrefix(n.Revoked, c.want) || n.Order != nil || n.Enter || len(s.loop.heard) != 0 {
				t.Errorf("got %+v, heard %d times", n, len(s.loop.heard))
			}
			if code, text, err := a.call("GET", "/v1/agent/seed?order=inspect.7", nil); code != http.StatusForbidden || err != nil {
				t.Errorf("seed: %d %q, %v", code, text, err)
			}
		})
	}
}

// An agent that waits hears of its next order when the record changes, and of nothing that is not its business.
func TestLongPoll(t *testing.T) {
	s := newSite(t)
	a := s.redeemed()
	type answer struct {
		next inventory.Next
		err  error
	}
	poll := func(order string, done bool) chan answer {
		ch := make(chan answer, 1)
		go func() {
			n, err := a.report(order, done, "?wait=25")
			ch <- answer{n, err}
		}()
		<-s.loop.heard // it is being served
		return ch
	}
	order := func(state inventory.State, phase, id string) {
		s.edit(func(st *inventory.NodeState, _ *inventory.Session) {
			st.State, st.Work = state, inventory.Work{Phase: phase, Order: id}
		})
	}

	begun := time.Now()
	ch := poll("", false)
	s.put(inventory.KeySpec("n-2"), inventory.Spec{Schema: 1, Name: "b"})
	select {
	case got := <-ch:
		t.Fatalf("answered without news: %+v", got)
	default:
	}
	order(inventory.Inspecting, inventory.OrderInspect, "inspect.7")
	if got := <-ch; got.err != nil || got.next.Order == nil || got.next.Order.ID != "inspect.7" || got.next.Order.Kind != inventory.OrderInspect || !got.next.Now.Equal(s.now) {
		t.Errorf("got %+v", got)
	}

	ch = poll("inspect.7", true) // done: nothing to do until the reconciler has judged
	order(inventory.Sanitizing, inventory.OrderSanitize, "sanitize.9")
	if got := <-ch; got.err != nil || got.next.Order == nil || got.next.Order.ID != "sanitize.9" {
		t.Errorf("got %+v", got)
	}

	n, err := a.report("sanitize.9", false, "?wait=25") // at work: told the same order at once
	if err != nil || n.Order == nil || n.Order.ID != "sanitize.9" {
		t.Errorf("got %+v, %v", n, err)
	}
	<-s.loop.heard

	ch = poll("sanitize.9", true)
	s.edit(func(_ *inventory.NodeState, sn *inventory.Session) { sn.Phase = inventory.SessionClosed })
	if got := <-ch; got.err != nil || got.next.Revoked == "" {
		t.Errorf("while it waited its session was closed: %+v", got)
	}
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("it took %v: waits ended by time, not by news", took)
	}
}

// An agent may enter the tenant's system when the record says so, for the order that it has done, and not before.
func TestEnter(t *testing.T) {
	s := newSite(t)
	a := s.redeemed()
	work := func(state inventory.State, phase string) {
		s.edit(func(st *inventory.NodeState, _ *inventory.Session) {
			st.State, st.Work = state, inventory.Work{Phase: phase, Order: "hand-off.9"}
		})
	}
	for _, c := range []struct {
		name  string
		state inventory.State
		phase string
		order string
		done  bool
		enter bool
	}{
		{"hand-off not noted yet", inventory.Provisioning, inventory.OrderHandoff, "hand-off.9", true, false},
		{"noted, but not done by this agent", inventory.Provisioning, "enter", "hand-off.9", false, false},
		{"noted, for another order", inventory.Provisioning, "enter", "hand-off.8", true, false},
		{"in another state", inventory.Fencing, "enter", "hand-off.9", true, false},
		{"noted", inventory.Provisioning, "enter", "hand-off.9", true, true},
		{"asked again", inventory.Provisioning, "enter", "hand-off.9", true, true},
	} {
		work(c.state, c.phase)
		before := s.loop.told
		n, err := a.report(c.order, c.done, "")
		if err != nil || n.Enter != c.enter || (s.loop.told > before) != c.enter {
			t.Errorf("%s: got %+v, %v; the reconciler was told: %v", c.name, n, err, s.loop.told > before)
		}
	}
}

// A test run is kept whole, once, before the reconciler hears of it; what cannot be kept is asked for again, and what a
// revoked agent says is not kept.
func TestTestRunsAreKept(t *testing.T) {
	s := newSite(t)
	a := s.redeemed()
	send := func(uptime float64) int {
		b, err := json.Marshal(inventory.Report{Session: session, Order: "test.9", Done: true, Uptime: uptime,
			Test: &inventory.TestRun{Verdict: inventory.Pass, Blob: "the agent's own", Results: []inventory.TestResult{{Test: "cpu", Verdict: inventory.Pass}}}})
		s.must(err)
		code, text, err := a.call("POST", "/v1/agent/report", b)
		if err != nil {
			t.Error(text, err)
		}
		return code
	}
	s.blobs.err = errors.New("disk full")
	if code := send(1); code != http.StatusServiceUnavailable || len(s.loop.heard) != 0 {
		t.Errorf("not kept: %d, heard %d times", code, len(s.loop.heard))
	}
	s.blobs.err = nil
	for uptime := range 3 {
		if code := send(float64(uptime)); code != http.StatusOK {
			t.Errorf("got %d", code)
		}
		r := <-s.loop.heard
		if b := s.blobs.kept[r.Test.Blob]; len(s.blobs.kept) != 1 || !strings.Contains(string(b), `"test":"cpu"`) {
			t.Errorf("blob %q of %d: %s", r.Test.Blob, len(s.blobs.kept), b)
		}
	}
	s.edit(func(_ *inventory.NodeState, sn *inventory.Session) { sn.Phase = inventory.SessionClosed })
	clear(s.blobs.kept)
	if code := send(9); code != http.StatusOK || len(s.blobs.kept) != 0 || len(s.loop.heard) != 0 {
		t.Errorf("revoked: %d, %d blobs", code, len(s.blobs.kept))
	}
}

// The tenant's secrets leave for one order of one session, and only where the SKU accepts how we know the machine.
func TestSeed(t *testing.T) {
	for _, c := range []struct {
		name    string
		prepare func(*site)
		query   string
		code    int
		want    string
	}{
		{"the order that needs it", nil, "?order=hand-off.9", 200, ""},
		{"while entering", func(s *site) {
			s.edit(func(st *inventory.NodeState, _ *inventory.Session) { st.Work.Phase = "enter" })
		}, "?order=hand-off.9", 200, ""},
		{"no order named", nil, "", 403, "denied"},
		{"the order before", nil, "?order=hand-off.5", 403, "denied"},
		{"another kind of order", func(s *site) {
			s.edit(func(st *inventory.NodeState, _ *inventory.Session) {
				st.Work = inventory.Work{Phase: inventory.OrderWrite, Order: "write.9"}
			})
		}, "?order=write.9", 403, "denied"},
		{"not its state any more", func(s *site) {
			s.edit(func(st *inventory.NodeState, _ *inventory.Session) { st.State = inventory.Fencing })
		}, "?order=hand-off.9", 403, "denied"},
		{"session closed", func(s *site) {
			s.edit(func(_ *inventory.NodeState, sn *inventory.Session) { sn.Phase = inventory.SessionClosed })
		}, "?order=hand-off.9", 403, "denied"},
		{"SKU wants the chassis round trip", func(s *site) {
			s.put(inventory.KeySKU("small"), inventory.SKU{Schema: 1, Name: "small", Trust: "chassis"})
		}, "?order=hand-off.9", 403, "secrets stay here: SKU small does not accept trust=network"},
		{"SKU says nothing", func(s *site) {
			s.put(inventory.KeySKU("small"), inventory.SKU{Schema: 1, Name: "small"})
		}, "?order=hand-off.9", 403, "secrets stay here"},
		{"and the round trip was seen", func(s *site) {
			s.put(inventory.KeySKU("small"), inventory.SKU{Schema: 1, Name: "small", Trust: "chassis"})
			s.put(inventory.KeyFacts(node), inventory.Facts{Schema: 1, Round: true})
		}, "?order=hand-off.9", 200, ""},
		{"it cannot be unsealed", func(s *site) { s.seed = errors.New("age: the tenant's secret is 12345") }, "?order=hand-off.9", 500, "the seed cannot be opened"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			a := s.redeemed()
			s.put(inventory.KeyClaim(node), inventory.Claim{Schema: 1, Node: node, Tenant: "acme", Reservation: "r", Instance: "i-1"})
			s.put(inventory.KeyInstance("i-1"), inventory.Instance{Schema: 1, ID: "i-1", Image: "img"})
			s.edit(func(st *inventory.NodeState, _ *inventory.Session) {
				st.State, st.Work = inventory.Provisioning, inventory.Work{Phase: inventory.OrderHandoff, Order: "hand-off.9"}
			})
			if c.prepare != nil {
				c.prepare(s)
			}
			code, text, err := a.call("GET", "/v1/agent/seed"+c.query, nil)
			if code != c.code || err != nil {
				t.Fatalf("got %d %q, %v", code, text, err)
			}
			if code != 200 {
				if !strings.Contains(text, c.want) || strings.Contains(text, "12345") {
					t.Errorf("got %q", text)
				}
				return
			}
			var files inventory.SeedFiles
			if err := json.Unmarshal([]byte(text), &files); err != nil || string(files.UserData) != "the tenant's secret" || string(files.MetaData) != "i-1" {
				t.Errorf("got %+v, %v", files, err)
			}
		})
	}
}
