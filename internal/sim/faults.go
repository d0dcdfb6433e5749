package sim

import (
	"fmt"
	"strings"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/lifecycle"
)

// A Fault is one way in which the world fails. Those with a function come by themselves, every so often; the others are
// drawn where they can happen.
type Fault struct {
	Name  string
	ID    string // in reliability.md
	Often float64
	do    func(*Sim)
}

// Faults is the table of all that goes wrong. Often is how likely it is each time that it could happen, or, for those
// that come by themselves, its weight.
var Faults = []Fault{
	{"store slow", "F-11", 0.002, nil},
	{"answer lost", "F-06", 0.01, nil},
	{"request late", "F-06", 0.003, nil},
	{"request lost", "F-06", 0.01, nil},
	{"watch late", "F-16", 0.01, nil},
	{"watch merges", "F-16", 0.3, nil},
	{"watch repeats", "F-16", 0.05, nil},
	{"compacted under a watch", "F-10", 0, nil}, // comes of compaction
	{"compaction", "F-10", 4, (*Sim).compact},
	{"store away", "F-07", 1, func(s *Sim) { s.away = s.mono + s.between(time.Second, 3*time.Minute) }},
	{"store full", "F-08", 1, (*Sim).fill},

	{"hostlerd killed", "F-01", 4, (*Sim).killReplica},
	{"hostlerd paused", "F-03", 3, (*Sim).pauseReplica},
	{"clock wrong", "F-15", 0.2, nil},
	{"clock set", "F-15", 1, func(s *Sim) { s.someReplica(func(r *replica) { s.setClock(r) }) }},

	{"claim again", "F-17", 0.1, nil},
	{"claim again, another body", "F-17", 0.05, nil},
	{"confirm again", "F-17", 0.05, nil},
	{"confirm with another image", "F-17", 0.05, nil},
	{"client goes away", "F-17", 0.05, nil},
	{"never confirms", "F-17", 0.08, nil},
	{"release twice", "F-18", 0.1, nil},
	{"release of another's", "F-18", 0.05, nil},
	{"release while confirming", "F-18", 0.05, nil},

	{"stale report", "F-28", 0.02, nil},
	{"second redeemer", "F-28", 0.01, nil},
	{"answer to agent lost", "F-28", 0.02, nil},
	{"agent dies", "F-28", 0.015, nil},
	{"agent hangs", "F-28", 0.005, nil},
	{"agent silent", "F-28", 3, func(s *Sim) {
		s.someMachine(func(m *machine) { m.mute = s.mono + s.between(10*time.Second, 15*time.Minute) })
	}},
	{"machine resets", "F-28", 0.015, nil},
	{"agent tells fewer disks", "F-37", 0.01, nil},
	{"agent tells another serial", "F-37", 0.01, nil},
	{"agent claims without proof", "F-37", 0.02, nil},
	{"agent swaps serials", "F-37", 0.01, nil},
	{"image not read back", "F-27", 0.02, nil},
	{"hand-off fails", "F-37", 0.02, nil},
	{"test fails", "F-41", 0.03, nil},

	{"BMC times out", "F-30", 0, nil}, // comes of a flaky one
	{"BMC flaky", "F-30", 2, func(s *Sim) { s.someMachine(func(m *machine) { m.bmc.flaky = 2 + s.rng.IntN(5) }) }},
	{"BMC sessions full", "F-30", 0.01, nil},
	{"act's result lost", "F-30", 0.02, nil},
	{"BMC lies about power", "F-31", 2, func(s *Sim) {
		s.someMachine(func(m *machine) { m.bmc.stuck = s.mono + s.between(time.Minute, 10*time.Minute) })
	}},
	{"BMC obeys late", "F-31", 0, nil}, // comes of one that lies
	{"BMC tells the past", "F-31", 2, func(s *Sim) {
		s.someMachine(func(m *machine) { m.bmc.cached, m.bmc.stale = s.mono+s.between(30*time.Second, 5*time.Minute), m.power })
	}},
	{"override ignored", "F-32", 0.03, nil},
	{"override stays", "F-32", 0, nil}, // comes of one that keeps it
	{"BMC keeps overrides", "F-32", 2, func(s *Sim) { s.someMachine(func(m *machine) { m.bmc.keeps = true }) }},
	{"BMC keeps nothing", "F-32", 2, func(s *Sim) { s.someMachine(func(m *machine) { m.bmc.once = true }) }},
	{"BMC reset to factory", "F-35", 1, func(s *Sim) {
		s.someMachine(func(m *machine) { m.bmc.reset = s.mono + s.between(time.Minute, 20*time.Minute) })
	}},
	{"BMC cables swapped", "F-36", 1, (*Sim).swapCables},
	{"fence does nothing", "F-38", 0.02, nil},

	{"disk erases nothing", "F-39", 1, func(s *Sim) { s.someDisk(func(d *disk) { d.deaf = true }) }},
	{"disk dies", "F-39", 1, func(s *Sim) { s.someDisk(func(d *disk) { d.dying = true }) }},
	{"disk hides", "F-39", 1, (*Sim).hideDisk},
	{"disks exchanged", "F-39", 1, (*Sim).exchangeDisks},

	{"node vanishes", "F-42", 4, func(s *Sim) { s.someMachine(func(m *machine) { s.cutPower(m) }) }},
	{"node does not boot", "F-42", 1, func(s *Sim) { s.someMachine(func(m *machine) { m.dead = s.mono + s.between(time.Minute, time.Hour) }) }},
	{"tenant reboots", "F-42", 4, func(s *Sim) {
		s.someMachine(func(m *machine) {
			if m.runs == runsTenant {
				m.reset()
			}
		})
	}},
	{"all nodes vanish", "F-43", 0.3, (*Sim).blackout},
	{"monitoring network cut", "F-44", 0.5, func(s *Sim) { s.dark = s.mono + s.between(10*time.Second, 15*time.Minute) }},
	{"BMC network cut", "F-45", 0.5, func(s *Sim) { s.bmcDark = s.mono + s.between(10*time.Second, 15*time.Minute) }},

	{"wish quarantine", "F-46", 0.02, nil},
	{"wish abort", "F-46", 0.02, nil},
	{"wish maintain", "F-46", 0.02, nil},
	{"wish power", "F-46", 0.05, nil},
	{"wish of another time", "F-46", 0.02, nil},
	{"hold", "F-19", 0.04, nil},
	{"alert prevents allocation", "F-19", 0.04, nil},
	{"alert drains", "F-19", 0.04, nil},
	{"alert prevents transition", "F-19", 0.02, nil},
}

// drawFaults decides which faults this seed has, and how badly: what hides behind another is found by a seed without it.
func (s *Sim) drawFaults() {
	if s.p.Calm {
		return
	}
	for _, f := range Faults {
		if s.chance(0.7) {
			s.on[f.Name] = f.Often * (0.3 + 1.4*s.rng.Float64())
		}
	}
}

// maybe draws whether a fault happens here.
func (s *Sim) maybe(name string) bool {
	if !s.faulty || !s.chance(s.on[name]) {
		return false
	}
	s.fire(name)
	return true
}

func (s *Sim) fire(name string) {
	s.fired[name]++
	if !strings.HasPrefix(name, "watch") {
		s.note("fault: %s", name)
	}
}

// chaos has the faults happen that come by themselves.
func (s *Sim) chaos() {
	if !s.faulty {
		return
	}
	s.after(s.between(time.Second, 3*time.Minute), s.chaos)
	sum := 0.0
	for _, f := range Faults {
		if f.do != nil {
			sum += s.on[f.Name]
		}
	}
	x := s.rng.Float64() * sum
	for _, f := range Faults {
		if f.do == nil || s.on[f.Name] == 0 {
			continue
		}
		if x -= s.on[f.Name]; x <= 0 {
			s.fire(f.Name)
			f.do(s)
			return
		}
	}
}

func rowOf(st inventory.State) (lifecycle.State, bool) { return lifecycle.Get(st) }

func (s *Sim) someMachine(f func(*machine)) { f(s.machines[s.rng.IntN(len(s.machines))]) }

func (s *Sim) someDisk(f func(*disk)) {
	s.someMachine(func(m *machine) { f(m.disks[s.rng.IntN(len(m.disks))]) })
}

func (s *Sim) someReplica(f func(*replica)) {
	if len(s.replicas) > 0 {
		f(s.replicas[s.rng.IntN(len(s.replicas))])
	}
}

// setClock has a daemon's clock jump, and set right in the end.
func (s *Sim) setClock(r *replica) {
	r.skew = s.drawSkew()
	s.after(s.between(time.Minute, 2*time.Hour), func() { r.skew = 0 })
}

// drawSkew is how far a wall clock is off: an hour or ten years, either way.
func (s *Sim) drawSkew() time.Duration {
	d := []time.Duration{0, 0, time.Minute, time.Hour, 10 * 365 * 24 * time.Hour}[s.rng.IntN(5)]
	if s.chance(0.5) {
		d = -d
	}
	return d
}

func (s *Sim) killReplica() {
	s.someReplica(func(r *replica) {
		r.kill()
		s.after(s.between(3*time.Second, 2*time.Minute), func() { s.startReplica(r.id) })
	})
}

func (s *Sim) pauseReplica() {
	s.someReplica(func(r *replica) {
		r.paused = s.mono + s.between(time.Second, 5*time.Minute)
		s.act("%s is paused", r.name)
	})
}

func (s *Sim) swapCables() {
	s.someMachine(func(a *machine) {
		s.someMachine(func(b *machine) {
			if a != b && a.bmc.swapped == nil && b.bmc.swapped == nil {
				a.bmc.swapped, b.bmc.swapped = b, a
				s.after(s.between(time.Minute, 20*time.Minute), func() {
					if a.bmc.swapped == b {
						a.bmc.swapped, b.bmc.swapped = nil, nil
					}
				})
			}
		})
	})
}

// hideDisk has a disk not show for a while; a machine that runs keeps what it sees.
func (s *Sim) hideDisk() {
	s.someDisk(func(d *disk) {
		d.hidden = true
		s.after(s.between(time.Minute, 30*time.Minute), func() { d.hidden = false })
	})
}

// occupied says whether a machine is a tenant's: nobody takes disks out of such a one.
func (s *Sim) occupied(m *machine) bool {
	row, _ := rowOf(s.last[m.id].state.State)
	return row.Owned || s.instanceOf(m) != ""
}

// exchangeDisks puts two machines' second disks in each other's place while both are off.
func (s *Sim) exchangeDisks() {
	s.someMachine(func(a *machine) {
		s.someMachine(func(b *machine) {
			if a != b && !a.power && !b.power && !s.occupied(a) && !s.occupied(b) {
				a.disks[1], b.disks[1] = b.disks[1], a.disks[1]
				a.moved, b.moved = true, true
				s.act("disks of %s and %s are exchanged", a.name, b.name)
			}
		})
	})
}

// cutPower takes a machine's power away, and gives it back.
func (s *Sim) cutPower(m *machine) {
	was := m.power
	m.powerDown()
	s.act("%s loses its power", m.name)
	s.after(s.between(time.Second, 20*time.Minute), func() {
		if was && !m.power {
			s.act("%s has power again", m.name)
			m.powerUp()
		}
	})
}

// blackout takes all machines' power within ten seconds, and gives it back at once.
func (s *Sim) blackout() {
	back := s.mono + s.between(20*time.Second, 20*time.Minute)
	for _, m := range s.machines {
		s.after(s.upTo(10*time.Second), func() {
			was := m.power
			m.powerDown()
			s.after(back-s.mono, func() {
				if was && !m.power {
					m.powerUp()
				}
			})
		})
	}
}

// Table is what fired, as text.
func Table(fired map[string]int) string {
	var b strings.Builder
	for _, f := range Faults {
		fmt.Fprintf(&b, "  %-6s %-28s %9d\n", f.ID, f.Name, fired[f.Name])
	}
	return b.String()
}
