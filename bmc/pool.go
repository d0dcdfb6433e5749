package bmc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

// Backoff after failures in a row: doubling from the first to the last, minus
// up to half by chance, so that a rack that lost its switch is not asked in step.
const (
	backoffFirst = time.Second
	backoffLast  = 2 * time.Minute
)

// A Pool holds the conversations with all controllers: for each address one
// session and one request at a time, kept for a short while. A controller that
// fails is left alone for a time that grows, one that refused a credential is
// not asked again with it (see logins), and none waits for another. The zero
// Pool is ready; set the fields before the first use.
type Pool struct {
	Log *slog.Logger // may be nil

	patience pace // zero means patient()

	mu     sync.Mutex
	lines  map[string]*line
	closed bool
}

// A line is what the pool has for one address.
type line struct {
	turn   chan struct{} // holds one token while someone talks
	logins logins

	// Owned by whoever has the turn.
	ctrl   *Controller // nil: no session
	target Target      // as whom it is open
	idle   *time.Timer
	fails  int       // in a row
	until  time.Time // not to be asked before
	cause  error     // of the latest failure
	closed bool
}

// With gives do the controller at t, opening a session if there is none, and
// returns do's error. It waits while another With talks to the same address. A
// controller that failed a moment ago is not asked: the *Error is Temporary, and
// After says when it will be. do must not keep the Controller.
func (p *Pool) With(ctx context.Context, t Target, do func(*Controller) error) error {
	const op = "wait for the controller"
	named, err := t.normal()
	if err != nil {
		return &Error{Op: op, Addr: t.Addr, Err: err}
	}
	t = named
	l, err := p.line(t.Addr)
	if err != nil {
		return err
	}
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return &Error{Op: op, Addr: t.Addr, Temporary: true, Err: ctx.Err(), Hint: "someone else is still talking to it"}
	}
	defer func() { <-l.turn }()
	if l.closed {
		return ending(t.Addr)
	}
	if l.idle != nil {
		l.idle.Stop()
	}

	if l.ctrl != nil && l.target != t {
		l.hangUp(ctx)
	}
	if wait := time.Until(l.until); wait > 0 && l.target == t {
		return &Error{
			Op: op, Addr: t.Addr, Temporary: true, After: wait, Err: l.cause,
			Hint: fmt.Sprintf("it failed %d times in a row and is left alone for %v", l.fails, wait.Round(time.Second/10)),
		}
	}
	l.target = t
	if l.ctrl == nil {
		if l.ctrl, err = open(ctx, t, p.Log, p.pace(), &l.logins); err != nil {
			l.ctrl = nil
			l.failed(err)
			return err
		}
	}
	err = do(l.ctrl)
	l.failed(err)
	l.idle = time.AfterFunc(p.pace().idle, func() {
		select {
		case l.turn <- struct{}{}:
			l.hangUp(context.Background())
			<-l.turn
		default: // in use again
		}
	})
	return err
}

// Forget drops what is remembered of the controller at addr: its session, its
// failures and the credentials that it refused. Call it when a person says that
// the controller is mended, or sets its credential.
func (p *Pool) Forget(ctx context.Context, addr string) error {
	addr, err := Target{Addr: addr}.hostPort()
	if err != nil {
		return err
	}
	l, err := p.line(addr)
	if err != nil {
		return err
	}
	return l.end(ctx, func() {
		l.failed(nil)
		l.logins.forget()
	})
}

// Close ends all sessions and refuses new ones. It waits for those in use.
func (p *Pool) Close(ctx context.Context) error {
	p.mu.Lock()
	p.closed = true
	lines := p.lines
	p.lines = nil
	p.mu.Unlock()

	// All at once: one that does not answer must not delay the others.
	errs := make(chan error, len(lines))
	for _, l := range lines {
		go func() { errs <- l.end(ctx, func() { l.closed = true }) }()
	}
	var all []error
	for range lines {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}

func (p *Pool) pace() pace {
	if p.patience == (pace{}) {
		return patient()
	}
	return p.patience
}

func (p *Pool) line(addr string) (*line, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ending(addr)
	}
	l := p.lines[addr]
	if l == nil {
		if p.lines == nil {
			p.lines = map[string]*line{}
		}
		l = &line{turn: make(chan struct{}, 1), logins: logins{now: time.Now}}
		p.lines[addr] = l
	}
	return l, nil
}

func ending(addr string) error {
	return &Error{Op: "open", Addr: addr, Err: errors.New("the program is ending")}
}

// failed counts err towards the backoff if it says that the controller is in
// trouble; an answer, even a refusal, ends it. Refused logins are not delayed
// here: logins stops them.
func (l *line) failed(err error) {
	e, _ := errors.AsType[*Error](err)
	if err != nil && e == nil {
		return // do's own affair
	}
	if e == nil || !e.Temporary || e.Credentials || errors.Is(err, context.Canceled) {
		l.fails, l.until, l.cause = 0, time.Time{}, nil
		return
	}
	wait := min(backoffFirst<<min(l.fails, 20), backoffLast)
	wait -= rand.N(wait / 2)
	l.fails++
	l.until, l.cause = time.Now().Add(wait), e.Err
}

// hangUp ends the session; the caller has the turn.
func (l *line) hangUp(ctx context.Context) {
	if l.ctrl != nil {
		_ = l.ctrl.Close(ctx) // a session that cannot be closed times out
		l.ctrl = nil
	}
}

// end waits for the turn, hangs up, and does what else there is to do.
func (l *line) end(ctx context.Context, also func()) error {
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	if l.idle != nil {
		l.idle.Stop()
	}
	l.hangUp(ctx)
	also()
	<-l.turn
	return nil
}
