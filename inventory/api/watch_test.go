package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/api"
	"github.com/hostler-project/hostler/inventory/api/apitest"
	"github.com/hostler-project/hostler/inventory/lifecycle"
)

// An sse is one event as it came over the wire.
type sse struct{ id, name, data string }

// listen opens the stream and gives its events.
func listen(t *testing.T, s *apitest.Site, token, last string) (<-chan sse, func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	q, err := http.NewRequestWithContext(ctx, "GET", s.URL+"/v1/watch", nil)
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Authorization", "Bearer "+token)
	if last != "" {
		q.Header.Set("Last-Event-ID", last)
	}
	a, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	if a.StatusCode != http.StatusOK || a.Header.Get("Content-Type") != "text/event-stream" {
		b, _ := io.ReadAll(a.Body)
		t.Fatalf("%d %s %s", a.StatusCode, a.Header, b)
	}
	out := make(chan sse, 1024)
	go func() {
		defer close(out)
		defer a.Body.Close()
		var e sse
		for lines := bufio.NewScanner(a.Body); lines.Scan(); {
			field, value, _ := strings.Cut(lines.Text(), ": ")
			switch field {
			case "id":
				e.id = value
			case "event":
				e.name = value
			case "data":
				e.data = value
			case "":
				if e.name != "" || value == "alive" {
					out <- e
				}
				e = sse{}
			}
		}
	}()
	return out, cancel
}

// next waits for the next event that is not a heartbeat.
func next(t *testing.T, events <-chan sse) (sse, inventory.Public) {
	t.Helper()
	for {
		select {
		case e, ok := <-events:
			if !ok {
				t.Fatal("the stream ended")
			}
			if e.name == "" {
				continue
			}
			var p inventory.Public
			if err := json.Unmarshal([]byte(e.data), &p); err != nil {
				t.Fatalf("%+v: %v", e, err)
			}
			return e, p
		case <-time.After(10 * time.Second):
			t.Fatal("no event came")
		}
	}
}

// First everything there is, then every change once, with ids to go on from; a client that was away misses nothing.
func TestWatchWithoutGap(t *testing.T) {
	s := site(t)
	a := s.Ready(t, "a")
	s.Discover(t, "b")
	token := s.Token(t, api.RoleReadonly, "")
	get[api.NodeList](t, s, token, "GET", "/v1/nodes", nil)
	events, cancel := listen(t, s, token, "")
	seen := map[string]inventory.State{}
	for range 2 {
		e, p := next(t, events)
		if e.name != api.EventNode || e.id != "" {
			t.Fatalf("%+v", e)
		}
		seen[p.Name] = p.State
	}
	if seen["a"] != inventory.Ready || seen["b"] != inventory.Discovered {
		t.Fatalf("%v", seen)
	}
	e, _ := next(t, events)
	if e.name != api.EventSynced || e.id == "" {
		t.Fatalf("%+v", e)
	}
	s.Move(t, a, lifecycle.Quarantine, "a test", nil)
	e, p := next(t, events)
	if p.Name != "a" || p.State != inventory.Quarantined || e.id == "" {
		t.Fatalf("%+v %+v", e, p)
	}
	last := e.id
	cancel()

	s.Move(t, a, lifecycle.Return, "a test", nil) // while nobody listens
	s.Discover(t, "c")
	events, cancel = listen(t, s, token, last)
	defer cancel()
	if _, p := next(t, events); p.Name != "a" || p.State != inventory.Inspecting {
		t.Fatalf("%+v", p)
	}
	if _, p := next(t, events); p.Name != "c" {
		t.Fatalf("%+v", p)
	}
	s.Discover(t, "d")
	if e, p := next(t, events); p.Name != "d" || e.id == "" {
		t.Fatalf("%+v", p)
	}
}

// An id of before a compaction, of another life of the store, or of the future: 410, and nothing else is made up.
func TestWatchThatCannotGoOn(t *testing.T) {
	s := site(t)
	token := s.Token(t, api.RoleReadonly, "")
	s.Discover(t, "a")
	get[api.NodeList](t, s, token, "GET", "/v1/nodes", nil)
	events, cancel := listen(t, s, token, "")
	next(t, events)
	e, _ := next(t, events)
	cancel()
	era, _, _ := strings.Cut(e.id, ".")
	for range 3 {
		s.Discover(t, "")
	}
	if err := s.Server.Copy.Reach(t.Context(), s.Store.Rev()); err != nil { // else what was missed may be nothing yet
		t.Fatal(err)
	}
	if err := s.Store.Compact(t.Context(), s.Store.Rev()); err != nil {
		t.Fatal(err)
	}
	for id, code := range map[string]int{e.id: 410, "00000000.5": 410, era + ".999999": 410, "x": 422, era + ".-1": 422} {
		q, err := http.NewRequestWithContext(t.Context(), "GET", s.URL+"/v1/watch", nil)
		if err != nil {
			t.Fatal(err)
		}
		q.Header.Set("Authorization", "Bearer "+token)
		q.Header.Set("Last-Event-ID", id)
		a, err := http.DefaultClient.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		a.Body.Close()
		if a.StatusCode != code {
			t.Errorf("%s: %d, not %d", id, a.StatusCode, code)
		}
	}
}

// After a restore from a backup revisions mean something else: the stream ends, and its ids are worth nothing.
func TestWatchEndsWithTheEra(t *testing.T) {
	s := site(t)
	token := s.Token(t, api.RoleReadonly, "")
	get[api.NodeList](t, s, token, "GET", "/v1/nodes", nil)
	events, cancel := listen(t, s, token, "")
	defer cancel()
	e, _ := next(t, events)
	_, err := s.Store.Commit(t.Context(), inventory.Txn{Then: []inventory.Op{{Key: inventory.KeyEra, Value: []byte(`{"era":"e2"}`)}}})
	if err != nil {
		t.Fatal(err)
	}
	for range events { // until it is closed
	}
	get[api.NodeList](t, s, token, "GET", "/v1/nodes", nil)
	fresh, stop := listen(t, s, token, "")
	defer stop()
	now, _ := next(t, fresh)
	old, _, _ := strings.Cut(e.id, ".")
	if era, _, _ := strings.Cut(now.id, "."); era == old {
		t.Errorf("the era is still %s", era)
	}
}

// A tenant's stream names no other tenant, and an idle one still beats.
func TestWatchOfATenant(t *testing.T) {
	s := apitest.Start(t)
	s.Server.Heartbeat = 20 * time.Millisecond
	t.Cleanup(s.Close)
	s.Ready(t, "a")
	token, globex := s.Token(t, api.RoleRental, "acme"), s.Token(t, api.RoleRental, "globex")
	get[api.NodeList](t, s, token, "GET", "/v1/nodes", nil)
	events, cancel := listen(t, s, token, "")
	defer cancel()
	next(t, events)
	next(t, events)
	if e := <-events; e.name != "" {
		t.Fatalf("no heartbeat, but %+v", e)
	}
	get[api.ClaimStatus](t, s, globex, "POST", "/v1/claims", api.ClaimRequest{Reservation: "r-1", SKU: apitest.SKU})
	e, p := next(t, events)
	if p.State != inventory.Reserved || strings.Contains(e.data, "globex") || strings.Contains(e.data, "r-1") {
		t.Errorf("%s", e.data)
	}
}
