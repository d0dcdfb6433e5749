package api

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hostler-project/hostler/inventory"
)

// TokenFor is how long a token is good for: at most, and when nothing else is asked for. Only the token of the first
// start has no end.
const TokenFor = 90 * 24 * time.Hour

// A TokenRequest asks for a token.
type TokenRequest struct {
	Name   string             `json:"name" doc:"Whose it is: histories name it."`
	Role   string             `json:"role" enum:"rental,readonly,technician,admin"`
	Tenant string             `json:"tenant,omitempty" doc:"A rental token needs one, no other has one."`
	TTL    inventory.Duration `json:"ttl,omitempty" doc:"How long it is good for, such as 24h; at most 2160h, which is also the default."`
}

// A TokenInfo tells of a token without its secret.
type TokenInfo struct {
	Hash    string    `json:"hash" doc:"First 12 digits of the SHA-256 of its secret."`
	Name    string    `json:"name"`
	Role    string    `json:"role"`
	Tenant  string    `json:"tenant,omitempty"`
	Expires time.Time `json:"expires,omitzero"`
	Expired bool      `json:"expired,omitempty"`
	Once    bool      `json:"once,omitempty" doc:"A login link that was not opened yet."`
}

// A MadeToken is the only answer that holds a token's secret.
type MadeToken struct {
	TokenInfo
	Token string `json:"token" doc:"The secret. It is not stored and never shown again."`
}

// A TokenList are all tokens, by name.
type TokenList struct {
	Tokens []TokenInfo `json:"tokens"`
}

// hashDigits is how much of a token's hash is shown; less of it is enough to name a token where it is clear.
const hashDigits = 12

var hashForm = regexp.MustCompile(`^[0-9a-f]{4,64}$`)

func (s *Server) createToken(ctx context.Context, in *struct{ Body TokenRequest }) (MadeToken, error) {
	q := in.Body
	wrong := func(fix, format string, a ...any) (MadeToken, error) {
		return MadeToken{}, problem(http.StatusUnprocessableEntity, fix, format, a...)
	}
	switch {
	case !idForm.MatchString(q.Name):
		return wrong("--name NAME", "name %s: %s", quote(q.Name), idWords)
	case q.Name == "hostlerd":
		return wrong("--name NAME", "hostlerd is what histories call the daemon itself: take another name")
	case q.Role == RoleRental && !idForm.MatchString(q.Tenant):
		return wrong("--tenant NAME", "a rental token needs a tenant, not %s: %s", quote(q.Tenant), idWords)
	case q.Role != RoleRental && q.Tenant != "":
		return wrong("--role "+RoleRental, "a %s token has no tenant", q.Role)
	case q.TTL == 0:
		q.TTL = inventory.Duration(TokenFor)
	case q.TTL < 0 || time.Duration(q.TTL) > TokenFor:
		return wrong("--ttl 2160h", "ttl %v: a token is good for at most %v", time.Duration(q.TTL), TokenFor)
	}
	t := inventory.Token{Name: q.Name, Role: q.Role, Tenant: q.Tenant, Expires: s.Now().Add(time.Duration(q.TTL))}
	secret, err := NewToken(ctx, s.Store, t)
	if err != nil {
		return MadeToken{}, err
	}
	made := MadeToken{TokenInfo: s.tokenInfo(tokenKey(secret), t), Token: secret}
	s.Log.Info("token made", "actor", caller(ctx).Actor(), "token", made.Hash, "name", t.Name, "role", t.Role, "tenant", t.Tenant)
	return made, nil
}

func (s *Server) tokenInfo(key string, t inventory.Token) TokenInfo {
	return TokenInfo{Hash: inventory.Parts(key)[1][:hashDigits], Name: t.Name, Role: t.Role, Tenant: t.Tenant, Expires: t.Expires,
		Expired: s.expired(t), Once: t.Once}
}

func (s *Server) expired(t inventory.Token) bool {
	return !t.Expires.IsZero() && s.Now().After(t.Expires)
}

// tokens reads all tokens from the store. Login links past their time are left out: they open nothing, and nobody
// looks for them.
func (s *Server) tokens(ctx context.Context) ([]inventory.Doc[inventory.Token], error) {
	r := &inventory.Read{Ctx: ctx, Store: s.Store}
	var all []inventory.Doc[inventory.Token]
	for _, kv := range r.Under(inventory.PrefixTokens) {
		t, err := inventory.Decode[inventory.Token](kv)
		if err != nil && !errors.Is(err, inventory.ErrNewer) {
			return nil, err
		}
		if t.V.Once && s.expired(t.V) {
			continue
		}
		t.KV = kv
		all = append(all, t)
	}
	return all, r.Err
}

func (s *Server) listTokens(ctx context.Context, _ *struct{}) (TokenList, error) {
	out := TokenList{Tokens: []TokenInfo{}}
	all, err := s.tokens(ctx)
	if err != nil {
		return out, err
	}
	for _, t := range all {
		out.Tokens = append(out.Tokens, s.tokenInfo(t.KV.Key, t.V))
	}
	slices.SortFunc(out.Tokens, func(a, b TokenInfo) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Hash, b.Hash)) })
	return out, nil
}

// revokeToken deletes a token. The last one that may do everything stays: without it nobody could make another.
func (s *Server) revokeToken(ctx context.Context, in *struct {
	Hash string `path:"hash" maxLength:"64" doc:"The first digits of its hash, at least 4."`
}) (TokenInfo, error) {
	if !hashForm.MatchString(in.Hash) {
		return TokenInfo{}, problem(http.StatusUnprocessableEntity, "hostler token ls", "%s is not the beginning of a token's hash: at least 4 of 0-9 and a-f", quote(in.Hash))
	}
	all, err := s.tokens(ctx)
	if err != nil {
		return TokenInfo{}, err
	}
	named := func(t inventory.Doc[inventory.Token]) bool {
		return strings.HasPrefix(t.KV.Key, inventory.KeyToken(in.Hash))
	}
	at := slices.IndexFunc(all, named)
	if at < 0 {
		return TokenInfo{}, problem(http.StatusNotFound, "hostler token ls", "no token's hash begins with %s", in.Hash)
	}
	if slices.ContainsFunc(all[at+1:], named) {
		return TokenInfo{}, problem(http.StatusConflict, "more digits of it: hostler token ls", "the hashes of several tokens begin with %s", in.Hash)
	}
	t := all[at]
	conds := []inventory.Cond{t.Unchanged()}
	if opens := func(t inventory.Token) bool { return t.Role == RoleAdmin && !t.Once && !s.expired(t) }; opens(t.V) {
		other := slices.IndexFunc(all, func(o inventory.Doc[inventory.Token]) bool { return opens(o.V) && o.KV.Key != t.KV.Key })
		if other < 0 {
			return TokenInfo{}, problem(http.StatusConflict, "hostler token create --role admin --name NAME, and with that one again",
				"%s is the last admin token", t.V.Name)
		}
		conds = append(conds, all[other].Unchanged()) // two who revoke each other's at once do not both succeed
	}
	r, err := s.Store.Commit(ctx, inventory.Txn{If: conds, Then: []inventory.Op{inventory.Delete(t.KV.Key)}})
	if err != nil {
		return TokenInfo{}, err
	}
	if !r.Done {
		return TokenInfo{}, problem(http.StatusConflict, "hostler token ls, then once more", "somebody else revokes tokens at this moment")
	}
	info := s.tokenInfo(t.KV.Key, t.V)
	s.Log.Info("token revoked", "actor", caller(ctx).Actor(), "token", info.Hash, "name", info.Name, "role", info.Role)
	// Tokens are looked up in the copy: who hears that one is gone may rely on it.
	ctx, cancel := context.WithTimeout(ctx, revokeTime)
	defer cancel()
	if err := s.Copy.Reach(ctx, r.Rev); err != nil {
		return info, errors.Join(err, inventory.ErrUnavailable)
	}
	return info, nil
}

// revokeTime bounds the wait for a revocation to be known here.
const revokeTime = 5 * time.Second
