package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"
)

// A clock is what TLS judges validity by. A server's own clock may be years off, so until the daemon has told the time
// over TLS, a time that nobody vouches for is used for judging certificates only: the Date of the plain HTTP port, or
// when the session was made. The system's clock is set from what the daemon says under its pinned CA, never from that.
type clock struct {
	set func(time.Time) error
	log *slog.Logger

	mu    sync.Mutex
	base  time.Time
	since time.Time // monotonic
}

// aside is how far the system's clock may be off before it is set.
const aside = time.Second

func newClock(ctx context.Context, s session, set func(time.Time) error, log *slog.Logger) *clock {
	c := &clock{set: set, log: log, base: time.Now(), since: time.Now()}
	if t, err := serverDate(ctx, s.HTTP); err == nil {
		c.base = t
	} else if !s.Now.IsZero() {
		c.base = s.Now
		log.Info("the server's time is not known yet, using the session's", "err", err)
	} else {
		log.Warn("the server's time is not known, using this machine's", "err", err)
	}
	return c
}

// Now is the best time known.
func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.base.Add(time.Since(c.since)).Round(0)
}

// Trust takes the daemon's word, sent under its pinned CA, and sets the system's clock.
func (c *clock) Trust(now time.Time) {
	if now.IsZero() {
		return
	}
	c.mu.Lock()
	c.base, c.since = now, time.Now()
	c.mu.Unlock()
	if off := time.Since(now).Abs(); off > aside {
		if err := c.set(now); err != nil {
			c.log.Warn("the clock could not be set", "err", err)
			return
		}
		c.log.Info("the clock was set", "by", off.Round(time.Second))
	}
}

func serverDate(ctx context.Context, base string) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, base, nil)
	if err != nil {
		return time.Time{}, err
	}
	hc := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := hc.Do(req)
	if err != nil {
		return time.Time{}, err
	}
	resp.Body.Close()
	t, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		return t, fmt.Errorf("%s sends no date", base)
	}
	return t, nil
}
