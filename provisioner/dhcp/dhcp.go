// Package dhcp answers machines that boot from the network. It owns the DHCPv4
// conversation on the declared segments: who gets an address, which loader or
// boot script is named to which kind of firmware, and when to stay silent.
//
// The flow: a socket loop (serve.go) reads a packet and hands it to
// [Server.Respond], which is pure: bytes in, bytes and a destination out, no
// socket, no clock of its own. Respond parses (query.go), finds the segment
// (segment.go), asks the [Directory] whether it knows the machine, applies the
// limits (limit.go), decides as RFC 2131 says (respond.go), and names the
// loader (loader.go). What became of each packet is one [Outcome], counted
// (outcome.go). Beside it, router solicitations are answered (advert.go).
//
// The package keeps no leases and no sessions: the address of a machine is
// what the Directory says it is. It does not know nodes, their states or etcd.
// A panic on a packet, of the library's, the Directory's or ours, is that packet's
// loss (package barrier).
//
// Sources: RFC 2131, 2132, 3046 (relay information), 4578 (PXE options), 6842
// (client identifier echoed), UEFI 2.10 section 24.7 (HTTP boot).
package dhcp

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"github.com/hostler-project/hostler/provisioner/barrier"
)

// A Directory knows machines. The daemon backs it with its copy of the
// inventory. For machines that it knows it reads memory: it is asked in the
// packet loop. Enrolling a stranger may write: that is done beside the loop.
type Directory interface {
	// Knows says whether the machine of q is ours. It never reserves anything.
	Knows(q Query) bool

	// Answer says what the machine of q gets. It is called for known machines,
	// and for strangers on an enrol segment as far as the limits allow. For a
	// Discover it reserves the address that it returns, so that two machines
	// are never offered the same one; a fixed address needs no reservation.
	Answer(ctx context.Context, q Query) Answer
}

// An Answer is what the Directory has for one machine. The zero Answer means
// silence.
type Answer struct {
	Known  bool          // false: say nothing
	IP     netip.Addr    // its address, inside the segment's subnet
	Lease  time.Duration // 0 means one hour; sent in whole seconds
	Boot   bool          // true: name a loader or the boot script; false: an address and no boot file
	Script string        // URL of the iPXE script for this machine; "" means the segment's
	Router netip.Addr    // default gateway, optional
	DNS    []netip.Addr  // optional
}

// Server answers DHCP on its segments. Set the fields, then call Run, or
// Respond alone. Copying it is not allowed after first use.
type Server struct {
	Segments  []Segment
	Directory Directory

	// Seen, if set, hears of machines that the Directory does not know, and of
	// addresses that a client declined (Query.Type says which). It runs in the
	// packet loop, at most Limits.Strangers times a second, and must not block.
	Seen func(Query)

	// Rival, if set, hears of another DHCP server on an authoritative or enrol
	// segment: a client has just chosen its offer. It must not block.
	Rival func(segment string, server netip.Addr)

	Limits Limits // zero fields mean the defaults
	Log    *slog.Logger

	limits   limiter
	counters counters
	panics   barrier.Barrier
}
