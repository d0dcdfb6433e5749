package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/api"
)

// A change is what one event of the stream carries: lists in their new order, and the pieces that differ. The first
// event of a stream has all of them, each with its hash; the browser leaves alone what it has already.
type change struct {
	Title   string  `json:"title"`
	Version string  `json:"version"`
	Orders  []order `json:"orders,omitempty"`
	Pieces  []piece `json:"pieces,omitempty"`
}

const (
	settle    = 100 * time.Millisecond // a burst of writes is shown once
	beat      = 15 * time.Second       // between comments on an idle stream
	writeTime = 30 * time.Second       // a browser that takes longer is cut off and comes back
)

// live serves the event stream of a page: it makes the page again when a record changed, and every now and then for
// what is in no record, and sends what differs.
func (h *handler) live(build builder) func(http.ResponseWriter, *http.Request, api.Identity) {
	return func(w http.ResponseWriter, r *http.Request, _ api.Identity) {
		batches, stop := h.API.Copy.Subscribe() // before the first look: nothing may be lost between
		defer stop()
		s := &stream{handler: h, w: w, flow: http.NewResponseController(w), make: build(r), sent: map[string]string{}}
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("X-Accel-Buffering", "no")
		s.follow(r, batches)
	}
}

type stream struct {
	*handler
	w     http.ResponseWriter
	flow  *http.ResponseController
	make  func(context.Context) (view, error)
	sent  map[string]string // what the browser has: id → hash, or the order of a list
	spoke time.Time
}

func (s *stream) follow(r *http.Request, batches <-chan inventory.Batch) {
	tick := time.NewTicker(s.every())
	defer tick.Stop()
	for look := true; ; {
		if _, ok := s.sessions.who(r, s.API.Now()); !ok {
			return // logged out, or too old: the browser comes back and is told
		}
		if look {
			if err := s.look(r.Context()); err != nil {
				if r.Context().Err() == nil {
					s.API.Log.Debug("an event stream of the dashboard ended", "path", r.URL.Path, "err", err)
				}
				return
			}
		}
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
			look = true
		case b, ok := <-batches:
			look = shown(b)
			if !ok || look && !drain(r.Context(), batches) {
				return // too slow for the copy: the browser comes back and gets everything
			}
		}
	}
}

// shown says whether a batch may change a page: tokens and elections come often and never do.
func shown(b inventory.Batch) bool {
	return slices.ContainsFunc(b.Events, func(e inventory.Event) bool {
		return !strings.HasPrefix(e.KV.Key, inventory.PrefixTokens) && !strings.HasPrefix(e.KV.Key, inventory.PrefixShards) &&
			!strings.HasPrefix(e.KV.Key, inventory.PrefixReplicas)
	})
}

// drain waits for a burst to end and takes it in; false means that the copy found us too slow.
func drain(ctx context.Context, batches <-chan inventory.Batch) bool {
	over := time.After(settle)
	for {
		select {
		case _, ok := <-batches:
			if !ok {
				return false
			}
		case <-over:
			return true
		case <-ctx.Done():
			return true
		}
	}
}

// look makes the page and sends what the browser does not have.
func (s *stream) look(ctx context.Context) error {
	v, err := s.make(ctx)
	if err != nil {
		var f fault
		if errors.As(err, &f) || errors.Is(err, inventory.ErrUnavailable) {
			v = view{} // only the notice is told; the rest stays as it was
		} else {
			return err
		}
	}
	v = s.noticed(ctx, v)
	m, err := s.handler.make(v)
	if err != nil {
		return err
	}
	c := change{Title: v.Title, Version: s.version}
	for _, o := range m.orders {
		now := strings.Join(o.Has, " ")
		if old, had := s.sent[o.ID]; !had || old != now {
			s.sent[o.ID] = now
			c.Orders = append(c.Orders, o)
		}
	}
	for _, p := range m.pieces {
		if s.sent[p.ID] != p.Hash {
			s.sent[p.ID] = p.Hash
			c.Pieces = append(c.Pieces, p)
		}
	}
	if len(c.Orders)+len(c.Pieces) == 0 {
		if time.Since(s.spoke) < beat {
			return nil
		}
		return s.write([]byte(": alive\n\n"))
	}
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return s.write(fmt.Appendf(nil, "event: change\ndata: %s\n\n", b))
}

func (s *stream) write(b []byte) error {
	s.spoke = time.Now()
	if err := s.flow.SetWriteDeadline(s.spoke.Add(writeTime)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := s.w.Write(b); err != nil {
		return err
	}
	return s.flow.Flush()
}
