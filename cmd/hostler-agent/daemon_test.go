package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/hostler-project/hostler/inventory"
)

const (
	testNode    = "n-01J0000000000000000000TEST"
	testSession = "s-1"
	testToken   = "the-token-of-this-boot"
)

// A fakeDaemon behaves as the daemon does towards one agent: it has a CA, trades its token once, and works off a list of
// orders. Faults are fields.
type fakeDaemon struct {
	t     *testing.T
	now   func() time.Time
	ca    *x509.Certificate
	key   *ecdsa.PrivateKey
	https *httptest.Server
	http  *httptest.Server

	mu       sync.Mutex
	changed  chan struct{} // closed and made anew at every change
	keyHash  [32]byte
	cert     []byte
	redeems  int
	orders   []inventory.Order // to do; the first is the one to do now
	reports  []inventory.Report
	done     []inventory.Report // accepted results
	forget   int                // results that are taken and forgotten, so that the same order comes again
	revoked  string
	mayEnter bool
	seeds    int
	drop     func(path string, body []byte) bool // cut the connection after the daemon has done its part
	seed     inventory.SeedFiles
}

func newDaemon(t *testing.T, now func() time.Time) *fakeDaemon {
	t.Helper()
	if now == nil {
		now = time.Now
	}
	d := &fakeDaemon{t: t, now: now, changed: make(chan struct{})}
	var err error
	if d.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	d.ca = d.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, d.key.Public())
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/agent/redeem", d.redeem)
	mux.HandleFunc("POST /v1/agent/report", d.report)
	mux.HandleFunc("GET /v1/agent/seed", d.giveSeed)
	d.https = httptest.NewUnstartedServer(mux)
	pool := x509.NewCertPool()
	pool.AddCert(d.ca)
	server := d.sign(&x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(10, 0, 2, 2)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, d.key.Public())
	d.https.Config.ErrorLog = log.New(io.Discard, "", 0)
	d.https.TLS = &tls.Config{MinVersion: tls.VersionTLS13, ClientCAs: pool, ClientAuth: tls.VerifyClientCertIfGiven, Time: now,
		Certificates: []tls.Certificate{{Certificate: [][]byte{server.Raw}, PrivateKey: d.key}}}
	d.https.StartTLS()
	t.Cleanup(d.https.Close)
	d.http = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", now().UTC().Format(http.TimeFormat))
	}))
	t.Cleanup(d.http.Close)
	return d
}

func (d *fakeDaemon) sign(c *x509.Certificate, pub any) *x509.Certificate {
	d.t.Helper()
	c.SerialNumber, c.NotBefore, c.NotAfter = big.NewInt(time.Now().UnixNano()), d.now().Add(-time.Hour), d.now().Add(time.Hour)
	parent := d.ca
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, pub, d.key)
	if err != nil {
		d.t.Fatal(err)
	}
	out, err := x509.ParseCertificate(der)
	if err != nil {
		d.t.Fatal(err)
	}
	return out
}

func (d *fakeDaemon) caPEM() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: d.ca.Raw}))
}

func (d *fakeDaemon) pin() string { return fmt.Sprintf("sha256:%x", sha256.Sum256(d.ca.Raw)) }

// session is what the second initrd holds, for an agent that reaches this machine as host.
func (d *fakeDaemon) session(host string) []byte {
	_, tlsPort, _ := net.SplitHostPort(d.https.Listener.Addr().String())
	_, port, _ := net.SplitHostPort(d.http.Listener.Addr().String())
	b, err := json.Marshal(map[string]string{"session": testSession, "node": testNode, "name": "node-a", "token": testToken,
		"server": "https://" + host + ":" + tlsPort, "http": "http://" + host + ":" + port, "ca_pem": d.caPEM()})
	if err != nil {
		d.t.Fatal(err)
	}
	return b
}

// change does something under the lock and wakes who waits.
func (d *fakeDaemon) change(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
	close(d.changed)
	d.changed = make(chan struct{})
}

// until waits for something to become true.
func (d *fakeDaemon) until(what string, within time.Duration, ok func() bool) {
	d.t.Helper()
	timeout := time.After(within)
	for {
		d.mu.Lock()
		yes, changed := ok(), d.changed
		d.mu.Unlock()
		if yes {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			d.t.Fatalf("%s did not happen in %v", what, within)
		}
	}
}

func (d *fakeDaemon) redeem(w http.ResponseWriter, r *http.Request) {
	var q inventory.Redeem
	body, _ := io.ReadAll(r.Body)
	if err := json.Unmarshal(body, &q); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	csr, err := x509.ParseCertificateRequest(q.CSR)
	if err != nil || csr.CheckSignature() != nil {
		http.Error(w, "the request does not hold", http.StatusBadRequest)
		return
	}
	hash := sha256.Sum256(csr.RawSubjectPublicKeyInfo)
	refused := false
	d.change(func() {
		d.redeems++
		if refused = q.Token != testToken || q.Session != testSession || d.cert != nil && hash != d.keyHash; refused {
			return
		}
		if d.cert == nil {
			c := d.sign(&x509.Certificate{Subject: pkix.Name{CommonName: testSession}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, csr.PublicKey)
			d.keyHash, d.cert = hash, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
		}
	})
	if refused {
		http.Error(w, "denied", http.StatusForbidden)
		return
	}
	d.answer(w, r, body, inventory.Redeemed{Cert: d.cert, Node: testNode, Name: "node-a", Generation: 7, Now: d.now()})
}

func (d *fakeDaemon) report(w http.ResponseWriter, r *http.Request) {
	var q inventory.Report
	body, _ := io.ReadAll(r.Body)
	if err := json.Unmarshal(body, &q); err != nil || len(r.TLS.VerifiedChains) == 0 || q.Session != testSession || q.Generation < 7 {
		http.Error(w, "denied", http.StatusForbidden)
		return
	}
	d.change(func() {
		d.reports = append(d.reports, q)
		if !q.Done || len(d.orders) == 0 || d.orders[0].ID != q.Order {
			return
		}
		d.done = append(d.done, q)
		if d.forget > 0 {
			d.forget--
		} else if d.orders[0].Kind != inventory.OrderHandoff {
			d.orders = d.orders[1:]
		}
	})
	secs, _ := strconv.Atoi(r.URL.Query().Get("wait"))
	hold := time.After(time.Duration(secs) * time.Second)
	for {
		d.mu.Lock()
		next := inventory.Next{Now: d.now(), Revoked: d.revoked, Order: &inventory.Order{ID: "idle", Kind: inventory.OrderIdle}}
		if len(d.orders) > 0 {
			o := d.orders[0]
			o.Node, o.Session, o.Generation = testNode, testSession, max(o.Generation, 7)
			next.Order = &o
			if next.Enter = q.Done && q.Order == o.ID && o.Kind == inventory.OrderHandoff && d.mayEnter; next.Enter {
				next.Order = nil
			}
		}
		changed := d.changed
		d.mu.Unlock()
		news := next.Revoked != "" || next.Enter || next.Order.Kind != inventory.OrderIdle && !(q.Done && next.Order.ID == q.Order)
		if news || secs == 0 {
			d.answer(w, r, body, next)
			return
		}
		select {
		case <-changed:
		case <-hold:
			secs = 0
		case <-r.Context().Done():
			return
		}
	}
}

func (d *fakeDaemon) giveSeed(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	ok := len(r.TLS.VerifiedChains) > 0 && len(d.orders) > 0 && d.orders[0].ID == r.URL.Query().Get("order")
	d.seeds++
	d.mu.Unlock()
	if !ok {
		http.Error(w, "denied", http.StatusForbidden)
		return
	}
	d.answer(w, r, nil, d.seed)
}

func (d *fakeDaemon) answer(w http.ResponseWriter, r *http.Request, body []byte, v any) {
	if d.drop != nil && d.drop(r.URL.Path, body) {
		panic(http.ErrAbortHandler)
	}
	var b bytes.Buffer
	if err := json.NewEncoder(&b).Encode(v); err != nil {
		d.t.Error(err)
	}
	_, _ = w.Write(b.Bytes())
}
