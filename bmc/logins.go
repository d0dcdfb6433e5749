package bmc

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// badLogins is how many refused logins a controller gets to see in badWindow:
// fewer than the five or so after which controllers lock an account.
const (
	badLogins = 3
	badWindow = time.Hour
)

// logins remembers which logins a controller refused. A credential that was
// refused badLogins times is not sent again, however late, until it changes;
// and whatever the credentials, at most badLogins are refused in badWindow.
type logins struct {
	now func() time.Time

	mu      sync.Mutex
	refused []time.Time        // within badWindow, oldest first
	times   map[credential]int // how often in a row
}

// A credential is what a login is made of.
type credential struct {
	user     string
	password Secret
}

// allow says whether a login may be tried, and if not why.
func (l *logins) allow(t Target) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refused = slices.DeleteFunc(l.refused, func(at time.Time) bool { return l.now().Sub(at) >= badWindow })
	e := &Error{Op: "log in", Addr: t.Addr, Credentials: true, Err: errors.New("not tried, so that the account is not locked")}
	if n := l.times[credential{t.User, t.Password}]; n >= badLogins {
		e.Hint = fmt.Sprintf("it refused this credential of user %q %d times; set another with: hostler bmc credential set", t.User, n)
		return e
	}
	if len(l.refused) >= badLogins {
		e.After = badWindow - l.now().Sub(l.refused[0])
		e.Temporary = true
		e.Hint = fmt.Sprintf("it refused %d logins within the hour; this credential can be tried in %v", len(l.refused), e.After.Round(time.Minute))
		return e
	}
	return nil
}

// refusedBy records that the controller did not like the credential.
func (l *logins) refusedBy(t Target) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.times == nil {
		l.times = map[credential]int{}
	}
	l.times[credential{t.User, t.Password}]++
	l.refused = append(l.refused, l.now())
}

// acceptedBy records that it did.
func (l *logins) acceptedBy(t Target) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.times, credential{t.User, t.Password})
}

// forget starts anew.
func (l *logins) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refused, l.times = nil, nil
}
