package provisioner

import (
	"time"

	"github.com/hostler-project/hostler/inventory"
)

// The events that reach the loop from the protocols. Each only says what was seen; the next decision judges it.

// Sink takes events in: a loop, or what finds the loop whose node it is.
type Sink interface {
	Heard(node string, r inventory.Report)
	Told(node string)
	AskedDHCP(node string)
	AskedBoot(node string)
	PhonedHome(node string, p PhoneHome)
}

// An Event is one of them as it travels between replicas. When it was seen is when the loop takes it in.
type Event struct {
	Node   string            `json:"node"`
	Kind   Saw               `json:"kind"`
	Report *inventory.Report `json:"report,omitempty"`
	Home   *PhoneHome        `json:"home,omitempty"`
}

// Saw says what was seen.
type Saw string

const (
	SawReport Saw = "report"
	SawTold   Saw = "told"
	SawDHCP   Saw = "dhcp"
	SawBoot   Saw = "boot"
	SawHome   Saw = "home"
)

// Take takes in an event that travelled. One that this version does not know says nothing.
func (l *Loop) Take(e Event) {
	switch {
	case e.Kind == SawReport && e.Report != nil:
		l.Heard(e.Node, *e.Report)
	case e.Kind == SawTold:
		l.Told(e.Node)
	case e.Kind == SawDHCP:
		l.AskedDHCP(e.Node)
	case e.Kind == SawBoot:
		l.AskedBoot(e.Node)
	case e.Kind == SawHome && e.Home != nil:
		l.PhonedHome(e.Node, *e.Home)
	}
}

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
