package agentapi_test

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/memstore"
	"github.com/hostler-project/hostler/provisioner/agentapi"
)

func TestRedeem(t *testing.T) {
	s := newSite(t)
	a := s.agent()
	if code, text := a.send(a.message()); code != http.StatusOK || !strings.Contains(text, `"node":"n-1"`) || !strings.Contains(text, `"name":"a"`) {
		t.Fatal(code, text)
	}
	sn := s.view().Session.V
	if sn.Phase != inventory.SessionRedeemed || sn.BootID != "b1" || !sn.Redeemed.Equal(s.now) || sn.KeyHash == "" || !bytes.Equal(sn.Cert, a.cert) {
		t.Errorf("session %+v", sn)
	}
	b, rest := pem.Decode(a.cert)
	c, err := x509.ParseCertificate(b.Bytes)
	s.must(err)
	if len(rest) != 0 || c.Subject.CommonName != session || !slices.Contains(c.Subject.OrganizationalUnit, node) || !slices.Contains(c.Subject.OrganizationalUnit, "generation 1") ||
		c.IsCA || !slices.Equal(c.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) || !c.NotAfter.After(s.now) || !c.NotBefore.Before(s.now) {
		t.Errorf("certificate of %v, for %v, from %v to %v", c.Subject, c.ExtKeyUsage, c.NotBefore, c.NotAfter)
	}
	if _, err := c.Verify(x509.VerifyOptions{Roots: s.auth.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Error(err)
	}

	// The same key again, a lost answer: the same certificate, at any time.
	first := a.cert
	s.now = s.now.Add(48 * time.Hour)
	if code, _ := a.send(a.message()); code != http.StatusOK || !bytes.Equal(a.cert, first) {
		t.Errorf("asked again: %d, the same certificate: %v", code, bytes.Equal(a.cert, first))
	}
}

// Whatever is wrong with a redemption, it is told nothing; whatever shows that somebody else has the token burns the
// session.
func TestRedeemRefusals(t *testing.T) {
	expire := func(s *site) { s.now = s.now.Add(time.Hour + time.Second) }
	phase := func(p string) func(*site) {
		return func(s *site) { s.edit(func(_ *inventory.NodeState, sn *inventory.Session) { sn.Phase = p }) }
	}
	for _, c := range []struct {
		name    string
		prepare func(*site)
		edit    func(*inventory.Redeem)
		phase   string // of the session, after
	}{
		{"wrong token", nil, func(q *inventory.Redeem) { q.Token = strings.Repeat("A", len(q.Token)) }, inventory.SessionArmed},
		{"no token", nil, func(q *inventory.Redeem) { q.Token = "" }, inventory.SessionArmed},
		{"token with something behind", nil, func(q *inventory.Redeem) { q.Token += "=" }, inventory.SessionArmed},
		{"unknown session", nil, func(q *inventory.Redeem) { q.Session = "s-2" }, inventory.SessionArmed},
		{"no session", nil, func(q *inventory.Redeem) { q.Session = "" }, inventory.SessionArmed},
		{"expired", expire, func(*inventory.Redeem) {}, inventory.SessionArmed},
		{"closed", phase(inventory.SessionClosed), func(*inventory.Redeem) {}, inventory.SessionClosed},
		{"burnt", phase(inventory.SessionBurnt), func(*inventory.Redeem) {}, inventory.SessionBurnt},
		{"another machine's MAC", nil, func(q *inventory.Redeem) { q.MACs = []string{"52:54:00:00:00:99"} }, inventory.SessionBurnt},
		{"no MAC", nil, func(q *inventory.Redeem) { q.MACs = nil }, inventory.SessionBurnt},
		{"another machine's serial", nil, func(q *inventory.Redeem) { q.Serial = "SER-B" }, inventory.SessionBurnt},
		{"CSR cut off", nil, func(q *inventory.Redeem) { q.CSR = q.CSR[:len(q.CSR)-1] }, inventory.SessionArmed},
		{"CSR with another signature", nil, func(q *inventory.Redeem) { q.CSR[len(q.CSR)-1] ^= 1 }, inventory.SessionArmed},
		{"no CSR", nil, func(q *inventory.Redeem) { q.CSR = nil }, inventory.SessionArmed},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			if c.prepare != nil {
				c.prepare(s)
			}
			a := s.agent()
			q := a.message()
			c.edit(&q)
			if code, text := a.send(q); code != http.StatusForbidden || text != "denied\n" {
				t.Errorf("got %d %q", code, text)
			}
			sn := s.view().Session.V
			if sn.Phase != c.phase || sn.Cert != nil || (c.phase == inventory.SessionBurnt && c.prepare == nil) != (sn.Reason != "") {
				t.Errorf("session %+v", sn)
			}
			if c.phase == inventory.SessionArmed && c.name != "expired" { // the right machine is not kept out by it
				if code, text := a.send(a.message()); code != http.StatusOK {
					t.Errorf("afterwards: %d %s", code, text)
				}
			}
		})
	}
}

// Spelling does not make it another machine; what a machine does not know of itself neither.
func TestRedeemKnowsItsMachine(t *testing.T) {
	for name, edit := range map[string]func(*inventory.Redeem){
		"MAC in capitals":     func(q *inventory.Redeem) { q.MACs = []string{"52:54:00:00:00:99", strings.ToUpper(mac)} },
		"serial in lower":     func(q *inventory.Redeem) { q.Serial = "ser-a" },
		"serial not readable": func(q *inventory.Redeem) { q.Serial = "" },
	} {
		s := newSite(t)
		a := s.agent()
		q := a.message()
		edit(&q)
		if code, text := a.send(q); code != http.StatusOK {
			t.Errorf("%s: %d %s", name, code, text)
		}
	}
}

// Another key with the right token burns the session: the certificate given before is worth nothing from then on.
func TestAnotherKeyBurns(t *testing.T) {
	s := newSite(t)
	a := s.redeemed()
	thief := s.agent()
	if code, text := thief.send(thief.message()); code != http.StatusForbidden || text != "denied\n" {
		t.Errorf("got %d %q", code, text)
	}
	sn := s.view().Session.V
	if sn.Phase != inventory.SessionBurnt || sn.Cert != nil || !strings.Contains(sn.Reason, "another key") {
		t.Errorf("session %+v", sn)
	}
	s.must(s.copy.Reach(t.Context(), s.store.Rev()))
	if n, err := a.report("", false, ""); err != nil || !strings.Contains(n.Revoked, "burnt") || n.Order != nil {
		t.Errorf("the first one's report: %+v, %v", n, err)
	}
	if code, _ := a.send(a.message()); code != http.StatusForbidden {
		t.Errorf("the first one again: %d", code)
	}
}

// Many at once: with one key all get the same certificate; with many keys at most one ever got one, and the session is burnt.
func TestRedeemAtOnce(t *testing.T) {
	for _, same := range []bool{true, false} {
		s := newSite(t)
		one := s.agent()
		agents := make([]*agent, 8)
		codes := make([]int, len(agents))
		var wg sync.WaitGroup
		for i := range agents {
			agents[i] = s.agent()
			if same {
				agents[i].key = one.key
			}
			wg.Go(func() { codes[i], _ = agents[i].send(agents[i].message()) })
		}
		wg.Wait()
		got := map[string]bool{}
		for i, a := range agents {
			if codes[i] == http.StatusOK {
				got[string(a.cert)] = true
			}
		}
		phase := s.view().Session.V.Phase
		if same && (len(got) != 1 || slices.Contains(codes, http.StatusForbidden) || phase != inventory.SessionRedeemed) {
			t.Errorf("one key: %v, %d certificates, session %s", codes, len(got), phase)
		}
		if !same && (len(got) > 1 || phase != inventory.SessionBurnt) {
			t.Errorf("many keys: %v, %d certificates, session %s", codes, len(got), phase)
		}
	}
}

// A store that is away is no refusal: the agent tries again, whether its redemption was written or not.
func TestRedeemWhileTheStoreIsAway(t *testing.T) {
	for _, c := range []memstore.Call{{Op: "get"}, {Op: "commit"}, {Op: "commit", After: true}} {
		s := newSite(t)
		a := s.agent()
		s.store.SetFault(func(call memstore.Call) error {
			if call.Op == c.Op && call.After == c.After {
				return inventory.ErrUnavailable
			}
			return nil
		})
		if code, text := a.send(a.message()); code != http.StatusServiceUnavailable || text != "try again\n" {
			t.Errorf("%s: got %d %q", c.Op, code, text)
		}
		s.store.SetFault(nil)
		if code, text := a.send(a.message()); code != http.StatusOK || !bytes.Equal(s.view().Session.V.Cert, a.cert) {
			t.Errorf("%s, afterwards: %d %s", c.Op, code, text)
		}
	}
}

func TestBodies(t *testing.T) {
	s := newSite(t)
	a := s.redeemed()
	for _, c := range []struct {
		name, method, path string
		body               []byte
		code               int
	}{
		{"redeem: not JSON", "POST", "/v1/agent/redeem", []byte("{"), 400},
		{"redeem: empty", "POST", "/v1/agent/redeem", nil, 400},
		{"redeem: too large", "POST", "/v1/agent/redeem", []byte(`{"token":"` + strings.Repeat("a", 64<<10) + `"}`), 400},
		{"redeem: by GET", "GET", "/v1/agent/redeem", nil, 405},
		{"report: not JSON", "POST", "/v1/agent/report", []byte("nonsense"), 400},
		{"report: too large", "POST", "/v1/agent/report", []byte(`{"error":"` + strings.Repeat("a", 4<<20) + `"}`), 400},
		{"report: of another session", "POST", "/v1/agent/report", []byte(`{"session":"s-2"}`), 403},
		{"report: of no session", "POST", "/v1/agent/report", []byte(`{}`), 403},
		{"nothing there", "GET", "/v1/agent/other", nil, 404},
	} {
		if code, text, err := a.call(c.method, c.path, c.body); code != c.code || err != nil {
			t.Errorf("%s: got %d %q, %v", c.name, code, text, err)
		}
	}
	if len(s.loop.heard) != 0 {
		t.Error("the reconciler heard of one of them")
	}
}

func TestAuthority(t *testing.T) {
	key, cert, err := agentapi.NewAuthority("site", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	one, err := agentapi.OpenAuthority(key, cert)
	if err != nil {
		t.Fatal(err)
	}
	again, err := agentapi.OpenAuthority(key, cert)
	if err != nil {
		t.Fatal(err)
	}
	other := newAuthority(t)
	if one.Token("s", "n") != again.Token("s", "n") || one.Path("session", "s") != again.Path("session", "s") || one.Pin() != again.Pin() {
		t.Error("another start of the daemon derives other tokens")
	}
	tokens := map[string]string{}
	for name, token := range map[string]string{"plain": one.Token("s", "n"), "other session": one.Token("s2", "n"), "other nonce": one.Token("s", "n2"), "words shifted": one.Token("sn", ""),
		"other authority": other.Token("s", "n"), "path": one.Path("s", "n")} {
		if was := tokens[token]; was != "" || len(token) < 32 {
			t.Errorf("%s and %s have the same token, or it is short: %d letters", name, was, len(token))
		}
		tokens[token] = name
	}
	if one.TokenHash("s", "n") != agentapi.HashToken(one.Token("s", "n")) || !strings.HasPrefix(one.Pin(), "sha256:") || !bytes.Equal(one.PEM(), cert) {
		t.Error("hash, pin or PEM")
	}
	for name, c := range map[string][2][]byte{
		"key of another": {keyOf(t), cert}, "no key": {nil, cert}, "no certificate": {key, nil}, "key cut off": {key[:40], cert},
		"certificate as key": {cert, cert}, "key as certificate": {key, key},
	} {
		if _, err := agentapi.OpenAuthority(c[0], c[1]); err == nil || strings.Contains(err.Error(), strings.Split(string(key), "\n")[1]) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func keyOf(t *testing.T) []byte {
	t.Helper()
	key, _, err := agentapi.NewAuthority("other", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return key
}
