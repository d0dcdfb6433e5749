package faults

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/hostler-project/hostler/inventory"
)

// An identity is the key of one boot, and the certificate that it was given.
type identity struct {
	key   ed25519.PrivateKey
	csr   []byte
	hash  string // of the key, as the session keeps it
	chain [][]byte
}

func newIdentity() (*identity, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	id := &identity{key: key}
	if id.csr, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "agent"}}, key); err != nil {
		return nil, err
	}
	r, err := x509.ParseCertificateRequest(id.csr)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(r.RawSubjectPublicKeyInfo)
	id.hash = hex.EncodeToString(sum[:])
	return id, nil
}

func (id *identity) accept(cert []byte) {
	for b, rest := pem.Decode(cert); b != nil; b, rest = pem.Decode(rest) {
		id.chain = append(id.chain, b.Bytes)
	}
}

// An agent is the program that runs in a machine's service OS: it speaks the agent's protocol to whichever replica
// answers.
type agent struct {
	m       *Machine
	session string
	bootID  string
	id      *identity
	at      int // the replica that answered last
	http    *http.Client
	done    map[string]inventory.Report // finished work by order: an order asked again has its answer
	began   time.Time
}

func (m *Machine) newAgent(session, bootID string, id *identity) *agent {
	a := &agent{m: m, session: session, bootID: bootID, id: id, done: map[string]inventory.Report{}, began: time.Now()}
	a.http = &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: m.fleet.keys.Authority.Pool(),
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				return &tls.Certificate{Certificate: id.chain, PrivateKey: id.key}, nil
			}},
		TLSHandshakeTimeout: 5 * time.Second, MaxIdleConns: 4, IdleConnTimeout: 40 * time.Second,
	}}
	return a
}

var errDenied = errors.New("denied")

// call sends one message; after a failure the next one goes to the next replica.
func (a *agent) call(ctx context.Context, limit time.Duration, path string, in, out any) error {
	urls := a.m.fleet.agents
	b, err := json.Marshal(in)
	if err != nil {
		return err
	}
	ctx, stop := context.WithTimeout(ctx, limit)
	defer stop()
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, urls[a.at%len(urls)]+path, bytes.NewReader(b))
	if err != nil {
		return err
	}
	r, err := a.http.Do(q)
	if err != nil {
		a.at++
		return err
	}
	defer r.Body.Close()
	switch {
	case r.StatusCode == http.StatusForbidden:
		return errDenied
	case r.StatusCode != http.StatusOK:
		a.at++
		return fmt.Errorf("%s: %s", path, r.Status)
	}
	return json.NewDecoder(r.Body).Decode(out)
}

// redeem trades the session's token for a certificate.
func (a *agent) redeem(ctx context.Context, token string) error {
	var out inventory.Redeemed
	err := a.call(ctx, 10*time.Second, "/v1/agent/redeem", inventory.Redeem{Session: a.session, Token: token, CSR: a.id.csr, BootID: a.bootID,
		Serial: a.m.Spec.Serial, MACs: a.m.Spec.MACs}, &out)
	if err == nil {
		a.id.accept(out.Cert)
	}
	return err
}

// work asks for orders and does them until the machine goes off, the session is over, or the tenant's system is entered.
func (a *agent) work(ctx context.Context) (entered bool) {
	defer a.http.CloseIdleConnections()
	r := inventory.Report{}
	for ctx.Err() == nil {
		r.Session, r.BootID, r.Agent, r.Uptime = a.session, a.bootID, "run", time.Since(a.began).Seconds()
		var next inventory.Next
		a.others(ctx, r)
		path := "/v1/agent/report?wait=20"
		if err := a.call(ctx, 30*time.Second, path, r, &next); err != nil {
			if errors.Is(err, errDenied) {
				return false
			}
			sleep(ctx, 300*time.Millisecond)
			continue
		}
		switch {
		case next.Revoked != "":
			return false
		case next.Enter:
			return true
		case next.Order == nil || next.Order.Kind == inventory.OrderIdle:
			r = inventory.Report{}
		default:
			r = a.do(ctx, *next.Order)
		}
	}
	return false
}

// others says the same to the other replicas. A replica that does not own the node cannot pass on yet what its agent
// says, so here every replica hears it.
func (a *agent) others(ctx context.Context, r inventory.Report) {
	at := a.at
	for i := 1; i < len(a.m.fleet.agents); i++ {
		a.at = at + i
		_ = a.call(ctx, 2*time.Second, "/v1/agent/report", r, &inventory.Next{}) // one that is down or frozen hears nothing
	}
	a.at = at
}

// do does an order, once; it takes a moment.
func (a *agent) do(ctx context.Context, o inventory.Order) inventory.Report {
	if r, ok := a.done[o.ID]; ok {
		return r
	}
	began := time.Now()
	sleep(ctx, a.m.fleet.pause(20*time.Millisecond, 200*time.Millisecond))
	r := inventory.Report{Order: o.ID, Generation: o.Generation, Done: true, Started: began, Finished: time.Now()}
	switch o.Kind {
	case inventory.OrderInspect:
		hw := hardware(a.m.Spec.Serial, a.m.Spec.MACs[0])
		r.Hardware = &hw
	case inventory.OrderSanitize:
		r.Proofs = proofs(o.Media, began)
	case inventory.OrderTest:
		r.Test = &inventory.TestRun{Profile: o.Profile, Verdict: inventory.Pass, Started: began, Finished: time.Now()}
	case inventory.OrderWrite:
		r.Written = &inventory.Written{Image: o.Write.Image, Serial: o.Write.Medium.Serial, Bytes: 100, ReadBack: 100}
	case inventory.OrderHandoff:
		r.Handoff = &inventory.HandoffResult{Method: "kexec"}
	default:
		return inventory.Report{}
	}
	if ctx.Err() == nil {
		a.done[o.ID] = r
		a.m.fleet.note(Act{At: time.Now(), Node: a.m.ID, Kind: "order " + o.Kind, Generation: o.Generation})
	}
	return r
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
