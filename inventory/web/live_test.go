package web_test

import (
	"bufio"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/api"
	"github.com/hostler-project/hostler/inventory/lifecycle"
)

type change struct {
	Orders []struct {
		ID  string
		Has []string
	}
	Pieces []struct{ ID, Hash, HTML string }
}

// stream opens the event stream of a page and gives its changes; the channel closes with the stream.
func (h *house) stream(t *testing.T, path string) <-chan change {
	t.Helper()
	h.settle(t)
	q, err := http.NewRequestWithContext(t.Context(), "GET", h.web.URL+"/live"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	a, err := h.browser.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	if kind := a.Header.Get("Content-Type"); a.StatusCode != 200 || kind != "text/event-stream" {
		t.Fatalf("GET /live%s: %d %s", path, a.StatusCode, kind)
	}
	out := make(chan change, 100)
	go func() {
		defer close(out)
		defer a.Body.Close()
		lines := bufio.NewScanner(a.Body)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				var c change
				if json.Unmarshal([]byte(data), &c) != nil {
					return // the test misses it and fails
				}
				out <- c
			}
		}
	}()
	return out
}

// until reads changes until one has a piece with the text.
func until(t *testing.T, from <-chan change, id, text string) change {
	t.Helper()
	over := time.After(5 * time.Second)
	for {
		select {
		case c, ok := <-from:
			if !ok {
				t.Fatalf("the stream ended before %s said %q", id, text)
			}
			for _, p := range c.Pieces {
				if p.ID == id && strings.Contains(p.HTML, text) {
					return c
				}
			}
		case <-over:
			t.Fatalf("%s did not say %q within 5 s", id, text)
		}
	}
}

func TestAChangedRecordReachesOpenPages(t *testing.T) {
	h := open(t)
	h.login(t)
	one, two := h.Ready(t, "gpu001"), h.Ready(t, "gpu002")
	fleet, node := h.stream(t, "/"), h.stream(t, "/nodes/gpu001")
	if first := until(t, fleet, "at-"+two, "ready"); len(first.Orders) != 1 || len(first.Orders[0].Has) != 2 {
		t.Errorf("the first event has the orders %+v, want both nodes", first.Orders)
	}
	until(t, node, "head", "ready")

	h.Move(t, one, lifecycle.Quarantine, "the front door is open", nil)
	c := until(t, fleet, "at-"+one, "quarantined")
	for _, p := range c.Pieces {
		if p.ID == "at-"+two {
			t.Error("a node that did not change was sent again")
		}
	}
	if len(c.Orders) != 0 {
		t.Errorf("an order that did not change was sent again: %+v", c.Orders)
	}
	until(t, node, "history", "the front door is open")

	three := h.Discover(t, "gpu003")
	if c := until(t, fleet, "at-"+three, "discovered"); len(c.Orders) != 1 || len(c.Orders[0].Has) != 3 {
		t.Errorf("a new node came with the orders %+v, want all three", c.Orders)
	}
}

func TestProgressReachesOpenPages(t *testing.T) {
	h := open(t)
	h.login(t)
	id := h.Discover(t, "gpu001")
	var now atomic.Int64 // bytes done
	now.Store(1 << 30)
	h.Server.Live = func(string) api.Live {
		return api.Live{Progress: &inventory.Progress{What: "erasing nvme0", Done: now.Load(), Total: 4 << 30, Unit: "bytes", LeftS: 200}}
	}
	from := h.stream(t, "/nodes/gpu001")
	until(t, from, "now", "25 %")
	now.Store(3 << 30)
	until(t, from, "now", "75 %")
	if status, page, _ := h.get(t, "/nodes/"+id); status != 200 || !strings.Contains(page, "3.2 GB of 4.3 GB · about 3 min left") {
		t.Errorf("the page itself does not say the progress in words (%d)", status)
	}
}

func TestAStreamEndsWithItsSession(t *testing.T) {
	h := open(t)
	h.login(t)
	from := h.stream(t, "/")
	<-from
	a, err := h.browser.PostForm(h.web.URL+"/logout", url.Values{})
	if err != nil {
		t.Fatal(err)
	}
	a.Body.Close()
	if a.Request.URL.Path != "/login" {
		t.Errorf("logout leads to %s", a.Request.URL.Path)
	}
	over := time.After(5 * time.Second)
	for open := true; open; {
		select {
		case _, open = <-from:
		case <-over:
			t.Fatal("the stream goes on after the logout")
		}
	}
	if status, _, _ := h.get(t, "/"); status != http.StatusUnauthorized {
		t.Errorf("GET / after the logout: %d", status)
	}
}
