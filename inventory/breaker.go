package inventory

import (
	"fmt"
	"time"
)

// Unwell says that a node became unhealthy, by what, and since when. It is an episode: what follows from the same
// trouble (silent, then lost, then no boot) is not told again, until the node is well (Over).
type Unwell struct {
	Since time.Time `json:"since"`
	By    string    `json:"by"`
	Over  bool      `json:"over,omitempty"`
}

// By what a node becomes unhealthy.
const (
	BySilence    = "silent"
	ByLoss       = "lost"
	ByNoBoot     = "no boot"
	ByQuarantine = "quarantined"
)

// A Breaker stops everything new when too much goes wrong at once: while it is open no power or destructive act begins,
// no deadline runs, and what is seen is still recorded. Only a person closes it. One breaker is the site's (KeyBreaker).
type Breaker struct {
	Schema  int       `json:"schema"`
	Open    bool      `json:"open"`
	Since   time.Time `json:"since,omitzero"` // it opened, or was closed
	Cause   string    `json:"cause,omitempty"`
	Counted int       `json:"counted,omitempty"`  // nodes that had become unhealthy when it opened
	Allowed int       `json:"allowed,omitempty"`  // that many would not have opened it
	By      string    `json:"by,omitempty"`       // who opened it, or closed it
	Reason  string    `json:"reason,omitempty"`   // why it was closed
	Closed  time.Time `json:"closed_at,omitzero"` // the last time: what became unhealthy before does not count again
}

// BreakerIn reads a breaker. One that was never written is closed; one that cannot be read is open: it is no permission.
func BreakerIn(kv KV) Breaker {
	d, err := Decode[Breaker](kv)
	if err != nil {
		return Breaker{Open: true, Cause: fmt.Sprintf("its record cannot be read: %v", err)}
	}
	return d.V
}

// Words say that it is open, and why.
func (b Breaker) Words() string {
	return fmt.Sprintf("the breaker is open since %s: %s", b.Since.UTC().Format("15:04:05"), b.Cause)
}

// Counts says whether a node counts towards opening the breaker now: it became unhealthy a short while ago, and after
// the last closing.
func (b Breaker) Counts(l BreakerLimit, u Unwell, now time.Time) bool {
	return u.Since.After(b.Closed) && now.Sub(u.Since) <= time.Duration(l.Within)
}

// InFleet says whether a node in a state counts as one of the fleet, of which the breaker takes its share.
func InFleet(s State) bool { return s != "" && s != Discovered && s != Retired }
