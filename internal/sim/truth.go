package sim

import (
	"fmt"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/lifecycle"
	"github.com/hostler-project/hostler/provisioner"
)

// lastSeen is a node's record as of the newest revision, as far as the truth is compared with it.
type lastSeen struct {
	state inventory.NodeState
	claim inventory.Claim // of nobody: zero
}

// act is something that was done: it goes into the hash and the trace.
func (s *Sim) act(format string, a ...any) {
	fmt.Fprintf(s.hash, format+"\n", a...)
	s.note(format, a...)
}

// recorded takes in what a revision says, and looks whether it is true.
func (s *Sim) recorded(b inventory.Batch) {
	if s.watch.revision != nil {
		s.watch.revision(b)
	}
	touched := []string{}
	for _, e := range b.Events {
		if s.p.Log {
			s.note("revision %d: %s %v", e.KV.Mod, e.KV.Key, e.Deleted)
		}
		p := inventory.Parts(e.KV.Key)
		switch {
		case len(p) == 3 && p[0] == "nodes" && p[2] == "state":
			d, err := inventory.Decode[inventory.NodeState](e.KV)
			s.must(err)
			l := s.last[p[1]]
			if l.state.State != d.V.State || l.state.Work.Phase != d.V.Work.Phase {
				s.note("%s is %s %s: %s", s.called(p[1]), d.V.State, d.V.Work.Phase, d.V.Reason)
			}
			l.state = d.V
			s.last[p[1]] = l
		case len(p) == 3 && p[0] == "nodes" && p[2] == "spec":
			d, err := inventory.Decode[inventory.Spec](e.KV)
			s.must(err)
			for _, m := range s.machines {
				if len(d.V.MACs) > 0 && d.V.MACs[0] == m.mac {
					m.id = p[1]
					s.byNode[m.id] = m
				}
			}
		case len(p) == 2 && p[0] == "claims":
			l := s.last[p[1]]
			l.claim = inventory.Claim{}
			if !e.Deleted {
				d, err := inventory.Decode[inventory.Claim](e.KV)
				s.must(err)
				l.claim = d.V
			}
			s.last[p[1]] = l
		default:
			continue
		}
		touched = append(touched, p[1])
	}
	for _, id := range touched {
		if m := s.byNode[id]; m != nil {
			s.check(m)
		}
	}
}

func (s *Sim) called(node string) string {
	if m := s.byNode[node]; m != nil {
		return m.name
	}
	return node
}

// instanceOf is whose tenancy a machine's node is in now.
func (s *Sim) instanceOf(m *machine) string { return s.last[m.id].claim.Instance }

// check compares the truth of one machine with its record.
func (s *Sim) check(m *machine) {
	l, known := s.last[m.id]
	if !known {
		return
	}
	st := l.state
	for _, d := range m.disks {
		switch {
		case m.moved: // by hand, and nobody can know of it yet; what a tenant enters is looked at then
		case st.State == inventory.Ready || st.State == inventory.Reserved:
			if d.data != "" {
				s.fail("%s is %s, and disk %s holds the data of %s", m.name, st.State, d.m.Serial, d.data)
			}
		case st.State == inventory.Provisioning || st.State == inventory.InUse:
			if d.data != "" && d.data != l.claim.Instance {
				s.fail("%s is %s for %s, and disk %s holds the data of %s", m.name, st.State, l.claim.Instance, d.m.Serial, d.data)
			}
		}
	}
	if m.runs == runsTenant && l.claim.Instance != "" && l.claim.Instance != m.inst {
		s.fail("%s runs the system of %s, and is claimed for %s", m.name, m.inst, l.claim.Instance)
	}
	if m.runs == runsTenant && m.place == placeTenant && l.claim.Instance != m.placeOf {
		s.fail("%s runs the system of %s on the network of %s, and the claim on it is of %q", m.name, m.inst, m.placeOf, l.claim.Instance)
	}
}

// mayPower is asked when an act takes a machine's power or its boot order away.
func (m *machine) mayPower(r *replica, a provisioner.Act) {
	st := m.s.last[m.id].state
	if row, _ := lifecycle.Get(st.State); row.Owned && m.runs == runsTenant {
		m.s.fail("%s is %s, its tenant's system runs, and %s of %s hits it", m.name, st.State, a, r.name)
	}
}

// duty is asked before an agent destroys anything: whose data would be lost?
func (m *machine) duty(o inventory.Order) {
	if o.Kind != inventory.OrderSanitize && o.Kind != inventory.OrderWrite {
		return
	}
	l := m.s.last[m.id]
	row, _ := lifecycle.Get(l.state.State)
	for _, d := range m.disks {
		if row.Owned && d.data != "" && d.data == l.claim.Instance {
			m.s.fail("%s is %s, and %s would erase the data of %s, whose claim is live", m.name, l.state.State, o.ID, d.data)
		}
	}
}
