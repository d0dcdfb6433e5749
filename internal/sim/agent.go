package sim

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/provisioner"
)

// An agent is our program in one boot of one machine.
type agent struct {
	session, token string
	boot           string
	redeemed       bool
	order          inventory.Order
	inst           string // for whom it writes
	fit            bool   // the media were those that were erased when it began
	working        bool
	turn           int // of its reports: one question at a time
	done           map[string]inventory.Report
}

// issuer makes certificates of which nobody here reads anything: what an agent may is in its session's record.
type issuer struct{}

// Issue implements agentapi.Issuer.
func (issuer) Issue(_ *x509.CertificateRequest, session, node string, generation int64, _ time.Time) ([]byte, error) {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: fmt.Appendf(nil, "%s %s %d", session, node, generation)}), nil
}

// Pool implements agentapi.Issuer.
func (issuer) Pool() *x509.CertPool { return x509.NewCertPool() }

// request is a certificate request for a key that a word decides.
func request(word string) []byte {
	sum := sha256.Sum256([]byte(word))
	der, err := x509.CreateCertificateRequest(nil, &x509.CertificateRequest{}, ed25519.NewKeyFromSeed(sum[:]))
	if err != nil {
		panic(err) // of constants
	}
	return der
}

// startAgent is the service OS coming up.
func (m *machine) startAgent(session, token string) {
	a := &agent{session: session, token: token, boot: fmt.Sprintf("%s-boot-%d", m.name, m.boot), done: map[string]inventory.Report{}}
	m.agent, m.runs = a, runsAgent
	if m.s.maybe("second redeemer") {
		m.redeem(&agent{session: session, token: token, boot: "thief"}, "a thief of "+session)
	}
	m.redeem(a, a.boot)
}

// redeem trades the token for a certificate; the same key asks again until it has an answer.
func (m *machine) redeem(a *agent, key string) {
	q := inventory.Redeem{Session: a.session, Token: a.token, CSR: request(key), BootID: a.boot, Serial: m.serial, MACs: []string{m.mac}}
	m.s.spawn(m.s.field, m.s.upTo(time.Second), func() {
		for range 20 {
			if m.agent != a && key == a.boot {
				return
			}
			if r := m.s.server(m.id); r != nil && m.mute <= m.s.mono && m.s.dark <= m.s.mono {
				out, rev, err := r.agents.Redeem(bg, q)
				if err == nil {
					for !r.dead && r.copy.Rev() < rev {
						if !m.s.wait(50 * time.Millisecond) {
							return
						}
					}
					m.s.act("%s redeemed %s by key %s", m.name, a.session, key)
					if out.Node != m.id {
						m.s.fail("%s redeemed a token of node %s", m.name, out.Node)
					}
					if m.agent == a {
						a.redeemed = true
						m.report(a)
					}
					return
				}
				m.s.note("%s: redeem by %s: %v", m.name, key, err)
			}
			if !m.s.wait(m.s.between(2*time.Second, 10*time.Second)) {
				return
			}
		}
	})
}

// reportIn has the agent report after a while, unless it reports before.
func (m *machine) reportIn(a *agent, d time.Duration) {
	a.turn++
	turn := a.turn
	m.later(d, func() {
		if a.turn == turn {
			m.report(a)
		}
	})
}

// report asks for the next order, and tells of the present one.
func (m *machine) report(a *agent) {
	if m.agent != a {
		return
	}
	a.turn++
	again := func(d time.Duration) { m.reportIn(a, d) }
	r := m.s.server(m.id)
	if r == nil || m.mute > m.s.mono || m.s.dark > m.s.mono || m.place != placeProvisioning {
		again(m.s.between(2*time.Second, 6*time.Second))
		return
	}
	q := inventory.Report{Session: a.session, BootID: a.boot, Order: a.order.ID, Agent: "digest"}
	if rep, ok := a.done[a.order.ID]; ok {
		q = rep
	} else if a.working {
		q.Progress = &inventory.Progress{What: a.order.Kind, Done: 1, Total: 100, Unit: "blocks"}
	}
	if m.s.maybe("stale report") { // of a boot that is over: the session's record says so
		old := q
		old.Session, old.Done, old.Proofs = "s-of-another-time", true, nil
		r.agents.Heard(m.id, old.Session, old)
	}
	r.agents.Heard(m.id, a.session, q)
	r.poke()
	if a.working {
		if n, _ := r.agents.Next(m.id, a.session, q); n.Revoked != "" {
			m.revoked(a, n.Revoked)
			return
		}
		again(m.s.between(15*time.Second, 25*time.Second))
		return
	}
	p := &poll{m: m, a: a, q: q, from: m.s.mono}
	r.polls = append(r.polls, p)
	m.later(25*time.Second, func() { // nobody answered: the replica died, or it was too slow
		if !p.over {
			p.over = true
			if r.dead || r.paused > m.s.mono {
				m.report(a)
				return
			}
			p.over = false
			r.answer(p, true)
		}
	})
	r.answer(p, false)
}

// answered is what the daemon said; the answer may be lost on its way.
func (m *machine) answered(a *agent, n inventory.Next) {
	switch {
	case m.agent != a:
		return
	case m.s.maybe("answer to agent lost"):
		m.reportIn(a, m.s.between(time.Second, 20*time.Second))
		return
	case n.Revoked != "":
		m.revoked(a, n.Revoked)
	case n.Enter:
		m.s.act("%s is told to enter", m.name)
		m.later(m.s.between(100*time.Millisecond, 2*time.Second), func() { m.handOver(a) })
	case n.Order.Kind == inventory.OrderIdle, a.done[n.Order.ID].Done:
		a.order = *n.Order
		m.reportIn(a, m.s.between(200*time.Millisecond, 2*time.Second))
	default:
		m.begin(a, *n.Order)
	}
}

// revoked is an agent whose session is over: it does nothing any more.
func (m *machine) revoked(a *agent, why string) {
	m.s.note("%s: the agent of %s is told that it is over: %s", m.name, a.session, why)
	if m.s.chance(0.5) {
		m.reset()
		return
	}
	m.reportIn(a, m.s.between(20*time.Second, time.Minute))
}

// durations say how long each kind of order takes.
var durations = map[string][2]time.Duration{
	inventory.OrderInspect:  {2 * time.Second, 10 * time.Second},
	inventory.OrderSanitize: {5 * time.Second, 60 * time.Second},
	inventory.OrderTest:     {5 * time.Second, 60 * time.Second},
	inventory.OrderWrite:    {5 * time.Second, 60 * time.Second},
	inventory.OrderHandoff:  {time.Second, 5 * time.Second},
}

// begin works on an order.
func (m *machine) begin(a *agent, o inventory.Order) {
	a.order, a.working = o, true
	m.s.act("%s begins %s for generation %d", m.name, o.ID, o.Generation)
	m.reportIn(a, m.s.between(4*time.Second, 12*time.Second))
	span := durations[o.Kind]
	d := m.s.between(span[0], span[1])
	if m.s.watch.order != nil {
		m.s.watch.order(m, o)
	}
	m.duty(o)
	if o.Kind == inventory.OrderWrite {
		a.inst, a.fit = m.s.instanceOf(m), m.has(o.Media)
		if d := m.disk(o.Write.Medium); d != nil && a.fit { // the first block is the last that is written
			d.data, d.bootable = a.inst, false
		}
	}
	switch {
	case m.s.maybe("agent dies"):
		m.later(m.s.upTo(d), func() { m.agent = nil; m.half(o) })
	case m.s.maybe("machine resets"):
		m.later(m.s.upTo(d), func() { m.half(o); m.reset() })
	case m.s.maybe("agent hangs"):
	default:
		m.later(d, func() { m.finish(a, o) })
	}
}

// half is an order that was cut off in the middle: what it was at is neither here nor there.
func (m *machine) half(o inventory.Order) {
	switch o.Kind {
	case inventory.OrderWrite, inventory.OrderSanitize:
		m.disks[0].bootable = false
	}
	m.s.act("%s is cut off in %s", m.name, o.ID)
}

// finish is an order done.
func (m *machine) finish(a *agent, o inventory.Order) {
	if m.agent != a || a.order.ID != o.ID {
		return
	}
	now := start.Add(m.s.mono)
	r := inventory.Report{Session: a.session, BootID: a.boot, Order: o.ID, Agent: "digest", Done: true, Started: now, Finished: now}
	m.duty(o)
	m.perform(a, o, &r)
	m.lie(o, &r)
	a.done[o.ID], a.working = r, false
	m.s.act("%s finished %s: %s", m.name, o.ID, r.Error)
	m.s.check(m)
	m.report(a)
}

// media are the disks that show.
func (m *machine) media() []inventory.Medium {
	var out []inventory.Medium
	for _, d := range m.disks {
		if !d.hidden {
			out = append(out, d.m)
		}
	}
	return out
}

// perform does what an honest agent does, on disks that may not be honest: imaging/sanitize reads back what it erased.
func (m *machine) perform(a *agent, o inventory.Order, r *inventory.Report) {
	switch o.Kind {
	case inventory.OrderInspect:
		m.moved = false
		r.Hardware = &inventory.Hardware{Serial: m.serial, CPUs: 2, MemoryBytes: 8 << 30, Media: m.media(), NICs: []inventory.NIC{{Name: "eth0", MAC: m.mac}}}
	case inventory.OrderSanitize:
		for _, d := range m.disks {
			if !d.hidden {
				r.Proofs = append(r.Proofs, m.erase(d))
			}
		}
		for _, want := range o.Media {
			if !slices.ContainsFunc(r.Proofs, func(p inventory.MediumProof) bool { return p.Medium.Key() == want.Key() }) {
				r.Proofs = append(r.Proofs, inventory.MediumProof{Medium: want, Faults: []string{"it is not in this machine"}})
			}
		}
	case inventory.OrderTest:
		r.Test = &inventory.TestRun{Profile: o.Profile, Verdict: inventory.Pass, Finished: r.Finished}
		if !m.has(o.Media) {
			r.Test.Verdict = inventory.Fail
		}
	case inventory.OrderWrite:
		d := m.disk(o.Write.Medium)
		if d == nil || o.Write.Medium.Key() == "" || !a.fit {
			r.Error = "the media are not those that were erased"
			return
		}
		d.data, d.bootable = a.inst, true
		r.Written = &inventory.Written{Image: o.Write.Image, Serial: d.m.Serial, Bytes: 100, ReadBack: 100}
	case inventory.OrderHandoff:
		r.Handoff = &inventory.HandoffResult{Method: "kexec"}
	}
}

func (m *machine) erase(d *disk) inventory.MediumProof {
	p := inventory.MediumProof{Medium: d.m, Method: inventory.MethodPurge, Passed: true}
	switch {
	case d.deaf: // "ok", and nothing is done: the markers are found again
		p.Passed, p.Faults = false, []string{"markers planted before were found after"}
	case d.dying:
		p.Passed, p.Faults = false, []string{"read errors in the middle"}
	default:
		d.data, d.bootable = "", false
	}
	return p
}

// has says whether exactly these media show, as an agent looks before it tests.
func (m *machine) has(want []inventory.Medium) bool {
	shown := 0
	for _, d := range m.disks {
		if !d.hidden {
			shown++
		}
	}
	return shown == len(want) && !slices.ContainsFunc(want, func(w inventory.Medium) bool { return m.disk(w) == nil })
}

func (m *machine) disk(want inventory.Medium) *disk {
	for _, d := range m.disks {
		if !d.hidden && d.m.Key() == want.Key() {
			return d
		}
	}
	return nil
}

// lie is what a broken agent makes of its report. A proof that passed is never made up: what says "erased" is the one
// program that is trusted, and what keeps it honest is its own read-back.
func (m *machine) lie(o inventory.Order, r *inventory.Report) {
	switch o.Kind {
	case inventory.OrderInspect:
		if m.s.maybe("agent tells fewer disks") {
			r.Hardware.Media = r.Hardware.Media[:len(r.Hardware.Media)/2]
		}
		if m.s.maybe("agent tells another serial") {
			r.Hardware.Serial = m.s.machines[(m.i+1)%len(m.s.machines)].serial + "x"
		}
	case inventory.OrderSanitize:
		if m.s.maybe("agent claims without proof") {
			if len(r.Proofs) > 1 && m.s.chance(0.5) {
				r.Proofs = r.Proofs[:1]
			} else {
				r.Proofs = nil
			}
		}
		if m.s.maybe("agent swaps serials") && len(r.Proofs) > 0 {
			r.Proofs[0].Medium.Serial = "D9-9999"
		}
	case inventory.OrderTest:
		if m.s.maybe("test fails") {
			r.Test.Verdict = []string{inventory.Fail, inventory.Inconclusive, inventory.Aborted, ""}[m.s.rng.IntN(4)]
		}
	case inventory.OrderWrite:
		if m.s.maybe("image not read back") && r.Written != nil {
			r.Written.ReadBack--
		}
	case inventory.OrderHandoff:
		if m.s.maybe("hand-off fails") {
			r.Handoff, r.Error = nil, "kexec: no such kernel"
		}
	}
}

// handOver leaves the machine to its tenant.
func (m *machine) handOver(a *agent) {
	if m.agent != a {
		return
	}
	if m.s.maybe("machine resets") {
		m.reset()
		return
	}
	if d := m.disks[0]; d.bootable && !d.hidden {
		m.boot++
		m.end()
		m.enter(d.data)
		return
	}
	m.reset()
}

// phoneHome is the tenant's system saying that it is up.
func (m *machine) phoneHome() {
	if r := m.s.server(m.id); r != nil && m.place == placeTenant && m.id != "" {
		r.loop.PhonedHome(m.id, provisioner.PhoneHome{Instance: m.inst, Address: m.ip})
		r.poke()
	}
}
