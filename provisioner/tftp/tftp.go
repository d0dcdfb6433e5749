// Package tftp gives boot firmware its loader, and nothing else. It owns a
// read-only TFTP server over a map of names: no path is ever joined or opened,
// no write request is ever accepted.
//
// The flow: a read loop (serve.go) parses each request (request.go) and starts
// one transfer per client address and port (send.go), each on a socket of its
// own, from bytes in memory. What became of each request is one [Outcome],
// counted (outcome.go).
//
// The sender is ours and not a library's, because of the window: at a round
// trip of 1 ms lockstep is stuck near 1.25 MB/s, and the libraries have either
// no RFC 7440 window or a send-ahead that never ends under loss. It also
// resends after 200 ms instead of a second, which is what loss costs.
//
// Sources: RFC 1350, 2347 (options), 2348 (blksize), 2349 (tsize), 7440
// (windowsize).
package tftp

import (
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/hostler-project/hostler/provisioner/barrier"
)

// Files is the map of names. Open returns the bytes that this client gets
// under a name; they are not changed afterwards. It is called once a transfer
// and may be called by many at once.
type Files interface {
	Open(name string, client netip.Addr) (data []byte, ok bool)
}

// Map is Files that everybody may have.
type Map map[string][]byte

// Open implements Files.
func (m Map) Open(name string, _ netip.Addr) ([]byte, bool) {
	data, ok := m[name]
	return data, ok
}

// Server answers TFTP read requests. Set the fields, then call Run, or Serve
// with a socket. Copying it is not allowed after first use.
type Server struct {
	Address netip.AddrPort // where Run listens; port 0 means 69
	Files   Files
	Log     *slog.Logger // may be nil

	Transfers int           // at once; 0 means 200
	PerClient int           // at once to one address; 0 means 4
	Resend    time.Duration // wait for an acknowledgement before resending, doubled up to a second; 0 means 200 ms
	GiveUp    time.Duration // without progress; a client that never answered gets a sixth of it; 0 means 30 s

	counters counters
	panics   barrier.Barrier
	mu       sync.Mutex
	running  map[netip.AddrPort]bool
	clients  map[netip.Addr]int
}

const (
	maxBlock  = 1468 // an Ethernet frame without fragments
	maxWindow = 16
)

func (s *Server) withDefaults() {
	if s.Transfers == 0 {
		s.Transfers = 200
	}
	if s.PerClient == 0 {
		s.PerClient = 4
	}
	if s.Resend == 0 {
		s.Resend = 200 * time.Millisecond
	}
	if s.GiveUp == 0 {
		s.GiveUp = 30 * time.Second
	}
}
