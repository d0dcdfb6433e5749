// Package httpboot is the HTTP side of booting: it tells a machine's iPXE what
// to do next, and serves loaders, kernels, initrds and image chunks. It owns
// the grammar of what may appear in a boot script.
//
// The flow: [Handler] takes a request, checks method and path against a strict
// grammar (path.go), and either asks [Boot] for the plan of the machine at that
// address and renders it (plan.go, ipxe.go), or looks the path up in [Files],
// or hands an image request to [Images]. Whatever is unknown, foreign or
// malformed gets one and the same small 404.
//
// Files reach the socket by sendfile: nothing here wraps them (file.go).
//
// The package does not know nodes or their states, and keeps nothing between
// requests: the plan is a function of the record, computed by whoever
// implements Boot. TLS is not its business; see design.md section 16 on ports.
package httpboot

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/hostler-project/hostler/provisioner/barrier"
)

// A Client is who asks for a boot script.
type Client struct {
	IP  netip.Addr       // source address of the request: this identifies it
	MAC net.HardwareAddr // what the URL says; nil if nothing. Only a hint: a plan for another MAC is not given out.
}

// ErrUnknown is what Boot returns for a client that nobody knows.
var ErrUnknown = errors.New("no machine has this address")

// Boot knows what machines are to boot.
type Boot interface {
	// Plan returns what the machine at c.IP boots now, or ErrUnknown. Any other
	// error makes the machine wait and ask again.
	Plan(ctx context.Context, c Client) (Plan, error)
}

// Handler serves everything below the root of the boot port. Its zero fields
// turn that part off: requests for it are not found.
type Handler struct {
	Boot   Boot
	Files  Files
	Images *Images
	Render Renderer // nil means IPXE
	Log    *slog.Logger

	counters counters
	panics   barrier.Barrier
}

// NewServer is an http.Server for h with the limits that boot clients need:
// slow readers are borne, since an initrd on a bad link takes minutes; slow
// askers are not.
func NewServer(h http.Handler, log *slog.Logger) *http.Server {
	s := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
	if log != nil {
		s.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelDebug)
	}
	return s
}
