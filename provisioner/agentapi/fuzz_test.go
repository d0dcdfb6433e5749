package agentapi_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/hostler-project/hostler/internal/frugal"
	"github.com/hostler-project/hostler/inventory"
)

// FuzzMessages sends any body to each route of the agents, with and without a certificate. Nobody gets anything without
// the session's token or its certificate; no message but a redeem with the right token writes anything; the reconciler
// hears only what was said for the caller's own session; and what comes back is small and tells no secret.
func FuzzMessages(f *testing.F) {
	s := newSite(f)
	a := s.agent()
	token := s.auth.Token(session, "nonce")
	right := a.message()
	wrong, late := a.message(), a.message()
	wrong.Token, late.MACs, late.Serial = strings.Repeat("x", len(token)), []string{"52:54:00:00:00:99"}, "\x1b[2J"
	for _, q := range []inventory.Redeem{right, wrong, late, {Session: session, Token: token}} {
		b, err := json.Marshal(q)
		s.must(err)
		f.Add(uint8(0), b)
	}
	for _, text := range []string{
		`{"session":"s-1","generation":1,"boot_id":"b1","uptime_s":12.5,"order":"inspect.7","done":true,"hardware":{"serial":"SER-A","media":[{"slot":"0000:00:04.0","kind":"nvme","serial":"D0","size":1073741824}]}}`,
		`{"session":"s-1","order":"test.9","done":true,"test":{"verdict":"pass","results":[{"test":"cpu","verdict":"pass","values":{"x":1e308}}]}}`, `{"session":"s-2"}`, `{"session":"s-1","session":"s-2"}`,
		`{"SESSION":"s-1","done":1}`, `{"session":"s-1","started":"0000-01-01T00:00:00+23:59"}`, `null`, `[]`, `{`, strings.Repeat(`{"test":`, 20_000), `{"session":"s-1","progress":{"done":99999999999999999999}}`,
	} {
		for route := range uint8(6) {
			f.Add(route, []byte(text))
		}
	}
	before := s.view().Session.V
	f.Fuzz(func(t *testing.T, route uint8, body []byte) {
		s.t = t
		certified := route >= 3
		method, path := "POST", "/v1/agent/redeem"
		switch route % 3 {
		case 1:
			path = "/v1/agent/report"
		case 2:
			method, path = "GET", "/v1/agent/seed?order=inspect.7"
		}
		send := func() *httptest.ResponseRecorder {
			r := httptest.NewRequest(method, "https://hostlerd"+path, bytes.NewReader(body))
			r.TLS = &tls.ConnectionState{}
			if certified { // as crypto/tls leaves it when the chain holds
				leaf := &x509.Certificate{Subject: pkix.Name{CommonName: session, OrganizationalUnit: []string{node, "generation 1"}}}
				r.TLS.PeerCertificates, r.TLS.VerifiedChains = []*x509.Certificate{leaf}, [][]*x509.Certificate{{leaf}}
			}
			w := httptest.NewRecorder()
			s.http.Config.Handler.ServeHTTP(w, r)
			return w
		}
		rev := s.store.Rev()
		w := send()
		var q inventory.Redeem
		proved := path == "/v1/agent/redeem" && json.NewDecoder(bytes.NewReader(body)).Decode(&q) == nil && q.Token == token && q.Session == session
		if s.store.Rev() != rev {
			if !proved {
				t.Fatalf("%s wrote something for %q", path, body)
			}
			if sn := s.view().Session.V; len(sn.Reason) > 500 || strings.Contains(sn.Reason, "\x1b") {
				t.Fatalf("reason %q", sn.Reason)
			}
			s.put(inventory.KeySession(node), before)
		}
		switch {
		case w.Code == http.StatusOK && path == "/v1/agent/redeem" && !proved, w.Code == http.StatusOK && method == "GET", w.Code == http.StatusOK && !certified && !proved:
			t.Fatalf("%s: %d %s", path, w.Code, w.Body)
		case w.Code != http.StatusOK && w.Code != http.StatusBadRequest && w.Code != http.StatusForbidden && !(proved && w.Code == http.StatusServiceUnavailable):
			t.Fatalf("%s: %d %s", path, w.Code, w.Body)
		}
		if out := w.Body.String(); len(out) > 16<<10 || strings.Contains(out, token) || strings.Contains(out, "secret") {
			t.Fatalf("%s: %d bytes, or a secret: %.300s", path, len(out), out)
		}
		for len(s.loop.heard) > 0 {
			if r := <-s.loop.heard; r.Session != session || !certified || path != "/v1/agent/report" {
				t.Fatalf("the reconciler heard %+v", r)
			}
		}
		if path != "/v1/agent/redeem" {
			size := uint64(len(body))
			frugal.Check(t, 5*time.Millisecond+time.Duration(size)*2*time.Microsecond, 512<<10+100*size, func() {
				send()
				for len(s.loop.heard) > 0 {
					<-s.loop.heard
				}
			})
		}
	})
}
