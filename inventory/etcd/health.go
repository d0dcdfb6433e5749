package etcd

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// How often members are asked, and how long one may take. gRPC's own keepalive notices a member that is frozen, or whose
// answers are lost, after fifteen seconds at the earliest; until then every third call would wait for it in vain.
const (
	askEvery = 250 * time.Millisecond
	askLimit = time.Second
)

// errSilent ends what is under way when a member falls silent: it may hang on that one.
var errSilent = errors.New("an etcd member fell silent")

// A health keeps calls and watches away from members that do not answer. Each member is asked on a connection of its own
// by a linearizable read, so that one cut off from its peers counts as silent too. Where none answers, all stay in use:
// whoever comes back first is heard.
type health struct {
	s       *Store
	members []string

	mu     sync.Mutex
	silent map[string]bool
	turn   context.Context // of what began since a member last fell silent
	end    context.CancelCauseFunc
}

// watchMembers asks until the store is closed. A lone member has nobody to be replaced by.
func (s *Store) watchMembers(cfg clientv3.Config) {
	h := &health{s: s, members: cfg.Endpoints, silent: map[string]bool{}}
	h.turn, h.end = context.WithCancelCause(s.client.Ctx())
	s.health = h
	if len(cfg.Endpoints) < 2 {
		return
	}
	for _, m := range h.members {
		go h.ask(s.client.Ctx(), m, cfg)
	}
}

// bound gives a call its deadline, and ends it when a member falls silent.
func (s *Store) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, timeout := context.WithTimeout(ctx, s.timeout)
	ctx, stop := s.health.until(ctx)
	return ctx, func() { stop(); timeout() }
}

// until is a context that ends when a member falls silent.
func (h *health) until(ctx context.Context) (context.Context, context.CancelFunc) {
	h.mu.Lock()
	turn := h.turn
	h.mu.Unlock()
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(turn, func() { cancel(context.Cause(turn)) })
	return ctx, func() { stop(); cancel(nil) }
}

// ask asks one member, for ever.
func (h *health) ask(ctx context.Context, member string, cfg clientv3.Config) {
	cfg.Endpoints = []string{member}
	c, err := clientv3.New(cfg)
	if err != nil {
		h.s.log.Warn("etcd member cannot be watched", "endpoint", member, "err", err)
		return
	}
	defer c.Close()
	for {
		one, cancel := context.WithTimeout(ctx, askLimit)
		_, err := c.Get(one, "health", clientv3.WithKeysOnly())
		cancel()
		if ctx.Err() != nil {
			return
		}
		h.heard(member, err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(askEvery):
		}
	}
}

// heard notes whether a member answered, and gives the client those that do.
func (h *health) heard(member string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if silent := err != nil; silent == h.silent[member] {
		return
	}
	h.silent[member] = err != nil
	use := slices.DeleteFunc(slices.Clone(h.members), func(m string) bool { return h.silent[m] })
	if len(use) == 0 {
		use = h.members
	}
	now := h.s.client.Endpoints()
	if slices.Equal(now, use) {
		return
	}
	h.s.log.Info("etcd members in use", "endpoints", use, "changed", member, "err", err)
	h.s.client.SetEndpoints(use...)
	// What hangs on a member that is left out goes elsewhere: also when that one was in use only because none answered.
	if slices.ContainsFunc(now, func(m string) bool { return !slices.Contains(use, m) }) {
		h.end(errSilent)
		h.turn, h.end = context.WithCancelCause(h.s.client.Ctx())
	}
}
