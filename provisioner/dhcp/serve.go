package dhcp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/ipv4"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

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

// A letter is a packet that waits for its turn.
type letter struct {
	pkt  []byte
	from netip.AddrPort
}

// answer is the packet loop of one socket. Enrolling a stranger writes to the
// inventory, which may be slow or away; that is done beside the loop, a bounded
// number at a time, so that known machines do not wait for it.
func (s *Server) answer(ctx context.Context, w *wire) error {
	slow := make(chan letter, 64)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for l := range slow {
			s.reply(ctx, w, l.pkt, l.from)
		}
	}()
	defer func() { close(slow); <-done }()

	buf := make([]byte, 9000)
	for {
		n, on, from, err := w.cooked.ReadFrom(buf)
		if ctx.Err() != nil {
			return nil
		} else if err != nil {
			return fmt.Errorf("dhcp: receive on %s: %w", or(w.name, "the relays' socket"), err)
		}
		if on != nil && w.skip[on.IfIndex] {
			continue
		}
		sender := from.(*net.UDPAddr).AddrPort()
		if !s.enrols(w.name, buf[:n]) {
			s.reply(ctx, w, buf[:n], sender)
			continue
		}
		select {
		case slow <- letter{bytes.Clone(buf[:n]), sender}:
		default:
			s.counters.outcome[TooMany].Add(1)
		}
	}
}

// reply answers one packet, if it gets an answer.
func (s *Server) reply(ctx context.Context, w *wire, pkt []byte, from netip.AddrPort) {
	defer s.survive(pkt)
	reply, to, _ := s.Respond(ctx, w.name, pkt, from, time.Now())
	if reply == nil {
		return
	}
	if err := w.send(reply, to); err != nil && ctx.Err() == nil {
		s.counters.sendFails.Add(1)
		if s.Log != nil {
			s.Log.Debug("dhcp: reply not sent", "to", to.Addr, "err", err)
		}
	}
}

// survive is deferred around what is done about one packet outside of Respond: the loop goes on.
func (s *Server) survive(pkt []byte) {
	if p := recover(); p != nil {
		s.panics.Caught(s.Log, part, p, pkt)
	}
}

func (w *wire) send(reply []byte, to Dest) error {
	if to.MAC != nil {
		_, err := w.frames.WriteTo(frame(w.card.HardwareAddr, to.MAC, netip.AddrPortFrom(to.From, serverPort), to.Addr, reply), &packet.Addr{HardwareAddr: to.MAC})
		return err
	}
	_, err := w.cooked.WriteTo(reply, &ipv4.ControlMessage{Src: to.From.AsSlice()}, net.UDPAddrFromAddrPort(to.Addr))
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
		s.advert(w, buf[:n])
	}
}

// advert answers one frame, if it is a solicitation.
func (s *Server) advert(w *wire, f []byte) {
	defer s.survive(f)
	a := advertFor(f, w.card.HardwareAddr)
	if a == nil {
		return
	}
	if _, err := w.adverts.WriteTo(a, &packet.Addr{HardwareAddr: net.HardwareAddr(a[:6])}); err != nil {
		s.counters.sendFails.Add(1)
		return
	}
	s.counters.adverts.Add(1)
}
