package web_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/api"
	"github.com/hostler-project/hostler/inventory/api/apitest"
	"github.com/hostler-project/hostler/inventory/audit"
	"github.com/hostler-project/hostler/inventory/ledger"
	"github.com/hostler-project/hostler/inventory/lifecycle"
	"github.com/hostler-project/hostler/inventory/memstore"
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
	h.settle(t)
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

func TestLoginLinksWorkOnceAndForStaff(t *testing.T) {
	h := open(t)
	post := func(token string, from string) (int, string, []*http.Cookie) {
		q, err := http.NewRequestWithContext(t.Context(), "POST", h.web.URL+"/login", strings.NewReader(url.Values{"token": {token}}.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		q.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if from != "" {
			q.Header.Set("Sec-Fetch-Site", from)
		}
		a, err := http.DefaultTransport.RoundTrip(q)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Body.Close()
		b, err := io.ReadAll(a.Body)
		if err != nil {
			t.Fatal(err)
		}
		return a.StatusCode, string(b), a.Cookies()
	}
	link := h.link(t, api.RoleTechnician, "")
	if status, body, _ := h.get(t, "/login?token="+link); status != 200 || !strings.Contains(body, `value="`+link+`"`) {
		t.Fatalf("the page of a login link: %d, and it sends the token on: %v", status, strings.Contains(body, link))
	}
	for _, c := range []struct {
		name, token, from string
		status            int
		says              string
	}{
		{"another site's form", link, "cross-site", 403, ""},
		{"the link, not used up by looking at it", link, "same-origin", 303, ""},
		{"the link again", link, "same-origin", 401, "used already"},
		{"nonsense", "nonsense", "", 401, "used already"},
		{"a lasting token is no link", h.Token(t, api.RoleAdmin, ""), "", 401, "used already"},
		{"a tenant", h.link(t, api.RoleRental, "acme"), "", 403, "may not look"},
	} {
		status, body, cookies := post(c.token, c.from)
		if status != c.status || !strings.Contains(body, c.says) {
			t.Errorf("%s: %d, want %d; says %q: %v", c.name, status, c.status, c.says, strings.Contains(body, c.says))
		}
		if (status == 303) != (len(cookies) == 1) {
			t.Errorf("%s: %d cookies", c.name, len(cookies))
		}
		for _, k := range cookies {
			if !k.HttpOnly || k.SameSite != http.SameSiteStrictMode || strings.Contains(k.Value, c.token) {
				t.Errorf("the cookie is %v", k)
			}
		}
	}
}

func TestHostileTextStaysText(t *testing.T) {
	h := open(t)
	h.login(t)
	evil := `<script>alert("x")</script>; rm -rf /`
	id := h.Discover(t, evil)
	h.Move(t, id, lifecycle.Quarantine, `<img src=x onerror="alert(1)">`, nil)
	h.Server.Live = func(string) api.Live {
		return api.Live{Say: "<b>bold</b>", Progress: &inventory.Progress{What: "</p><script>", Total: 1, Unit: "<i>"}}
	}
	for _, path := range []string{"/", "/nodes/" + id, "/?q=" + url.QueryEscape(`"><script>`), "/?state=" + url.QueryEscape("<script>"), "/nodes/" + url.PathEscape("<script>")} {
		_, body, _ := h.get(t, path)
		for _, bad := range []string{"<script>", "<img src=x", "<b>bold", "</p><script", "onerror=\"", "<i>"} {
			if strings.Contains(body, bad) {
				t.Errorf("GET %s has %q as markup", path, bad)
			}
		}
		if strings.Contains(body, "hostler why &lt;") || strings.Contains(body, "return &lt;") {
			t.Errorf("GET %s shows a command with the hostile name in it", path)
		}
	}
	if _, body, _ := h.get(t, "/"); !strings.Contains(body, "&lt;script&gt;alert(") || !strings.Contains(body, `href="/nodes/`+id+`"`) {
		t.Error("the fleet does not show the node by its name and link to it by its id")
	}
}

func TestFleetTellsWhatThereIs(t *testing.T) {
	h := open(t)
	h.login(t)
	h.Ready(t, "gpu9")
	h.Ready(t, "gpu10")
	bad := h.Ready(t, "gpu11")
	h.Move(t, bad, lifecycle.Quarantine, "leaks", nil)
	h.Discover(t, "new1")
	for _, c := range []struct {
		path     string
		has, not []string
	}{
		{"/", []string{`<b>4</b> nodes`, `<b>2</b> can be rented`, "ready <b>2</b>", "quarantined <b>1</b>", "Needs a person", "leaks",
			"hostler node return gpu11", "hostler node approve new1", "<code tabindex=\"0\">hostler node ls</code>"}, []string{"retired <b>"}},
		{"/?state=ready", []string{"gpu9", "gpu10", "hostler node ls state=ready", "hostler watch state=ready", "2 of 4 nodes"}, []string{`<li id="at-` + bad}},
		{"/?q=GPU1", []string{"gpu10", "hostler node ls | grep -iF -e GPU1"}, []string{">gpu9<"}},
		{"/?q=sku%3Drack-small", []string{"gpu9", "hostler node ls sku=rack-small"}, []string{`>new1</a></div>`}},
		{"/?q=it%27s", []string{"No node fits", `grep -iF -e &#39;it&#39;\&#39;&#39;s&#39;`}, []string{`<li id="at-`}},
		{"/?page=99", []string{"gpu9"}, nil},
		{"/?page=nonsense", []string{"gpu9"}, nil},
	} {
		status, body, _ := h.get(t, c.path)
		if status != 200 {
			t.Errorf("GET %s: %d", c.path, status)
		}
		for _, s := range c.has {
			if !strings.Contains(body, s) {
				t.Errorf("GET %s does not have %q", c.path, s)
			}
		}
		for _, s := range c.not {
			if strings.Contains(body, s) {
				t.Errorf("GET %s has %q", c.path, s)
			}
		}
	}
	_, body, _ := h.get(t, "/?state=ready")
	if strings.Index(body, ">gpu9<") > strings.Index(body, ">gpu10<") {
		t.Error("gpu10 comes before gpu9")
	}
}

func TestNodePageTellsTheWholeLife(t *testing.T) {
	h := open(t)
	h.login(t)
	id := h.Ready(t, "gpu001")
	_, body, _ := h.get(t, "/nodes/gpu001")
	for _, want := range []string{
		"can be rented", "Waits for</span> a tenant", `class="ready here" aria-current="step"`, `class="held next"`, "erased: purge",
		`<span class="mark ready">holds</span>`, "host memory was not overwritten", "smoke", "erased</p>", "D-gpu001", `href="/nodes/gpu001/certificates/1"`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("the page of a ready node does not have %q", want)
		}
	}
	spec := h.View(t, id).Spec.V
	spec.Holds = []inventory.Hold{{Kind: "cordon", Reason: "fan noise", Actor: "anna", Since: time.Now()}}
	if err := h.Ledger.Edit(t.Context(), h.View(t, id), spec); err != nil {
		t.Fatal(err)
	}
	if _, body, _ := h.get(t, "/nodes/gpu001"); !strings.Contains(body, "Cannot be rented:</b> hold cordon by anna: fan noise") || strings.Contains(body, ">can be rented<") {
		t.Error("a ready node under a hold does not say why it cannot be rented")
	}
	spec.Holds = nil
	if err := h.Ledger.Edit(t.Context(), h.View(t, id), spec); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Ledger.Offer(t.Context(), h.View(t, id), h.Store.Rev()); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Ledger.Claim(t.Context(), ledger.ClaimRequest{Tenant: "acme", Reservation: "r1", SKU: apitest.SKU, Actor: "acme"}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Ledger.Confirm(t.Context(), ledger.ConfirmRequest{Tenant: "acme", Reservation: "r1", Image: strings.Repeat("ab", 32), ImageName: "debian",
		Sealed: []byte("s"), Actor: "acme"}); err != nil {
		t.Fatal(err)
	}
	h.HandOver(t, id)
	_, body, _ = h.get(t, "/nodes/"+id)
	for _, want := range []string{"in-use", "acme", "kexec", "tainted", "erased before, used since", "of before", "hostler claim release r1", "10.0.0.7"} {
		if !strings.Contains(body, want) {
			t.Errorf("the page of a rented node does not have %q", want)
		}
	}
}

func TestHistoryIsPagedNewestFirst(t *testing.T) {
	h := open(t)
	h.login(t)
	id := h.Ready(t, "gpu001")
	for i := range 60 {
		if _, err := h.Ledger.Note(t.Context(), h.View(t, id), ledger.Change{Actor: "hostlerd", Reason: fmt.Sprintf("note %d.", i)}); err != nil {
			t.Fatal(err)
		}
	}
	_, first, _ := h.get(t, "/nodes/gpu001")
	if !strings.Contains(first, "note 59.") || strings.Contains(first, "note 10.") || strings.Index(first, "note 59.") > strings.Index(first, "note 58.") {
		t.Error("the first page does not begin with the newest, or does not end after 40")
	}
	older := regexp.MustCompile(`rel="next" href="([^"#]+)#history"`).FindStringSubmatch(first)
	if older == nil {
		t.Fatal("the first page has no link to older entries")
	}
	_, second, _ := h.get(t, older[1])
	if !strings.Contains(second, "note 19.") || strings.Contains(second, "note 20.") || !strings.Contains(second, "seen by DHCP") || strings.Contains(second, `rel="next"`) {
		t.Error("the second page does not hold the rest, to the beginning")
	}
	if !strings.Contains(second, `class="ready here"`) {
		t.Error("an older page of history lost the node's way")
	}
}

func TestCertificateIsGivenAsSigned(t *testing.T) {
	h := open(t)
	h.login(t)
	id := h.Ready(t, "gpu001")
	status, body, head := h.get(t, "/nodes/gpu001/certificates/1")
	var c inventory.Certificate
	if err := json.Unmarshal([]byte(body), &c); err != nil || status != 200 || head.Get("Content-Type") != "application/json" {
		t.Fatalf("%d %s: %v", status, head.Get("Content-Type"), err)
	}
	if b, err := ledger.OpenCertificate(c, h.Server.CertificateKey); err != nil || b.Node != id {
		t.Errorf("it opens as node %s: %v", b.Node, err)
	}
	for path, want := range map[string]int{"/nodes/gpu001/certificates/2": 404, "/nodes/gpu001/certificates/x": 404, "/nodes/none/certificates/1": 404} {
		if status, _, _ := h.get(t, path); status != want {
			t.Errorf("GET %s: %d, want %d", path, status, want)
		}
	}
	_, err := h.Store.Commit(t.Context(), inventory.Txn{Then: []inventory.Op{{Key: inventory.KeyCert(id, 1), Value: []byte(strings.Replace(string(mustJSON(t, c)), `"signature":"`, `"signature":"AAAA`, 1))}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, page, _ := h.get(t, "/nodes/gpu001"); !strings.Contains(page, "does not hold") {
		t.Error("a certificate with a changed signature is not told")
	}
}

func mustJSON(t *testing.T, v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// settle waits until the copy has seen every write so far.
func (h *house) settle(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); h.Server.Copy.Rev() < h.Store.Rev(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the copy does not follow")
		}
	}
}

func TestBrokenAndNewerRecordsAreShown(t *testing.T) {
	h := open(t)
	h.login(t)
	torn, newer := h.Ready(t, "torn"), h.Ready(t, "newer")
	state := h.View(t, newer).State.V
	state.State = "composting"
	public := h.View(t, newer).Public.V
	public.State = "composting"
	_, err := h.Store.Commit(t.Context(), inventory.Txn{Then: []inventory.Op{
		{Key: inventory.KeyPublic(torn), Value: []byte("{")}, {Key: inventory.KeyState(torn), Value: []byte("[")},
		{Key: inventory.KeyState(newer), Value: mustJSON(t, state)}, {Key: inventory.KeyPublic(newer), Value: mustJSON(t, public)}}})
	if err != nil {
		t.Fatal(err)
	}
	status, fleet, _ := h.get(t, "/")
	if status != 200 || !strings.Contains(fleet, "composting <b>1</b>") || !strings.Contains(fleet, "unreadable <b>1</b>") || !strings.Contains(fleet, "<b>2</b> need a person") {
		t.Errorf("the fleet (%d) does not show both as cases for a person", status)
	}
	if status, page, _ := h.get(t, "/nodes/"+torn); status != 200 || !strings.Contains(page, "cannot be read") {
		t.Errorf("the page of the torn node: %d, and says so: %v", status, strings.Contains(page, "cannot be read"))
	}
	if status, page, _ := h.get(t, "/nodes/newer"); status != 200 || !strings.Contains(page, "does not know the state") {
		t.Errorf("the page of the node of a newer version: %d", status)
	}
}

func TestAStoreThatIsAwayIsTold(t *testing.T) {
	h := open(t)
	h.login(t)
	h.Ready(t, "gpu001")
	h.Store.SetFault(func(memstore.Call) error { return inventory.ErrUnavailable })
	time.Sleep(60 * time.Millisecond) // the last answer of the store counts for as long as the pages look around
	status, page, _ := h.get(t, "/")
	if status != 200 || !strings.Contains(page, "The store does not answer") || !strings.Contains(page, "gpu001") {
		t.Errorf("the fleet while the store is away: %d", status)
	}
	if status, page, _ := h.get(t, "/nodes/gpu001"); status != 503 || !strings.Contains(page, "does not answer") {
		t.Errorf("a node, whose history is in the store only: %d", status)
	}
}

func TestAnOpenBreakerIsTold(t *testing.T) {
	h := open(t)
	h.login(t)
	h.Ready(t, "gpu001")
	op, err := inventory.Encode(inventory.KeyBreaker, inventory.Breaker{Schema: 1, Open: true, Since: time.Now(), Cause: "monitoring lost: 7 of 20 nodes <b>"})
	if err != nil {
		t.Fatal(err)
	}
	r, err := h.Store.Commit(t.Context(), inventory.Txn{Then: []inventory.Op{op}})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Server.Copy.Reach(t.Context(), r.Rev); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/", "/nodes/gpu001"} {
		if _, page, _ := h.get(t, path); !strings.Contains(page, "No power or destructive act starts: the breaker is open since") || !strings.Contains(page, "monitoring lost: 7 of 20 nodes &lt;b&gt;") || !strings.Contains(page, "hostler breaker") {
			t.Errorf("%s does not tell", path)
		}
	}
}

func TestNothingIsChangedFromHere(t *testing.T) {
	h := open(t)
	h.login(t)
	h.Ready(t, "gpu001")
	before := h.Store.Rev()
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH"} {
		for _, path := range []string{"/", "/nodes/gpu001", "/lifecycle", "/live/"} {
			q, err := http.NewRequestWithContext(t.Context(), method, h.web.URL+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			a, err := h.browser.Do(q)
			if err != nil {
				t.Fatal(err)
			}
			a.Body.Close()
			if a.StatusCode < 400 {
				t.Errorf("%s %s: %d", method, path, a.StatusCode)
			}
		}
	}
	if h.Store.Rev() != before {
		t.Error("the record was written")
	}
}

// A breach of what must hold stands at the top of the fleet page.
func TestAuditOnTheFleetPage(t *testing.T) {
	h := open(t)
	h.login(t)
	verdict := audit.Verdict{OK: true}
	h.Server.Audit = func() audit.Verdict { return verdict }
	if _, page, _ := h.get(t, "/"); strings.Contains(page, "is not what it must be") {
		t.Error("an alert without a breach")
	}
	verdict = audit.Verdict{Broken: []audit.Breach{{Broken: audit.Broken{Invariant: "I7", Rev: 9, What: "x"}}, {Broken: audit.Broken{Invariant: "I3", Rev: 12, Node: "n-1", What: "it is ready & tainted"}}}}
	if _, page, _ := h.get(t, "/"); !strings.Contains(page, "I3 is broken at revision 12 by node n-1: it is ready &amp; tainted. And 1 more.") || !strings.Contains(page, "hostler audit") {
		t.Errorf("the page does not say it:\n%s", page)
	}
	verdict = audit.Verdict{OK: true}
	id := h.Discover(t, "gpu1")
	if err := h.Ledger.Raise(t.Context(), id, audit.Source, inventory.Alert{ID: "audit:I3"}); err != nil {
		t.Fatal(err)
	}
	if _, page, _ := h.get(t, "/"); !strings.Contains(page, "nobody has looked yet: gpu1 cannot be rented") {
		t.Errorf("the page does not say that an alert stands:\n%s", page)
	}
}
