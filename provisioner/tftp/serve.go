package tftp

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Listen opens the port of the server's address.
func (s *Server) Listen() (*net.UDPConn, error) {
	at := s.Address
	if at.Port() == 0 {
		at = netip.AddrPortFrom(at.Addr(), 69)
	}
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at))
	if err != nil {
		return nil, fmt.Errorf("tftp: listen on %v: %w (is another TFTP server running, and is the address ours?)", at, err)
	}
	return conn, nil
}

// Run listens and answers until ctx ends, then returns nil.
func (s *Server) Run(ctx context.Context) error {
	conn, err := s.Listen()
	if err != nil {
		return err
	}
	return s.Serve(ctx, conn)
}

// Serve answers requests on conn until ctx ends; then it closes conn, cuts the
// transfers off, waits for them and returns nil.
func (s *Server) Serve(ctx context.Context, conn *net.UDPConn) error {
	s.withDefaults()
	s.mu.Lock()
	s.running, s.clients = map[netip.AddrPort]bool{}, map[netip.Addr]int{}
	s.mu.Unlock()

	ctx, cancel := context.WithCancel(ctx)
	var transfers sync.WaitGroup
	defer transfers.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()

	local := conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr()
	buf := make([]byte, 2048)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if ctx.Err() != nil {
			return nil
		} else if err != nil {
			return fmt.Errorf("tftp: receive: %w", err)
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		if r, outcome := s.take(from, buf[:n]); outcome == Served || outcome == NotFound || outcome == WriteRefused {
			transfers.Go(func() { s.transfer(ctx, local, from, r, outcome) })
		} else {
			s.finish(from, r, outcome, 0)
		}
	}
}

// take reads what arrived, and takes a place for what is answered. A full house and a repetition get silence: an honest
// client asks again.
func (s *Server) take(from netip.AddrPort, pkt []byte) (r request, outcome Outcome) {
	defer func() {
		if p := recover(); p != nil {
			outcome = Panicked
			s.panics.Caught(s.Log, part, p, pkt, "client", from)
		}
	}()
	r, outcome = parseRequest(pkt)
	if outcome == Served || outcome == NotFound || outcome == WriteRefused {
		if why := s.admit(from); why != Served {
			outcome = why
		}
	}
	return r, outcome
}

// admit takes a place for a transfer.
func (s *Server) admit(client netip.AddrPort) Outcome {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.running[client]:
		return Duplicate
	case len(s.running) >= s.Transfers || s.clients[client.Addr()] >= s.PerClient:
		return Busy
	}
	s.running[client] = true
	s.clients[client.Addr()]++
	return Served
}

func (s *Server) leave(client netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.running, client)
	if s.clients[client.Addr()]--; s.clients[client.Addr()] == 0 {
		delete(s.clients, client.Addr())
	}
}

// transfer answers one request, from a port of its own.
func (s *Server) transfer(ctx context.Context, local netip.Addr, client netip.AddrPort, r request, outcome Outcome) {
	begin := time.Now()
	defer s.leave(client)
	defer func() {
		if p := recover(); p != nil {
			outcome = Panicked
			s.panics.Caught(s.Log, part, p, []byte(r.name), "client", client)
		}
		s.finish(client, r, outcome, time.Since(begin))
	}()
	conn, err := net.DialUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(local, 0)), net.UDPAddrFromAddrPort(client))
	if err != nil {
		outcome = Aborted
		return
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()

	var data []byte
	if outcome == Served {
		var ok bool
		if data, ok = s.Files.Open(r.name, client.Addr()); !ok {
			outcome = NotFound
		}
	}
	switch outcome {
	case Served:
		outcome = s.send(conn, r, data)
	case NotFound:
		conn.Write(errorPacket(errNotFound, "not found"))
	case WriteRefused:
		conn.Write(errorPacket(errIllegal, "read only"))
	}
}

// finish counts and notes the end of a request.
func (s *Server) finish(client netip.AddrPort, r request, o Outcome, took time.Duration) {
	s.counters.outcome[o].Add(1)
	if s.Log != nil {
		s.Log.Debug("tftp: request", "client", client, "name", r.name, "outcome", o.String(), "after", took.Round(time.Millisecond))
	}
}
