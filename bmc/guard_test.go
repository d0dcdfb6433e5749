package bmc

import (
	"context"
	"errors"
	"testing"
)

// A caller that loses its right to act in the middle sends nothing more: no order, and no look either.
func TestGuardIsAskedBeforeEveryDatagram(t *testing.T) {
	gone := errors.New("replaced")
	for _, c := range []struct {
		name   string
		asks   int // after so many it says no
		orders int
	}{
		{"never", 1 << 30, 1},
		{"from the start", 0, 0},
		{"after the looks", 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := startFake(t, &fake{})
			ctl := f.open(t, quick())
			asked := 0
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ctx = Guard(ctx, func() error {
				if asked++; asked > c.asks {
					cancel()
					return gone
				}
				return nil
			})
			err := ctl.SetPower(ctx, On)
			if (err == nil) != (c.orders > 0) || err != nil && !errors.Is(err, gone) && !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
			f.Do(func() {
				if len(f.Orders) != c.orders {
					t.Errorf("the machine was ordered %d times, want %d", len(f.Orders), c.orders)
				}
				if f.Logins != 1 {
					t.Errorf("%d logins: a refusal of ours is no reason for another", f.Logins)
				}
			})
		})
	}
}
