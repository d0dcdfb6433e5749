package api

import (
	"context"
	"crypto/ed25519"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/audit"
	"github.com/hostler-project/hostler/inventory/doctor"
	"github.com/hostler-project/hostler/inventory/ledger"
)

// A Server answers the API. Fields without "may be nil" must be set before Handler is called.
type Server struct {
	Store  inventory.Store
	Copy   *inventory.Copy // running: lists, tokens and the event stream come from it
	Ledger *ledger.Ledger
	Images ImageStore
	Sealer Sealer
	Now    func() time.Time
	Log    *slog.Logger

	CertificateKey ed25519.PublicKey // tenants and auditors check certificates with it
	Version        string

	Live      func(node string) Live              // what the daemon sees of a node right now; may be nil
	Preview   func(node string) (string, error)   // what the node would be served at its next boot; may be nil
	Doctor    func(context.Context) doctor.Report // judges the site's machinery; may be nil
	Audit     func() audit.Verdict                // what the daemon's auditor found; may be nil
	Degraded  func() *Degraded                    // why the store takes no writes; nil while it does; may be nil
	Heartbeat time.Duration                       // between comments on an idle event stream; 0 means 15 s

	publics publics
}

// Live is what the daemon knows of a node and does not write down: what it waits for at this moment.
type Live struct {
	Say      string              `json:"say,omitempty"` // what it waits for, in words
	Progress *inventory.Progress `json:"progress,omitempty"`
	Heard    time.Time           `json:"heard,omitzero"` // when its agent last spoke
	Left     *inventory.Duration `json:"deadline_left,omitempty"`
	Still    string              `json:"deadline_still,omitempty"` // why the deadline stands still
	Held     bool                `json:"held,omitempty"`           // the open breaker holds it up
}

// A Sealer encrypts to the daemon's own key, so that secrets are in the store only sealed (age).
type Sealer interface {
	Seal(plain []byte) ([]byte, error)
}

// An ImageStore keeps the bytes of images and checks them: signature against the site's trusted keys, every chunk and
// blob against its digest. What it refuses for its content it returns as a *ledger.Refusal.
type ImageStore interface {
	// Check takes a signed manifest in and says which bytes are missing.
	Check(manifest, signature []byte) (digest string, miss Missing, err error)
	// PutChunk and PutBlob take bytes in that the manifest of an image names.
	PutChunk(image, chunk string, r io.Reader) error
	PutBlob(image, blob string, r io.Reader) error
	// Finish offers an image whose bytes are all there.
	Finish(ctx context.Context, image string) (inventory.ImageRecord, error)
}

// Missing are the bytes of an image that are not in the store yet, by SHA-256.
type Missing struct {
	Chunks []string `json:"chunks"`
	Blobs  []string `json:"blobs"`
}

// None says whether nothing is missing.
func (m Missing) None() bool { return len(m.Chunks) == 0 && len(m.Blobs) == 0 }

// Handler serves every route of the table; anything else gets 404, and 401 without a token.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	s.mount(mux)
	rows := map[string]Route{}
	for _, r := range Routes {
		rows[r.Method+" "+r.Path] = r
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// ServeMux says which pattern it will serve; asking it, instead of matching here, leaves no second opinion.
		_, pattern := mux.Handler(r)
		row, known := rows[pattern]
		if known && row.Roles == nil {
			mux.ServeHTTP(w, r)
			return
		}
		who, err := s.Authenticate(r)
		if err != nil {
			s.write(w, s.problem(Identity{}, err))
			return
		}
		switch {
		case !known:
			s.write(w, problem(http.StatusNotFound, "hostler --help, or docs/openapi.json", "there is no %s %s", r.Method, r.URL.Path))
		case !row.may(who.Role):
			s.write(w, problem(http.StatusForbidden, "use a token of another role", "a %s token may not do this", who.Role))
		default:
			mux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), identityKey{}, who)))
		}
	})
}

// OpenAPI is the document of the API, as docs/openapi.json holds it.
func (s *Server) OpenAPI() ([]byte, error) {
	doc := s.mount(http.NewServeMux())
	doc.Info.Version = "1" // of the interface, not of the program: the file must not change with each build
	return doc.MarshalJSON()
}

func (s *Server) mount(mux *http.ServeMux) *huma.OpenAPI {
	registry := huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer)
	api := humago.New(mux, huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{Title: "Hostler", Version: s.Version,
				Description: "The inventory of a fleet of rented servers: what there is, what can be rented, and what people want of it."},
			Components: &huma.Components{Schemas: registry, SecuritySchemes: map[string]*huma.SecurityScheme{
				"token": {Type: "http", Scheme: "bearer"}}},
		},
		Formats:                      huma.DefaultFormats,
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
		Transformers:                 []huma.Transformer{ours},
	})
	for _, r := range Routes {
		r.mount(s, api, r.operation(registry))
	}
	return api.OpenAPI()
}
