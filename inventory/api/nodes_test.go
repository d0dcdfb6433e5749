package api_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/api"
	"github.com/hostler-project/hostler/inventory/audit"
	"github.com/hostler-project/hostler/inventory/doctor"
	"github.com/hostler-project/hostler/inventory/lifecycle"
	"github.com/hostler-project/hostler/inventory/memstore"
)

func TestSelectors(t *testing.T) {
	for _, c := range []struct {
		text  string
		names []string
		rack  []string
		err   string
	}{
		{"", nil, nil, ""},
		{"gpu001", []string{"gpu001"}, nil, ""},
		{"gpu[001-003]", []string{"gpu001", "gpu002", "gpu003"}, nil, ""},
		{"gpu[9-11,20]x", []string{"gpu9x", "gpu10x", "gpu11x", "gpu20x"}, nil, ""},
		{"r[1-2]n[1-2]", []string{"r1n1", "r1n2", "r2n1", "r2n2"}, nil, ""},
		{"a, b  rack=r[1-2]", []string{"a", "b"}, []string{"r1", "r2"}, ""},
		{"gpu[3-1]", nil, nil, "no range"},
		{"gpu[a-b]", nil, nil, "no range"},
		{"gpu[1-2", nil, nil, "'[' without ']'"},
		{"gpu1]", nil, nil, "']' without '['"},
		{"gpu[1-999999999]", nil, nil, "more than"},
		{"[1-200][1-200]", nil, nil, "more than"},
		{"colour=red", nil, nil, `no "colour"`},
	} {
		sel, err := api.ParseSelector(c.text)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q: error %v, not %s", c.text, err, c.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", c.text, err)
		}
		if d := cmp.Diff(c.names, sel.Names) + cmp.Diff(c.rack, sel.Filters["rack"]); d != "" {
			t.Errorf("%q: %s", c.text, d)
		}
	}
}

// Pages hold every node once, in the order that people count.
func TestPages(t *testing.T) {
	s := site(t)
	var want []string
	for i := range 25 {
		want = append(want, fmt.Sprintf("n%d", i+1))
	}
	for i := range want {
		s.Discover(t, want[(i*7)%25])
	}
	token := s.Token(t, api.RoleReadonly, "")
	var got []string
	for after := ""; ; {
		l := get[api.NodeList](t, s, token, "GET", "/v1/nodes?limit=10&after="+after, nil)
		if l.Total != 25 {
			t.Fatalf("total %d", l.Total)
		}
		for _, n := range l.Nodes {
			got = append(got, n.Name)
		}
		if after = l.Next; after == "" {
			break
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// A client reads at once what it has just written, though lists come from a copy.
func TestReadYourWrites(t *testing.T) {
	s := site(t)
	token := s.Token(t, api.RoleAdmin, "")
	for i := range 50 {
		name := fmt.Sprintf("n%d", i)
		id := s.Discover(t, name)
		if l := get[api.NodeList](t, s, token, "GET", "/v1/nodes?select="+url.QueryEscape(name), nil); len(l.Nodes) != 1 || l.Nodes[0].ID != id {
			t.Fatalf("%s: %+v", name, l)
		}
	}
}

// With the store away, every route that needs it says 503 and why; the others answer.
func TestStoreAway(t *testing.T) {
	s := site(t)
	s.Ready(t, "gpu001")
	admin := s.Token(t, api.RoleAdmin, "")
	get[api.NodeList](t, s, admin, "GET", "/v1/nodes", nil) // the copy has the token now
	s.Store.SetFault(func(memstore.Call) error { return fmt.Errorf("no answer: %w", inventory.ErrUnavailable) })
	s.Server.Audit = func() audit.Verdict { return audit.Verdict{} }
	s.Server.Doctor = func(context.Context) doctor.Report { return doctor.Report{} }
	alone := map[string]bool{"audit": true, "doctor": true, "version": true, "lifecycle": true, "certificate-key": true, "check-image": true, "put-chunk": true, "put-blob": true}
	bodies := map[string]any{"wish": api.WishRequest{Verb: "return"}, "approve-node": api.Approval{SKU: "x"}, "import-manifest": api.ManifestRequest{CSV: "name\n"},
		"put-credential": api.BMCLogin{User: "u", Password: "p"}, "check-image": api.SignedManifest{Manifest: []byte("x"), Signature: []byte("signed")},
		"commit-image": api.SignedManifest{Manifest: []byte("\n"), Signature: []byte("signed")}, "claim": api.ClaimRequest{Reservation: "r", SKU: "x"},
		"confirm-claim": api.Confirmation{Image: "x"}, "renew-claim": map[string]string{"hold": "1m"}, "release-claim": map[string]string{},
		"clear-audit": api.AuditClearing{Reason: "x"}, "create-token": api.TokenRequest{Name: "x", Role: api.RoleReadonly}, "close-breaker": map[string]string{"reason": "x"}}
	fill := strings.NewReplacer("{node}", "gpu001", "{wish}", "w", "{ref}", "r", "{image}", strings.Repeat("0", 64), "{digest}", strings.Repeat("0", 64), "{id}", "r-1", "{wipe}", "1", "{hash}", "ffffffff")
	for _, r := range api.Routes {
		code, b := call(t, s, admin, r.Method, fill.Replace(r.Path), bodies[r.Name])
		switch {
		case alone[r.Name] && code == http.StatusServiceUnavailable:
			t.Errorf("%s needs no store: %d %s", r.Name, code, b)
		case !alone[r.Name] && (code != http.StatusServiceUnavailable || !strings.Contains(string(b), "store is not available")):
			t.Errorf("%s: %d %s", r.Name, code, b)
		}
	}
	s.Store.SetFault(nil)
	get[api.NodeList](t, s, admin, "GET", "/v1/nodes", nil)
}

// An image is offered only when its signature is trusted and all its bytes are there; importing again changes nothing.
func TestImageUpload(t *testing.T) {
	s := site(t)
	admin := s.Token(t, api.RoleAdmin, "")
	chunk := []byte("bytes of a disk")
	sum := sha256.Sum256(chunk)
	name := hex.EncodeToString(sum[:])
	m := api.SignedManifest{Manifest: []byte(name), Signature: []byte("forged")}
	refused(t, s, admin, "POST", "/v1/images/check", m, http.StatusConflict)
	refused(t, s, admin, "POST", "/v1/images", m, http.StatusConflict)
	m.Signature = []byte("signed")
	check := get[api.ImageCheck](t, s, admin, "POST", "/v1/images/check", m)
	if d := cmp.Diff([]string{name}, check.Missing.Chunks); d != "" {
		t.Fatal(d)
	}
	if p := refused(t, s, admin, "POST", "/v1/images", m, http.StatusConflict); !strings.Contains(p.Detail, "1 chunks") {
		t.Errorf("%+v", p)
	}
	path := "/v1/images/" + check.Digest + "/chunks/"
	refused(t, s, admin, "PUT", path+name, []byte("other bytes"), http.StatusConflict)
	for _, bad := range []string{"x", "..%2f..%2fetc", strings.Repeat("A", 64)} {
		refused(t, s, admin, "PUT", path+bad, chunk, http.StatusUnprocessableEntity)
	}
	refused(t, s, admin, "PUT", path+name, make([]byte, 6<<20), http.StatusRequestEntityTooLarge)
	get[api.Taken](t, s, admin, "PUT", path+name, chunk)
	rec := get[inventory.ImageRecord](t, s, admin, "POST", "/v1/images", m)
	again := get[inventory.ImageRecord](t, s, admin, "POST", "/v1/images", m)
	if d := cmp.Diff(rec, again); d != "" || rec.Digest != check.Digest || rec.Imported.IsZero() {
		t.Errorf("%s %+v", d, rec)
	}
	if l := get[api.ImageList](t, s, admin, "GET", "/v1/images", nil); len(l.Images) != 1 {
		t.Errorf("%+v", l)
	}
}

// With the breaker open what would start something is refused with the fix, what stops something is not; closing needs a
// technician and a reason.
func TestBreaker(t *testing.T) {
	s := site(t)
	s.Ready(t, "gpu001")
	s.Discover(t, "gpu002")
	tech, rental := s.Token(t, api.RoleTechnician, ""), s.Token(t, api.RoleRental, "acme")
	if b := get[api.BreakerStatus](t, s, tech, "GET", "/v1/breaker", nil); b.Breaker.Open || b.Nodes != 1 || b.Allowed != 5 || len(b.AtOnce) != 2 || b.AtOnce[0].Limit != 20 {
		t.Errorf("%+v", b)
	}
	if code, b := call(t, s, tech, "POST", "/v1/breaker/close", map[string]string{"reason": "x"}); code != http.StatusConflict || !strings.Contains(string(b), "not open") {
		t.Errorf("closed already: %d %s", code, b)
	}
	op, err := inventory.Encode(inventory.KeyBreaker, inventory.Breaker{Schema: 1, Open: true, Since: time.Now(), Cause: "7 of 20 nodes"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Store.Commit(t.Context(), inventory.Txn{Then: []inventory.Op{op}}); err != nil {
		t.Fatal(err)
	}
	if b := get[api.BreakerStatus](t, s, tech, "GET", "/v1/breaker", nil); !b.Breaker.Open {
		t.Errorf("%+v", b)
	}
	for path, body := range map[string]any{"/v1/nodes/gpu001/wishes": api.WishRequest{Verb: "power", Arg: "cycle"}, "/v1/nodes/gpu002/approve": api.Approval{SKU: "virtual"}} {
		code, b := call(t, s, tech, "POST", path, body)
		if code != http.StatusConflict || !strings.Contains(string(b), "the breaker is open since") || !strings.Contains(string(b), "hostler breaker close --reason") {
			t.Errorf("%s: %d %s", path, code, b)
		}
	}
	if code, b := call(t, s, tech, "POST", "/v1/nodes/gpu001/wishes", api.WishRequest{Verb: "quarantine", Reason: "smells"}); code != http.StatusOK {
		t.Errorf("quarantine: %d %s", code, b)
	}
	for _, c := range []struct {
		token, reason string
		want          int
	}{{rental, "x", http.StatusForbidden}, {tech, " ", http.StatusConflict}, {tech, "driver rolled back", http.StatusOK}} {
		if code, b := call(t, s, c.token, "POST", "/v1/breaker/close", map[string]string{"reason": c.reason}); code != c.want {
			t.Errorf("close with %q: %d %s", c.reason, code, b)
		}
	}
	if b := get[api.BreakerStatus](t, s, tech, "GET", "/v1/breaker", nil).Breaker; b.Open || b.By != "test-technician" || b.Reason != "driver rolled back" {
		t.Errorf("%+v", b)
	}
}

// Maintenance needs a reason and a node that rests; why says what to type.
func TestMaintain(t *testing.T) {
	s := site(t)
	s.Ready(t, "gpu001")
	s.Move(t, s.Ready(t, "gpu002"), lifecycle.Recheck, "its tests are old", nil)
	tech, rental := s.Token(t, api.RoleTechnician, ""), s.Token(t, api.RoleRental, "acme")
	for _, c := range []struct {
		token, node, reason string
		want                int
		says                string
	}{
		{rental, "gpu001", "fans", http.StatusForbidden, ""},
		{tech, "gpu001", " ", http.StatusUnprocessableEntity, "maintain needs a reason"},
		{tech, "gpu002", "fans", http.StatusConflict, "cannot be asked to maintain"},
		{tech, "gpu001", "fans", http.StatusOK, "maintain"},
	} {
		code, b := call(t, s, c.token, "POST", "/v1/nodes/"+c.node+"/wishes", api.WishRequest{Verb: "maintain", Reason: c.reason})
		if code != c.want || !strings.Contains(string(b), c.says) {
			t.Errorf("%+v: %d %s", c, code, b)
		}
	}
	if w := get[api.Why](t, s, tech, "GET", "/v1/nodes/gpu001/why", nil); !slices.Contains(w.Do, "hostler node maintain gpu001 --reason TEXT") {
		t.Errorf("%q", w.Do)
	}
}

// The same wish, still open, is one wish.
func TestWishesAreNotDoubled(t *testing.T) {
	s := site(t)
	s.Ready(t, "gpu001")
	token := s.Token(t, api.RoleTechnician, "")
	a := get[inventory.Wish](t, s, token, "POST", "/v1/nodes/gpu001/wishes", api.WishRequest{Verb: "power", Arg: "cycle"})
	b := get[inventory.Wish](t, s, token, "POST", "/v1/nodes/gpu001/wishes", api.WishRequest{Verb: "power", Arg: "cycle"})
	c := get[inventory.Wish](t, s, token, "POST", "/v1/nodes/gpu001/wishes", api.WishRequest{Verb: "power", Arg: "off"})
	if a.ID != b.ID || a.ID == c.ID || a.Actor != "test-technician" {
		t.Errorf("%+v %+v %+v", a, b, c)
	}
	if l := get[api.WishList](t, s, token, "GET", "/v1/nodes/gpu001/wishes", nil); len(l.Wishes) != 2 {
		t.Errorf("%+v", l)
	}
}
