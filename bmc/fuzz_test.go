package bmc

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode"

	ipmibmc "github.com/bougou/go-ipmi/pkg/bmc"
	"github.com/bougou/go-ipmi/pkg/crypto"
	"github.com/bougou/go-ipmi/pkg/types"

	"github.com/hostler-project/hostler/bmc/bmctest"
)

// hasty is the pace of the fuzz targets: a datagram that is lost is asked for again at once.
func hasty() pace {
	return pace{call: 2 * time.Second, exchange: 20 * time.Millisecond, resends: 3, space: time.Millisecond, agree: 2, again: time.Second, acts: 1, settle: time.Second}
}

// A forger is a controller that knows the keys of its session, because it is one, and says what it is told to.
type forger struct {
	*fake
	turn sync.Mutex // the server answers each datagram in a goroutine of its own
	seq  uint32     // of the last message of the session that was sent
	last uint32     // session of seq
}

// sends sets what becomes of the controller's datagrams.
func (g *forger) sends(f func(pkt []byte) [][]byte) {
	g.Do(func() {
		g.On, g.Send = true, func(pkt []byte) [][]byte {
			g.turn.Lock()
			defer g.turn.Unlock()
			return f(pkt)
		}
	})
}

// open takes a datagram of the session apart; ok is false for one of a login.
func (g *forger) open(pkt []byte) (s *ipmibmc.Session, kind byte, plain []byte, ok bool) {
	if len(pkt) < atPayload || pkt[atType]&0xc0 != 0xc0 {
		return nil, 0, nil, false
	}
	s, err := g.Server.Sessions.Get(g.current())
	if err != nil {
		return nil, 0, nil, false
	}
	n := int(binary.LittleEndian.Uint16(pkt[atLength:]))
	plain, err = crypto.DecryptAESPayload(pkt[atPayload:atPayload+n], s.K2)
	return s, pkt[atType] & 0x3f, plain, err == nil
}

// seal makes a datagram of the session out of a payload: encrypted, numbered, authenticated.
func (g *forger) seal(pkt []byte, s *ipmibmc.Session, kind byte, plain []byte) []byte {
	id := binary.LittleEndian.Uint32(pkt[atID:])
	if id != g.last {
		g.last, g.seq = id, 0
	}
	g.seq++
	payload, err := crypto.EncryptAESPayload(plain, s.K2, make([]byte, 16))
	if err != nil {
		panic(err) // keys of our own server
	}
	b := bytes.Clone(pkt[:atPayload])
	b[atType] = 0xc0 | kind
	binary.LittleEndian.PutUint32(b[atSequence:], g.seq)
	binary.LittleEndian.PutUint16(b[atLength:], uint16(len(payload)))
	b = append(append(b, payload...), 0xff, 0xff, 2, 7)
	mac, err := crypto.SessionIntegrityAuthCode(suites[3].integrity, b[atAuthType:], s.K1, "")
	if err != nil {
		panic(err)
	}
	return append(b, mac...)
}

// answer puts completion code and data in place of those of an IPMI message.
func answer(plain, say []byte) []byte {
	if len(plain) < 8 {
		return plain
	}
	if len(say) == 0 {
		say = []byte{0}
	}
	m := append(bytes.Clone(plain[:6]), say...)
	var sum byte
	for _, c := range m[3:] {
		sum -= c
	}
	return append(m, sum)
}

// current is the controller's number of the session that the client spoke for last.
func (f *fake) current() (id uint32) {
	f.Do(func() { id = f.Session })
	return id
}

// split cuts a fuzzed input into pieces, each behind its length.
func split(b []byte, most int) (all [][]byte) {
	for len(b) > 0 && len(all) < most {
		n := min(int(b[0]), len(b)-1)
		all, b = append(all, b[1:1+n]), b[1+n:]
	}
	return all
}

// A guard is what every call to a controller must keep: its deadline, a typed error, the password to itself.
func guard(t *testing.T, begin time.Time, err error) {
	if took := time.Since(begin); took > 10*time.Second {
		t.Fatalf("it took %v", took)
	}
	if err == nil {
		return
	}
	_, dropped := errors.AsType[*Dropped](err)
	if _, ok := errors.AsType[*Error](err); !ok && !dropped {
		t.Fatalf("got %v (%T)", err, err)
	}
	if strings.Contains(err.Error(), simPassword) || len(err.Error()) > 2000 {
		t.Fatalf("an error of %d bytes, or the password in it", len(err.Error()))
	}
}

// FuzzAnswer has a controller answer our questions with anything, properly encrypted and authenticated: chassis status,
// boot options, FRU, GUID, console. No answer brings the program down (go-ipmi parses in a goroutine of its own, where
// nothing recovers), keeps us past the deadline, or becomes a fact that the answer does not hold.
func FuzzAnswer(f *testing.F) {
	piece := func(p ...[]byte) (out []byte) {
		for _, b := range p {
			out = append(append(out, byte(len(b))), b...)
		}
		return out
	}
	id := []byte{0, 0x20, 1, 2, 0x41, 2, 0xff, 0xf2, 0x1b, 0, 0, 1, 0, 0, 0, 0}
	guid := append([]byte{0}, bytes.Repeat([]byte{0x11}, 16)...)
	f.Add(uint8(0), piece([]byte{0, 1, 0, 0}))
	f.Add(uint8(0), piece([]byte{0, 0x20, 0x10, 0x40, 0}))
	f.Add(uint8(0), piece([]byte{0xc0}, []byte{0xc3}))
	f.Add(uint8(1), piece(id, []byte{0, 1, 5, 0xe0, 4, 0, 0, 0}))
	f.Add(uint8(1), piece(id, []byte{0, 1, 0x85, 0xff, 0xff, 0xff, 0xff, 0xff}))
	f.Add(uint8(2), piece(id, guid, append([]byte{0, 8}, 1, 0, 1, 2, 3, 0, 0, 0xf9), []byte{0, 2, 1, 0xff}, append([]byte{0, 16}, bytes.Repeat([]byte{0xff}, 16)...)))
	f.Add(uint8(2), piece(id, guid, append([]byte{0, 8}, 1, 0, 1, 2, 3, 0, 0, 0xf9), []byte{0, 0}, []byte{0, 2, 1, 0}, []byte{0, 200, 1}))
	f.Add(uint8(3), piece(id, []byte{0}, []byte{0}, []byte{0, 1, 5, 0xe0, 8, 0, 0, 0}))
	f.Add(uint8(4), piece([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0x6f, 2, 0xff, 0xff}, []byte{1, 0, 0, 0, 'h', 'i'}, []byte{2, 1, 0, 0x10}))
	f.Add(uint8(4), piece([]byte{0, 0, 0, 0, 0, 1, 0, 1, 0, 0x6f, 2, 0xff, 0xff}, nil, []byte{0, 0xff, 0xff, 0xff}))
	g := &forger{fake: startFake(f, &fake{bmctest.Fake{On: true}})}
	c := g.fake.open(f, hasty())
	f.Fuzz(func(t *testing.T, op uint8, script []byte) {
		says := split(script, 40)
		at := 0
		g.sends(func(pkt []byte) [][]byte {
			s, kind, plain, ok := g.open(pkt)
			if !ok {
				return [][]byte{pkt}
			}
			if at < len(says) && kind == byte(types.PayloadTypeIPMI) {
				plain, at = answer(plain, says[at]), at+1
			} else if at < len(says) {
				plain, at = says[at], at+1
			}
			return [][]byte{g.seal(pkt, s, kind, plain)}
		})
		c.drv.logins = &logins{now: time.Now} // or a login that was spoilt keeps us from the next for an hour
		begin := time.Now()
		switch op % 5 {
		case 0:
			got, err := c.Power(t.Context())
			guard(t, begin, err)
			claims := got == On
			for _, s := range says {
				claims = claims || len(s) >= 4 && s[0] == 0 && got == map[bool]Power{true: On, false: Off}[s[1]&1 == 1]
			}
			if err == nil && !claims || err != nil && got != Unknown {
				t.Fatalf("Power() = %s, %v: nobody said so", got, err)
			}
		case 1:
			got, err := c.BootDevice(t.Context())
			guard(t, begin, err)
			if err == nil && (got.Device == "" || len(got.String()) > 60) {
				t.Fatalf("boot device %+v", got)
			}
		case 2:
			got, err := c.Identity(t.Context())
			guard(t, begin, err)
			for _, text := range []string{got.Manufacturer, got.Product, got.ProductSerial, got.ChassisSerial, got.BoardSerial, got.GUID, got.Firmware} {
				if len(text) > 256 || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
					t.Fatalf("identity %q", text)
				}
			}
		case 3:
			guard(t, begin, c.SetBootDevice(t.Context(), PXE, false))
		case 4:
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			con, err := c.Console(ctx)
			guard(t, begin, err)
			if err == nil {
				_, err := con.Write([]byte("x"))
				n, _ := io.Copy(io.Discard, io.LimitReader(con, 1<<20))
				if n == 1<<20 {
					t.Fatalf("a console that never ends, %v", err)
				}
				con.Close()
			}
			cancel()
		}
		g.sends(func(pkt []byte) [][]byte {
			if s, kind, plain, ok := g.open(pkt); ok {
				pkt = g.seal(pkt, s, kind, plain)
			}
			return [][]byte{pkt}
		})
		c.drv.logins = &logins{now: time.Now}
		if got, err := c.Power(t.Context()); got != On || err != nil {
			t.Fatalf("afterwards: Power() = %s, %v; the machine is on", got, err)
		}
	})
}

// FuzzDatagram sends anything before each of a controller's own datagrams, during the login and after it: forged, as
// whoever has its address could, or sealed with the session's keys, as a broken controller would. A forged datagram
// never becomes an answer, and after all of them the conversation goes on.
func FuzzDatagram(f *testing.F) {
	off := []byte{0x81, 0x01 << 2, 0, 0x20, 0, 0x01, 0x00, 0x20, 0, 0x40, 0, 0}
	f.Add(false, uint8(0), append([]byte{6, 0, 0xff, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, byte(len(off))}, off...))
	f.Add(false, uint8(0), []byte{6, 0, 0xff, 7, 6, 0xc0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0})
	f.Add(false, uint8(0), []byte{6, 0, 0xff, 7, 6, 0x11, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 1, 2, 3, 4})
	f.Add(false, uint8(0), []byte{6, 0, 0xff, 7, 6, 0x13, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 2})
	f.Add(false, uint8(0), []byte{6, 0, 0xff, 7, 6, 0x15, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff})
	f.Add(true, uint8(0), off)
	f.Add(true, uint8(1), []byte{1, 0, 0, 0, 'x'})
	f.Add(true, uint8(2), []byte{})
	g := &forger{fake: startFake(f, &fake{bmctest.Fake{On: true}})}
	f.Fuzz(func(t *testing.T, sealed bool, kind uint8, b []byte) {
		b = b[:min(len(b), 1000)]
		var inject atomic.Bool
		inject.Store(true)
		g.sends(func(pkt []byte) [][]byte {
			s, own, plain, ok := g.open(pkt)
			var all [][]byte
			switch {
			case !inject.Load():
			case !sealed:
				all = append(all, b)
			case ok:
				all = append(all, g.seal(pkt, s, kind&0x3f, b))
			}
			if ok {
				pkt = g.seal(pkt, s, own, plain)
			}
			return append(all, pkt)
		})
		begin := time.Now()
		c, err := open(t.Context(), g.target(), nil, hasty(), &logins{now: time.Now})
		guard(t, begin, err)
		if err != nil { // what comes during a login is not authenticated: it may spoil it, once
			inject.Store(false)
			if c, err = open(t.Context(), g.target(), nil, hasty(), &logins{now: time.Now}); err != nil {
				t.Fatalf("afterwards: %v", err)
			}
		}
		defer c.Close(context.Background())
		got, err := c.Power(t.Context())
		guard(t, begin, err)
		if got == Off && !sealed || err == nil && got != On && !sealed {
			t.Fatalf("Power() = %s, %v; the machine is on", got, err)
		}
		inject.Store(false)
		if got, err := c.Power(t.Context()); got != On || err != nil {
			t.Fatalf("afterwards: Power() = %s, %v; the machine is on", got, err)
		}
	})
}
