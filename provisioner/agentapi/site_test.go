package agentapi_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/memstore"
	"github.com/hostler-project/hostler/provisioner"
	"github.com/hostler-project/hostler/provisioner/agentapi"
)

// A site is the agents' listener on a real socket with real TLS, over a store in memory with one node, n-1, whose boot
// session is armed. The orders are the provisioner's own function of the record.
type site struct {
	t     testing.TB
	store *memstore.Store
	copy  *inventory.Copy
	auth  *agentapi.Authority
	now   time.Time
	http  *httptest.Server
	loop  *spy
	seed  error // what unsealing comes back with
	blobs *shelf
}

// shelf keeps blobs in memory, or refuses them.
type shelf struct {
	mu   sync.Mutex
	kept map[string][]byte
	err  error
}

func (s *shelf) PutBytes(_ context.Context, b []byte) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return "", s.err
	}
	sum := sha256.Sum256(b)
	digest := hex.EncodeToString(sum[:])
	s.kept[digest] = b
	return digest, nil
}

// spy is the reconciler: it keeps what it hears.
type spy struct {
	mu    sync.Mutex
	heard chan inventory.Report
	told  int
}

func (s *spy) Heard(_ string, r inventory.Report) { s.heard <- r }
func (s *spy) Told(string)                        { s.mu.Lock(); s.told++; s.mu.Unlock() }

const (
	node    = "n-1"
	session = "s-1"
	mac     = "52:54:00:00:00:01"
)

func newAuthority(t testing.TB) *agentapi.Authority {
	t.Helper()
	key, cert, err := agentapi.NewAuthority("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	a, err := agentapi.OpenAuthority(key, cert)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func newSite(t testing.TB) *site {
	s := &site{t: t, store: memstore.New(), copy: inventory.NewCopy(), auth: newAuthority(t), now: time.Now(), loop: &spy{heard: make(chan inventory.Report, 100)}, blobs: &shelf{kept: map[string][]byte{}}}
	s.put(inventory.KeySKU("small"), inventory.SKU{Schema: 1, Name: "small", Trust: "network"})
	s.put(inventory.KeySpec(node), inventory.Spec{Schema: 1, Name: "a", Serial: "SER-A", SKU: "small", MACs: []string{mac}})
	s.put(inventory.KeyState(node), inventory.NodeState{Schema: 1, State: inventory.Inspecting, Generation: 1, Work: inventory.Work{Phase: "boot"}})
	s.put(inventory.KeySession(node), inventory.Session{Schema: 1, ID: session, Node: node, Generation: 1, Nonce: "nonce", TokenHash: s.auth.TokenHash(session, "nonce"),
		Phase: inventory.SessionArmed, Expires: s.now.Add(time.Hour)})
	ready := make(chan struct{})
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.copy.Run(ctx, s.store, func() { close(ready) }); err != nil {
			t.Error(err)
		}
	})
	<-ready
	rules := &provisioner.Rules{ChunkBase: func(inventory.NodeView, string) string { return "http://x" }, TrustedKey: func(string) string { return "key" }}
	srv := &agentapi.Server{Store: s.store, Copy: s.copy, Authority: s.auth, Loop: s.loop, Blobs: s.blobs, Entering: provisioner.Entering, Now: func() time.Time { return s.now }, Log: slog.New(slog.DiscardHandler),
		Order: func(v inventory.NodeView) inventory.Order { return provisioner.OrderFor(v, rules) },
		Seed: func(v inventory.NodeView) (inventory.SeedFiles, error) {
			return inventory.SeedFiles{UserData: []byte("the tenant's secret"), MetaData: []byte(v.Instance.V.ID)}, s.seed
		}}
	cert, err := s.auth.Server([]net.IP{net.IPv4(127, 0, 0, 1)}, time.Now())
	s.must(err)
	s.http = httptest.NewUnstartedServer(srv.Handler())
	s.http.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	s.http.TLS = srv.TLS(cert)
	s.http.StartTLS()
	t.Cleanup(func() { s.http.Close(); stop(); wg.Wait() })
	return s
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// put writes a record, and waits until the copy shows it.
func (s *site) put(key string, v any) {
	s.t.Helper()
	op, err := inventory.Encode(key, v)
	s.must(err)
	r, err := s.store.Commit(s.t.Context(), inventory.Txn{Then: []inventory.Op{op}})
	s.must(err)
	if s.http != nil {
		s.must(s.copy.Reach(s.t.Context(), r.Rev))
	}
}

func (s *site) view() inventory.NodeView {
	return inventory.View(&inventory.Read{Ctx: s.t.Context(), Store: s.store}, node)
}

// edit changes state and session of the node.
func (s *site) edit(f func(*inventory.NodeState, *inventory.Session)) {
	s.t.Helper()
	v := s.view()
	st, sn := v.State.V, v.Session.V
	f(&st, &sn)
	s.put(inventory.KeyState(node), st)
	s.put(inventory.KeySession(node), sn)
}

// An agent has a key, and a certificate once it has redeemed.
type agent struct {
	s    *site
	key  *ecdsa.PrivateKey
	cert []byte
	name string // the certificate's session, as the agent says it
}

func (s *site) agent() *agent {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	s.must(err)
	return &agent{s: s, key: key, name: session}
}

func (a *agent) csr() []byte {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, a.key)
	a.s.must(err)
	return der
}

func (a *agent) message() inventory.Redeem {
	return inventory.Redeem{Session: session, Token: a.s.auth.Token(session, "nonce"), CSR: a.csr(), BootID: "b1", Serial: "SER-A", MACs: []string{mac}}
}

func (a *agent) client() *http.Client {
	c := &tls.Config{RootCAs: a.s.auth.Pool(), MinVersion: tls.VersionTLS13}
	if a.cert != nil {
		b, _ := pem.Decode(a.cert)
		c.Certificates = []tls.Certificate{{Certificate: [][]byte{b.Bytes}, PrivateKey: a.key}}
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: c, DisableKeepAlives: true}}
}

// call sends a request and gives status and body.
func (a *agent) call(method, path string, body []byte) (int, string, error) {
	req, err := http.NewRequestWithContext(a.s.t.Context(), method, a.s.http.URL+path, bytes.NewReader(body))
	a.s.must(err)
	res, err := a.client().Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, string(b), err
}

// send redeems, and keeps the certificate when there is one.
func (a *agent) send(q inventory.Redeem) (int, string) {
	a.s.t.Helper()
	b, err := json.Marshal(q)
	a.s.must(err)
	code, text, err := a.call("POST", "/v1/agent/redeem", b)
	a.s.must(err)
	if code == http.StatusOK {
		var r inventory.Redeemed
		a.s.must(json.Unmarshal([]byte(text), &r))
		a.cert = r.Cert
	}
	return code, text
}

// redeemed is an agent with a certificate.
func (s *site) redeemed() *agent {
	s.t.Helper()
	a := s.agent()
	if code, text := a.send(a.message()); code != http.StatusOK {
		s.t.Fatal(code, text)
	}
	return a
}

// report sends a report of an order, and gives the answer.
func (a *agent) report(order string, done bool, query string) (inventory.Next, error) {
	b, err := json.Marshal(inventory.Report{Session: a.name, Generation: 1, BootID: "b1", Order: order, Done: done})
	if err != nil {
		return inventory.Next{}, err
	}
	code, text, err := a.call("POST", "/v1/agent/report"+query, b)
	if err != nil {
		return inventory.Next{}, err
	}
	if code != http.StatusOK {
		return inventory.Next{}, errors.New(http.StatusText(code) + ": " + strings.TrimSpace(text))
	}
	var n inventory.Next
	return n, json.Unmarshal([]byte(text), &n)
}
