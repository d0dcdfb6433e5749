package api_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/api"
)

// Every operation of the document is a row of the table and the other way round, and a row names known roles only.
func TestEveryRouteHasARow(t *testing.T) {
	doc, err := (&api.Server{}).OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Paths map[string]map[string]struct {
			Parameters []struct{ Name, In string }
		} `json:"paths"`
	}
	if err := json.Unmarshal(doc, &d); err != nil {
		t.Fatal(err)
	}
	served := map[string]bool{}
	for path, methods := range d.Paths {
		for m, op := range methods {
			served[strings.ToUpper(m)+" "+path] = true
			for _, part := range strings.Split(path, "/") {
				name := strings.Trim(part, "{}")
				if name != part && !slices.ContainsFunc(op.Parameters, func(p struct{ Name, In string }) bool { return p.In == "path" && p.Name == name }) {
					t.Errorf("%s %s: nobody reads {%s}", m, path, name)
				}
			}
		}
	}
	names := map[string]bool{}
	for _, r := range api.Routes {
		key := r.Method + " " + r.Path
		if !served[key] {
			t.Errorf("%s is a row and is not served", key)
		}
		delete(served, key)
		if r.Name == "" || names[r.Name] || r.Does == "" {
			t.Errorf("%s: name %q is empty or there twice, or nothing says what it does", key, r.Name)
		}
		names[r.Name] = true
		if r.Roles == nil && r.Path != "/healthz" {
			t.Errorf("%s is open to anybody", key)
		}
		for _, role := range r.Roles {
			if !slices.Contains(api.TokenRoles, role) {
				t.Errorf("%s names role %q, which no token has", key, role)
			}
		}
	}
	for key := range served {
		t.Errorf("%s is served and has no row", key)
	}
}

// The matrix of who may is made from the table: every row is tried with every role, with no token, and with wrong ones.
func TestWhoMay(t *testing.T) {
	s := site(t)
	tokens := map[string]string{}
	for _, role := range api.TokenRoles {
		tokens[role] = s.Token(t, role, map[bool]string{true: "acme"}[role == api.RoleRental])
	}
	once, err := api.NewToken(t.Context(), s.Store, inventory.Token{Name: "x", Role: api.RoleAdmin, Once: true})
	if err != nil {
		t.Fatal(err)
	}
	old, err := api.NewToken(t.Context(), s.Store, inventory.Token{Name: "x", Role: api.RoleAdmin, Expires: time.Now().Add(-time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	wrong := map[string]string{"none": "", "made up": strings.Repeat("A", 43), "short": "A", "of a login link": once, "expired": old}
	fill := strings.NewReplacer("{node}", "nobody", "{wish}", "w", "{ref}", "nothing", "{image}", strings.Repeat("0", 64),
		"{digest}", strings.Repeat("0", 64), "{id}", "r-1", "{wipe}", "1", "{hash}", "ffffffff")
	var first []byte
	for _, r := range api.Routes {
		path := fill.Replace(r.Path)
		if r.Path == "/v1/watch" {
			path = "" // streams are tried below: they do not end by themselves
		}
		if r.Roles == nil {
			if code, b := call(t, s, "", r.Method, path, nil); code != http.StatusOK {
				t.Errorf("%s %s without a token: %d %s", r.Method, path, code, b)
			}
			continue
		}
		for what, token := range wrong {
			target := fill.Replace(r.Path)
			code, b := call(t, s, token, r.Method, target, nil)
			if first == nil {
				first = b
			}
			if code != http.StatusUnauthorized || !bytes.Equal(b, first) {
				t.Errorf("%s %s, token %s: %d %s, not the same 401 for all", r.Method, target, what, code, b)
			}
		}
		for _, role := range api.TokenRoles {
			may := slices.Contains(r.Roles, role)
			if path == "" && may {
				continue
			}
			code, b := call(t, s, tokens[role], r.Method, fill.Replace(r.Path), nil)
			if denied := code == http.StatusForbidden || code == http.StatusUnauthorized; denied == may {
				t.Errorf("%s %s as %s: %d %s; may is %v", r.Method, r.Path, role, code, b, may)
			}
		}
	}
	// What has no row is refused: without a token like everything else, with one as unknown.
	for _, path := range []string{"/", "/v1", "/v2/nodes", "/v1/nodes/a/b/c", "/openapi.json", "/docs", "/v1/../v1/secrets"} {
		if code, b := call(t, s, "", "GET", path, nil); code != http.StatusUnauthorized || !bytes.Equal(b, first) {
			t.Errorf("%s without a token: %d %s", path, code, b)
		}
		refused(t, s, tokens[api.RoleAdmin], "GET", path, nil, http.StatusNotFound)
	}
	refused(t, s, tokens[api.RoleAdmin], "DELETE", "/v1/nodes", nil, http.StatusNotFound)
}

// A login link opens the door once, with the role of who made it.
func TestLoginLinkWorksOnce(t *testing.T) {
	s := site(t)
	l := get[api.Login](t, s, s.Token(t, api.RoleTechnician, ""), "POST", "/v1/login", nil)
	if !strings.HasPrefix(l.Path, api.LoginPath) {
		t.Fatalf("path %q", l.Path)
	}
	refused(t, s, l.Token, "GET", "/v1/nodes", nil, http.StatusUnauthorized)
	who, err := s.Server.RedeemLogin(t.Context(), l.Token)
	if err != nil || who.Role != api.RoleTechnician {
		t.Fatalf("%+v %v", who, err)
	}
	if _, err := s.Server.RedeemLogin(t.Context(), l.Token); err == nil {
		t.Error("the link worked twice")
	}
	if _, err := s.Server.RedeemLogin(t.Context(), s.Token(t, api.RoleAdmin, "")); err == nil {
		t.Error("an ordinary token worked as a login link")
	}
}
