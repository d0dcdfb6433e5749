package httpboot

import (
	"net/http"
	"strconv"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hostler-project/hostler/provisioner/barrier"
)

// part is our name where panics are counted.
const part = "httpboot"

// statuses are the answers that we give, in the order in which they are
// counted; the last stands for all others.
var statuses = [...]int{http.StatusOK, http.StatusPartialContent, http.StatusNotModified, http.StatusNotFound,
	http.StatusMethodNotAllowed, http.StatusRequestedRangeNotSatisfiable, http.StatusInternalServerError}

type counters struct {
	status [len(statuses)]atomic.Uint64
	bytes  atomic.Uint64
}

func (c *counters) add(w *counted) {
	at := len(statuses) - 1
	for i, s := range statuses {
		if s == w.status || s == http.StatusOK && w.status == 0 {
			at = i
			break
		}
	}
	c.status[at].Add(1)
	c.bytes.Add(uint64(w.bytes))
}

// Counters is a snapshot of what a Handler has done since its start.
type Counters struct {
	Requests map[int]uint64 // by HTTP status
	Bytes    uint64         // of bodies
}

// Counters returns the present numbers.
func (h *Handler) Counters() Counters {
	c := Counters{Requests: make(map[int]uint64, len(statuses)), Bytes: h.counters.bytes.Load()}
	for i, s := range statuses {
		c.Requests[s] = h.counters.status[i].Load()
	}
	return c
}

var (
	requestsDesc = prometheus.NewDesc("hostler_httpboot_requests_total", "Requests on the boot port, by status.", []string{"status"}, nil)
	panicsDesc   = barrier.Desc(part)
	bytesDesc    = prometheus.NewDesc("hostler_httpboot_bytes_total", "Bytes of bodies sent on the boot port.", nil, nil)
)

// Describe implements prometheus.Collector.
func (h *Handler) Describe(ch chan<- *prometheus.Desc) {
	ch <- requestsDesc
	ch <- bytesDesc
	ch <- panicsDesc
}

// Collect implements prometheus.Collector.
func (h *Handler) Collect(ch chan<- prometheus.Metric) {
	c := h.Counters()
	for s, n := range c.Requests {
		ch <- prometheus.MustNewConstMetric(requestsDesc, prometheus.CounterValue, float64(n), strconv.Itoa(s))
	}
	ch <- prometheus.MustNewConstMetric(bytesDesc, prometheus.CounterValue, float64(c.Bytes))
	ch <- h.panics.Metric(panicsDesc)
}
