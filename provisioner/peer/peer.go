// Package peer carries what one replica sees to the replica that must know it, and fetches what that one knows.
//
// An agent speaks to the replica that it booted from, which need not hold its node's shard. A Router hands each event to
// our own loop where the shard is ours, else to its owner: in small batches, over a kept connection with certificates of
// the site's authority on both sides (tls.go). Of each kind of event about a node only the latest is kept, the number is
// bounded, and what cannot be delivered in a few seconds is dropped: the owner then sees silence, which is safe, and
// agents repeat what matters until they are answered.
//
// It decides nothing and knows no record but who owns which shard.
package peer

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/provisioner"
)

const (
	maxQueue = 4096            // events that wait
	maxBatch = 1 << 20         // bytes of one request, about; a report may be large
	keepFor  = 5 * time.Second // an event that cannot be delivered
	tryFor   = 2 * time.Second // one request
	liveFor  = time.Second     // a question of a person's
)

// Loop is our own reconciler.
type Loop interface {
	Take(provisioner.Event)
	Live(node string) provisioner.Live
}

// A Router is where the protocols leave what they see. Its methods return at once.
type Router struct {
	Loop   Loop
	Holds  func(node string) bool // the node's shard is ours
	Copy   *inventory.Copy        // who owns the others
	Client *http.Client           // nil: this replica reaches no other
	Now    func() time.Time
	Log    *slog.Logger

	mu    sync.Mutex
	queue []queued // oldest first
	wake  chan struct{}
	told  map[string]bool // replicas without an address that were complained of
}

type queued struct {
	provisioner.Event
	at time.Time
}

// same says whether one event makes an older one worthless.
func (q queued) same(o provisioner.Event) bool {
	done := func(e provisioner.Event) bool { return e.Report != nil && e.Report.Done }
	return q.Node == o.Node && q.Kind == o.Kind && done(q.Event) == done(o)
}

// Heard hands on an agent's report.
func (r *Router) Heard(node string, q inventory.Report) {
	r.pass(provisioner.Event{Node: node, Kind: provisioner.SawReport, Report: &q})
}

// Told hands on that an agent was told to enter.
func (r *Router) Told(node string) {
	r.pass(provisioner.Event{Node: node, Kind: provisioner.SawTold})
}

// AskedDHCP hands on that a machine asked for an address.
func (r *Router) AskedDHCP(node string) {
	r.pass(provisioner.Event{Node: node, Kind: provisioner.SawDHCP})
}

// AskedBoot hands on that a machine asked for its boot script.
func (r *Router) AskedBoot(node string) {
	r.pass(provisioner.Event{Node: node, Kind: provisioner.SawBoot})
}

// PhonedHome hands on that a tenant's system answered.
func (r *Router) PhonedHome(node string, p provisioner.PhoneHome) {
	r.pass(provisioner.Event{Node: node, Kind: provisioner.SawHome, Home: &p})
}

func (r *Router) pass(e provisioner.Event) {
	if r.Holds(e.Node) {
		r.Loop.Take(e)
		return
	}
	r.mu.Lock()
	r.queue = slices.DeleteFunc(r.queue, func(q queued) bool { return q.same(e) })
	if len(r.queue) < maxQueue {
		r.queue = append(r.queue, queued{e, r.Now()})
	}
	r.init()
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *Router) init() {
	if r.wake == nil {
		r.wake, r.told = make(chan struct{}, 1), map[string]bool{}
	}
}

// Run delivers until ctx ends.
func (r *Router) Run(ctx context.Context) error {
	r.mu.Lock()
	r.init()
	r.mu.Unlock()
	for ctx.Err() == nil {
		pause := 50 * time.Millisecond // so that a storm of events travels in batches
		if left := r.deliver(ctx); left > 0 {
			pause = 500 * time.Millisecond
		} else {
			select {
			case <-ctx.Done():
			case <-r.wake:
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	return nil
}

// deliver sends what waits, all owners at once, and says how much could not be sent and still waits.
func (r *Router) deliver(ctx context.Context) int {
	r.mu.Lock()
	batch := r.queue
	r.queue = nil
	r.mu.Unlock()
	to := map[string][]queued{}
	var wait []queued
	for _, q := range batch {
		switch owner, ok := r.owner(q.Node); {
		case r.Holds(q.Node):
			r.Loop.Take(q.Event)
		case !ok:
			wait = append(wait, q) // between two owners
		case owner.Address == "" || r.Client == nil:
			r.complain(owner)
		default:
			to[owner.Address] = append(to[owner.Address], q)
		}
	}
	var g sync.WaitGroup
	var mu sync.Mutex
	for address, events := range to {
		g.Go(func() {
			if err := r.send(ctx, address, events); err != nil {
				r.Log.Debug("another replica was not told what was seen of its nodes", "address", address, "events", len(events), "err", err)
				mu.Lock()
				wait = append(wait, events...)
				mu.Unlock()
			}
		})
	}
	g.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.Now()
	for _, q := range wait {
		newer := slices.ContainsFunc(r.queue, func(n queued) bool { return n.same(q.Event) })
		if !newer && now.Sub(q.at) < keepFor && len(r.queue) < maxQueue {
			r.queue = append(r.queue, q)
		}
	}
	return len(r.queue)
}

// complain says once of each replica that it cannot be told anything.
func (r *Router) complain(owner inventory.Replica) {
	if !r.told[owner.ID] {
		r.told[owner.ID] = true
		r.Log.Warn("nodes of another replica speak to this one, which cannot tell it: set replica.listen and replica.address of both in site.yaml", "replica", owner.ID, "host", owner.Host)
	}
}

// owner is the replica that holds a node's shard.
func (r *Router) owner(node string) (inventory.Replica, bool) {
	o, err := inventory.Decode[inventory.ShardOwner](r.Copy.One(inventory.KeyShard(inventory.Shard(node))))
	if err != nil || !o.Exists() {
		return inventory.Replica{}, false
	}
	d, err := inventory.Decode[inventory.Replica](r.Copy.One(inventory.KeyReplica(o.V.Replica)))
	return d.V, err == nil && d.Exists()
}

func (r *Router) send(ctx context.Context, address string, events []queued) error {
	ctx, stop := context.WithTimeout(ctx, tryFor)
	defer stop()
	for len(events) > 0 {
		var body bytes.Buffer
		enc := json.NewEncoder(&body)
		n := 0
		for n < len(events) && body.Len() < maxBatch {
			if err := enc.Encode(events[n].Event); err != nil {
				return err
			}
			n++
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+address+"/v1/events", &body)
		if err != nil {
			return err
		}
		if err := r.do(req, nil); err != nil {
			return err
		}
		events = events[n:]
	}
	return nil
}

func (r *Router) do(req *http.Request, into any) error {
	res, err := r.Client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxBatch))
	switch {
	case err != nil:
		return err
	case res.StatusCode != http.StatusOK && res.StatusCode != http.StatusNoContent:
		return fmt.Errorf("peer %s: %s: %s", req.URL.Host, res.Status, bytes.TrimSpace(b))
	case into == nil:
		return nil
	}
	return json.Unmarshal(b, into)
}

// Live is what is known of a node beside its record: by us, or by its owner, who is asked. When that one cannot say, the
// answer says so.
func (r *Router) Live(node string) provisioner.Live {
	if r.Holds(node) {
		return r.Loop.Live(node)
	}
	owner, ok := r.owner(node)
	switch {
	case !ok:
		return provisioner.Live{Say: "no replica holds its shard at the moment; one takes it within seconds"}
	case owner.Address == "" || r.Client == nil:
		return provisioner.Live{Say: fmt.Sprintf("replica %s on %s moves it, and this one cannot ask that one: set replica.listen and replica.address of both", owner.ID, owner.Host)}
	}
	ctx, stop := context.WithTimeout(context.Background(), liveFor)
	defer stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+owner.Address+"/v1/live?node="+url.QueryEscape(node), nil)
	var out provisioner.Live
	if err == nil {
		err = r.do(req, &out)
	}
	if err != nil {
		return provisioner.Live{Say: fmt.Sprintf("replica %s on %s moves it and does not answer: %v", owner.ID, owner.Host, err)}
	}
	return out
}

// Handler is what other replicas ask of this one. Serve it with TLS's configuration alone.
func (r *Router) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/events", func(w http.ResponseWriter, q *http.Request) {
		d := json.NewDecoder(http.MaxBytesReader(w, q.Body, 16*maxBatch))
		for {
			var e provisioner.Event
			if err := d.Decode(&e); err == io.EOF {
				break
			} else if err != nil {
				http.Error(w, "no events: "+err.Error(), http.StatusBadRequest)
				return
			}
			if r.Holds(e.Node) { // else ownership moved meanwhile: the next one is sent elsewhere
				r.Loop.Take(e)
			}
		}
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("GET /v1/live", func(w http.ResponseWriter, q *http.Request) {
		node := q.FormValue("node")
		if !r.Holds(node) {
			http.Error(w, "not its owner any more", http.StatusMisdirectedRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(r.Loop.Live(node)) // who is gone asks again
	})
	return mux
}
