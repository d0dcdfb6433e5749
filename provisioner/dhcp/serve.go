package dhcp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/net/ipv4"
	"golang.org/x/sync/errgroup"
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
	source  netip.Addr
	udp     *net.UDPConn
	cooked  *ipv4.PacketConn // over udp, to choose the source address
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
	for _, g := range s.Segments {
		if g.Interface == "" && slices.ContainsFunc(l.wires, func(w *wire) bool { return w.name == "" }) {
			continue // one socket serves all relays
		}
		w, err := open(g)
		if err != nil {
			l.Close()
			return nil, fmt.Errorf("dhcp: segment %s: %w", g.Name, err)
		}
		l.wires = append(l.wires, w)
	}
	return l, nil
}

func open(g Segment) (w *wire, err error) {
	w = &wire{name: g.Interface, source: g.Address}
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
	if w.udp, err = server4.NewIPv4UDPConn(g.Interface, &net.UDPAddr{Port: serverPort}); err != nil {
		return nil, fmt.Errorf("listen on port %d: %w (is another DHCP server running here?)", serverPort, err)
	}
	w.cooked = ipv4.NewPacketConn(w.udp)
	return w, nil
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

// Run listens on all segments and answers until ctx ends, then returns nil.
func (s *Server) Run(ctx context.Context) error {
	l, err := s.Listen()
	if err != nil {
		return err
	}
	return s.Serve(ctx, l)
}

// Serve answers on open sockets until ctx ends, then closes them and returns
// nil. If a socket breaks it closes all and says which.
func (s *Server) Serve(ctx context.Context, l *Listeners) error {
	group, ctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(ctx, l.Close)
	defer stop()
	defer l.Close()
	for _, w := range l.wires {
		group.Go(func() error { return s.answer(ctx, w) })
		if w.adverts != nil {
			group.Go(func() error { return s.advertise(ctx, w) })
		}
	}
	return group.Wait()
}

// answer is the packet loop of one socket.
func (s *Server) answer(ctx context.Context, w *wire) error {
	buf := make([]byte, 9000)
	for {
		n, from, err := w.udp.ReadFromUDPAddrPort(buf)
		if ctx.Err() != nil {
			return nil
		} else if err != nil {
			return fmt.Errorf("dhcp: receive on %s: %w", or(w.name, "the relays' socket"), err)
		}
		reply, to, _ := s.Respond(ctx, w.name, buf[:n], from, time.Now())
		if reply == nil {
			continue
		}
		if err := w.send(reply, to); err != nil {
			s.counters.sendFails.Add(1)
			if s.Log != nil {
				s.Log.Debug("dhcp: reply not sent", "to", to.Addr, "err", err)
			}
		}
	}
}

func (w *wire) send(reply []byte, to Dest) error {
	if to.MAC != nil {
		if w.frames == nil {
			return errors.New("no card to send a frame on")
		}
		_, err := w.frames.WriteTo(frame(w.card.HardwareAddr, to.MAC, netip.AddrPortFrom(w.source, serverPort), to.Addr, reply), &packet.Addr{HardwareAddr: to.MAC})
		return err
	}
	_, err := w.cooked.WriteTo(reply, &ipv4.ControlMessage{Src: w.source.AsSlice()}, net.UDPAddrFromAddrPort(to.Addr))
	return err
}

// advertise answers router solicitations on one card.
func (s *Server) advertise(ctx context.Context, w *wire) error {
	buf := make([]byte, 2048)
	for {
		n, _, err := w.adverts.ReadFrom(buf)
		if ctx.Err() != nil {
			return nil
		} else if errors.Is(err, unix.ENETDOWN) {
			continue // said once each time that the card goes down; it may come up again
		} else if err != nil {
			return fmt.Errorf("dhcp: receive router solicitations on %s: %w", w.name, err)
		}
		a := advertFor(buf[:n], w.card.HardwareAddr)
		if a == nil {
			continue
		}
		if _, err := w.adverts.WriteTo(a, &packet.Addr{HardwareAddr: net.HardwareAddr(a[:6])}); err != nil {
			s.counters.sendFails.Add(1)
			continue
		}
		s.counters.adverts.Add(1)
	}
}
