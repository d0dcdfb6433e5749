package api_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostler-project/hostler/inventory/api"
	"github.com/hostler-project/hostler/inventory/api/apitest"
)

var update = flag.Bool("update", false, "rewrite docs/openapi.json")

func site(t *testing.T) *apitest.Site {
	s := apitest.Start(t)
	t.Cleanup(s.Close)
	return s
}

// call makes one request and gives status and body.
func call(t *testing.T, s *apitest.Site, token, method, path string, body any) (int, []byte) {
	t.Helper()
	var r io.Reader
	switch b := body.(type) {
	case nil:
	case []byte:
		r = bytes.NewReader(b)
	case string:
		r = strings.NewReader(b)
	default:
		j, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		r = bytes.NewReader(j)
	}
	q, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, r)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		q.Header.Set("Authorization", "Bearer "+token)
	}
	if r != nil {
		q.Header.Set("Content-Type", "application/json")
	}
	a, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	b, err := io.ReadAll(a.Body)
	if err != nil {
		t.Fatal(err)
	}
	return a.StatusCode, b
}

// get decodes a 200 answer.
func get[T any](t *testing.T, s *apitest.Site, token, method, path string, body any) T {
	t.Helper()
	code, b := call(t, s, token, method, path, body)
	if code != http.StatusOK {
		t.Fatalf("%s %s: %d %s", method, path, code, b)
	}
	var v T
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%s %s: %v in %s", method, path, err, b)
	}
	return v
}

// refused decodes a problem and checks its status.
func refused(t *testing.T, s *apitest.Site, token, method, path string, body any, want int) api.Problem {
	t.Helper()
	code, b := call(t, s, token, method, path, body)
	if code != want {
		t.Fatalf("%s %s: %d, not %d: %s", method, path, code, want, b)
	}
	var p api.Problem
	if err := json.Unmarshal(b, &p); err != nil || p.Status != want || p.Detail == "" {
		t.Fatalf("%s %s: no problem of RFC 9457: %v %s", method, path, err, b)
	}
	return p
}

func TestOpenAPIDocumentIsUpToDate(t *testing.T) {
	got, err := (&api.Server{}).OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, got, "", " "); err != nil {
		t.Fatal(err)
	}
	pretty.WriteByte('\n')
	const path = "../../docs/openapi.json"
	if *update {
		if err := os.WriteFile(path, pretty.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), pretty.String()); diff != "" {
		t.Errorf("the API has changed; if that is meant: go test ./inventory/api -run OpenAPI -update\n%s", diff)
	}
}
