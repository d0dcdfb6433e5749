package bmc

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// badLogins is how many refused logins a controller gets to see in badWindow:
// fewer than the five or so after which controllers lock an account
// (reliability F-30).
const (
	badLogins = 3
	badWindow = time.Hour
)

// logins remembers which logins a controller refused, and stops the next one:
//
//   - a credential that was refused rests for badWindow, so that a controller that
//     was only starting up is asked again some time;
//   - after badLogins refusals in a row it is not sent any more until it changes;
//   - whatever the credentials, at most badLogins are refused within badWindow.
type logins struct {
	now func() time.Time

	mu      sync.Mutex
	refused []time.Time              // within badWindow, oldest first
	streaks map[credential]badStreak // of refusals, for each credential not accepted since
}

// A credential is what a login is made of.
type credential struct {
	user     string
	password Secret
}

type badStreak struct {
	n    int
	last time.Time
}

// allow says whether a login may be tried, and if not why.
func (l *logins) allow(t Target) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	l.refused = slices.DeleteFunc(l.refused, func(at time.Time) bool { return now.Sub(at) >= badWindow })
	streak := l.streaks[credential{t.User, t.Password}]
	e := &Error{
		Op: "log in", Addr: t.Addr, Credentials: true,
		Err: errors.New("not tried, so that the account is not locked"),
	}
	switch rest := badWindow - now.Sub(streak.last); {
	case streak.n >= badLogins:
		e.Hint = fmt.Sprintf("it refused this credential of user %q %d times; set another with: hostler bmc credential set", t.User, streak.n)
	case streak.n > 0 && rest > 0:
		e.After = rest
		e.Hint = fmt.Sprintf("it refused this credential of user %q %v ago; set another with: hostler bmc credential set", t.User, now.Sub(streak.last).Round(time.Second))
	case len(l.refused) >= badLogins:
		e.After = badWindow - now.Sub(l.refused[0])
		e.Hint = fmt.Sprintf("it refused %d logins within the hour; this credential can be tried in %v", len(l.refused), e.After.Round(time.Second))
	default:
		return nil
	}
	return e
}

// refusedBy records that the controller did not like the credential.
func (l *logins) refusedBy(t Target) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.streaks == nil {
		l.streaks = map[credential]badStreak{}
	}
	c := credential{t.User, t.Password}
	l.streaks[c] = badStreak{l.streaks[c].n + 1, l.now()}
	l.refused = append(l.refused, l.now())
}

// acceptedBy records that it did.
func (l *logins) acceptedBy(t Target) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.streaks, credential{t.User, t.Password})
}

// forget starts anew.
func (l *logins) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refused, l.streaks = nil, nil
}
