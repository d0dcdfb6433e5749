package sim

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/ledger"
)

// A renter is a rental layer of one tenant: it claims, confirms and releases, as often as it likes, and believes what it
// was told.
type renter struct {
	s      *Sim
	tenant string
	n      int
	held   []*holding
	over   []*holding
	most   int // of what it holds
	pace   int // the more, the faster
}

// A holding is one reservation as its renter knows it.
type holding struct {
	id      string
	node    string // as it was told
	want    string // the node that it asked for
	asked   time.Duration
	until   time.Duration
	never   bool // it never confirms
	confirm bool
}

const image = "sha256:image"

// tick does one thing, and comes again.
func (r *renter) tick() {
	s := r.s
	if s.ending {
		return
	}
	s.after(s.between(time.Second, 25*time.Second/time.Duration(1+r.pace/4)), r.tick)
	for _, h := range append([]*holding{}, r.held...) {
		switch {
		case h.node == "" && s.mono > h.asked+time.Minute: // nobody answered: the same again
			r.claim(h, "gpu", h.want)
			return
		case h.node == "":
		case s.mono > h.until && !h.never:
			r.release(h)
			return
		case !h.confirm && !h.never:
			r.confirm(h)
			return
		}
	}
	switch {
	case len(r.held) > 0 && s.maybe("claim again"):
		r.claim(r.held[s.rng.IntN(len(r.held))], "gpu", "")
	case len(r.held) > 0 && s.maybe("claim again, another body"):
		r.claim(r.held[s.rng.IntN(len(r.held))], "other", "")
	case len(r.held) > 0 && s.maybe("confirm again"):
		r.confirm(r.held[s.rng.IntN(len(r.held))])
	case len(r.over) > 0 && s.maybe("release twice"):
		r.release(r.over[s.rng.IntN(len(r.over))])
	case s.maybe("release of another's") && len(s.renters[0].held) > 0:
		h := *s.renters[0].held[0]
		r.as(func() error {
			_, err := s.led.Release(bg, r.tenant+"x", h.id, r.tenant, "")
			if err == nil {
				s.fail("tenant %sx released reservation %s of %s", r.tenant, h.id, s.renters[0].tenant)
			}
			return err
		})
	case len(r.held) > 0 && s.maybe("release while confirming"):
		h := r.held[s.rng.IntN(len(r.held))]
		r.confirm(h)
		r.release(h)
	case len(r.held) > 0 && s.chance(0.05):
		h := r.held[s.rng.IntN(len(r.held))]
		r.as(func() error {
			_, err := s.led.Renew(bg, r.tenant, h.id, 10*time.Minute)
			return err
		})
	case len(r.held) < r.most && (s.anyReady() || s.chance(0.1)): // it watches what is offered
		r.n++
		h := &holding{id: fmt.Sprintf("%s-%d", r.tenant, r.n), never: s.maybe("never confirms")}
		r.held = append(r.held, h)
		if s.chance(0.2) {
			h.want = s.machines[s.rng.IntN(len(s.machines))].id
		}
		r.claim(h, "gpu", h.want)
	}
}

// anyReady says whether a node can be had, as the public records tell.
func (s *Sim) anyReady() bool {
	return slices.ContainsFunc(s.machines, func(m *machine) bool { return s.last[m.id].state.State == inventory.Ready })
}

// as makes a call of the API; its client may go away in the middle.
func (r *renter) as(call func() error) {
	s := r.s
	a := &actor{name: r.tenant}
	if s.maybe("client goes away") {
		s.after(s.upTo(30*time.Millisecond), func() { s.bury(a) })
	}
	s.spawn(a, 0, func() {
		err := call()
		var refused *ledger.Refusal
		switch {
		case s.cur.dead, err == nil, errors.As(err, &refused), errors.Is(err, inventory.ErrUnavailable), errors.Is(err, inventory.ErrNoSpace), errors.Is(err, ledger.ErrConflict):
		default:
			s.fail("%s was told: %v", r.tenant, err)
		}
	})
}

func (r *renter) claim(h *holding, sku, node string) {
	s := r.s
	h.asked = s.mono
	r.as(func() error {
		res, err := s.led.Claim(bg, ledger.ClaimRequest{Tenant: r.tenant, Reservation: h.id, SKU: sku, Node: node, Hold: s.between(time.Minute, 10*time.Minute), Actor: r.tenant})
		var refused *ledger.Refusal
		switch {
		case s.cur.dead:
		case err == nil && h.node != "" && res.Node != h.node:
			s.fail("reservation %s of %s was node %s, and now is %s", h.id, r.tenant, h.node, res.Node)
		case err == nil && h.node == "":
			h.node, h.until = res.Node, s.mono+s.between(30*time.Second, 8*time.Minute)
			s.act("%s has %s under %s", r.tenant, s.called(res.Node), h.id)
		case errors.As(err, &refused) && h.node == "":
			r.drop(h)
		}
		return err
	})
}

func (r *renter) confirm(h *holding) {
	s := r.s
	img := image
	if s.maybe("confirm with another image") {
		img = "sha256:other"
	}
	r.as(func() error {
		in, err := s.led.Confirm(bg, ledger.ConfirmRequest{Tenant: r.tenant, Reservation: h.id, Image: img, ImageName: "debian", SeedHash: "seed", Sealed: []byte("sealed"), Actor: r.tenant})
		var refused *ledger.Refusal
		switch {
		case s.cur.dead:
		case err == nil:
			h.confirm, h.never = true, false
			s.act("%s confirmed %s: %s", r.tenant, h.id, in.ID)
		case errors.As(err, &refused) && !h.confirm && img == image:
			h.confirm, h.until = true, 0 // what it was confirmed with, if it was, is not what was wanted: given back
		}
		return err
	})
}

func (r *renter) release(h *holding) {
	s := r.s
	r.as(func() error {
		_, err := s.led.Release(bg, r.tenant, h.id, r.tenant, "done with it")
		var refused *ledger.Refusal
		if !s.cur.dead && (err == nil || errors.As(err, &refused)) {
			s.act("%s released %s", r.tenant, h.id)
			r.drop(h)
		}
		return err
	})
}

// drop forgets a holding that is over, but for a few that are released again.
func (r *renter) drop(h *holding) {
	for i, o := range r.held {
		if o == h {
			r.held = append(r.held[:i:i], r.held[i+1:]...)
			if r.over = append(r.over, h); len(r.over) > 20 {
				r.over = r.over[1:]
			}
			return
		}
	}
}
