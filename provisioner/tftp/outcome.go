package tftp

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hostler-project/hostler/provisioner/barrier"
)

// part is our name where panics are counted.
const part = "tftp"

// An Outcome says what became of one request.
type Outcome uint8

// The outcomes of a request.
const (
	Served       Outcome = iota // the last block was acknowledged
	NotFound                    // no such name for this client
	WriteRefused                // a write request
	Malformed                   // no request, or a mode other than octet
	Duplicate                   // this client's transfer is running already
	Busy                        // too many transfers
	Aborted                     // the client said so, or its port was closed; firmware does it after asking for the size
	TimedOut                    // the client fell silent
	Panicked                    // a bug, caught; its kind is logged once
	outcomes
)

var outcomeNames = [outcomes]string{"served", "not-found", "write-refused", "malformed", "duplicate", "busy", "aborted", "timed-out", "panicked"}

// String is the word for o in logs and metrics.
func (o Outcome) String() string {
	if o >= outcomes {
		return "unknown"
	}
	return outcomeNames[o]
}

type counters struct {
	outcome [outcomes]atomic.Uint64
	bytes   atomic.Uint64
}

// Counters is a snapshot of what a Server has done since its start.
type Counters struct {
	Outcomes map[string]uint64 // requests by Outcome
	Bytes    uint64            // of files served whole
	Running  int               // transfers at this moment
}

// Counters returns the present numbers.
func (s *Server) Counters() Counters {
	c := Counters{Outcomes: make(map[string]uint64, outcomes), Bytes: s.counters.bytes.Load()}
	for o := range outcomes {
		c.Outcomes[o.String()] = s.counters.outcome[o].Load()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c.Running = len(s.running)
	return c
}

var (
	requestsDesc = prometheus.NewDesc("hostler_tftp_requests_total", "TFTP requests, by what became of them.", []string{"outcome"}, nil)
	bytesDesc    = prometheus.NewDesc("hostler_tftp_bytes_total", "Bytes of files that were served whole.", nil, nil)
	panicsDesc   = barrier.Desc(part)
	runningDesc  = prometheus.NewDesc("hostler_tftp_transfers", "Transfers at this moment.", nil, nil)
)

// Describe implements prometheus.Collector.
func (s *Server) Describe(ch chan<- *prometheus.Desc) {
	ch <- requestsDesc
	ch <- bytesDesc
	ch <- runningDesc
	ch <- panicsDesc
}

// Collect implements prometheus.Collector.
func (s *Server) Collect(ch chan<- prometheus.Metric) {
	c := s.Counters()
	for name, n := range c.Outcomes {
		ch <- prometheus.MustNewConstMetric(requestsDesc, prometheus.CounterValue, float64(n), name)
	}
	ch <- prometheus.MustNewConstMetric(bytesDesc, prometheus.CounterValue, float64(c.Bytes))
	ch <- prometheus.MustNewConstMetric(runningDesc, prometheus.GaugeValue, float64(c.Running))
	ch <- s.panics.Metric(panicsDesc)
}
