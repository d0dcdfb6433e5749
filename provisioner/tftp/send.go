package tftp

import (
	"encoding/binary"
	"errors"
	"net"
	"os"
	"time"
)

// send gives data to the client at the other end of conn, which is connected:
// the kernel drops packets of anybody else.
//
// A window of packets is sent, then an acknowledgement awaited. One inside the
// window moves it, so what followed is sent again (RFC 7440 section 4). One
// from before the window is a duplicate and is ignored: answering it doubles
// every packet after it (RFC 1123 section 4.2.3.1). Only silence resends.
func (s *Server) send(conn net.Conn, r request, data []byte) Outcome {
	blocks := len(data)/r.block + 1 // the last one is short, maybe empty
	packet := make([]byte, 4+r.block)
	first := 1 // oldest block that is not acknowledged; 0 is the option acknowledgement
	oack := r.optionAck(len(data))
	if oack != nil {
		first = 0
	}
	var (
		resend   = s.Resend
		answered = false
		progress = time.Now()
		in       = make([]byte, 512)
	)
	for first <= blocks {
		last := min(first+r.window-1, blocks)
		if first == 0 {
			last = 0
		}
		for n := first; n <= last; n++ {
			out := oack
			if n > 0 {
				binary.BigEndian.PutUint16(packet, opData)
				binary.BigEndian.PutUint16(packet[2:], uint16(n)) // wraps to 0 after 65535, as clients expect
				out = packet[:4+copy(packet[4:], data[(n-1)*r.block:])]
			}
			if _, err := conn.Write(out); err != nil {
				return Aborted
			}
		}
		moved, outcome := await(conn, in, first, last, time.Now().Add(resend))
		switch {
		case outcome != Served:
			return outcome
		case moved > 0:
			first, resend, answered, progress = first+moved, s.Resend, true, time.Now()
			continue
		}
		patience := s.GiveUp
		if !answered {
			patience /= 6 // nothing proves that the sender of the request exists
		}
		if time.Since(progress) > patience {
			return TimedOut
		}
		resend = min(2*resend, max(time.Second, s.Resend))
	}
	s.counters.bytes.Add(uint64(len(data)))
	return Served
}

// await reads until an acknowledgement of one of the blocks first to last
// comes, or the time is over. It returns how many are acknowledged.
func await(conn net.Conn, in []byte, first, last int, until time.Time) (moved int, _ Outcome) {
	if err := conn.SetReadDeadline(until); err != nil {
		return 0, Aborted
	}
	for {
		n, err := conn.Read(in)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, Served
		} else if err != nil {
			return 0, Aborted // the client's port is closed, or we are shutting down
		}
		if n < 4 {
			continue
		}
		switch binary.BigEndian.Uint16(in) {
		case opError:
			return 0, Aborted
		case opAck:
			ahead := int(binary.BigEndian.Uint16(in[2:]) - uint16(first))
			if ahead <= last-first {
				return ahead + 1, Served
			}
		}
	}
}
