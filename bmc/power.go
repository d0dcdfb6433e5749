package bmc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bougou/go-ipmi/pkg/types"
)

// SetPower brings the machine to a power state and returns when several reads
// in a row say that it is there: it looks, acts, and observes. It may be
// repeated at any time and never toggles.
//
// Off is always sent, even to a machine that is said to be off: some
// controllers answer from a cache a minute old, and a machine wrongly taken for
// off still runs its tenant's programs. On is not sent to a machine that is on;
// one wrongly taken for on is noticed by its silence.
//
// An *Error with Unconfirmed says that the order went out and the reads never
// agreed; ctx's deadline bounds the wait, and so does a minute.
func (c *Controller) SetPower(ctx context.Context, want Power) error {
	op := "set power " + string(want)
	if want != On && want != Off {
		return &Error{Op: "set power", Addr: c.target.Addr, Err: fmt.Errorf("%q is neither on nor off", want)}
	}
	ctx, cancel := context.WithTimeout(ctx, c.pace.settle)
	defer cancel()
	if err := c.expected(ctx, op); err != nil {
		return err
	}

	state, err := c.Power(ctx)
	if err != nil {
		return err // nothing was sent
	}
	var (
		sent   int       // orders sent
		last   time.Time // when the latest was
		agreed int       // reads in a row that say want, since then
		known  = state   // what the controller said last
		cause  error     // what has gone wrong since
	)
	for {
		if state == want {
			agreed++
		} else {
			agreed = 0
		}
		first := sent == 0 && (want == Off || state != want)
		again := sent > 0 && sent < c.pace.acts && state != want && time.Since(last) >= c.pace.again
		if first || again {
			c.log.Debug("power order", "power", want, "was", state, "try", sent+1)
			err := c.order(ctx, want)
			sent, last = sent+1, time.Now()
			if needless(err) && state == want {
				err = nil
			}
			if err != nil {
				refusal, _ := errors.AsType[*Error](err)
				if refusal == nil || !refusal.Temporary {
					if refusal != nil {
						refusal.Unconfirmed = sent > 1
					}
					return err
				}
				cause = err // perhaps it was obeyed all the same
			}
			agreed = 0 // what was read before the order proves nothing
		} else if agreed >= c.pace.agree {
			return nil
		}

		select {
		case <-time.After(c.pace.space):
		case <-ctx.Done():
		}
		if ctx.Err() == nil {
			state, err = c.Power(ctx)
		}
		switch failure, _ := errors.AsType[*Error](err); {
		case ctx.Err() != nil:
			return c.unconfirmed(op, sent > 0, known, cause)
		case err == nil:
			known, cause = state, nil
		case failure == nil || !failure.Temporary:
			return c.unconfirmed(op, sent > 0, known, err)
		default:
			cause = err
		}
	}
}

// order sends one power order through bmclib.
func (c *Controller) order(ctx context.Context, want Power) error {
	return c.ask(ctx, "set power "+string(want), func(ctx context.Context) error {
		_, err := c.lib.SetPowerState(ctx, string(want))
		return err
	})
}

// needless tells whether err is a controller's way to say that the machine is
// in the wanted state already (IPMI v2.0 table 5-2, D5h).
func needless(err error) bool {
	code, ok := types.IsResponseError(err)
	return ok && code.CompletionCode() == types.CodeNotSupported
}

// unconfirmed is the error of an order whose outcome is not settled, or of one
// that was not sent in time.
func (c *Controller) unconfirmed(op string, sent bool, known Power, cause error) error {
	e := &Error{
		Op: op, Addr: c.target.Addr, Temporary: !sent, Unconfirmed: sent,
		Err:  fmt.Errorf("the controller said %s when the time was up", known),
		Hint: "look at the machine, and pull its power if it must be off",
	}
	if failure, ok := errors.AsType[*Error](cause); ok {
		e.Err = fmt.Errorf("the controller last said %s, then: %w", known, failure.Err)
		e.Credentials = failure.Credentials
	}
	if f := c.drv.chassis(); f != "" {
		e.Hint = f + "; " + e.Hint
	}
	return e
}
