package bmc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func newPool(t *testing.T) *Pool {
	p := &Pool{patience: quick()}
	t.Cleanup(func() {
		if err := p.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return p
}

func look(t *testing.T) func(*Controller) error {
	return func(c *Controller) error {
		_, err := c.Power(t.Context())
		return err
	}
}

func TestPoolUsesOneSessionAndTakesTurns(t *testing.T) {
	t.Parallel()
	f := startFake(t, &fake{})
	p := newPool(t)
	var inside, most atomic.Int32
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			err := p.With(t.Context(), f.target(), func(c *Controller) error {
				most.Store(max(most.Load(), inside.Add(1)))
				defer inside.Add(-1)
				return look(t)(c)
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	f.Do(func() {
		if f.Logins != 1 || most.Load() != 1 {
			t.Errorf("%d logins, at most %d at once; want 1 and 1", f.Logins, most.Load())
		}
	})
	if n := f.Server.Sessions.Count(); n != 1 {
		t.Errorf("the controller holds %d sessions, want 1", n)
	}
	// Closing gives the session back.
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := f.Server.Sessions.Count(); n != 0 {
		t.Errorf("after Close the controller holds %d sessions", n)
	}
	if err := p.With(t.Context(), f.target(), look(t)); err == nil {
		t.Error("a closed pool opened a session")
	}
}

func TestPoolDoesNotLetOneControllerDelayOthers(t *testing.T) {
	t.Parallel()
	silent, err := net.ListenPacket("udp", "127.0.0.1:0") // takes all, answers nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	f := startFake(t, &fake{})
	p := newPool(t)
	p.patience.exchange, p.patience.resends = time.Second, 1
	odd := Target{Addr: silent.LocalAddr().String(), User: simUser, Password: simPassword}
	failed := make(chan error, 2)
	for range 2 { // the second waits for the first, then hears of its failure
		go func() { failed <- p.With(t.Context(), odd, look(t)) }()
	}
	if err := p.With(t.Context(), f.target(), look(t)); err != nil {
		t.Fatal(err)
	}
	if len(failed) > 0 {
		t.Error("the good controller had to wait for the odd one")
	}
	for range 2 {
		if e := asError(t, <-failed); !e.Temporary {
			t.Errorf("got %+v, want temporary", e)
		}
	}
	// It is left alone for a while, which grows.
	begin := time.Now()
	e := asError(t, p.With(t.Context(), odd, look(t)))
	if took := time.Since(begin); took > 500*time.Millisecond {
		t.Errorf("the backoff waits (%v) instead of saying so", took)
	}
	if !e.Temporary || e.After <= 0 || e.After > backoffFirst {
		t.Errorf("got %+v, want After up to %v", e, backoffFirst)
	}
}

func TestBackoffGrowsAndEnds(t *testing.T) {
	l := &line{}
	trouble := &Error{Temporary: true, Err: errors.New("no answer")}
	var before time.Duration
	for n := range 30 {
		l.failed(trouble)
		wait := time.Until(l.until)
		limit := min(backoffFirst<<min(n, 20), backoffLast)
		if wait > limit || wait < limit/2-time.Second/10 {
			t.Fatalf("after %d failures: %v, want between half and all of %v", n+1, wait, limit)
		}
		before = max(before, wait)
	}
	if before < backoffLast/2 {
		t.Errorf("it never grew beyond %v", before)
	}
	for _, row := range []struct {
		name string
		err  error
		ends bool
	}{
		{"an error of the caller's own", errors.New("not a controller's"), false},
		{"an answer that is a refusal", &Error{Err: errors.New("no such function")}, true},
		{"success", nil, true},
	} {
		l.failed(trouble)
		l.failed(row.err)
		if ended := l.until.IsZero(); ended != row.ends {
			t.Errorf("%s: backoff ended is %v, want %v", row.name, ended, row.ends)
		}
	}
}

// A wrong password must not lock the account: the controller sees it once.
func TestPoolStopsABadCredential(t *testing.T) {
	t.Parallel()
	f := startFake(t, &fake{})
	p := newPool(t)
	try := func(password Secret) *Error {
		target := f.target()
		target.Password = password
		err := p.With(t.Context(), target, look(t))
		if err == nil {
			return nil
		}
		return asError(t, err)
	}
	attempts := func() (n int) { f.Do(func() { n = f.Logins }); return n }

	for range 10 {
		if e := try("wrong"); e == nil || !e.Credentials {
			t.Fatalf("got %+v, want Credentials", e)
		}
	}
	if n := attempts(); n != 1 {
		t.Errorf("the controller saw %d logins with the wrong password, want 1", n)
	}
	if e := try("wrong"); e.After <= 0 || !strings.Contains(e.Hint, "credential set") {
		t.Errorf("got %+v, want when and what to do", e)
	}
	if e := try(simPassword); e != nil {
		t.Fatalf("the right password, right away: %v", e)
	}
	for n := range 10 {
		if e := try(Secret(fmt.Sprint("guess", n))); e == nil || !e.Credentials {
			t.Fatalf("guess %d: %+v", n, e)
		}
	}
	if n := attempts(); n != badLogins+1 {
		t.Errorf("the controller saw %d logins, want %d refused and one good", n, badLogins)
	}
	if e := try(simPassword); e == nil || e.After <= 0 {
		t.Errorf("after %d refusals: %+v, want to wait", badLogins, e)
	}
	if err := p.Forget(t.Context(), f.Addr); err != nil {
		t.Fatal(err)
	}
	if e := try(simPassword); e != nil {
		t.Errorf("after Forget: %v", e)
	}
}

func TestBadLoginsOverTime(t *testing.T) {
	now := time.Now()
	l := &logins{now: func() time.Time { return now }}
	target := Target{Addr: "a", User: "u", Password: "p"}
	tried := 0
	for range 24 * 60 { // a day of asking each minute
		if l.allow(target) == nil {
			tried++
			l.refusedBy(target)
		}
		now = now.Add(time.Minute)
	}
	if tried != badLogins {
		t.Errorf("a bad credential was sent %d times in a day, want %d", tried, badLogins)
	}
	target.Password = "q"
	if err := l.allow(target); err != nil {
		t.Errorf("a new credential: %v", err)
	}
}

// A restarted controller knows none of the pool's sessions.
func TestPoolRecoversALostSession(t *testing.T) {
	s := startSim(t)
	p := newPool(t)
	for range 2 {
		if err := p.With(t.Context(), s.target(), func(c *Controller) error { return c.SetPower(t.Context(), On) }); err != nil {
			t.Fatal(err)
		}
		s.kill()
		s.start()
	}
}

func TestPoolEndsUnusedSessions(t *testing.T) {
	t.Parallel()
	f := startFake(t, &fake{})
	p := newPool(t)
	p.patience.idle = time.Second
	for range 5 { // in use more often than that, it lasts
		if err := p.With(t.Context(), f.target(), look(t)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	f.Do(func() {
		if f.Logins != 1 {
			t.Errorf("%d logins, want 1", f.Logins)
		}
	})
	for end := time.Now().Add(10 * time.Second); f.Server.Sessions.Count() > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the unused session was not closed")
		}
	}
	if err := p.With(t.Context(), f.target(), look(t)); err != nil {
		t.Fatal(err)
	}
}

func TestPoolLeavesNothingBehind(t *testing.T) {
	f := startFake(t, &fake{})
	before := goleak.IgnoreCurrent()
	p := &Pool{patience: quick()}
	if err := p.With(t.Context(), f.target(), look(t)); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	const theirs = "github.com/bougou/go-ipmi/pkg/server.(*Server)."
	goleak.VerifyNone(t, before, goleak.IgnoreAnyFunction(theirs+"Serve"), goleak.IgnoreAnyFunction(theirs+"runSessionEviction"))
}
