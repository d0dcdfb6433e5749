package provisioner

import (
	"time"

	"github.com/hostler-project/hostler/inventory"
)

// The events that reach the loop from the protocols. Each only says what was seen; the next decision judges it.

// Heard takes an agent's report in.
func (l *Loop) Heard(node string, r inventory.Report) {
	l.change(node, func(n *track) {
		if n.seen.Session != r.Session || n.seen.BootID != r.BootID {
			n.seen.Session, n.seen.BootID, n.seen.Report, n.seen.Progress = r.Session, r.BootID, nil, nil
			n.seen.Told = time.Time{}
		}
		n.seen.Heard = l.Now()
		if r.Progress != nil {
			n.seen.Progress = r.Progress
		}
		if r.Done {
			n.seen.Report, n.seen.Progress = &r, nil
		}
	})
}

// Told notes that an agent was just told to enter the tenant's system: silence counts from here.
func (l *Loop) Told(node string) { l.change(node, func(n *track) { n.seen.Told = l.Now() }) }

// AskedDHCP notes that a machine without an agent asked for an address.
func (l *Loop) AskedDHCP(node string) { l.change(node, func(n *track) { n.seen.AskedDHCP = l.Now() }) }

// AskedBoot notes that a machine asked for its boot script.
func (l *Loop) AskedBoot(node string) { l.change(node, func(n *track) { n.seen.AskedBoot = l.Now() }) }

// PhonedHome notes that a tenant's system answered.
func (l *Loop) PhonedHome(node string, p PhoneHome) {
	p.At = l.Now()
	l.change(node, func(n *track) { n.seen.PhoneHome = &p })
}
