package sim

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/provisioner"
)

// bmcState is how a machine's controller behaves now. The acts are verified operations, so what is modelled is what
// package bmc makes of a controller that lies: it says so where the reads do not agree with the order.
type bmcState struct {
	cut     time.Duration // does not answer until then
	flaky   int           // every so many calls time out; 0: none
	calls   int
	stuck   time.Duration // says yes to power orders and does nothing, until then
	cached  time.Duration // tells a power state of the past, until then
	stale   bool          // that state: on
	reset   time.Duration // knows no account of ours until then
	swapped *machine      // its address leads to that machine's controller
	keeps   bool          // a boot override that is set stays for ever
	once    bool          // keeps no override for more than one boot
}

var (
	errSilent = errors.New("the controller does not answer")
	errFull   = errors.New("all its sessions are taken")
)

// Perform implements provisioner.Performer: an act begins, takes effect, and its result is seen, at three moments. The
// daemon may be killed between any two of them; what was sent is done all the same.
func (r *replica) Perform(ctx context.Context, v inventory.NodeView, a provisioner.Act) provisioner.Result {
	s := r.s
	m := s.byNode[v.ID]
	if m == nil {
		return provisioner.Result{Err: fmt.Errorf("no machine %s", v.ID)}
	}
	s.act("%s: %s begins for %s", r.name, a, m.name)
	if s.watch.act != nil {
		s.watch.act(r, m, a)
	}
	if s.cur.dead {
		return provisioner.Result{Err: ctx.Err()}
	}
	sent := s.chance(0.5) // should the daemon be killed now: is the request on its way?
	if !s.wait(s.between(20*time.Millisecond, 2*time.Second)) {
		if sent && !s.over() {
			s.seen["acts of a killed daemon"]++
			s.after(s.upTo(2*time.Second), func() { m.act(r, v, a) })
		}
		return provisioner.Result{Err: context.Canceled}
	}
	if err := provisioner.Allowed(ctx); err != nil {
		s.seen["acts that ended with the hold"]++
		return provisioner.Result{Power: "unknown", Err: err}
	}
	res, took := m.act(r, v, a)
	if s.maybe("act's result lost") {
		res = provisioner.Result{Power: "unknown", Err: fmt.Errorf("%s: unconfirmed: %w", a, errSilent)}
		took = max(took, 10*time.Second)
	}
	s.wait(took + s.between(10*time.Millisecond, time.Second))
	s.act("%s: %s of %s is seen: %v", r.name, a, m.name, res.Err)
	return res
}

// over says whether the run is over, and what is buried now is not a fault.
func (s *Sim) over() bool { return s.ending || s.err != nil }

// act is the moment at which an act takes effect on the machine that it reaches.
func (m *machine) act(r *replica, v inventory.NodeView, a provisioner.Act) (provisioner.Result, time.Duration) {
	s := m.s
	if !r.serves(v.ID) {
		s.seen["acts of an old term"]++
	}
	fail := func(err error, fatal bool, took time.Duration) (provisioner.Result, time.Duration) {
		return provisioner.Result{Power: "unknown", Err: err, Fatal: fatal}, took
	}
	switch a {
	case provisioner.FenceIsolate, provisioner.FenceProvide, provisioner.FenceAttach:
		return m.fence(v, a)
	}
	b := &m.bmc
	b.calls++
	switch {
	case b.swapped != nil: // its serial is read before every act
		if a == provisioner.ReadPower {
			return provisioner.Result{Power: word(b.swapped.power)}, time.Second
		}
		return fail(fmt.Errorf("the machine has serial %q, not %q: nothing was done", b.swapped.serial, m.serial), true, time.Second)
	case b.cut > s.mono || s.bmcDark > s.mono:
		return fail(errSilent, false, 10*time.Second)
	case b.reset > s.mono:
		return fail(errors.New("the login was refused"), true, time.Second)
	case b.flaky > 0 && b.calls%b.flaky == 0:
		s.fire("BMC times out")
		return fail(errSilent, false, 10*time.Second)
	case s.maybe("BMC sessions full"):
		return fail(errFull, false, time.Second)
	}
	s.act("%s takes effect on %s", a, m.name)
	switch a {
	case provisioner.ReadPower:
		return provisioner.Result{Power: m.told()}, time.Second
	case provisioner.PowerOff, provisioner.PowerCycle:
		m.mayPower(r, a)
		if b.stuck > s.mono {
			if s.chance(0.3) { // it does it after all, late
				s.fire("BMC obeys late")
				m.later(s.upTo(30*time.Second), func() {
					if m.power {
						m.mayPower(r, a)
						m.powerDown()
					}
				})
			}
			return fail(errors.New("set power off: unconfirmed: the controller said on when the time was up"), false, time.Minute)
		}
		m.powerDown()
		if m.told() == "on" {
			return fail(errors.New("set power off: unconfirmed: the controller said on when the time was up"), false, time.Minute)
		}
		if a == provisioner.PowerCycle {
			m.powerUp()
		}
	case provisioner.PowerOn:
		switch {
		case m.told() == "on": // not sent to a machine that is said to be on
		case b.stuck > s.mono:
			return fail(errors.New("set power on: unconfirmed: the controller said off when the time was up"), false, time.Minute)
		case !m.power:
			m.powerUp()
			if m.told() == "off" {
				return fail(errors.New("set power on: unconfirmed: the controller said off when the time was up"), false, time.Minute)
			}
		}
	case provisioner.BootNetwork:
		m.override, m.sticky = "network", b.keeps
		if b.keeps {
			s.fire("override stays")
		}
	case provisioner.BootDisk:
		m.mayPower(r, a)
		m.override, m.sticky = "", false
		if b.once {
			m.override = "disk"
			return provisioner.Result{Note: "asked for disk, persistent, it kept disk, once"}, time.Second
		}
		m.order = "disk"
	}
	s.check(m)
	return provisioner.Result{Power: m.told()}, 3 * time.Second
}

// told is the power state as the controller tells it.
func (m *machine) told() string {
	if m.bmc.cached > m.s.mono {
		return word(m.bmc.stale)
	}
	return word(m.power)
}

func word(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// fence moves the machine's port; what it says it did is read back.
func (m *machine) fence(v inventory.NodeView, a provisioner.Act) (provisioner.Result, time.Duration) {
	want, of := placeNone, ""
	switch a {
	case provisioner.FenceProvide:
		want = placeProvisioning
	case provisioner.FenceAttach:
		want, of = placeTenant, v.Claim.V.Instance
	}
	if m.s.maybe("fence does nothing") {
		if m.s.chance(0.3) {
			m.s.after(m.s.upTo(5*time.Second), func() { m.move(want, of) })
		}
		return provisioner.Result{Err: fmt.Errorf("fence: %s was accepted, but the port is %s", a, m.place)}, time.Second
	}
	m.move(want, of)
	return provisioner.Result{}, time.Second
}

func (m *machine) move(place, of string) {
	m.place, m.placeOf = place, of
	m.s.act("%s is on %s %s", m.name, place, of)
	m.s.check(m)
}

// serves says whether this replica holds the shard of a node, truly.
func (r *replica) serves(node string) bool {
	c := r.elector.Conds(node)[0]
	before := r.s.cur
	r.s.cur = nil
	kv, err := r.s.store.Get(bg, c.Key)
	r.s.cur = before
	r.s.must(err)
	return kv.Create == c.Create
}
