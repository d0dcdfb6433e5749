package tftp

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	pin "github.com/pin/tftp/v3"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// loader is 300 KB of noise; wrap needs more than 65,535 blocks of 512 bytes.
var (
	loader = noise(300_001)
	wrap   = noise(512 * 65_600)
)

func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(b)
	return b
}

// start serves on a loopback port until the test ends.
func start(t *testing.T, s *Server) string {
	if s.Files == nil {
		s.Files = Map{"snponly-x86_64.efi": loader, "empty": nil, "even": loader[:1024], "wrap": wrap}
	}
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx, conn) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if n := s.Counters().Running; n != 0 {
			t.Errorf("%d transfers outlived the server", n)
		}
	})
	return conn.LocalAddr().String()
}

// A client that others wrote gets every file whole, whatever block size it
// asks for.
func TestForeignClient(t *testing.T) {
	s := &Server{}
	at := start(t, s)
	for _, block := range []int{0, 512, 1400, 1468, 8192} {
		for name, want := range map[string][]byte{"snponly-x86_64.efi": loader, "empty": nil, "even": loader[:1024]} {
			c, err := pin.NewClient(at)
			if err != nil {
				t.Fatal(err)
			}
			if block > 0 {
				c.SetBlockSize(block)
			}
			c.RequestTSize(true)
			from, err := c.Receive(name, "octet")
			if err != nil {
				t.Fatal(err)
			}
			if n, ok := from.(pin.IncomingTransfer).Size(); len(want) > 0 && (!ok || n != int64(len(want))) {
				t.Errorf("block size %d: size %d announced for %s", block, n, name)
			}
			var got bytes.Buffer
			if _, err := from.WriteTo(&got); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Bytes(), want) {
				t.Errorf("block size %d: %s differs", block, name)
			}
		}
	}
	waitFor(t, func() bool { return s.Counters().Outcomes["served"] == 15 })
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for range 300 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("waited 3 s in vain")
}

// A reader is a small RFC 7440 client with a bad network.
type reader struct {
	options []string
	loss    float64 // of packets, each way
	late    float64 // of acknowledgements sent twice
	rand    *rand.Rand
	packets int // received
	oack    map[string]string
}

func (c *reader) get(t testing.TB, at, name string) ([]byte, error) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	to := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(at))
	first := to
	request := []byte("\x00\x01" + strings.Join(append([]string{name, "octet"}, c.options...), "\x00") + "\x00")
	lost := func() bool { return c.loss > 0 && c.rand.Float64() < c.loss }
	last := request
	send := func(b []byte) {
		last = b
		if !lost() {
			conn.WriteToUDP(b, to)
		}
		if c.late > 0 && c.rand.Float64() < c.late {
			conn.WriteToUDP(b, to)
		}
	}
	send(request)
	var got []byte
	block, window, next, inWindow, complained := 512, 1, 1, 0, false
	in := make([]byte, 2000)
	deadline := time.Now().Add(30 * time.Second)
	for time.Now().Before(deadline) {
		conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		n, from, err := conn.ReadFromUDP(in)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			complained = false
			send(last)
			continue
		} else if err != nil {
			return nil, err
		}
		if lost() {
			continue
		}
		if to == first {
			to = from
		}
		c.packets++
		p := in[:n]
		switch binary.BigEndian.Uint16(p) {
		case opError:
			return nil, fmt.Errorf("code %d: %s", p[3], bytes.TrimRight(p[4:], "\x00"))
		case opOAck:
			c.oack = map[string]string{}
			f := strings.Split(string(p[2:]), "\x00")
			for i := 0; i+1 < len(f); i += 2 {
				c.oack[f[i]] = f[i+1]
			}
			if v := c.oack["blksize"]; v != "" {
				fmt.Sscan(v, &block)
			}
			if v := c.oack["windowsize"]; v != "" {
				fmt.Sscan(v, &window)
			}
			send([]byte{0, opAck, 0, 0})
		case opData:
			if binary.BigEndian.Uint16(p[2:]) != uint16(next) {
				if !complained { // old, or after a hole (RFC 7440 section 4): say where we are
					complained, inWindow = true, 0
					send(binary.BigEndian.AppendUint16([]byte{0, opAck}, uint16(next-1)))
				}
				continue
			}
			got = append(got, p[4:]...)
			complained = false
			next++
			inWindow++
			end := n-4 < block
			if end || inWindow == window {
				inWindow = 0
				send(binary.BigEndian.AppendUint16([]byte{0, opAck}, uint16(next-1)))
			}
			if end {
				return got, nil
			}
		}
	}
	return got, errors.New("the client gave up")
}

func TestOptions(t *testing.T) {
	at := start(t, &Server{})
	for name, tt := range map[string]struct {
		ask  []string
		want map[string]string
	}{
		"none":                     {nil, nil},
		"large ones are cut":       {[]string{"blksize", "65464", "windowsize", "64", "tsize", "0"}, map[string]string{"blksize": "1468", "windowsize": "16", "tsize": "1024"}},
		"small block":              {[]string{"BLKSIZE", "8"}, map[string]string{"blksize": "8"}},
		"out of range":             {[]string{"blksize", "7", "windowsize", "0"}, nil},
		"not numbers":              {[]string{"blksize", "x", "windowsize", "", "tsize", "9"}, nil},
		"unknown, and half of one": {[]string{"multicast", "", "blksize"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			c := &reader{options: tt.ask}
			got, err := c.get(t, at, "even")
			if err != nil || !bytes.Equal(got, loader[:1024]) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if diff := cmp.Diff(tt.want, c.oack); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Loss both ways and acknowledgements that come twice cost time, never a byte,
// and duplicates do not multiply (RFC 1123 section 4.2.3.1).
func TestBadNetwork(t *testing.T) {
	s := &Server{Resend: 10 * time.Millisecond}
	at := start(t, s)
	for name, c := range map[string]*reader{
		"lockstep, 5 % loss":          {loss: 0.05},
		"window 16, 5 % loss":         {loss: 0.05, options: []string{"windowsize", "16", "blksize", "1468"}},
		"window 4, 20 % loss":         {loss: 0.2, options: []string{"windowsize", "4", "blksize", "1468"}},
		"every acknowledgement twice": {late: 1, options: []string{"blksize", "1468"}},
		"twice, in windows":           {late: 1, options: []string{"blksize", "1468", "windowsize", "8"}},
	} {
		t.Run(name, func(t *testing.T) {
			c.rand = rand.New(rand.NewPCG(1, 2))
			got, err := c.get(t, at, "snponly-x86_64.efi")
			if err != nil || !bytes.Equal(got, loader) {
				t.Errorf("%d of %d bytes, %v", len(got), len(loader), err)
			}
			if least := len(loader)/1468 + 2; c.late == 1 && c.packets > least+10 {
				t.Errorf("%d packets for a file of %d", c.packets, least)
			}
		})
	}
}

func TestBlockNumbersWrap(t *testing.T) {
	at := start(t, &Server{})
	c := &reader{options: []string{"windowsize", "16", "blksize", "512"}}
	got, err := c.get(t, at, "wrap")
	if err != nil || !bytes.Equal(got, wrap) {
		t.Errorf("%d of %d bytes, %v", len(got), len(wrap), err)
	}
}

// Names that look like paths, writes and other modes get nothing.
func TestRefusals(t *testing.T) {
	var asked atomic.Pointer[string]
	s := &Server{Files: spy{Map{"snponly-x86_64.efi": loader}, &asked}}
	at := start(t, s)
	for name, want := range map[string]string{
		"../etc/passwd": "code 1: not found", "/etc/passwd": "code 1: not found", "..\\boot.ini": "code 1: not found",
		"%2e%2e%2fetc": "code 1: not found", "\\\\host\\share": "code 1: not found", ".hidden": "code 1: not found",
		"a/b": "code 1: not found", "\u2024\u2024/x": "code 1: not found", strings.Repeat("a", 1500): "code 1: not found", "": "code 1: not found",
	} {
		if _, err := (&reader{}).get(t, at, name); err == nil || err.Error() != want {
			t.Errorf("%.20q: got %v, want %s", name, err, want)
		}
	}
	if name := asked.Load(); name != nil {
		t.Errorf("the map was asked for %q", *name)
	}
	if _, err := (&reader{}).get(t, at, "other.efi"); err == nil || asked.Load() == nil || *asked.Load() != "other.efi" {
		t.Errorf("got %v, or the map was not asked", err)
	}
	for _, tt := range []struct {
		packet, want string
	}{
		{"\x00\x02up\x00octet\x00", "write-refused"}, {"\x00\x01snponly-x86_64.efi\x00netascii\x00", "malformed"}, {"\x00\x01snponly-x86_64.efi\x00", "malformed"},
		{"\x00\x01snponly-x86_64.efi", "malformed"}, {"\x00\x01a\x00octet", "malformed"}, {"\x00\x04\x00\x01", "malformed"}, {"\x00", "malformed"}, {"", "malformed"},
		{"\x00\x01snponly-x86_64.efi\x00evil\x00octet\x00", "malformed"},
	} {
		before := s.Counters().Outcomes[tt.want]
		c, err := net.Dial("udp4", at)
		if err != nil {
			t.Fatal(err)
		}
		c.Write([]byte(tt.packet))
		waitFor(t, func() bool { return s.Counters().Outcomes[tt.want] == before+1 })
		c.Close()
	}
}

type spy struct {
	Map
	asked *atomic.Pointer[string]
}

func (s spy) Open(name string, a netip.Addr) ([]byte, bool) {
	s.asked.Store(&name)
	return s.Map.Open(name, a)
}

// Requests without a client behind them take places for a while, and no more
// than one address may take; the server keeps serving, and forgets them.
func TestHalfOpen(t *testing.T) {
	s := &Server{PerClient: 3, Resend: 10 * time.Millisecond, GiveUp: 1200 * time.Millisecond}
	at := start(t, s)
	for range 10 {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for range 2 { // the second is a duplicate, or finds no place again
			c.WriteToUDPAddrPort([]byte("\x00\x01snponly-x86_64.efi\x00octet\x00"), netip.MustParseAddrPort(at))
		}
	}
	waitFor(t, func() bool { return s.Counters().Outcomes["busy"] == 14 })
	if c := s.Counters(); c.Running != 3 || c.Outcomes["duplicate"] != 3 {
		t.Errorf("got %+v", c)
	}
	waitFor(t, func() bool { return s.Counters().Outcomes["timed-out"] == 3 })
	if got, err := (&reader{}).get(t, at, "even"); err != nil || len(got) != 1024 {
		t.Errorf("afterwards: %d bytes, %v", len(got), err)
	}
}

func TestManyAtOnce(t *testing.T) {
	s := &Server{PerClient: 100}
	at := start(t, s)
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			c := &reader{options: []string{"windowsize", "4", "blksize", "1468"}}
			if got, err := c.get(t, at, "snponly-x86_64.efi"); err != nil || !bytes.Equal(got, loader) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	wg.Wait()
	if c := s.Counters(); c.Bytes < uint64(60*len(loader)) {
		t.Errorf("got %+v", c)
	}
}

func TestPanicIsOneTransfersLoss(t *testing.T) {
	s := &Server{Files: bad{}}
	at := start(t, s)
	c, err := net.Dial("udp4", at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write([]byte("\x00\x01boom\x00octet\x00"))
	waitFor(t, func() bool { return s.Counters().Outcomes["panicked"] == 1 })
	if got, err := (&reader{}).get(t, at, "good"); err != nil || string(got) != "good" {
		t.Errorf("afterwards: %q, %v", got, err)
	}
	reg := prometheus.NewPedanticRegistry()
	if err := reg.Register(s); err != nil {
		t.Fatal(err)
	}
	if m, err := reg.Gather(); err != nil || len(m) != 4 {
		t.Errorf("%d metrics, %v", len(m), err)
	}
}

type bad struct{}

func (bad) Open(name string, _ netip.Addr) ([]byte, bool) {
	if name == "boom" {
		panic("bug")
	}
	return []byte(name), true
}
