package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/hostler-project/hostler/inventory"
)

// A machine is what an agent may do to the machine that it runs on.
type machine interface {
	SetClock(time.Time) error
	Restart() error  // returns only when it could not
	PowerOff() error // the same
}

// self is what this boot knows of its machine before any order.
type self struct {
	bootID   string
	hardware inventory.Hardware
}

// An agent does the daemon's orders, one at a time.
type agent struct {
	session session
	page    *page
	log     *slog.Logger
	machine machine
	clock   *clock
	orders  map[string]orderFunc
	self    self
	digest  func() (string, error) // of this program
	pause   time.Duration          // between requests that bring nothing new; 0: a second

	identity   *identity
	client     *client
	generation int64

	mu       sync.Mutex
	progress *inventory.Progress // of the order that runs
}

// revoked says that this session is over.
type revoked struct{ why string }

func (r *revoked) Error() string { return "this session is over: " + r.why }

// redeem trades the token for a certificate. Any number of tries with the same key is one redemption, so a lost answer
// costs nothing; a refusal is for good.
func (a *agent) redeem(ctx context.Context) error {
	id, err := newIdentity()
	if err != nil {
		return err
	}
	csr, err := id.request(a.session.Node)
	if err != nil {
		return err
	}
	first := newClient(a.session, a.clock, id)
	defer first.close()
	ask := inventory.Redeem{Session: a.session.ID, Token: a.session.Token, CSR: csr, BootID: a.self.bootID,
		Serial: a.self.hardware.Serial, UUID: a.self.hardware.UUID}
	for _, n := range a.self.hardware.NICs {
		ask.MACs = append(ask.MACs, n.MAC)
	}
	var got inventory.Redeemed
	for tries := 0; ; tries++ {
		err := first.call(ctx, answerIn, "/v1/agent/redeem", nil, ask, &got)
		if err == nil {
			break
		}
		if isFinal(err) {
			return fatal(err.Error(), "hostler why "+a.session.Name+" says what the daemon makes of it")
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		a.page.Doing("waiting for the server: " + err.Error())
		sleep(ctx, backoff(tries))
	}
	a.clock.Trust(got.Now)
	if got.Node != a.session.Node {
		return fatal("the server took this machine for "+got.Node+", its session is for "+a.session.Node, "hostler why "+a.session.Name)
	}
	if err := id.accept(got.Cert, a.session.ca, a.clock.Now()); err != nil {
		return fatal(err.Error(), "look at hostlerd's log; its CA may have changed while this machine booted")
	}
	a.session.Token = ""
	a.identity, a.client, a.generation = id, newClient(a.session, a.clock, id), got.Generation
	return nil
}

// work does orders until the session is over or ctx ends; it returns only then.
func (a *agent) work(ctx context.Context) error {
	var last *finished // the newest order done; the daemon may ask for its result again
	next, err := a.say(ctx, inventory.Report{}, 0)
	for err == nil {
		switch o := next.Order; {
		case last != nil && last.enter != nil && next.Enter:
			err = a.enter(ctx, last)
		case o == nil || o.Kind == inventory.OrderIdle:
			a.page.Doing("idle: warm, nothing to do, waiting for orders")
			next, err = a.say(ctx, inventory.Report{}, longPoll)
		case last != nil && o.ID == last.report.Order:
			next, err = a.say(ctx, last.report, longPoll)
		default:
			if last, err = a.perform(ctx, *o); err == nil {
				next, err = a.say(ctx, last.report, 0)
			}
			if err == nil && last.after != nil && next.Revoked == "" {
				err = last.after()
			}
		}
		if err == nil && next.Revoked != "" {
			err = &revoked{next.Revoked}
		}
	}
	return err
}

// enter leaves this system for the tenant's. It returns only when that failed, which the daemon hears.
func (a *agent) enter(ctx context.Context, last *finished) error {
	a.page.Doing("entering the tenant's system")
	// The key goes last but one: if the jump fails, there is no way to say so, and the machine is as good as gone.
	a.identity.wipe()
	a.client.close()
	err := last.enter(ctx)
	return fatal(fmt.Sprintf("the tenant's system could not be entered: %v", err), "nothing: the daemon notices that this machine is silent")
}

// say sends a report and returns the answer, asking the daemon to hold it back for up to hold while it has nothing new.
// It tries until it gets through, and says on the page when it does not.
func (a *agent) say(ctx context.Context, r inventory.Report, hold time.Duration) (inventory.Next, error) {
	begin := time.Now()
	for tries := 0; ; tries++ {
		next, err := a.once(ctx, r, hold, hold+answerIn)
		switch {
		case err == nil:
			if tries > 0 {
				a.page.Doing("the server answers again after " + time.Since(begin).Round(time.Second).String())
			}
			if news := next.Enter || next.Order != nil && next.Order.Kind != inventory.OrderIdle && next.Order.ID != r.Order; hold > 0 && !news {
				// A server that does not hold back is not hammered.
				sleep(ctx, a.every()-time.Since(begin))
			}
			return next, nil
		case ctx.Err() != nil:
			return next, ctx.Err()
		case isFinal(err):
			return next, &revoked{err.Error()}
		}
		if tries == 0 {
			a.page.Doing("the server does not answer (" + err.Error() + "): trying again until it does")
		}
		sleep(ctx, backoff(tries))
	}
}

// once sends a report once.
func (a *agent) once(ctx context.Context, r inventory.Report, hold, within time.Duration) (inventory.Next, error) {
	r.Session, r.Generation, r.BootID, r.Uptime = a.session.ID, a.generation, a.self.bootID, a.page.uptime().Seconds()
	var query url.Values
	if hold > 0 {
		query = url.Values{"wait": {strconv.Itoa(int(hold / time.Second))}}
	}
	var next inventory.Next
	err := a.client.call(ctx, within, "/v1/agent/report", query, r, &next)
	if err == nil && !next.Now.IsZero() {
		a.clock.Trust(next.Now)
	}
	return next, err
}

// A finished order keeps its report, so that the same order is never done twice.
type finished struct {
	report inventory.Report
	enter  func(context.Context) error // hand-off: when the daemon says so
	after  func() error                // reboot, power-off: as soon as the daemon has the report
}

// perform does one order, with a heartbeat every second. The daemon can end it: by revoking the session, or by wanting
// something else. The error is for a session that is over; what went wrong with the order is in the report.
func (a *agent) perform(ctx context.Context, o inventory.Order) (*finished, error) {
	doing := words[o.Kind]
	if doing == "" {
		doing = o.Kind
	}
	a.page.Doing(doing)
	// A claim raises the generation of a warm node and keeps its session; a generation never falls.
	if o.Node == a.session.Node && o.Session == a.session.ID {
		a.generation = max(a.generation, o.Generation)
	}
	begin := a.clock.Now().UTC()
	running, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	a.mu.Lock()
	a.progress = &inventory.Progress{What: doing, LeftS: -1}
	a.mu.Unlock()
	done := make(chan struct{})
	var res result
	var fault error
	go func() {
		defer close(done)
		res, fault = a.try(running, o)
	}()
	over := a.watch(running, o, done, stop)
	<-done // an order that was told to stop ends at a safe point
	if over != nil {
		return nil, over
	}
	r := res.report
	r.Order, r.Done, r.Started, r.Finished = o.ID, true, begin, a.clock.Now().UTC()
	if fault != nil {
		r.Error = fault.Error()
		var again *retryable
		r.Retry = errors.As(fault, &again)
		a.log.Error("an order went wrong", "order", o.Kind, "err", fault)
	} else {
		a.page.Doing(fmt.Sprintf("%s: done in %.1f s", doing, r.Finished.Sub(begin).Seconds()))
	}
	return &finished{report: r, enter: res.enter, after: res.after}, nil
}

// watch sends heartbeats until the order is done.
func (a *agent) watch(ctx context.Context, o inventory.Order, done <-chan struct{}, stop context.CancelCauseFunc) error {
	beat, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // the end of the order does not wait for a heartbeat that hangs
		select {
		case <-done:
			cancel()
		case <-beat.Done():
		}
	}()
	tick := time.NewTicker(a.every())
	defer tick.Stop()
	lost := false
	for {
		select {
		case <-done:
			return nil
		case <-tick.C:
		}
		next, err := a.once(beat, inventory.Report{Order: o.ID, Progress: a.told()}, 0, dialIn)
		switch {
		case beat.Err() != nil:
			return nil
		case isFinal(err):
			stop(&revoked{err.Error()})
			return &revoked{err.Error()}
		case err != nil:
			if !lost { // the work goes on: it is worth as much without a listener
				a.log.Warn("the server does not answer, the order goes on", "err", err)
			}
			lost = true
		case next.Revoked != "":
			stop(&revoked{next.Revoked})
			return &revoked{next.Revoked}
		case next.Order != nil && next.Order.ID != o.ID:
			stop(fmt.Errorf("the daemon wants order %s (%s) instead", next.Order.ID, next.Order.Kind))
			return nil
		default:
			lost = false
		}
	}
}

// try runs the order's function; a panic in it is an error, not the end of PID 1.
func (a *agent) try(ctx context.Context, o inventory.Order) (res result, err error) {
	defer func() {
		if p := recover(); p != nil {
			a.log.Error("a fault of this program", "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("%s: a fault of the agent: %v (its console has the rest)", o.Kind, p)
		}
	}()
	if o.Node != a.session.Node || o.Generation < a.generation || o.Session != a.session.ID {
		return res, fmt.Errorf("%s: the order is for node %s, generation %d, session %s; this is %s, %d, %s: refused",
			o.Kind, o.Node, o.Generation, o.Session, a.session.Node, a.generation, a.session.ID)
	}
	do, known := a.orders[o.Kind]
	if !known {
		return res, fmt.Errorf("%s: this agent (%s) does not know such an order: boot a service OS of hostlerd's version", o.Kind, version())
	}
	res, err = do(ctx, o)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = fmt.Errorf("%w (stopped: %v)", err, cause)
	}
	return res, err
}

// tell keeps the newest progress for the next heartbeat, and shows it.
func (a *agent) tell(p inventory.Progress) {
	a.mu.Lock()
	a.progress = &p
	a.mu.Unlock()
	a.page.Progress(p)
}

func (a *agent) told() *inventory.Progress {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.progress
}

func (a *agent) every() time.Duration {
	if a.pause > 0 {
		return a.pause
	}
	return time.Second
}

// backoff is how long to wait after that many failures: half a second to five.
func backoff(tries int) time.Duration {
	return min(500*time.Millisecond<<min(tries, 10), 5*time.Second)
}

func sleep(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
