package bmc

import (
	"context"
	"testing"
	"time"

	"github.com/hostler-project/hostler/bmc/bmctest"
)

// A fake is bmctest's controller, opened by a test.
type fake struct{ bmctest.Fake }

func startFake(t testing.TB, f *fake) *fake {
	t.Helper()
	if err := f.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

func (f *fake) target() Target {
	return Target{Addr: f.Addr, User: simUser, Password: simPassword}
}

func (f *fake) open(t testing.TB, p pace) *Controller {
	t.Helper()
	c, err := open(t.Context(), f.target(), nil, p, &logins{now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}
