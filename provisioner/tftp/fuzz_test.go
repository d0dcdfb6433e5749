package tftp

import (
	"bytes"
	"encoding/binary"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hostler-project/hostler/internal/frugal"
)

// FuzzRequest sends one packet to the listening port. What is served is a read request whose name cannot be a path; the
// options that are acknowledged are ones that were asked for, no larger; and what is acknowledged is a request again.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{
		"\x00\x01snponly-x86_64.efi\x00octet\x00", "\x00\x01snponly-x86_64.efi\x00octet\x00tsize\x000\x00blksize\x001468\x00windowsize\x004\x00",
		"\x00\x02up\x00octet\x00", "\x00\x01../x\x00OCTET\x00blksize\x00", "\x00\x01\x00\x00", "\x00\x01a\x00octet\x00blksize\x00-9223372036854775808\x00BLKSIZE\x00512\x00",
		"\x00\x01undionly.kpxe\x00netascii\x00", "\x00\x01" + strings.Repeat("a", 2000) + "\x00octet\x00", "\x00\x01a\x00octet\x00" + strings.Repeat("x\x00\x00", 500),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var r request
		var o Outcome
		frugal.Check(t, time.Millisecond, 64<<10+32*uint64(len(b)), func() { r, o = parseRequest(b) })
		if o != Served {
			if o != NotFound && o != WriteRefused && o != Malformed {
				t.Fatalf("outcome %v", o)
			}
			return
		}
		if !bytes.HasPrefix(b, append([]byte("\x00\x01"+r.name), 0)) || b[len(b)-1] != 0 {
			t.Fatalf("%q is served for %q", r.name, b)
		}
		if r.name == "" || len(r.name) > 128 || r.name[0] == '.' || strings.Trim(r.name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != "" {
			t.Fatalf("the map would be asked for %q", r.name)
		}
		if r.block < 8 || r.block > maxBlock || r.window < 1 || r.window > maxWindow {
			t.Fatalf("%+v", r)
		}
		a := r.optionAck(1 << 30)
		if a == nil {
			if r.asked.block || r.asked.window || r.size {
				t.Fatalf("options of %+v are not acknowledged", r)
			}
			return
		}
		if len(a) > 64 {
			t.Fatalf("%d bytes acknowledge %d", len(a), len(b))
		}
		lower := strings.ToLower(string(b))
		fields := strings.Split(strings.TrimSuffix(string(a[2:]), "\x00"), "\x00")
		for i := 0; i+1 < len(fields); i += 2 {
			if n, err := strconv.Atoi(fields[i+1]); err != nil || n < 1 || !strings.Contains(lower, "\x00"+fields[i]+"\x00") {
				t.Fatalf("%q was not asked for by %q", fields[i:i+2], b)
			}
		}
		again, o := parseRequest([]byte("\x00\x01" + r.name + "\x00octet\x00" + strings.TrimSuffix(string(a[2:]), "1073741824\x00") + map[bool]string{true: "0\x00"}[r.size]))
		if o != Served || again != r {
			t.Fatalf("acknowledged as %+v, asked for %+v", again, r)
		}
	})
}

// A script is a client at the other end of a transfer: it takes what is sent, and answers with what it was given.
type script struct {
	net.Conn // nil: nothing else is called
	answers  [][]byte
	sent     [][]byte
	silences int // deadlines that passed
	acks     int // acknowledgements handed over
}

func (s *script) Write(b []byte) (int, error) {
	s.sent = append(s.sent, bytes.Clone(b))
	return len(b), nil
}

func (s *script) Read(b []byte) (int, error) {
	if len(s.answers) == 0 || len(s.answers[0]) == 0 { // an empty answer is silence
		if len(s.answers) > 0 {
			s.answers = s.answers[1:]
		}
		s.silences++
		return 0, os.ErrDeadlineExceeded
	}
	n := copy(b, s.answers[0])
	s.answers = s.answers[1:]
	if n >= 4 && b[0] == 0 && b[1] == opAck {
		s.acks++
	}
	return n, nil
}

func (s *script) SetReadDeadline(time.Time) error { return nil }

// FuzzTransfer is the sender against any client: acknowledgements that come twice, late, of the future, or errors and
// noise among them (F-25; pin/tftp#99 was an acknowledgement after an error). Every packet is the right piece of the
// file; the number of packets is bounded by what the client acknowledged and how often it was silent, so that no
// duplicate multiplies; only a client that acknowledged the end was served.
func FuzzTransfer(f *testing.F) {
	ack := func(n uint16) []byte { return binary.BigEndian.AppendUint16([]byte{4, 0, opAck}, n) }
	join := func(p ...[]byte) []byte { return bytes.Join(p, nil) }
	f.Add(uint16(1200), uint16(512), uint8(1), join(ack(1), ack(2), ack(3)))
	f.Add(uint16(1200), uint16(512), uint8(1), join(ack(1), ack(1), ack(1), ack(2), ack(2), ack(3)))                     // sorcerer's apprentice
	f.Add(uint16(5000), uint16(8), uint8(16), join(ack(0), ack(16), ack(9), ack(25), []byte{0, 0}, ack(65535), ack(25))) // windows, late ones
	f.Add(uint16(1200), uint16(512), uint8(1), join(ack(1), []byte{5, 0, opError, 0, 0, 0}, ack(2)))                     // pin/tftp#99
	f.Add(uint16(0), uint16(512), uint8(1), join([]byte{1, 9}, ack(1)))
	f.Fuzz(func(t *testing.T, size, block uint16, window uint8, answers []byte) {
		r := request{name: "x", block: 8 + int(block)%(maxBlock-7), window: 1 + int(window)%maxWindow}
		r.asked.block, r.asked.window, r.size = block%2 == 1, window%2 == 1, size%2 == 1
		data := loader[:size]
		c := &script{}
		for len(answers) > 0 && len(c.answers) < 200 { // each begins with its length
			n := min(int(answers[0]), len(answers)-1)
			c.answers, answers = append(c.answers, answers[1:1+n]), answers[1+n:]
		}
		all := c.answers
		s := &Server{Resend: 1, GiveUp: 1} // the first silence after the script is the last
		o := s.send(c, r, data)

		blocks := len(data)/r.block + 1
		offers := 0
		for _, p := range c.sent {
			if p[1] == opOAck {
				offers++
				continue
			}
			if len(p) < 4 || p[1] != opData {
				t.Fatalf("sent %x", p)
			}
			n := int(binary.BigEndian.Uint16(p[2:])) // at most 8,192 blocks here: no wrap
			if n < 1 || n > blocks || !bytes.Equal(p[4:], data[(n-1)*r.block:min(n*r.block, len(data))]) {
				t.Fatalf("block %d of %d holds the wrong %d bytes", n, blocks, len(p)-4)
			}
		}
		if most := r.window * (1 + c.acks + c.silences); len(c.sent) > most {
			t.Fatalf("%d packets for %d acknowledgements and %d silences, window %d", len(c.sent), c.acks, c.silences, r.window)
		}
		heard := all[:len(all)-len(c.answers)]
		switch o {
		case Served:
			last := heard[len(heard)-1]
			if len(last) < 4 || last[1] != opAck || int(binary.BigEndian.Uint16(last[2:])) != blocks {
				t.Fatalf("served, though the client said last %x", last)
			}
			if s.Counters().Bytes != uint64(len(data)) {
				t.Fatalf("counted %d bytes of %d", s.Counters().Bytes, len(data))
			}
		case Aborted:
			if last := heard[len(heard)-1]; len(last) < 4 || last[1] != opError {
				t.Fatalf("aborted by %x", last)
			}
		case TimedOut:
			if c.silences == 0 {
				t.Fatal("timed out with a client that speaks")
			}
		default:
			t.Fatalf("outcome %v", o)
		}
	})
}
