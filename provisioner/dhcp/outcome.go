package dhcp

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hostler-project/hostler/provisioner/barrier"
)

// part is our name where panics are counted.
const part = "dhcp"

// An Outcome says what became of one packet.
type Outcome uint8

// The outcomes. Only Answered and Refused come with a reply.
const (
	Answered    Outcome = iota // offer or acknowledgement
	Refused                    // NAK: a known machine asked for an address that is not its own
	Malformed                  // not a packet that a sane client sends
	NotRequest                 // a reply, or a message type that is no question
	PlainBOOTP                 // no message type: we serve DHCP only
	NoSegment                  // wire or relay is not declared
	OnlyObserve                // the segment is in mode observe
	Stranger                   // the Directory does not know the machine
	OtherServer                // the client chose another server
	TooMany                    // over a limit
	NoAddress                  // the Directory had no address, or one outside the subnet
	Noted                      // release or decline: taken in, no reply is due
	TooLarge                   // the reply would not fit a packet
	Panicked                   // a bug, caught; its kind is logged once
	outcomes                   // how many there are
)

var outcomeNames = [outcomes]string{
	"answered", "refused", "malformed", "not-request", "plain-bootp", "no-segment", "only-observe",
	"stranger", "other-server", "too-many", "no-address", "noted", "too-large", "panicked",
}

// String is the word for o in logs and metrics.
func (o Outcome) String() string {
	if o >= outcomes {
		return "unknown"
	}
	return outcomeNames[o]
}

// counters are the live numbers of a Server.
type counters struct {
	outcome   [outcomes]atomic.Uint64
	offers    atomic.Uint64
	acks      atomic.Uint64
	sendFails atomic.Uint64
	adverts   atomic.Uint64
}

// Counters is a snapshot of what a Server has done since its start.
type Counters struct {
	Outcomes  map[string]uint64 // packets by Outcome
	Offers    uint64            // of those answered
	Acks      uint64            // of those answered
	SendFails uint64            // replies that the kernel did not take
	Adverts   uint64            // router solicitations answered
	Panics    uint64            // caught, on the way in or out
}

// Counters returns the present numbers.
func (s *Server) Counters() Counters {
	c := Counters{
		Outcomes:  make(map[string]uint64, outcomes),
		Offers:    s.counters.offers.Load(),
		Acks:      s.counters.acks.Load(),
		SendFails: s.counters.sendFails.Load(),
		Adverts:   s.counters.adverts.Load(),
		Panics:    s.panics.Count(),
	}
	for o := range outcomes {
		c.Outcomes[o.String()] = s.counters.outcome[o].Load()
	}
	return c
}

var (
	packetsDesc = prometheus.NewDesc("hostler_dhcp_packets_total", "DHCP packets received, by what became of them.", []string{"outcome"}, nil)
	sentDesc    = prometheus.NewDesc("hostler_dhcp_replies_total", "DHCP replies and router advertisements, by kind.", []string{"kind"}, nil)
	panicsDesc  = barrier.Desc(part)
	failsDesc   = prometheus.NewDesc("hostler_dhcp_send_failures_total", "DHCP replies that the kernel did not take.", nil, nil)
)

// Describe implements prometheus.Collector.
func (s *Server) Describe(ch chan<- *prometheus.Desc) {
	ch <- packetsDesc
	ch <- sentDesc
	ch <- failsDesc
	ch <- panicsDesc
}

// Collect implements prometheus.Collector.
func (s *Server) Collect(ch chan<- prometheus.Metric) {
	c := s.Counters()
	add := func(d *prometheus.Desc, n uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	for name, n := range c.Outcomes {
		add(packetsDesc, n, name)
	}
	add(sentDesc, c.Offers, "offer")
	add(sentDesc, c.Acks, "ack")
	add(sentDesc, c.Outcomes[Refused.String()], "nak")
	add(sentDesc, c.Adverts, "router-advertisement")
	add(failsDesc, c.SendFails)
	ch <- s.panics.Metric(panicsDesc)
}
