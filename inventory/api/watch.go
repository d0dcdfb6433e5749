package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/hostler-project/hostler/inventory"
)

// The events of the stream. Data of a node is its public record; of gone {"id": …}; of synced {}.
const (
	EventNode   = "node"
	EventGone   = "gone"
	EventSynced = "synced" // everything there was has been sent; what follows are changes
)

type watchInput struct {
	LastID string `header:"Last-Event-ID" maxLength:"64" doc:"era.revision of the last event seen: go on after it."`
}

// replayWait bounds the reading of what a client missed, replayMax its number; beyond, listing again is cheaper.
const (
	replayWait = 5 * time.Second
	replayMax  = 100_000
)

// watch streams every change of the public records, from one watch of the store for all clients (the copy's). Without
// Last-Event-ID it begins with all of them as they are. An id is given to the last event of a revision only: who was cut
// off in the middle gets all of it again. 410 means that the id is of another life of the store, or older than what the
// store remembers: begin again without it.
func (s *Server) watch(ctx context.Context, in *watchInput) (func(huma.Context), error) {
	rev, err := s.revision(ctx)
	if err != nil {
		return nil, err
	}
	who, era := caller(ctx), s.era()
	live, stop := s.Copy.Subscribe() // first: between a read and a subscription nothing may be lost
	from := s.Copy.Rev()
	var missed []inventory.Batch
	if in.LastID != "" {
		missed, from, err = s.missed(ctx, era, in.LastID, from, rev)
		if err != nil {
			stop()
			return nil, err
		}
	}
	return func(c huma.Context) {
		defer stop()
		_, w := humago.Unwrap(c)
		out := &events{w: w, flow: http.NewResponseController(w), who: who, era: era}
		if in.LastID == "" {
			for _, kv := range s.Copy.Under(inventory.PrefixPublic) {
				out.node(kv)
			}
			out.event(EventSynced, []byte("{}"), from)
		}
		for _, b := range missed {
			out.batch(b, 0)
		}
		out.follow(ctx, live, from, s.Heartbeat)
	}, nil
}

// era names one life of the store: after a restore from a backup, revisions mean something else.
func (s *Server) era() string {
	sum := sha256.Sum256(s.Copy.One(inventory.KeyEra).Value)
	return hex.EncodeToString(sum[:4])
}

// missed reads what happened after the event that the client saw last, up to where the live stream begins.
func (s *Server) missed(ctx context.Context, era, last string, upto, newest int64) ([]inventory.Batch, int64, error) {
	theirs, number, ok := strings.Cut(last, ".")
	rev, err := strconv.ParseInt(number, 10, 64)
	if !ok || err != nil || rev < 0 {
		return nil, 0, problem(http.StatusUnprocessableEntity, "begin without Last-Event-ID", "Last-Event-ID is era.revision")
	}
	gone := problem(http.StatusGone, "begin again without Last-Event-ID", "what happened after %s is not kept", quote(last))
	if theirs != era || rev > max(upto, newest) {
		return nil, 0, gone
	}
	if rev >= upto {
		return nil, rev, nil
	}
	ctx, cancel := context.WithTimeout(ctx, replayWait)
	defer cancel()
	var out []inventory.Batch
	n := 0
	// The whole root is watched: only then the last batch is sure to come, whatever it is about.
	for b := range s.Store.Watch(ctx, inventory.Root, rev+1) {
		switch {
		case errors.Is(b.Err, inventory.ErrCompacted):
			return nil, 0, gone
		case b.Err != nil:
			return nil, 0, b.Err
		}
		if n += len(b.Events); n > replayMax {
			return nil, 0, gone
		}
		out = append(out, b)
		if b.Rev >= upto {
			return out, b.Rev, nil
		}
	}
	return nil, 0, gone
}

// events writes one client's stream.
type events struct {
	w    http.ResponseWriter
	flow *http.ResponseController
	who  Identity
	era  string
	sent map[string]int64 // key → revision: the copy may be ahead of the stream
	err  error
}

// writeTime is how long a client may take to accept what is written; a slower one is cut off and comes back.
const writeTime = 30 * time.Second

func (e *events) follow(ctx context.Context, live <-chan inventory.Batch, from int64, beat time.Duration) {
	if beat <= 0 {
		beat = 15 * time.Second
	}
	tick := time.NewTicker(beat)
	defer tick.Stop()
	for e.flush(); e.err == nil; e.flush() {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			e.write([]byte(": alive\n\n"))
		case b, ok := <-live:
			if !ok {
				return // too slow: the client comes back with its last id
			}
			if slices.ContainsFunc(b.Events, func(ev inventory.Event) bool { return ev.KV.Key == inventory.KeyEra }) {
				return // another life of the store: ids mean something else now, the client has to list again
			}
			if b.Rev > from {
				e.batch(b, from)
			}
		}
	}
}

// batch sends what a batch says of public records, the id with the last of it.
func (e *events) batch(b inventory.Batch, after int64) {
	var last inventory.Event
	for _, ev := range b.Events {
		if !strings.HasPrefix(ev.KV.Key, inventory.PrefixPublic) || ev.KV.Mod <= max(after, e.sent[ev.KV.Key]) {
			continue
		}
		if last.KV.Key != "" {
			e.change(last, 0)
		}
		last = ev
	}
	if last.KV.Key != "" {
		e.change(last, b.Rev)
	}
}

func (e *events) change(ev inventory.Event, id int64) {
	if ev.Deleted {
		gone, err := json.Marshal(map[string]string{"id": inventory.Parts(ev.KV.Key)[1]})
		if e.err == nil {
			e.err = err
		}
		e.event(EventGone, gone, id)
		return
	}
	e.event(EventNode, e.data(ev.KV), id)
}

// node sends a record of the first list; changes that it holds already are not sent again.
func (e *events) node(kv inventory.KV) {
	if e.sent == nil {
		e.sent = map[string]int64{}
	}
	e.sent[kv.Key] = kv.Mod
	e.event(EventNode, e.data(kv), 0)
}

// data is the record as the client may see it. Our own people get the bytes of the record, fields of newer versions
// included.
func (e *events) data(kv inventory.KV) []byte {
	if e.who.Role != RoleRental {
		return kv.Value
	}
	p, err := inventory.Decode[inventory.Public](kv)
	if err != nil && !errors.Is(err, inventory.ErrNewer) {
		e.err = err
		return nil
	}
	b, err := json.Marshal(redact(p.V, e.who))
	if e.err == nil {
		e.err = err
	}
	return b
}

func (e *events) event(name string, data []byte, id int64) {
	var b bytes.Buffer
	if id > 0 {
		fmt.Fprintf(&b, "id: %s.%d\n", e.era, id)
	}
	fmt.Fprintf(&b, "event: %s\ndata: %s\n\n", name, data)
	e.write(b.Bytes())
}

func (e *events) write(b []byte) {
	if e.err != nil {
		return
	}
	if err := e.flow.SetWriteDeadline(time.Now().Add(writeTime)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		e.err = err
		return
	}
	_, e.err = e.w.Write(b)
}

func (e *events) flush() {
	if e.err == nil {
		e.err = e.flow.Flush()
	}
}
