package api

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/doctor"
	"github.com/hostler-project/hostler/inventory/ledger"
	"github.com/hostler-project/hostler/inventory/lifecycle"
)

// Health says that the store answers, and whether it takes writes.
type Health struct {
	OK       bool      `json:"ok" doc:"It reads and writes."`
	Revision int64     `json:"revision"`
	Degraded *Degraded `json:"degraded,omitempty" doc:"Reads are answered, nothing is changed."`
}

// Degraded says why the site reads and does not write.
type Degraded struct {
	Why   string    `json:"why"`
	Since time.Time `json:"since"`
	Fix   string    `json:"fix"`
}

// healthTime bounds the question to the store: who asks for health wants an answer, not patience.
const healthTime = 2 * time.Second

func (s *Server) healthz(ctx context.Context, _ *struct{}) (Health, error) {
	ctx, cancel := context.WithTimeout(ctx, healthTime)
	defer cancel()
	rev, err := s.revision(ctx)
	if errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, inventory.ErrUnavailable) {
		err = errors.Join(err, inventory.ErrUnavailable)
	}
	h := Health{OK: err == nil, Revision: rev}
	if s.Degraded != nil {
		h.Degraded = s.Degraded()
		h.OK = h.OK && h.Degraded == nil
	}
	return h, err
}

// doctor judges the site's machinery.
func (s *Server) doctor(ctx context.Context, _ *struct{}) (doctor.Report, error) {
	if s.Doctor == nil {
		return doctor.Report{}, problem(http.StatusNotFound, "hostler --help", "this server cannot say how it is")
	}
	return s.Doctor(ctx), nil
}

// Version tells the server's version and who the caller is to it.
type Version struct {
	Version string   `json:"version"`
	You     Identity `json:"you"`
}

func (s *Server) version(ctx context.Context, _ *struct{}) (Version, error) {
	return Version{s.Version, caller(ctx)}, nil
}

// A Lifecycle is the table of states and edges that this server works by.
type Lifecycle struct {
	States []LifecycleState `json:"states"`
	Edges  []LifecycleEdge  `json:"edges"`
}

// A LifecycleState is one row of states.
type LifecycleState struct {
	State    inventory.State    `json:"state"`
	Means    string             `json:"means"`
	Step     string             `json:"step,omitempty"`
	Deadline inventory.Duration `json:"deadline,omitempty"`
	Posts    int                `json:"posts,omitempty" doc:"Boots contained; each is allowed max(30 min, 1.5 × the SKU's p99)."`
	Alarm    inventory.Duration `json:"alarm,omitempty"`
	Rest     bool               `json:"rest,omitempty"`
	Owned    bool               `json:"owned,omitempty"`
	Destroys bool               `json:"destroys,omitempty"`
}

// A LifecycleEdge is one row of edges.
type LifecycleEdge struct {
	From inventory.State `json:"from,omitempty"`
	On   lifecycle.Event `json:"on"`
	To   inventory.State `json:"to"`
	By   lifecycle.Who   `json:"by"`
	Why  string          `json:"why"`
	Also string          `json:"also,omitempty"`
}

// LifecycleTable is the table of this program, as the API gives it.
func LifecycleTable() Lifecycle {
	var out Lifecycle
	for _, r := range lifecycle.States {
		out.States = append(out.States, LifecycleState{r.Name, r.Means, r.Step, inventory.Duration(r.Deadline), r.Posts,
			inventory.Duration(r.Alarm), r.Rest, r.Owned, r.Destroys})
	}
	for _, e := range lifecycle.Edges {
		out.Edges = append(out.Edges, LifecycleEdge{e.From, e.On, e.To, e.By, e.Why, e.Effects.String()})
	}
	return out
}

func (s *Server) lifecycle(context.Context, *struct{}) (Lifecycle, error) {
	return LifecycleTable(), nil
}

// A CertificateInfo is a certificate in short.
type CertificateInfo struct {
	Wipe     int64     `json:"wipe"`
	Serial   string    `json:"serial,omitempty"`
	Instance string    `json:"instance,omitempty" doc:"Whose data was erased."`
	Media    int       `json:"media"`
	NotDone  []string  `json:"not_done,omitempty"`
	Finished time.Time `json:"finished"`
	KeyID    string    `json:"key_id"`
	Broken   string    `json:"broken,omitempty" doc:"Why it does not hold."`
}

func (s *Server) certificateInfo(c inventory.Certificate) CertificateInfo {
	body, err := ledger.OpenCertificate(c, s.CertificateKey)
	info := CertificateInfo{KeyID: c.KeyID}
	if err != nil {
		info.Broken = err.Error()
		if json.Unmarshal(c.Body, &body) != nil {
			return info
		}
	}
	info.Wipe, info.Serial, info.Instance, info.Media, info.NotDone, info.Finished = body.Wipe, body.Serial, body.Instance,
		len(body.Media), body.NotDone, body.Finished
	return info
}

// A CertificateList are the certificates of a node, oldest first.
type CertificateList struct {
	Node         string            `json:"node"`
	Certificates []CertificateInfo `json:"certificates"`
}

func (s *Server) listCertificates(ctx context.Context, in *NodeRef) (CertificateList, error) {
	v, err := s.node(ctx, in.Node)
	out := CertificateList{Node: v.ID, Certificates: []CertificateInfo{}}
	if err != nil {
		return out, err
	}
	for _, kv := range s.Copy.Under(inventory.PrefixCerts + v.ID + "/") {
		c, err := inventory.Decode[inventory.Certificate](kv)
		if err != nil && !errors.Is(err, inventory.ErrNewer) {
			return out, err
		}
		if s.mayProve(caller(ctx), v, c.V) {
			out.Certificates = append(out.Certificates, s.certificateInfo(c.V))
		}
	}
	return out, nil
}

type certificateInput struct {
	NodeRef
	Wipe int64 `path:"wipe" minimum:"0"`
}

func (s *Server) showCertificate(ctx context.Context, in *certificateInput) (inventory.Certificate, error) {
	v, err := s.node(ctx, in.Node)
	if err != nil {
		return inventory.Certificate{}, err
	}
	c, err := inventory.Decode[inventory.Certificate](s.Copy.One(inventory.KeyCert(v.ID, in.Wipe)))
	if err == nil && (!c.Exists() || !s.mayProve(caller(ctx), v, c.V)) {
		err = problem(http.StatusNotFound, "hostler cert show "+v.Name(), "%s has no certificate of wipe %d", v.Name(), in.Wipe)
	}
	return c.V, err
}

// mayProve says whether a certificate is the caller's business: a tenant's are the one of its own data, and the one that
// proves the node clean before the tenancy it has now.
func (s *Server) mayProve(who Identity, v inventory.NodeView, c inventory.Certificate) bool {
	if who.Role != RoleRental {
		return true
	}
	body, err := ledger.OpenCertificate(c, s.CertificateKey)
	if err != nil {
		return false
	}
	if in, err := inventory.Decode[inventory.Instance](s.Copy.One(inventory.KeyInstance(body.Instance))); err == nil && in.Exists() && in.V.Tenant == who.Tenant {
		return true
	}
	// Confirm raises the wipe number by one: the certificate of before is the one that the tenancy began with.
	return v.Claim.Exists() && v.Claim.V.Tenant == who.Tenant && body.Wipe >= v.State.V.Wipe-1
}

// A PublicKey is what certificates are checked with: Ed25519, 32 bytes in base64.
type PublicKey struct {
	Key   string `json:"key"`
	KeyID string `json:"key_id"`
}

func (s *Server) certificateKey(context.Context, *struct{}) (PublicKey, error) {
	return PublicKey{base64.StdEncoding.EncodeToString(s.CertificateKey), ledger.KeyID(s.CertificateKey)}, nil
}

// A BootPreview is what a node would be served at its next boot.
type BootPreview struct {
	Node string `json:"node"`
	Text string `json:"text"`
}

func (s *Server) bootPreview(ctx context.Context, in *NodeRef) (BootPreview, error) {
	v, err := s.node(ctx, in.Node)
	if err != nil {
		return BootPreview{}, err
	}
	if s.Preview == nil {
		return BootPreview{}, problem(http.StatusNotFound, "declare a segment in site.yaml", "this server serves no boot files")
	}
	text, err := s.Preview(v.ID)
	return BootPreview{v.ID, text}, err
}
