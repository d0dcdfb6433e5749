// Package barrier makes a panic the loss of one packet or one request, and of nothing else: malformed packets made the
// libraries below us panic before (insomniacslk/dhcp#454, #468, #507, #583; pin/tftp#99), and one machine's nonsense
// must not take the boot of all others along.
//
// Whoever takes something in from outside recovers right there, hands what was recovered to [Barrier.Caught], and goes
// on with the next. Each is counted (hostler_panics_total, by part), and each kind, which is the place in the source, is
// logged once at Error with the packet that did it. The text of a panic is shown only where it is the runtime's own:
// any other may hold what was being handled. [Handler] is the same for net/http. The package repairs nothing.
package barrier

import (
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	maxPacket = 256 // bytes of a packet that a log line holds
	maxKinds  = 100 // different places that are logged; more than that is no news
)

// A Barrier counts and tells what was caught. Its zero value is ready.
type Barrier struct {
	caught atomic.Uint64
	mu     sync.Mutex
	kinds  map[string]bool
}

// Caught takes note of p, which the deferred function that calls it has just recovered. packet is what was being
// handled, nil where it may hold secrets; attrs are more for the log line. log may be nil.
func (b *Barrier) Caught(log *slog.Logger, part string, p any, packet []byte, attrs ...any) {
	b.caught.Add(1)
	kind := place()
	b.mu.Lock()
	known := b.kinds[kind] || len(b.kinds) >= maxKinds
	if !known {
		if b.kinds == nil {
			b.kinds = map[string]bool{}
		}
		b.kinds[kind] = true
	}
	b.mu.Unlock()
	if known || log == nil {
		return
	}
	attrs = append([]any{"part", part, "kind", kind, "panic", text(p)}, attrs...)
	if packet != nil {
		attrs = append(attrs, "bytes", len(packet), "packet", hex.EncodeToString(packet[:min(len(packet), maxPacket)]))
	}
	log.Error("a panic was caught, the next is served; please report this", append(attrs, "stack", string(debug.Stack()))...)
}

// Count is how many were caught.
func (b *Barrier) Count() uint64 { return b.caught.Load() }

// Desc describes the metric of one part.
func Desc(part string) *prometheus.Desc {
	return prometheus.NewDesc("hostler_panics_total", "Panics that were caught, each the loss of one packet or request: each kind is in the log once.", nil, prometheus.Labels{"part": part})
}

// Metric is the present number.
func (b *Barrier) Metric(d *prometheus.Desc) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(b.Count()))
}

// place is where the panic began, as function and line: the first frame below the runtime's own.
func place() string {
	pc := make([]uintptr, 64)
	frames := runtime.CallersFrames(pc[:runtime.Callers(0, pc)])
	panicked := false
	for {
		f, more := frames.Next()
		if panicked && !strings.HasPrefix(f.Function, "runtime.") {
			return fmt.Sprintf("%s:%d", f.Function, f.Line)
		}
		panicked = panicked || f.Function == "runtime.gopanic" || f.Function == "runtime.sigpanic"
		if !more {
			return "unknown"
		}
	}
}

// text is what may be said of a panic: the runtime's own words hold indices and types, all others may hold anything.
func text(p any) string {
	if e, ok := p.(runtime.Error); ok {
		return e.Error()
	}
	return fmt.Sprintf("%T", p)
}

// A Handler is a barrier before an http.Handler. net/http recovers by itself, but says so with the panic's text on its
// error log, and counts nothing.
type Handler struct {
	Part string
	Next http.Handler
	Log  *slog.Logger

	barrier Barrier
}

// ServeHTTP implements http.Handler. A panic ends the connection: the client must not take half an answer for a whole
// one.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer func() {
		if p := recover(); p != nil {
			if p != http.ErrAbortHandler {
				// Neither path nor body: both may hold a secret of a session or an instance.
				h.barrier.Caught(h.Log, h.Part, p, nil, "method", r.Method, "client", r.RemoteAddr)
			}
			panic(http.ErrAbortHandler)
		}
	}()
	h.Next.ServeHTTP(w, r)
}

// Describe implements prometheus.Collector.
func (h *Handler) Describe(ch chan<- *prometheus.Desc) { ch <- Desc(h.Part) }

// Collect implements prometheus.Collector.
func (h *Handler) Collect(ch chan<- prometheus.Metric) { ch <- h.barrier.Metric(Desc(h.Part)) }
