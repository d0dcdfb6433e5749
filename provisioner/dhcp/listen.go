package dhcp

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// Listeners are the open sockets of a Server. Listen opens all of them before
// anything is answered.
type Listeners struct {
	wires []*wire
}

// A wire is one card's sockets, or, with an empty name, the socket for relays.
type wire struct {
	name    string
	card    *net.Interface
	udp     *net.UDPConn
	cooked  *ipv4.PacketConn // over udp, to choose the source address
	skip    map[int]bool     // for the relays' socket: indices of the cards that have sockets of their own
	frames  *packet.Conn     // to clients without an address; nil without a card
	adverts *packet.Conn     // router solicitations; nil where unanswered
}

// Listen checks the segments and opens port 67 on each. It needs
// CAP_NET_ADMIN, CAP_NET_RAW and CAP_NET_BIND_SERVICE.
func (s *Server) Listen() (*Listeners, error) {
	if err := Check(s.Segments); err != nil {
		return nil, err
	}
	l := &Listeners{}
	shared := slices.ContainsFunc(s.Segments, func(g Segment) bool { return g.Interface == "" })
	for _, g := range s.Segments {
		if g.Interface == "" && slices.ContainsFunc(l.wires, func(w *wire) bool { return w.name == "" }) {
			continue // one socket serves all relays
		}
		w, err := open(g, shared)
		if err != nil {
			l.Close()
			return nil, fmt.Errorf("dhcp: segment %s: %w", g.Name, err)
		}
		l.wires = append(l.wires, w)
	}
	// The kernel gives a broadcast to every socket on port 67, so the relays'
	// socket would see each one again.
	skip := map[int]bool{}
	for _, w := range l.wires {
		if w.card != nil {
			skip[w.card.Index] = true
		}
	}
	for _, w := range l.wires {
		if w.card == nil {
			w.skip = skip
		}
	}
	return l, nil
}

// open opens the sockets of one segment. shared is true where there is a socket
// for relays as well.
func open(g Segment, shared bool) (w *wire, err error) {
	w = &wire{name: g.Interface}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	if g.Interface != "" {
		if w.card, err = net.InterfaceByName(g.Interface); err != nil {
			return nil, fmt.Errorf("interface %s: %w (ip link shows the names)", g.Interface, err)
		}
		if err = has(w.card, g.Address); err != nil {
			return nil, err
		}
		if w.frames, err = packet.Listen(w.card, packet.Raw, 0, nil); err != nil {
			return nil, fmt.Errorf("interface %s: open packet socket: %w (needs root or CAP_NET_RAW)", g.Interface, err)
		}
		if g.Mode != Observe && !g.NoAdvert {
			if w.adverts, err = listenSolicits(w.card); err != nil {
				return nil, fmt.Errorf("interface %s: listen for router solicitations: %w", g.Interface, err)
			}
		}
	}
	if w.udp, err = listenUDP(g.Interface, shared); err != nil {
		return nil, fmt.Errorf("listen on port %d: %w (is another DHCP server running here?)", serverPort, err)
	}
	w.cooked = ipv4.NewPacketConn(w.udp)
	if err = w.cooked.SetControlMessage(ipv4.FlagInterface, true); err != nil {
		return nil, fmt.Errorf("ask for the interface of packets: %w", err)
	}
	return w, nil
}

// listenUDP opens port 67, on one card or on all. Only where both kinds exist
// do they share the port; alone, a second server on this machine gets an error
// and does not take our packets away. SO_REUSEPORT would not do: with it, Linux
// 6.18 gives a unicast packet to the socket that was opened last, not to the
// card's.
func listenUDP(card string, shared bool) (*net.UDPConn, error) {
	set := func(fd int) error {
		if shared {
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
				return err
			}
		}
		// Room for the packets of a rack that is switched on at once; as much as
		// the system allows if we may not exceed it.
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20) != nil {
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20); err != nil {
				return err
			}
		}
		if card == "" {
			return nil
		}
		return unix.BindToDevice(fd, card)
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		if err := c.Control(func(fd uintptr) { failed = set(int(fd)) }); err != nil {
			return err
		}
		return failed
	}}
	c, err := lc.ListenPacket(context.Background(), "udp4", fmt.Sprintf("0.0.0.0:%d", serverPort))
	if err != nil {
		return nil, err
	}
	return c.(*net.UDPConn), nil
}

// has says what is wrong if the card does not have the address.
func has(card *net.Interface, want netip.Addr) error {
	addrs, err := card.Addrs()
	if err != nil {
		return fmt.Errorf("interface %s: %w", card.Name, err)
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Unmap() == want {
			return nil
		}
	}
	return fmt.Errorf("interface %s has no address %v: add it (ip addr add), or correct the segment", card.Name, want)
}

// listenSolicits opens a packet socket that sees ICMPv6 router solicitations
// only.
func listenSolicits(card *net.Interface) (*packet.Conn, error) {
	filter, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 14 + 6, Size: 1}, // next header
		bpf.JumpIf{Val: 58, SkipFalse: 3},
		bpf.LoadAbsolute{Off: 14 + 40, Size: 1}, // ICMPv6 type
		bpf.JumpIf{Val: icmpRouterSolicit, SkipFalse: 1},
		bpf.RetConstant{Val: 2048},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		return nil, err
	}
	c, err := packet.Listen(card, packet.Raw, etherIPv6, &packet.Config{Filter: filter})
	if err != nil {
		return nil, err
	}
	if err := c.JoinGroup(allRouters); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (w *wire) close() {
	if w.udp != nil {
		w.udp.Close()
	}
	if w.frames != nil {
		w.frames.Close()
	}
	if w.adverts != nil {
		w.adverts.Close()
	}
}

// Close closes the sockets. It may be called more than once.
func (l *Listeners) Close() {
	for _, w := range l.wires {
		w.close()
	}
}
