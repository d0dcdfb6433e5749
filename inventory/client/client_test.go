package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hostler-project/hostler/inventory/api"
	"github.com/hostler-project/hostler/inventory/api/apitest"
	"github.com/hostler-project/hostler/inventory/client"
	"github.com/hostler-project/hostler/inventory/lifecycle"
)

func TestFromEnv(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ url, file, want, err string }{
		{"", file, client.DefaultURL, ""},
		{"http://10.0.0.1:8080/", file, "http://10.0.0.1:8080", ""},
		{"10.0.0.1", file, "", "not an address"},
		{"ftp://x", file, "", "not an address"},
		{"", file + ".none", "", "read the token"},
	} {
		cl, err := client.FromEnv(func(k string) string { return map[string]string{"HOSTLER_URL": c.url, "HOSTLER_TOKEN_FILE": c.file}[k] })
		switch {
		case c.err != "":
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%+v: %v", c, err)
			}
		case err != nil || cl.URL != c.want || cl.Token != "secret":
			t.Errorf("%+v: %+v %v", c, cl, err)
		}
	}
}

// An answer that is none of ours is said to be that; a refusal brings status, detail and fix.
func TestErrors(t *testing.T) {
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/version" {
			fmt.Fprint(w, "<html>")
			return
		}
		http.Error(w, "<html>bad gateway", http.StatusBadGateway)
	}))
	defer h.Close()
	cl := &client.Client{URL: h.URL}
	var e *client.Error
	if _, err := cl.Version(t.Context()); !errors.As(err, &e) || !strings.Contains(e.Detail, "something else than Hostler's API") {
		t.Errorf("%v", err)
	}
	if _, err := cl.Why(t.Context(), "x"); !errors.As(err, &e) || e.Status != http.StatusBadGateway {
		t.Errorf("%v", err)
	}
	s := apitest.Start(t)
	defer s.Close()
	cl = &client.Client{URL: s.URL, Token: s.Token(t, api.RoleAdmin, "")}
	if _, err := cl.Claim(t.Context(), api.ClaimRequest{Reservation: "r", SKU: "none"}); !errors.As(err, &e) || e.Status != http.StatusConflict || e.Fix != "hostler node ls" {
		t.Errorf("%v", err)
	}
	if _, err := cl.Manifest(t.Context(), api.ManifestRequest{CSV: "name\na\nb\n"}); !errors.As(err, &e) || len(e.Faults) != 2 {
		t.Errorf("%+v", e)
	}
}

// A node goes to and fro while the connection is cut again and again: the client hears of every move, in order, once.
func TestWatchThroughCuts(t *testing.T) {
	s := apitest.Start(t)
	defer s.Close()
	id := s.Ready(t, "a")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cl := &client.Client{URL: s.URL, Token: s.Token(t, api.RoleReadonly, "")}
	const rounds = 6
	synced, heard := make(chan struct{}, rounds), make(chan int64, 1000)
	ended := make(chan error, 1)
	go func() {
		ended <- cl.Watch(ctx, func(ch client.Change) error {
			if ch.Synced {
				synced <- struct{}{}
				return nil
			}
			heard <- ch.Node.Generation
			if ch.Node.Generation == rounds {
				return errDone
			}
			return nil
		})
	}()
	<-synced
	for i := range rounds {
		if i > 0 {
			s.Move(t, id, lifecycle.Return, "a test", nil)
		}
		s.Move(t, id, lifecycle.Quarantine, "a test", nil)
		if i%2 == 0 {
			s.Cut()
		}
	}
	if err := <-ended; !errors.Is(err, errDone) {
		t.Fatal(err)
	}
	close(heard)
	var got []int64
	for g := range heard {
		got = append(got, g)
	}
	// Ready, then for each round quarantined (one more), and returned (the same) but for the last.
	want := []int64{0}
	for i := range int64(rounds) {
		if i > 0 {
			want = append(want, i)
		}
		want = append(want, i+1)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

var errDone = errors.New("heard enough")

// The server has forgotten where we were: list again, and tell what is gone since.
func TestWatchListsAgain(t *testing.T) {
	var lasts []string
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		lasts = append(lasts, r.Header.Get("Last-Event-ID"))
		switch len(lasts) {
		case 1:
			fmt.Fprint(w, "event: node\ndata: {\"id\":\"n-1\"}\n\nevent: node\ndata: {\"id\":\"n-2\"}\n\nid: e.5\nevent: synced\ndata: {}\n\n")
		case 2:
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusGone)
			fmt.Fprint(w, `{"status":410,"detail":"not kept"}`)
		case 3:
			fmt.Fprint(w, "event: node\ndata: {\"id\":\"n-2\"}\n\nid: f.9\nevent: synced\ndata: {}\n\n")
		default:
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"status":401,"detail":"the token is over"}`)
		}
	}))
	defer h.Close()
	var got []string
	err := (&client.Client{URL: h.URL}).Watch(t.Context(), func(ch client.Change) error {
		got = append(got, fmt.Sprintf("%s gone=%v synced=%v", ch.Node.ID, ch.Gone, ch.Synced))
		return nil
	})
	var e *client.Error
	if !errors.As(err, &e) || e.Status != http.StatusUnauthorized {
		t.Errorf("ended with %v", err)
	}
	want := []string{"n-1 gone=false synced=false", "n-2 gone=false synced=false", " gone=false synced=true",
		"n-2 gone=false synced=false", "n-1 gone=true synced=false", " gone=false synced=true"}
	if d := cmp.Diff(want, got) + cmp.Diff([]string{"", "e.5", "", "f.9"}, lasts); d != "" {
		t.Error(d)
	}
}
