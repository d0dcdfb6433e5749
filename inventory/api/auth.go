package api

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hostler-project/hostler/inventory"
)

// The roles of tokens.
const (
	RoleRental     = "rental"     // a tenant's, or the rental layer's for one: public nodes, its own claims
	RoleReadonly   = "readonly"   // sees everything but secrets
	RoleTechnician = "technician" // works on nodes
	RoleAdmin      = "admin"      // everything
)

// TokenRoles are the roles that a token can have.
var TokenRoles = []string{RoleRental, RoleReadonly, RoleTechnician, RoleAdmin}

// An Identity is who a request comes from.
type Identity struct {
	Name   string    `json:"name"`
	Role   string    `json:"role"`
	Tenant string    `json:"tenant,omitempty"`
	Until  time.Time `json:"until,omitzero"`
}

// Actor names the identity in records.
func (id Identity) Actor() string {
	if id.Tenant != "" {
		return id.Name + "@" + id.Tenant
	}
	return id.Name
}

type identityKey struct{}

// caller is the identity that Handler found; without one nothing is allowed.
func caller(ctx context.Context) Identity {
	id, _ := ctx.Value(identityKey{}).(Identity)
	return id
}

// NewToken stores a token and returns its secret, which is kept nowhere: only its hash is stored.
func NewToken(ctx context.Context, store inventory.Store, t inventory.Token) (secret string, err error) {
	switch {
	case !slices.Contains(TokenRoles, t.Role):
		return "", fmt.Errorf("api: token of role %q: it must be one of %v", t.Role, TokenRoles)
	case t.Role == RoleRental && !idForm.MatchString(t.Tenant):
		return "", fmt.Errorf("api: a rental token needs a tenant, not %q", t.Tenant)
	case t.Role != RoleRental && t.Tenant != "":
		return "", fmt.Errorf("api: a %s token has no tenant, not even %q", t.Role, t.Tenant)
	}
	raw := make([]byte, 32)
	if _, err := rand.Read(raw); err != nil {
		return "", fmt.Errorf("api: make token: %w", err)
	}
	secret = base64.RawURLEncoding.EncodeToString(raw)
	t.Schema = inventory.Schema
	op, err := inventory.Encode(tokenKey(secret), t)
	if err != nil {
		return "", err
	}
	_, err = store.Commit(ctx, inventory.Txn{If: []inventory.Cond{inventory.Absent(op.Key)}, Then: []inventory.Op{op}})
	return secret, err
}

func tokenKey(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return inventory.KeyToken(hex.EncodeToString(sum[:]))
}

// secretLength is that of 32 bytes in unpadded base64url: anything else is answered without a look at the store.
const secretLength = 43

var errNoToken = problem(http.StatusUnauthorized, "set HOSTLER_TOKEN_FILE to a file with a valid token", "this needs a valid token")

// Authenticate tells who sends a request, from its bearer token. Every fault of the token gives the same answer; an
// error with inventory.ErrUnavailable means that nobody can say now.
func (s *Server) Authenticate(r *http.Request) (Identity, error) {
	secret, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return Identity{}, errNoToken
	}
	t, err := s.token(r.Context(), secret)
	if err != nil {
		return Identity{}, err
	}
	if t.V.Once {
		return Identity{}, errNoToken
	}
	return identity(t.V), nil
}

// token reads a valid token: from the copy, or from the store when it is younger than the copy.
func (s *Server) token(ctx context.Context, secret string) (inventory.Doc[inventory.Token], error) {
	var none inventory.Doc[inventory.Token]
	if len(secret) != secretLength {
		return none, errNoToken
	}
	key := tokenKey(secret)
	kv := s.Copy.One(key)
	if !kv.Exists() {
		var err error
		if kv, err = s.Store.Get(ctx, key); err != nil {
			return none, err
		}
	}
	t, err := inventory.Decode[inventory.Token](kv)
	switch {
	case err != nil && !errors.Is(err, inventory.ErrNewer):
		return none, err
	case err != nil, !t.Exists(), s.expired(t.V):
		return none, errNoToken
	}
	t.KV.Key = key
	return t, nil
}

func identity(t inventory.Token) Identity {
	return Identity{Name: t.Name, Role: t.Role, Tenant: t.Tenant, Until: t.Expires}
}

// RedeemLogin takes a one-time login token, deletes it, and tells who may log in. The second one to come gets 401.
func (s *Server) RedeemLogin(ctx context.Context, secret string) (Identity, error) {
	t, err := s.token(ctx, secret)
	if err != nil {
		return Identity{}, err
	}
	if !t.V.Once {
		return Identity{}, errNoToken
	}
	r, err := s.Store.Commit(ctx, inventory.Txn{If: []inventory.Cond{t.Unchanged()}, Then: []inventory.Op{inventory.Delete(t.KV.Key)}})
	if err != nil {
		return Identity{}, err
	}
	if !r.Done {
		return Identity{}, errNoToken
	}
	return identity(t.V), nil
}

// loginFor is how long a login link is good for.
const loginFor = 10 * time.Minute

// A Login is a one-time way into the dashboard.
type Login struct {
	Path    string    `json:"path" doc:"Open this below the server's address."`
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
}

// LoginPath is where the dashboard takes login tokens.
const LoginPath = "/login?token="

func (s *Server) login(ctx context.Context, _ *struct{}) (Login, error) {
	who := caller(ctx)
	until := s.Now().Add(loginFor)
	secret, err := NewToken(ctx, s.Store, inventory.Token{Name: who.Name, Role: who.Role, Tenant: who.Tenant, Expires: until, Once: true})
	return Login{Path: LoginPath + secret, Token: secret, Expires: until}, err
}
