package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/api"
	"github.com/hostler-project/hostler/inventory/client"
)

// Kinds of operations.
const (
	claimOp   = "claim"
	releaseOp = "release"
	showOp    = "show"
)

// Outcomes. Unknown operations may take effect at any later time.
const (
	OK      = "ok"
	Refused = "refused" // for certain: nothing was done; Why says what the answer was about
	Unknown = "unknown"
)

// Whys of refusals that say something about the reservation.
const (
	whyOver = "over"
	whyNone = "no reservation"
	whyLeft = "no node left" // so there is no reservation either
)

// An Op is one request as its client saw it; times are since the site's start.
type Op struct {
	Client       int
	Kind         string
	Reservation  string
	Node, Phase  string // of the answer
	Outcome, Why string
	Call, Return time.Duration
}

// Clients claim nodes and give them back, over the API of every replica in turn, as rental layers do that lose their
// patience: requests are cut off, retried under the same id at the other replica, sent twice.
type Clients struct {
	site    *Site
	sku     string
	whole   bool // confirm, and wait for the tenant's system, before the release
	started time.Time
	ctx     context.Context
	stop    context.CancelFunc
	wg      sync.WaitGroup

	first, next int // numbers of clients: a site gives each to one

	mu   sync.Mutex
	ops  []Op
	acks []time.Duration // of writes
}

// Clients starts n clients that claim nodes of a SKU.
func (s *Site) Clients(ctx context.Context, n int, sku string, whole bool) *Clients {
	c := &Clients{site: s, sku: sku, whole: whole, started: s.began, first: s.clients}
	c.ctx, c.stop = context.WithCancel(ctx)
	s.clients += 1000
	c.Grow(n)
	return c
}

// Grow adds n more.
func (c *Clients) Grow(n int) {
	for range n {
		c.add(c.ctx, c.first+c.next)
		c.next++
	}
}

func (c *Clients) add(ctx context.Context, n int) {
	w := &worker{c: c, n: n, tenant: n % 2, http: &http.Client{Timeout: 6 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 2, IdleConnTimeout: 30 * time.Second}}}
	c.wg.Go(func() {
		defer w.http.CloseIdleConnections()
		for i := 0; ctx.Err() == nil; i++ {
			w.cycle(ctx, fmt.Sprintf("%s-%d-%d", c.sku, n, i))
		}
	})
}

// End stops the clients, after each has given back what it holds, and gives everything that they did.
func (c *Clients) End() []Op {
	c.stop()
	c.wg.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ops
}

// Count is the number of operations so far.
func (c *Clients) Count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.ops)
}

// Gap is the longest time without an acknowledged write that reaches into the time from a moment on until now. Clients
// that had none before that moment are counted from it.
func (c *Clients) Gap(from time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	since, now := from.Sub(c.started), time.Since(c.started)
	longest, last := time.Duration(0), since
	for _, at := range c.acks {
		if at >= since {
			longest = max(longest, at-last)
		}
		last = at
	}
	return max(longest, now-last)
}

// Acked waits for an acknowledged write that began after now.
func (c *Clients) Acked(ctx context.Context, limit time.Duration) error {
	from := time.Since(c.started)
	for end := time.Now().Add(limit); time.Now().Before(end); sleep(ctx, 20*time.Millisecond) {
		c.mu.Lock()
		ok := false
		for i := len(c.ops) - 1; i >= 0 && c.ops[i].Return > from && !ok; i-- {
			ok = c.ops[i].Outcome == OK && c.ops[i].Kind != showOp && c.ops[i].Call > from
		}
		c.mu.Unlock()
		if ok {
			return nil
		}
	}
	return fmt.Errorf("faults: no write was acknowledged for %v", limit)
}

// A worker is one client.
type worker struct {
	c      *Clients
	n      int
	tenant int
	http   *http.Client
}

// cycle is one reservation's life. Whatever happens, it ends with a definite answer that the reservation is over.
func (w *worker) cycle(ctx context.Context, id string) {
	site := context.WithoutCancel(ctx) // what was begun is ended
	got := w.until(site, claimOp, id)
	if got.Outcome == Refused {
		sleep(ctx, time.Duration(5+rand.IntN(40))*time.Millisecond)
		return
	}
	if rand.IntN(4) == 0 {
		w.do(site, showOp, id, 0)
	}
	for range rand.IntN(4) {
		w.do(site, claimOp, id, 0) // sent again: its own result
	}
	if w.c.whole {
		w.tenancy(ctx, id)
	} else {
		sleep(ctx, time.Duration(rand.IntN(60))*time.Millisecond)
	}
	w.until(site, releaseOp, id)
	for range rand.IntN(4) {
		w.do(site, releaseOp, id, 0) // sent again: it is done
	}
	switch rand.IntN(8) {
	case 0, 1:
		w.do(site, claimOp, id, 0) // it is over, for ever
	case 2:
		w.do(site, showOp, id, 0)
	}
}

// until repeats an operation, at any replica, until its outcome is known. A third of the tries is cut off early. A claim
// that may have been made is asked for again, never forgotten.
func (w *worker) until(ctx context.Context, kind, id string) Op {
	for try := 0; ; try++ {
		limit := time.Duration(0)
		if rand.IntN(3) == 0 {
			limit = time.Duration(1+rand.IntN(60)) * time.Millisecond
		}
		if o := w.do(ctx, kind, id, limit); o.Outcome != Unknown {
			return o
		}
		sleep(ctx, time.Duration(10+rand.IntN(50*min(try+1, 10)))*time.Millisecond)
	}
}

// do asks once and writes down what was asked and heard. limit cuts the request off; 0 is patient.
func (w *worker) do(ctx context.Context, kind, id string, limit time.Duration) Op {
	s := w.c.site
	api_ := s.Daemons[rand.IntN(len(s.Daemons))].API
	c := &client.Client{URL: api_, Token: s.Rental[w.tenant], HTTP: w.http}
	if limit > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, limit)
		defer stop()
	}
	o := Op{Client: w.n, Kind: kind, Reservation: id, Call: time.Since(w.c.started)}
	var st api.ClaimStatus
	var err error
	switch kind {
	case claimOp:
		st, err = c.Claim(ctx, api.ClaimRequest{Reservation: id, SKU: w.c.sku, Hold: inventory.Duration(time.Hour)})
	case releaseOp:
		st, err = c.ReleaseClaim(ctx, id, "")
	default:
		st, err = c.ShowClaim(ctx, id)
	}
	o.Return = time.Since(w.c.started)
	o.Node, o.Phase = st.Reservation.Node, st.Reservation.Phase
	o.Outcome, o.Why = outcome(kind, err)
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	w.c.ops = append(w.c.ops, o)
	if o.Outcome == OK && kind != showOp {
		w.c.acks = append(w.c.acks, o.Return)
	}
	return o
}

// outcome reads an answer. Only a refusal says that nothing was done.
func outcome(kind string, err error) (word, why string) {
	var no *client.Error
	if err == nil {
		return OK, ""
	}
	if !errors.As(err, &no) {
		return Unknown, err.Error()
	}
	switch {
	case no.Status == http.StatusNotFound:
		return Refused, whyNone
	case no.Status == http.StatusConflict && strings.Contains(no.Detail, "is over"):
		return Refused, whyOver
	case no.Status == http.StatusConflict && kind == claimOp && (strings.Contains(no.Detail, "is rentable now") || strings.Contains(no.Detail, "tries lost")):
		return Refused, whyLeft
	}
	return Unknown, fmt.Sprintf("%d %s", no.Status, no.Detail)
}

// tenancy confirms the reservation and waits until its node is the tenant's, or was given up, or a moment has passed.
func (w *worker) tenancy(ctx context.Context, id string) {
	s := w.c.site
	for end := time.Now().Add(25 * time.Second); time.Now().Before(end) && ctx.Err() == nil; sleep(ctx, 300*time.Millisecond) {
		c := &client.Client{URL: s.Daemons[rand.IntN(len(s.Daemons))].API, Token: s.Rental[w.tenant], HTTP: w.http}
		st, err := c.ShowClaim(ctx, id)
		switch {
		case err != nil:
		case st.Reservation.Phase == inventory.Pending:
			_, _ = c.ConfirmClaim(ctx, id, api.Confirmation{Image: Image}) // asked again in the next round
		case st.NodeState != inventory.Provisioning:
			sleep(ctx, time.Duration(rand.IntN(1000))*time.Millisecond)
			return
		}
	}
}

// acked is the number of acknowledged writes so far.
func (c *Clients) acked() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.acks)
}
