package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/api"
)

// A Change is one thing that happened to the public records: a node as it is now, a node that is gone (only its ID is
// set), or Synced: everything there was has been told, what follows is new.
type Change struct {
	Node   inventory.Public
	Gone   bool
	Synced bool
}

// silence is how long a stream may say nothing, heartbeats included, before it counts as dead.
const silence = 45 * time.Second

// Watch tells every change to f, without gap: after a cut it goes on where it was, and when the server has forgotten
// what came after (410) it lists again and tells also what is gone. It ends when ctx does, when f returns an error, and
// when the server refuses (401, 403).
func (c *Client) Watch(ctx context.Context, f func(Change) error) error {
	w := &watch{c: c, tell: f, known: map[string]bool{}}
	for pause := time.Duration(0); ; pause = min(max(2*pause, 250*time.Millisecond), 10*time.Second) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		heard, err := w.once(ctx)
		var no *Error
		var end told
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &end):
			return end.error
		case errors.As(err, &no) && no.Status == http.StatusGone:
			w.last = ""
		case errors.As(err, &no) && no.Status >= 400 && no.Status < 500:
			return err
		}
		if heard {
			pause = 0
		}
	}
}

// told wraps what the caller's function returned: that ends the watch.
type told struct{ error }

type watch struct {
	c     *Client
	tell  func(Change) error
	last  string
	known map[string]bool // nodes told and not gone
	fresh map[string]bool // of the list that is being told; nil after it
}

// once reads one stream to its end, and says whether anything was heard.
func (w *watch) once(ctx context.Context) (heard bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, "GET", w.c.URL+"/v1/watch", nil)
	if err != nil {
		return false, err
	}
	q.Header.Set("Accept", "text/event-stream")
	if w.fresh = nil; w.last != "" {
		q.Header.Set("Last-Event-ID", w.last)
	} else {
		w.fresh = map[string]bool{}
	}
	endless := *w.c.http()
	endless.Timeout = 0
	a, err := w.c.send(&endless, q)
	if err != nil {
		return false, err
	}
	defer a.Body.Close()
	dead := time.AfterFunc(silence, cancel)
	defer dead.Stop()
	r := bufio.NewReader(a.Body)
	var id, name string
	var data []byte
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return heard, err
		}
		dead.Reset(silence)
		heard = true
		field, value, _ := strings.Cut(strings.TrimRight(line, "\r\n"), ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "\n" || line == "\r\n":
			if name != "" {
				if err := w.event(name, data); err != nil {
					return heard, err
				}
				if id != "" {
					w.last = id
				}
			}
			id, name, data = "", "", nil
		case field == "id":
			id = value
		case field == "event":
			name = value
		case field == "data":
			data = append(data, value...)
		}
	}
}

func (w *watch) event(name string, data []byte) error {
	var ch Change
	if err := json.Unmarshal(data, &ch.Node); err != nil {
		return fmt.Errorf("client: event %s: %w", name, err)
	}
	switch name {
	case api.EventNode:
		w.known[ch.Node.ID] = true
		if w.fresh != nil {
			w.fresh[ch.Node.ID] = true
		}
	case api.EventGone:
		delete(w.known, ch.Node.ID)
		ch.Gone = true
	case api.EventSynced:
		for id := range w.known {
			if w.fresh != nil && !w.fresh[id] { // it went while nobody was listening
				delete(w.known, id)
				if err := w.say(Change{Node: inventory.Public{ID: id}, Gone: true}); err != nil {
					return err
				}
			}
		}
		w.fresh, ch.Synced = nil, true
	default:
		return nil // a newer server says more
	}
	return w.say(ch)
}

func (w *watch) say(ch Change) error {
	if err := w.tell(ch); err != nil {
		return told{err}
	}
	return nil
}
