package api_test

import (
	"bytes"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/api"
)

// A token opens what its role may until its time is over or it is revoked, and its secret is told once.
func TestTokensComeAndGo(t *testing.T) {
	s := site(t)
	began := time.Now()
	now := began
	s.Server.Now = func() time.Time { return now }
	admin := s.Token(t, api.RoleAdmin, "")
	q := api.TokenRequest{Name: "kim", Role: api.RoleRental, Tenant: "acme", TTL: inventory.Duration(time.Hour / 2)}
	kim := get[api.MadeToken](t, s, admin, "POST", "/v1/tokens", q)
	if !kim.Expires.Equal(began.Add(time.Hour/2)) || kim.Name != "kim" || kim.Tenant != "acme" || len(kim.Hash) != 12 {
		t.Errorf("%+v", kim.TokenInfo)
	}
	if who := get[api.Version](t, s, kim.Token, "GET", "/v1/version", nil).You; who.Name != "kim" || who.Role != api.RoleRental || who.Tenant != "acme" {
		t.Errorf("%+v", who)
	}
	refused(t, s, kim.Token, "GET", "/v1/tokens", nil, http.StatusForbidden)

	_, listed := call(t, s, admin, "GET", "/v1/tokens", nil)
	if bytes.Contains(listed, []byte(kim.Token)) || !bytes.Contains(listed, []byte(kim.Hash)) {
		t.Errorf("the list holds a secret, or not the hash: %s", listed)
	}
	all, err := s.Store.List(t.Context(), "/", inventory.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range all.KVs {
		if bytes.Contains(kv.Value, []byte(kim.Token)) || strings.Contains(kv.Key, kim.Token) {
			t.Errorf("%s holds the secret", kv.Key)
		}
	}

	now = began.Add(time.Hour / 2)
	get[api.Version](t, s, kim.Token, "GET", "/v1/version", nil)
	now = began.Add(time.Hour/2 + time.Second)
	refused(t, s, kim.Token, "GET", "/v1/version", nil, http.StatusUnauthorized)
	if l := get[api.TokenList](t, s, admin, "GET", "/v1/tokens", nil).Tokens; len(l) != 2 || !l[0].Expired || l[1].Expired {
		t.Errorf("%+v", l)
	}

	lee := get[api.MadeToken](t, s, admin, "POST", "/v1/tokens", api.TokenRequest{Name: "lee", Role: api.RoleTechnician})
	if !lee.Expires.Equal(now.Add(api.TokenFor)) {
		t.Errorf("without a ttl it is good until %v", lee.Expires)
	}
	get[api.NodeList](t, s, lee.Token, "GET", "/v1/nodes", nil)
	if gone := get[api.TokenInfo](t, s, admin, "DELETE", "/v1/tokens/"+lee.Hash, nil); gone.Name != "lee" {
		t.Errorf("%+v", gone)
	}
	refused(t, s, lee.Token, "GET", "/v1/nodes", nil, http.StatusUnauthorized)
	refused(t, s, admin, "DELETE", "/v1/tokens/"+lee.Hash, nil, http.StatusNotFound)
}

// A request for a token that should not be is refused, with what is wrong with it.
func TestTokensThatAreNotMade(t *testing.T) {
	s := site(t)
	admin := s.Token(t, api.RoleAdmin, "")
	day := inventory.Duration(24 * time.Hour)
	for name, c := range map[string]struct {
		q    api.TokenRequest
		want string
	}{
		"no name":            {api.TokenRequest{Role: api.RoleAdmin}, "name"},
		"a name with a line": {api.TokenRequest{Name: "a\nb", Role: api.RoleAdmin}, "name"},
		"the daemon's name":  {api.TokenRequest{Name: "hostlerd", Role: api.RoleAdmin}, "daemon"},
		"rental for nobody":  {api.TokenRequest{Name: "a", Role: api.RoleRental}, "needs a tenant"},
		"rental for a path":  {api.TokenRequest{Name: "a", Role: api.RoleRental, Tenant: "../x"}, "needs a tenant"},
		"staff of a tenant":  {api.TokenRequest{Name: "a", Role: api.RoleReadonly, Tenant: "acme"}, "has no tenant"},
		"too long":           {api.TokenRequest{Name: "a", Role: api.RoleAdmin, TTL: 91 * day}, "at most"},
		"over already":       {api.TokenRequest{Name: "a", Role: api.RoleAdmin, TTL: -day}, "at most"},
	} {
		if p := refused(t, s, admin, "POST", "/v1/tokens", c.q, http.StatusUnprocessableEntity); !strings.Contains(p.Detail, c.want) {
			t.Errorf("%s: %s", name, p.Detail)
		}
	}
	refused(t, s, admin, "POST", "/v1/tokens", api.TokenRequest{Name: "a", Role: "root"}, http.StatusUnprocessableEntity)
	if l := get[api.TokenList](t, s, admin, "GET", "/v1/tokens", nil).Tokens; len(l) != 1 {
		t.Errorf("%+v", l)
	}
}

// Revoking names one token for certain, and never leaves a site that nobody may administer.
func TestRevoke(t *testing.T) {
	s := site(t)
	admin := s.Token(t, api.RoleAdmin, "")
	mine := get[api.TokenList](t, s, admin, "GET", "/v1/tokens", nil).Tokens[0].Hash
	for _, bad := range []string{"abc", "zzzz", "ABCDEF", strings.Repeat("a", 65), "..%2fsku"} {
		refused(t, s, admin, "DELETE", "/v1/tokens/"+bad, nil, http.StatusUnprocessableEntity)
	}
	link := get[api.Login](t, s, admin, "POST", "/v1/login", nil)
	over := api.TokenRequest{Name: "over", Role: api.RoleAdmin, TTL: inventory.Duration(time.Nanosecond)}
	get[api.MadeToken](t, s, admin, "POST", "/v1/tokens", over)
	// Neither a login link nor an expired token makes another admin's token.
	if p := refused(t, s, admin, "DELETE", "/v1/tokens/"+mine, nil, http.StatusConflict); !strings.Contains(p.Detail, "last admin token") {
		t.Errorf("%+v", p)
	}
	l := get[api.TokenList](t, s, admin, "GET", "/v1/tokens", nil).Tokens
	at := slices.IndexFunc(l, func(i api.TokenInfo) bool { return i.Once })
	if at < 0 {
		t.Fatalf("the login link is not listed: %+v", l)
	}
	get[api.TokenInfo](t, s, admin, "DELETE", "/v1/tokens/"+l[at].Hash, nil)
	if _, err := s.Server.RedeemLogin(t.Context(), link.Token); err == nil {
		t.Error("a revoked link opened the door")
	}

	second := s.Token(t, api.RoleAdmin, "")
	get[api.TokenInfo](t, s, admin, "DELETE", "/v1/tokens/"+mine, nil)
	refused(t, s, admin, "GET", "/v1/tokens", nil, http.StatusUnauthorized)

	for _, end := range []string{"1", "2"} {
		op, err := inventory.Encode(inventory.KeyToken(strings.Repeat("e", 63)+end), inventory.Token{Schema: 1, Name: "twin", Role: api.RoleReadonly})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Store.Commit(t.Context(), inventory.Txn{Then: []inventory.Op{op}}); err != nil {
			t.Fatal(err)
		}
	}
	if p := refused(t, s, second, "DELETE", "/v1/tokens/eeeeeeee", nil, http.StatusConflict); !strings.Contains(p.Detail, "several") {
		t.Errorf("%+v", p)
	}
	get[api.TokenInfo](t, s, second, "DELETE", "/v1/tokens/"+strings.Repeat("e", 63)+"2", nil)
}
