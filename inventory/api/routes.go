package api

import (
	"context"
	"net/http"
	"reflect"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// A Route is one row of what the API can do and who may.
type Route struct {
	Method, Path string
	Roles        []string // nil: anybody, without a token
	Name         string   // operation id
	Does         string
	MaxBody      int64 // bytes; 0 means 64 KiB
	mount        func(*Server, huma.API, huma.Operation)
}

// Who may, as the table uses it.
var (
	all     = []string{RoleRental, RoleReadonly, RoleTechnician, RoleAdmin}
	staff   = []string{RoleReadonly, RoleTechnician, RoleAdmin}
	hands   = []string{RoleTechnician, RoleAdmin}
	renters = []string{RoleRental, RoleAdmin}
	admins  = []string{RoleAdmin}
)

const (
	mib         = 1 << 20
	maxManifest = 88 * mib // a manifest of 64 MiB in base64, and its signature
)

// Routes is the whole API. What is not here does not exist.
var Routes = []Route{
	{"GET", "/healthz", nil, "healthz", "Say whether the store answers.", 0, do((*Server).healthz)},
	{"GET", "/v1/version", all, "version", "Tell the server's version and who you are to it.", 0, do((*Server).version)},
	{"GET", "/v1/lifecycle", all, "lifecycle", "The table of states and edges.", 0, do((*Server).lifecycle)},
	{"GET", "/v1/doctor", staff, "doctor", "What is wrong with the site's machinery, and the one command that helps.", 0, do((*Server).doctor)},
	{"POST", "/v1/login", all, "login", "Make a one-time login link for the dashboard, with your role.", 0, do((*Server).login)},

	{"GET", "/v1/nodes", all, "list-nodes", "List nodes by selector. Rental sees the public part.", 0, do((*Server).listNodes)},
	{"GET", "/v1/nodes/{node}", all, "show-node", "Show one node. Rental sees the public part.", 0, do((*Server).showNode)},
	{"GET", "/v1/nodes/{node}/history", staff, "node-history", "What happened to a node, oldest first.", 0, do((*Server).history)},
	{"GET", "/v1/nodes/{node}/why", staff, "why", "Why a node is where it is, what it waits for, what happens next.", 0, do((*Server).why)},
	{"POST", "/v1/nodes/{node}/approve", hands, "approve-node", "Say what a discovered node is, and wish it inspected.", 0, do((*Server).approve)},
	{"POST", "/v1/nodes/{node}/wishes", hands, "wish", "Wish something of a node; the provisioner answers.", 0, do((*Server).wish)},
	{"GET", "/v1/nodes/{node}/wishes", staff, "list-wishes", "List a node's wishes and their answers.", 0, do((*Server).listWishes)},
	{"GET", "/v1/nodes/{node}/wishes/{wish}", staff, "show-wish", "Show one wish and its answer.", 0, do((*Server).showWish)},

	{"GET", "/v1/breaker", staff, "show-breaker", "Whether the breaker is open, and how much goes on at once.", 0, do((*Server).showBreaker)},
	{"POST", "/v1/breaker/close", hands, "close-breaker", "Close the breaker: the cause was found.", 0, do((*Server).closeBreaker)},

	{"POST", "/v1/manifest", hands, "import-manifest", "Compare a CSV list of nodes with the record, or bring the record in line.", 8 * mib, do((*Server).importManifest)},
	{"GET", "/v1/credentials", staff, "list-credentials", "List the names of the sealed BMC credentials.", 0, do((*Server).listCredentials)},
	{"PUT", "/v1/credentials/{ref}", hands, "put-credential", "Seal a BMC user and password under a name. They are never given out.", 4096, do((*Server).putCredential)},

	{"POST", "/v1/tokens", admins, "create-token", "Make a token. Its secret is in this answer and nowhere else.", 0, do((*Server).createToken)},
	{"GET", "/v1/tokens", admins, "list-tokens", "List the tokens, without their secrets.", 0, do((*Server).listTokens)},
	{"DELETE", "/v1/tokens/{hash}", admins, "revoke-token", "Revoke the token whose hash begins so.", 0, do((*Server).revokeToken)},

	{"GET", "/v1/images", all, "list-images", "List the images that can be rented with.", 0, do((*Server).listImages)},
	{"POST", "/v1/images/check", admins, "check-image", "Hand in a signed manifest; learn which bytes are missing.", maxManifest, do((*Server).checkImage)},
	{"PUT", "/v1/images/{image}/chunks/{digest}", admins, "put-chunk", "Hand in one packed chunk.", 5 * mib, do((*Server).putChunk)},
	{"PUT", "/v1/images/{image}/blobs/{digest}", admins, "put-blob", "Hand in a kernel or initrd.", 1 << 30, do((*Server).putBlob)},
	{"POST", "/v1/images", admins, "commit-image", "Offer an image whose bytes are all there.", maxManifest, do((*Server).commitImage)},

	{"POST", "/v1/claims", renters, "claim", "Reserve a node; with an image also confirm.", 256 << 10, do((*Server).claim)},
	{"GET", "/v1/claims", all, "list-claims", "List reservations. Rental sees its own.", 0, do((*Server).listClaims)},
	{"GET", "/v1/claims/{id}", all, "show-claim", "Show a reservation and its instance.", 0, do((*Server).showClaim)},
	{"POST", "/v1/claims/{id}/confirm", renters, "confirm-claim", "Name image and user data of a reserved node: it is provisioned.", 256 << 10, do((*Server).confirmClaim)},
	{"POST", "/v1/claims/{id}/renew", renters, "renew-claim", "Hold a pending reservation longer.", 0, do((*Server).renewClaim)},
	{"POST", "/v1/claims/{id}/release", renters, "release-claim", "Give the node back.", 0, do((*Server).releaseClaim)},

	{"GET", "/v1/watch", all, "watch", "Every change of the public records, as server-sent events.", 0, stream((*Server).watch, "text/event-stream")},

	{"GET", "/v1/certificates/{node}", all, "list-certificates", "List a node's sanitize certificates. Rental: of its own use.", 0, do((*Server).listCertificates)},
	{"GET", "/v1/certificates/{node}/{wipe}", all, "show-certificate", "One certificate, exactly as signed. Rental: of its own use.", 0, do((*Server).showCertificate)},
	{"GET", "/v1/certificate-key", all, "certificate-key", "The public key that certificates are signed with.", 0, do((*Server).certificateKey)},
	{"GET", "/v1/audit", staff, "audit", "What must hold of the record at every revision, and what does not.", 0, do((*Server).audit)},
	{"GET", "/v1/audit/history", admins, "audit-history", "Everything that the store still keeps of its history, for hostler audit --file; without secrets.", 0, stream((*Server).auditHistory, "application/jsonl")},
	{"POST", "/v1/audit/{node}/clear", hands, "clear-audit", "Say that a breach by this node was looked into: it may be rented again.", 0, do((*Server).clearAudit)},
	{"GET", "/v1/boot/{node}", staff, "boot-preview", "What the node would be served at its next boot.", 0, do((*Server).bootPreview)},
}

func (r Route) may(role string) bool { return slices.Contains(r.Roles, role) }

// operation is the row as OpenAPI has it.
func (r Route) operation(registry huma.Registry) huma.Operation {
	op := huma.Operation{
		OperationID: r.Name, Method: r.Method, Path: r.Path, Summary: r.Does,
		MaxBodyBytes: r.MaxBody, BodyReadTimeout: time.Minute,
		Extensions: map[string]any{"x-roles": r.Roles},
		Responses: map[string]*huma.Response{"default": {Description: "Problem", Content: map[string]*huma.MediaType{
			"application/problem+json": {Schema: registry.Schema(reflect.TypeFor[Problem](), true, "Problem")}}}},
	}
	if r.MaxBody == 0 {
		op.MaxBodyBytes = 64 << 10
	}
	if r.Roles != nil {
		op.Security = []map[string][]string{{"token": {}}}
	}
	return op
}

type answer[O any] struct{ Body O }

// do mounts a handler that answers with JSON.
func do[I, O any](f func(*Server, context.Context, *I) (O, error)) func(*Server, huma.API, huma.Operation) {
	return func(s *Server, api huma.API, op huma.Operation) {
		huma.Register(api, op, func(ctx context.Context, in *I) (*answer[O], error) {
			out, err := f(s, ctx, in)
			if err != nil {
				return nil, s.problem(caller(ctx), err)
			}
			return &answer[O]{out}, nil
		})
	}
}

// stream mounts a handler that writes its answer as it goes.
func stream[I any](f func(*Server, context.Context, *I) (func(huma.Context), error), contentType string) func(*Server, huma.API, huma.Operation) {
	return func(s *Server, api huma.API, op huma.Operation) {
		op.Responses["200"] = &huma.Response{Description: "OK", Content: map[string]*huma.MediaType{contentType: {Schema: &huma.Schema{Type: huma.TypeString}}}}
		huma.Register(api, op, func(ctx context.Context, in *I) (*huma.StreamResponse, error) {
			body, err := f(s, ctx, in)
			if err != nil {
				return nil, s.problem(caller(ctx), err)
			}
			return &huma.StreamResponse{Body: func(c huma.Context) {
				c.SetHeader("Content-Type", contentType)
				c.SetStatus(http.StatusOK)
				body(c)
			}}, nil
		})
	}
}
