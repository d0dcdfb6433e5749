package api_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/api"
	"github.com/hostler-project/hostler/inventory/api/apitest"
)

var digest = strings.Repeat("a", 64)

// 64 clients want a node each, there are 20: 20 get one, each another, 44 are told why. Then everybody asks again.
func TestClaimsAtOnce(t *testing.T) {
	s := site(t)
	for i := range 20 {
		s.Ready(t, fmt.Sprintf("gpu%03d", i+1))
	}
	const clients = 64
	tokens := make([]string, clients)
	for i := range tokens {
		tokens[i] = s.Token(t, api.RoleRental, fmt.Sprintf("tenant-%d", i%7))
	}
	for _, round := range []string{"first", "again"} {
		var all sync.WaitGroup
		var mu sync.Mutex
		holder := map[string]string{}
		lost := 0
		for i := range clients {
			all.Go(func() {
				rid := fmt.Sprintf("r-%d", i)
				code, b := call(t, s, tokens[i], "POST", "/v1/claims", api.ClaimRequest{Reservation: rid, SKU: apitest.SKU})
				mu.Lock()
				defer mu.Unlock()
				switch code {
				case http.StatusOK:
					var st api.ClaimStatus
					if err := json.Unmarshal(b, &st); err != nil {
						t.Error(err)
					}
					if other := holder[st.Reservation.Node]; other != "" {
						t.Errorf("%s round: node %s was given to %s and %s", round, st.Reservation.Node, other, rid)
					}
					holder[st.Reservation.Node] = rid
				case http.StatusConflict:
					lost++
					if !strings.Contains(string(b), "no node of SKU rack-small is rentable now") {
						t.Errorf("a loser is told %s", b)
					}
				default:
					t.Errorf("%d %s", code, b)
				}
			})
		}
		all.Wait()
		if len(holder) != 20 || lost != clients-20 {
			t.Errorf("%s round: %d got a node, %d lost; not 20 and %d", round, len(holder), lost, clients-20)
		}
	}
}

// What a tenant gives us is sealed: in the store it is readable with the daemon's key only, elsewhere only its hash is.
func TestSeedIsSealed(t *testing.T) {
	s := site(t)
	s.Ready(t, "gpu001")
	s.Image(t, digest, "debian", time.Now())
	q := api.ClaimRequest{Reservation: "r-1", SKU: apitest.SKU, Confirmation: api.Confirmation{Image: "debian", UserData: "#!/bin/sh\necho secret", Hostname: "a"}}
	st := get[api.ClaimStatus](t, s, s.Token(t, api.RoleRental, "acme"), "POST", "/v1/claims", q)
	if st.Reservation.Phase != inventory.Committed || st.Instance.Image != digest || st.NodeState != inventory.Provisioning {
		t.Fatalf("%+v %+v", st.Reservation, st.Instance)
	}
	kv, err := s.Store.Get(t.Context(), inventory.KeySealed(st.Instance.ID))
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := inventory.Decode[inventory.Sealed](kv)
	if err != nil {
		t.Fatal(err)
	}
	r, err := age.Decrypt(strings.NewReader(string(sealed.V.Age)), s.Age)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	var seed inventory.Seed
	if err := json.Unmarshal(plain, &seed); err != nil || seed.UserData != q.UserData || seed.Hostname != "a" {
		t.Errorf("sealed is %s, %v", plain, err)
	}
	all, err := s.Store.List(t.Context(), inventory.Root, inventory.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range all.KVs {
		if strings.Contains(string(kv.Value), "secret") {
			t.Errorf("%s holds user data in clear", kv.Key)
		}
	}
}

// Newest of a name, by digest, by its beginning; blocked, unknown, not qualified: refused before a node is taken.
func TestWhichImage(t *testing.T) {
	s := site(t)
	s.Ready(t, "gpu001")
	old, fresh := strings.Repeat("b", 64), strings.Repeat("c", 64)
	s.Image(t, old, "debian", time.Now().Add(-time.Hour))
	s.Image(t, fresh, "debian", time.Now())
	admin := s.Token(t, api.RoleAdmin, "")
	for i, c := range []struct{ word, want string }{{"debian", fresh}, {old, old}, {old[:12], old}} {
		rid := fmt.Sprintf("r-%d", i)
		st := get[api.ClaimStatus](t, s, admin, "POST", "/v1/claims", api.ClaimRequest{Reservation: rid, SKU: apitest.SKU})
		st = get[api.ClaimStatus](t, s, admin, "POST", "/v1/claims/"+rid+"/confirm", api.Confirmation{Image: c.word})
		if st.Instance.Image != c.want {
			t.Errorf("%s is %s, not %s", c.word, st.Instance.Image, c.want)
		}
		s.Ready(t, fmt.Sprintf("gpu10%d", i)) // the next one
	}
	p := refused(t, s, admin, "POST", "/v1/claims", api.ClaimRequest{Reservation: "r-9", SKU: apitest.SKU, Confirmation: api.Confirmation{Image: "suse"}}, http.StatusConflict)
	if p.Fix != "hostler image ls" {
		t.Errorf("fix %q", p.Fix)
	}
	refused(t, s, admin, "GET", "/v1/claims/r-9", nil, http.StatusNotFound)
}

// Of another tenant's affairs nothing is seen: not in lists, not in refusals, not in certificates.
func TestTenantsDoNotSeeEachOther(t *testing.T) {
	s := site(t)
	id := s.Ready(t, "gpu001")
	s.Image(t, digest, "debian", time.Now())
	globex, acme := s.Token(t, api.RoleRental, "globex"), s.Token(t, api.RoleRental, "acme")
	get[api.ClaimStatus](t, s, globex, "POST", "/v1/claims", api.ClaimRequest{Reservation: "their-secret-id", SKU: apitest.SKU,
		Confirmation: api.Confirmation{Image: "debian"}})
	s.HandOver(t, id)
	get[api.CertificateList](t, s, globex, "GET", "/v1/certificates/gpu001", nil)
	if l := get[api.CertificateList](t, s, globex, "GET", "/v1/certificates/gpu001", nil); len(l.Certificates) != 1 {
		t.Errorf("the holder sees %d certificates of the node it got clean", len(l.Certificates))
	}
	for _, q := range []struct {
		method, path string
		body         any
		code         int
	}{
		{"GET", "/v1/nodes", nil, 200}, {"GET", "/v1/nodes/gpu001", nil, 200}, {"GET", "/v1/nodes?select=tenant%3Dglobex", nil, 200},
		{"GET", "/v1/claims", nil, 200}, {"GET", "/v1/claims?all=true", nil, 200}, {"GET", "/v1/claims/their-secret-id", nil, 404},
		{"GET", "/v1/claims?tenant=globex", nil, 403}, {"GET", "/v1/claims/their-secret-id?tenant=globex", nil, 403},
		{"POST", "/v1/claims/their-secret-id/release", map[string]string{}, 404},
		{"POST", "/v1/claims", api.ClaimRequest{Reservation: "x", SKU: apitest.SKU}, 409},
		{"POST", "/v1/claims", api.ClaimRequest{Reservation: "x", Node: "gpu001"}, 409},
		{"GET", "/v1/certificates/gpu001", nil, 200}, {"GET", "/v1/certificates/gpu001/1", nil, 404},
		{"GET", "/v1/nodes/SN0001", nil, 404}, {"GET", "/v1/nodes/52:54:00:00:00:01", nil, 404},
	} {
		code, b := call(t, s, acme, q.method, q.path, q.body)
		text := strings.ReplaceAll(string(b), q.path, "")
		if q.code == 404 || q.code == 403 {
			text = strings.NewReplacer("their-secret-id", "").Replace(text) // what was asked is echoed
		}
		if code != q.code || strings.Contains(text, "globex") || strings.Contains(text, "their-secret-id") || strings.Contains(text, "SN0001") && q.code == 200 {
			t.Errorf("%s %s: %d (not %d) %s", q.method, q.path, code, q.code, b)
		}
	}
	if l := get[api.NodeList](t, s, acme, "GET", "/v1/nodes?select=tenant%3Dglobex", nil); l.Total != 0 {
		t.Error("a tenant can ask which nodes another has")
	}
}

// A body that does not fit is told where it does not, never with the value: it may be a password.
func TestFaultsEchoNoSecret(t *testing.T) {
	s := site(t)
	admin := s.Token(t, api.RoleAdmin, "")
	for _, body := range []string{`{"user":"u","password":"hunter2","more":"hunter2"}`, `{"user":"u","password":["hunter2"]}`,
		`{"user":"u","password":"hunter2`, `"hunter2"`, `{"user":"u","password":"hunter2\nx"}`} {
		if _, b := call(t, s, admin, "PUT", "/v1/credentials/r1", body); strings.Contains(string(b), "hunter2") || !strings.Contains(string(b), `"status":4`) {
			t.Errorf("%s is answered %s", body, b)
		}
	}
	refused(t, s, admin, "PUT", "/v1/credentials/r1", `{"user":"`+strings.Repeat("u", 5000)+`","password":"x"}`, http.StatusRequestEntityTooLarge)
}
