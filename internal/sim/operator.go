package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/hostler-project/hostler/inventory"
)

// operator is a person who does one thing, and comes again: mends what is quarantined, and now and then meddles.
func (s *Sim) operator() {
	if s.ending {
		return
	}
	s.after(s.between(time.Second, time.Minute/time.Duration(1+len(s.machines)/4)), s.operator)
	if s.chance(0.1) {
		s.lookAtBreaker()
	}
	m := s.machines[s.rng.IntN(len(s.machines))]
	if m.id == "" {
		return
	}
	switch st := s.last[m.id].state; {
	case st.State == inventory.Quarantined || st.State == inventory.Maintenance:
		if s.chance(0.8) {
			s.mend(m)
		}
		s.wish(m, inventory.WishReturn, "")
	case st.State == inventory.Discovered && m.unknown:
		s.adopt(m)
	case s.maybe("wish quarantine"):
		s.wish(m, inventory.WishQuarantine, "")
	case s.maybe("wish abort"):
		s.wish(m, inventory.WishAbort, "")
	case s.maybe("wish maintain"):
		s.wish(m, inventory.WishMaintain, "")
	case s.maybe("wish power"):
		s.wish(m, inventory.WishPower, []string{"on", "off", "cycle"}[s.rng.IntN(3)])
	case s.maybe("wish of another time"):
		s.wishOf(m, inventory.WishQuarantine, "", st.Generation-1)
	case s.maybe("hold"):
		s.hold(m)
	case s.maybe("alert prevents allocation"):
		s.alert(m, inventory.PreventAllocation)
	case s.maybe("alert drains"):
		s.alert(m, inventory.DrainNow)
	case s.maybe("alert prevents transition"):
		s.alert(m, inventory.PreventTransition)
	}
}

// lookAtBreaker is a person who finds the breaker open, looks at what is wrong, and closes it.
func (s *Sim) lookAtBreaker() {
	if s.nobody {
		return
	}
	s.spawn(s.api, 0, func() {
		if _, err := s.led.CloseBreaker(bg, "kim", "looked at"); err == nil {
			s.seen["breaker closed by a person"]++
		}
	})
}

func (s *Sim) wish(m *machine, verb, arg string) {
	s.wishOf(m, verb, arg, s.last[m.id].state.Generation)
}

func (s *Sim) wishOf(m *machine, verb, arg string, generation int64) {
	s.act("a person wants: %s %s %s", verb, arg, m.name)
	now, id := s.apiClock(), s.ulid()
	s.spawn(s.api, 0, func() {
		_, _ = s.put(inventory.Encode(inventory.KeyWish(m.id, id), inventory.Wish{Schema: 1, ID: id, Node: m.id, Verb: verb, Arg: arg, Actor: "kim",
			Generation: generation, Created: now, Expires: now.Add(time.Hour)})) // a wish that is not written is made again
	})
}

// adopt says what a machine is that showed up by itself, and approves it.
func (s *Sim) adopt(m *machine) {
	s.spawn(s.api, 0, func() {
		v, ok := s.fresh(m)
		sp := v.Spec.V
		sp.Name, sp.Serial, sp.SKU, sp.BMC.Addr = m.name, m.serial, "gpu", "bmc-"+m.name
		if ok && s.led.Edit(bg, v, sp) == nil {
			s.wish(m, inventory.WishApprove, "")
		}
	})
}

// fresh reads a node as the API does, whole or not at all.
func (s *Sim) fresh(m *machine) (inventory.NodeView, bool) {
	r := &inventory.Read{Ctx: bg, Store: s.store}
	v := inventory.View(r, m.id)
	return v, r.Err == nil && v.State.Exists()
}

// hold puts a hold on a node for a while.
func (s *Sim) hold(m *machine) {
	edit := func(f func(*inventory.Spec)) {
		s.spawn(s.api, 0, func() {
			for {
				v, ok := s.fresh(m)
				sp := v.Spec.V
				f(&sp)
				if ok && s.led.Edit(bg, v, sp) == nil || !s.wait(time.Second) {
					return
				}
			}
		})
	}
	edit(func(sp *inventory.Spec) {
		sp.Holds = []inventory.Hold{{Kind: "cordon", Reason: "looked at", Actor: "kim", Since: start.Add(s.mono)}}
	})
	s.after(s.between(10*time.Second, 10*time.Minute), func() { edit(func(sp *inventory.Spec) { sp.Holds = nil }) })
}

// alert raises an alert of a class for a while, as health is to write it: what blocks takes the offer away with it.
func (s *Sim) alert(m *machine, class string) {
	write := func(alerts []inventory.Alert) {
		s.spawn(s.api, 0, func() {
			for {
				avail, err := s.store.Get(bg, inventory.KeyAvail(m.id))
				op, err2 := inventory.Encode(inventory.KeyHealth(m.id, "bmc"), inventory.HealthReport{Schema: 1, Source: "bmc", Observed: start.Add(s.mono), Alerts: alerts})
				s.must(err2)
				if err == nil {
					t := inventory.Txn{If: []inventory.Cond{inventory.Unchanged(avail)}, Then: []inventory.Op{op}}
					t.If[0].Key = inventory.KeyAvail(m.id)
					if avail.Exists() && len(alerts) > 0 {
						t.Then = append(t.Then, inventory.Delete(avail.Key))
					}
					if r, err := s.store.Commit(bg, t); err == nil && r.Done {
						return
					}
				}
				if !s.wait(time.Second) {
					return
				}
			}
		})
	}
	write([]inventory.Alert{{ID: "A1", Since: start.Add(s.mono), Classes: []string{class}, What: "a fan is slow"}})
	s.after(s.between(10*time.Second, 5*time.Minute), func() { write(nil) })
}

// mend is a technician at the machine: disks in their places, cables and accounts as they should be.
func (s *Sim) mend(m *machine) {
	for _, d := range m.disks {
		d.hidden, d.deaf, d.dying = false, false, false
	}
	if o := m.bmc.swapped; o != nil {
		m.bmc.swapped, o.bmc.swapped = nil, nil
	}
	m.bmc = bmcState{}
	m.dead, m.mute = 0, 0
}

// settle stops the faults, has everything mended, and looks whether every node comes to rest, and to ready in the end.
func (s *Sim) settle() {
	s.act("the faults stop")
	s.faulty, s.ending = false, true
	s.away, s.dark, s.bmcDark = 0, 0, 0
	s.store.SetFull(false)
	for _, r := range s.replicas {
		r.paused, r.skew = min(r.paused, s.mono), 0
	}
	if len(s.replicas) == 0 {
		s.startReplica("host 1")
	}
	for _, m := range s.machines {
		s.mend(m)
		m.sticky = false
		if !slices.Equal(m.disks, m.own) { // nobody moves a disk in a machine that runs
			m.powerDown()
			for i, d := range m.own {
				if m.disks[i] != d && s.occupied(m) {
					d.data = "" // what is put into a tenant's machine is empty
				}
			}
			copy(m.disks, m.own)
			m.moved = true
		}
		if m.id != "" {
			_, err := s.put(inventory.Encode(inventory.KeyHealth(m.id, "bmc"), inventory.HealthReport{Schema: 1, Source: "bmc", Observed: start.Add(s.mono)}))
			s.must(err)
		}
	}
	s.until(26*time.Hour, "come to rest", s.resting)
	// Somebody looks at all that is quarantined; nothing is wrong with it any more.
	wanted := map[string]time.Duration{}
	s.until(12*time.Hour, "be ready or a tenant's", func() string {
		for _, m := range s.machines {
			st := s.last[m.id].state
			switch st.State {
			case inventory.Quarantined, inventory.Maintenance:
				if s.foreign(m) {
					continue
				}
				if t, asked := wanted[m.id]; !asked || s.mono-t > 10*time.Minute {
					wanted[m.id] = s.mono
					s.wish(m, inventory.WishReturn, "")
				}
			case inventory.Discovered:
				if t, asked := wanted[m.id]; m.id != "" && (!asked || s.mono-t > 10*time.Minute) {
					wanted[m.id] = s.mono
					if m.unknown {
						s.adopt(m)
					} else {
						s.wish(m, inventory.WishApprove, "") // approve: auto takes no machine that is on
					}
				}
			case inventory.Ready, inventory.InUse:
				continue
			}
			return s.says(m)
		}
		return ""
	})
}

// foreign says whether a node's record calls for a medium that is none of the machine's: it was seen in it by a mistake of
// cables or by an agent that lied, and what became of a medium that is gone is not for this version to record.
func (s *Sim) foreign(m *machine) bool {
	v, ok := s.fresh(m)
	return ok && slices.ContainsFunc(v.Facts.V.MediaEver, func(ever inventory.Medium) bool {
		return !slices.ContainsFunc(m.own, func(d *disk) bool { return d.m.Key() == ever.Key() })
	})
}

// until lets time pass until what is asked has no complaint left.
func (s *Sim) until(limit time.Duration, what string, complaint func() string) {
	end := s.mono + limit
	next := s.mono
	for s.err == nil {
		if s.mono >= next {
			next = s.mono + 10*time.Second
			if complaint() == "" {
				return
			}
			s.lookAtBreaker()
			if s.mono > end {
				s.fail("after %v without a fault a node does not %s: %s", limit, what, complaint())
			}
		}
		if !s.step() {
			s.fail("nothing happens any more")
		}
	}
}

// resting says which node is not in a resting place or its tenant's, or is one about which the reconciler has no words.
func (s *Sim) resting() string {
	for _, m := range s.machines {
		if row, ok := rowOf(s.last[m.id].state.State); m.id == "" && !m.unknown || m.id != "" && (!ok || !row.Rest) {
			return s.says(m)
		}
	}
	for _, m := range s.machines { // this costs more: only when all rest
		if r := s.server(m.id); m.id != "" && (r == nil || r.loop.Live(m.id).Say == "") {
			return "the reconciler has nothing to say of " + m.name
		}
	}
	return ""
}

func (s *Sim) says(m *machine) string {
	st := s.last[m.id].state
	say := "no replica serves"
	if r := s.server(m.id); r != nil && m.id != "" {
		say = r.loop.Live(m.id).Say
	}
	return fmt.Sprintf("%s is %s %s (%s); %q; the machine: power %v, runs %q, place %s", m.name, st.State, st.Work.Phase, st.Reason, say, m.power, m.runs, m.place)
}
