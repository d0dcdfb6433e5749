// Package agentapi is the daemon's side of the few messages between agent and daemon: redeem, report, seed.
//
// Everything is TLS with a certificate that the boot script pinned. Redeem trades the one-time token of a boot session
// for a client certificate: the same key may ask again, another key burns the session, and the reconciler quarantines
// the node. From then on the session's record, not the certificate, says what the agent may: a closed or burnt session
// is answered "revoked". A report is handed to the reconciler, and answered with the order that the node's record
// calls for, at once or when it changes (long poll). The package decides nothing about nodes.
package agentapi

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hostler-project/hostler/inventory"
)

// Reconciler is what happens with what agents say.
type Reconciler interface {
	Heard(node string, r inventory.Report)
	Told(node string)
}

// A Server answers agents.
type Server struct {
	Store     inventory.Store
	Copy      *inventory.Copy
	Authority Issuer
	Loop      Reconciler
	Order     func(inventory.NodeView) inventory.Order
	Entering  func(v inventory.NodeView, order string) bool
	Seed      func(inventory.NodeView) (inventory.SeedFiles, error) // unsealed and rendered
	Blobs     Blobs                                                 // keeps test runs whole; may be nil
	Now       func() time.Time
	Log       *slog.Logger
}

// An Issuer makes agents' certificates; an Authority is one.
type Issuer interface {
	Issue(csr *x509.CertificateRequest, session, node string, generation int64, now time.Time) ([]byte, error)
	Pool() *x509.CertPool
}

// Blobs keep what is too large for the record, by digest (inventory/blob).
type Blobs interface {
	PutBytes(ctx context.Context, b []byte) (digest string, err error)
}

// Limits of what is read from an agent.
const (
	maxRedeem = 64 << 10
	maxReport = 4 << 20
	maxWait   = 25 * time.Second
)

// Handler has the routes. TLS must verify client certificates when given (see TLS).
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/agent/redeem", s.redeem)
	mux.HandleFunc("POST /v1/agent/report", s.asAgent(s.report))
	mux.HandleFunc("GET /v1/agent/seed", s.asAgent(s.seed))
	return mux
}

// TLS is the listener's configuration: our certificate, and clients' checked against the authority where they have one.
func (s *Server) TLS(cert tls.Certificate) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: s.Authority.Pool(), ClientAuth: tls.VerifyClientCertIfGiven, MinVersion: tls.VersionTLS13}
}

// errDenied is all that a caller without the right learns.
var errDenied = errors.New("denied")

func (s *Server) redeem(w http.ResponseWriter, r *http.Request) {
	var q inventory.Redeem
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRedeem)).Decode(&q); err != nil {
		http.Error(w, "not a redeem message", http.StatusBadRequest)
		return
	}
	out, rev, err := s.Redeem(r.Context(), q)
	if err == nil { // the agent's next message is judged by the copy: it must not meet one that does not know of this yet
		err = s.Copy.Reach(r.Context(), rev)
	}
	switch {
	case errors.Is(err, errDenied):
		s.Log.Warn("redeem refused", "session", inventory.Plain(q.Session, 80), "from", r.RemoteAddr, "err", err)
		http.Error(w, "denied", http.StatusForbidden)
	case err != nil:
		s.Log.Warn("redeem failed", "session", inventory.Plain(q.Session, 80), "from", r.RemoteAddr, "err", err)
		http.Error(w, "try again", http.StatusServiceUnavailable)
	default:
		answer(w, out)
	}
}

// Redeem is one compare-and-swap on the session: armed → redeemed with the hash of the key. rev is the revision from which
// on the record shows it.
func (s *Server) Redeem(ctx context.Context, q inventory.Redeem) (out inventory.Redeemed, rev int64, err error) {
	var none inventory.Redeemed
	csr, err := x509.ParseCertificateRequest(q.CSR)
	if err != nil || csr.CheckSignature() != nil {
		return none, 0, fmt.Errorf("%w: the certificate request does not hold", errDenied)
	}
	sum := sha256.Sum256(csr.RawSubjectPublicKeyInfo)
	keyHash := hex.EncodeToString(sum[:])
	for range 8 {
		node := s.nodeOf(q.Session)
		if node == "" {
			return none, 0, fmt.Errorf("%w: no such session", errDenied)
		}
		rd := &inventory.Read{Ctx: ctx, Store: s.Store} // fresh: this is the moment that must not be decided from a copy
		v := inventory.View(rd, node)
		if rd.Err != nil {
			return none, 0, rd.Err
		}
		sn, now := v.Session.V, s.Now()
		if sn.ID != q.Session || subtle.ConstantTimeCompare([]byte(HashToken(q.Token)), []byte(sn.TokenHash)) != 1 {
			return none, 0, fmt.Errorf("%w: the token is not this session's", errDenied)
		}
		burn := ""
		switch {
		case sn.Phase == inventory.SessionRedeemed && sn.KeyHash == keyHash:
			return inventory.Redeemed{Cert: sn.Cert, Node: node, Name: v.Name(), Generation: sn.Generation, Now: now}, v.Session.KV.Mod, nil
		case sn.Phase == inventory.SessionRedeemed:
			burn = "another key redeemed its token: somebody else has it; look at who is on the provisioning network"
		case sn.Phase != inventory.SessionArmed:
			return none, 0, fmt.Errorf("%w: the session is %s", errDenied, sn.Phase)
		case now.After(sn.Expires):
			return none, 0, fmt.Errorf("%w: the session expired at %s", errDenied, sn.Expires.Format(time.RFC3339))
		case !knowsMachine(v, q):
			burn = inventory.Plain(fmt.Sprintf("its token was redeemed by another machine (serial %s, MACs %s)", inventory.Plain(q.Serial, 100), strings.Join(q.MACs, " ")), 400)
		}
		if burn != "" {
			sn.Phase, sn.Reason, sn.Cert = inventory.SessionBurnt, burn, nil
		} else {
			sn.Phase, sn.KeyHash, sn.Redeemed, sn.BootID = inventory.SessionRedeemed, keyHash, now, q.BootID
			if sn.Cert, err = s.Authority.Issue(csr, sn.ID, node, sn.Generation, now); err != nil {
				return none, 0, err
			}
		}
		op, err := v.Session.Put(sn)
		if err != nil {
			return none, 0, err
		}
		res, err := s.Store.Commit(ctx, inventory.Txn{If: []inventory.Cond{v.Session.Unchanged()}, Then: []inventory.Op{op}})
		switch {
		case err != nil:
			return none, 0, err
		case !res.Done:
			continue
		case burn != "":
			return none, 0, fmt.Errorf("%w: session burnt: %s", errDenied, burn)
		}
		return inventory.Redeemed{Cert: sn.Cert, Node: node, Name: v.Name(), Generation: sn.Generation, Now: now}, res.Rev, nil
	}
	return none, 0, errors.New("the session keeps changing")
}

// knowsMachine says whether the redeemer is the machine that the session was made for, as far as it is known.
func knowsMachine(v inventory.NodeView, q inventory.Redeem) bool {
	sp := v.Spec.V
	if len(sp.MACs) > 0 && !slices.ContainsFunc(q.MACs, func(m string) bool { return sp.HasMAC(strings.ToLower(m)) }) {
		return false
	}
	return sp.Serial == "" || q.Serial == "" || strings.EqualFold(sp.Serial, q.Serial)
}

func (s *Server) nodeOf(session string) string {
	for _, kv := range s.Copy.Under(inventory.PrefixSessions) {
		if d, err := inventory.Decode[inventory.Session](kv); err == nil && d.V.ID == session && session != "" {
			return d.V.Node
		}
	}
	return ""
}

// asAgent lets in only callers with a certificate of ours, and finds the node of their session.
func (s *Server) asAgent(f func(http.ResponseWriter, *http.Request, string, string)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
			http.Error(w, "denied", http.StatusForbidden)
			return
		}
		leaf := r.TLS.PeerCertificates[0].Subject
		if len(leaf.OrganizationalUnit) == 0 {
			http.Error(w, "denied", http.StatusForbidden)
			return
		}
		node := leaf.OrganizationalUnit[0]
		for _, ou := range leaf.OrganizationalUnit {
			if strings.HasPrefix(ou, "n-") {
				node = ou
			}
		}
		f(w, r, node, leaf.CommonName)
	}
}

// revoked says why a session may do nothing any more; "" while it may.
func revoked(v inventory.NodeView, session string) string {
	sn := v.Session.V
	switch {
	case !v.Session.Exists() || sn.ID != session:
		return "another boot session has begun"
	case sn.Phase != inventory.SessionRedeemed:
		return "this boot session is " + sn.Phase + ": " + sn.Reason
	case sn.Generation != v.State.V.Generation:
		return "the node's generation is another"
	}
	return ""
}

func (s *Server) report(w http.ResponseWriter, r *http.Request, node, session string) {
	var q inventory.Report
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxReport)).Decode(&q); err != nil {
		http.Error(w, "not a report: "+inventory.Plain(err.Error(), 200), http.StatusBadRequest)
		return
	}
	if q.Session != session {
		http.Error(w, "denied", http.StatusForbidden)
		return
	}
	if q.Done && q.Test != nil && s.Blobs != nil && revoked(inventory.View(s.Copy, node), session) == "" {
		if err := s.keep(r.Context(), &q); err != nil {
			s.Log.Error("a test run cannot be kept", "node", node, "err", err)
			http.Error(w, "try again", http.StatusServiceUnavailable)
			return
		}
	}
	secs, _ := strconv.Atoi(r.URL.Query().Get("wait")) // absent or nonsense: no wait
	until := time.Now().Add(min(time.Duration(secs)*time.Second, maxWait))
	batches, stop := s.Copy.Subscribe()
	defer stop()
	s.Heard(node, session, q)
	for {
		next, ready := s.Next(node, session, q)
		if ready || !time.Now().Before(until) {
			answer(w, next)
			return
		}
		if !waitFor(r.Context(), batches, node, time.Until(until)) {
			return
		}
	}
}

// keep stores a finished test run whole; the record gets verdict, values and the pointer. The same run reported again
// is the same blob: the agent repeats its report, with another uptime, until it has its next order.
func (s *Server) keep(ctx context.Context, q *inventory.Report) error {
	q.Test.Blob = ""
	b, err := json.Marshal(q.Test)
	if err != nil {
		return err
	}
	q.Test.Blob, err = s.Blobs.PutBytes(ctx, b)
	return err
}

// Heard hands a report to the reconciler, unless its session is over.
func (s *Server) Heard(node, session string, q inventory.Report) {
	if revoked(inventory.View(s.Copy, node), session) == "" {
		s.Loop.Heard(node, q)
	}
}

// Next is the answer to a report; ready is false while there is nothing new to say. An agent that is told to enter by it
// counts as told.
func (s *Server) Next(node, session string, q inventory.Report) (n inventory.Next, ready bool) {
	v := inventory.View(s.Copy, node)
	n.Now = s.Now()
	if n.Revoked = revoked(v, session); n.Revoked != "" {
		return n, true
	}
	if q.Done && s.Entering(v, q.Order) {
		s.Loop.Told(node)
		n.Enter = true
		return n, true
	}
	o := s.Order(v)
	n.Order = &o
	return n, o.ID != q.Order && !(q.Order == "" && o.Kind == inventory.OrderIdle) || !q.Done && o.Kind != inventory.OrderIdle
}

// waitFor waits until something about the node changes; false when the caller has gone away.
func waitFor(ctx context.Context, batches <-chan inventory.Batch, node string, limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return true
		case b, ok := <-batches:
			if !ok {
				return false // too slow a reader: it asks again
			}
			for _, e := range b.Events {
				if p := inventory.Parts(e.KV.Key); len(p) > 1 && p[1] == node {
					return true
				}
			}
		}
	}
}

// seed gives the tenant's secrets to the one order that needs them.
func (s *Server) seed(w http.ResponseWriter, r *http.Request, node, session string) {
	rd := &inventory.Read{Ctx: r.Context(), Store: s.Store}
	v := inventory.View(rd, node)
	if rd.Err != nil {
		http.Error(w, "try again", http.StatusServiceUnavailable)
		return
	}
	o := s.Order(v)
	switch {
	case revoked(v, session) != "" || o.Kind != inventory.OrderHandoff || r.URL.Query().Get("order") != o.ID:
		http.Error(w, "denied", http.StatusForbidden)
		return
	case v.SKU.V.Trust != "network" && !v.Facts.V.Round:
		http.Error(w, "secrets stay here: SKU "+v.SKU.V.Name+" does not accept trust=network, and the chassis round trip was not seen", http.StatusForbidden)
		return
	}
	files, err := s.Seed(v)
	if err != nil {
		s.Log.Error("the seed cannot be given", "node", node, "instance", v.Instance.V.ID, "err", err)
		http.Error(w, "the seed cannot be opened", http.StatusInternalServerError)
		return
	}
	answer(w, files)
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // a caller that has gone away asks again
}
