package web_test

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/api"
	"github.com/hostler-project/hostler/inventory/api/apitest"
	"github.com/hostler-project/hostler/inventory/web"
)

// A house is a site with the dashboard in front, and a browser with a cookie jar.
type house struct {
	*apitest.Site
	web     *httptest.Server
	browser *http.Client
}

func open(t *testing.T) *house {
	t.Helper()
	h := &house{Site: apitest.Start(t)}
	s := &web.Server{API: h.Server, Site: "hall-1", Every: 50 * time.Millisecond}
	h.web = httptest.NewServer(s.Handler())
	t.Cleanup(func() {
		h.web.CloseClientConnections()
		h.web.Close()
		h.Close()
	})
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	h.browser = &http.Client{Jar: jar}
	return h
}

// link makes the token of a login link, as POST /v1/login does.
func (h *house) link(t *testing.T, role, tenant string) string {
	t.Helper()
	secret, err := api.NewToken(t.Context(), h.Store, inventory.Token{Name: "anna", Role: role, Tenant: tenant,
		Expires: time.Now().Add(time.Minute), Once: true})
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

func (h *house) login(t *testing.T) {
	t.Helper()
	a, err := h.browser.PostForm(h.web.URL+"/login", url.Values{"token": {h.link(t, api.RoleReadonly, "")}})
	if err != nil {
		t.Fatal(err)
	}
	a.Body.Close()
	if a.StatusCode != http.StatusOK || a.Request.URL.Path != "/" {
		t.Fatalf("login ended with %d at %s, want 200 at /", a.StatusCode, a.Request.URL.Path)
	}
}

func (h *house) get(t *testing.T, path string) (int, string, http.Header) {
	t.Helper()
	a, err := h.browser.Get(h.web.URL + path)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	b, err := io.ReadAll(a.Body)
	if err != nil {
		t.Fatal(err)
	}
	return a.StatusCode, string(b), a.Header
}

func TestOnlyTheDoorIsOpen(t *testing.T) {
	h := open(t)
	id := h.Ready(t, "secret-node")
	for path, want := range map[string]int{
		"/": 401, "/?state=ready": 401, "/nodes/secret-node": 401, "/nodes/" + id: 401, "/nodes/secret-node/certificates/1": 401,
		"/lifecycle": 401, "/live/": 401, "/live/nodes/secret-node": 401, "/live/lifecycle": 401, "/nowhere": 401,
		"/login": 200, "/assets/app.css": 200, "/assets/app.js": 200, "/assets/icon.svg": 200, "/assets/none": 404,
	} {
		status, body, _ := h.get(t, path)
		if status != want {
			t.Errorf("GET %s without a login: %d, want %d", path, status, want)
		}
		if strings.Contains(body, "secret-node") {
			t.Errorf("GET %s without a login names a node", path)
		}
		if want == 401 && !strings.Contains(body, "hostler login") {
			t.Errorf("GET %s without a login does not say how to log in", path)
		}
	}
}

func TestPagesAreServed(t *testing.T) {
	h := open(t)
	h.login(t)
	id := h.Ready(t, "gpu001")
	for path, want := range map[string]string{
		"/": "hostler node ls", "/nodes/gpu001": "hostler why gpu001", "/nodes/" + id: "hostler why gpu001", "/lifecycle": "hostler lifecycle show",
	} {
		status, body, head := h.get(t, path)
		if status != 200 || !strings.Contains(body, want) {
			t.Errorf("GET %s: %d, and its terminal block has %q: %v", path, status, want, strings.Contains(body, want))
		}
		if csp := head.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") {
			t.Errorf("GET %s: Content-Security-Policy %q", path, csp)
		}
	}
}
