package provisioner

import (
	"context"
	"errors"
	"time"

	"github.com/hostler-project/hostler/inventory"
)

// A clock counts the time that deadlines may count: slices at whose start and end the store took writes, while this
// daemon was looking and no breaker was open. Everybody's deadline is measured by it, so it costs one number, and one
// probe of the store every few seconds while nothing is written anyway.
type clock struct {
	ran     time.Duration // all that has counted
	proof   time.Time     // up to here the store was known to take writes
	asked   time.Time     // the last probe
	awake   time.Time     // since when it has run without standing still
	halted  time.Time     // since when it stands still
	stopped string        // why it stands still; "" while it runs
}

const (
	probeEvery = 3 * time.Second
	longestGap = 2 * time.Minute // between two proofs: a daemon that was stopped for longer was not looking

	// blip is how long a standstill may be without patience beginning anew after it. Where one request in a hundred is
	// lost, a busy site has one a minute, and would never lose patience with a node that is gone.
	blip = 15 * time.Second
)

// took says that the store took a write now.
func (c *clock) took(now time.Time) {
	if c.stopped != "" {
		if c.stopped = ""; now.Sub(c.halted) >= blip {
			c.awake = now
		}
	} else if d := now.Sub(c.proof); d > 0 && !c.proof.IsZero() {
		c.ran += min(d, longestGap)
	}
	c.proof = now
}

// stop says that time does not count from the last proof on.
func (c *clock) stop(now time.Time, why string) {
	if c.stopped == "" {
		c.halted = now
	}
	c.stopped = why
}

// since is from when on deadlines have run, or, while they stand still, now.
func (c *clock) since(now time.Time) time.Time {
	if c.stopped != "" && now.Sub(c.halted) >= blip {
		return now
	}
	return c.awake
}

// result takes in what came of a write.
func (c *clock) result(now time.Time, err error) {
	switch {
	case err == nil:
		c.took(now)
	case errors.Is(err, inventory.ErrNoSpace):
		c.stop(now, "the store is full and takes no writes")
	case errors.Is(err, inventory.ErrUnavailable):
		c.stop(now, "the store takes no writes")
	}
}

// tick brings the clock up to now. timed is whether any deadline runs: without one
// nobody asks, but to see the end of a standstill.
func (l *Loop) tick(ctx context.Context, timed bool) {
	c, now := &l.clock, l.Now()
	if l.budget.breakerNow().Open {
		c.stop(now, "the breaker is open")
		c.halted = time.Time{} // however short: when it is closed, the present is judged
		return
	}
	if (timed || c.stopped != "") && now.Sub(c.proof) >= probeEvery && now.Sub(c.asked) >= probeEvery {
		c.asked = now
		err := inventory.Probe(ctx, l.Ledger.Store)
		c.result(l.Now(), err)
	}
}
