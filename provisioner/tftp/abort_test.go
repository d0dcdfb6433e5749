package tftp

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"
)

// dial asks for a file from a socket of its own and gives the first block's sender.
func dial(t *testing.T, at string) (*net.UDPConn, *net.UDPAddr) {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	to := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(at))
	in := make([]byte, 2000)
	for range 50 { // a full house answers with silence
		if _, err := c.WriteToUDP([]byte("\x00\x01snponly-x86_64.efi\x00octet\x00"), to); err != nil {
			t.Fatal(err)
		}
		c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if _, from, err := c.ReadFromUDP(in); err == nil {
			return c, from
		}
	}
	t.Fatal("never served")
	return nil, nil
}

// Ten thousand transfers that their clients leave, by an error, by closing the port, without a word: no goroutine, no
// descriptor and no place stays behind (P10, F-25), and the next client is served.
func TestAbortedTransfersLeaveNothing(t *testing.T) {
	s := &Server{PerClient: 200, Resend: 2 * time.Millisecond, GiveUp: 30 * time.Millisecond}
	at := start(t, s)
	descriptors := func() int {
		d, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(d)
	}
	const clients, each = 20, 500
	goroutines, open := runtime.NumGoroutine(), descriptors()
	var wg sync.WaitGroup
	for k := range clients {
		wg.Go(func() {
			to, in := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(at)), make([]byte, 2000)
			for i := range each {
				c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
				if err != nil {
					t.Error(err)
					return
				}
				c.WriteToUDP([]byte("\x00\x01snponly-x86_64.efi\x00octet\x00"), to)
				c.SetReadDeadline(time.Now().Add(time.Second))
				_, from, err := c.ReadFromUDP(in)
				if err == nil {
					switch (i + k) % 3 {
					case 0:
						c.WriteToUDP([]byte("\x00\x05\x00\x00gone\x00"), from)
					case 1:
						c.WriteToUDP([]byte{0, opAck, 0, 1}, from) // one block further, then the port is closed
					}
				}
				c.Close()
			}
		})
	}
	wg.Wait()
	waitFor(t, func() bool { return s.Counters().Running == 0 })
	n := s.Counters()
	if left := n.Outcomes["aborted"] + n.Outcomes["timed-out"]; left < clients*each*95/100 || n.Outcomes["served"] != 0 || n.Outcomes["panicked"] != 0 {
		t.Errorf("%d of %d were aborted: %v", left, clients*each, n.Outcomes)
	}
	waitFor(t, func() bool { return runtime.NumGoroutine() <= goroutines && descriptors() <= open })
	t.Logf("%v; goroutines %d → %d, descriptors %d → %d", n.Outcomes, goroutines, runtime.NumGoroutine(), open, descriptors())
	s.mu.Lock()
	if len(s.running)+len(s.clients) != 0 {
		t.Errorf("places are still taken: %d, %d", len(s.running), len(s.clients))
	}
	s.mu.Unlock()
	if got, err := (&reader{}).get(t, at, "even"); err != nil || len(got) != 1024 {
		t.Errorf("afterwards: %d bytes, %v", len(got), err)
	}
}

// What comes after an error is nobody's: an acknowledgement made a single-port server deaf once (pin/tftp#99). Nor does
// the transfer of one port hear what another port says, and who asks again from the same port gets no second one.
func TestWhatComesFromTheWrongPlace(t *testing.T) {
	s := &Server{Resend: 30 * time.Millisecond}
	at := start(t, s)
	ack := func(n uint16) []byte { return binary.BigEndian.AppendUint16([]byte{0, opAck}, n) }

	c, from := dial(t, at)
	c.WriteToUDP([]byte("\x00\x05\x00\x00no\x00"), from)
	for n := range uint16(5) {
		c.WriteToUDP(ack(n), from)                                                 // to the transfer that is over
		c.WriteToUDP(ack(n), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(at))) // and to the listening port
	}
	waitFor(t, func() bool { return s.Counters().Outcomes["aborted"] == 1 && s.Counters().Outcomes["malformed"] == 5 })
	if got, err := (&reader{}).get(t, at, "even"); err != nil || len(got) != 1024 {
		t.Fatalf("afterwards: %d bytes, %v", len(got), err)
	}

	c, from = dial(t, at)
	stranger, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	for n := range uint16(20) { // another port says how far the transfer is, and that it is over
		stranger.WriteToUDP(ack(n), from)
		stranger.WriteToUDP([]byte("\x00\x05\x00\x00no\x00"), from)
	}
	for range 5 { // the request again: it was late, or is copied
		c.WriteToUDP([]byte("\x00\x01snponly-x86_64.efi\x00octet\x00"), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(at)))
	}
	waitFor(t, func() bool { return s.Counters().Outcomes["duplicate"] == 5 })
	in, got, next := make([]byte, 2000), []byte{}, uint16(1)
	c.WriteToUDP(ack(0), from) // the first block again, whatever came before
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		n, who, err := c.ReadFromUDP(in)
		if err != nil {
			t.Fatalf("the transfer is gone after %d bytes: %v", len(got), err)
		}
		if who.Port != from.Port {
			t.Fatalf("a second transfer answers, from port %d", who.Port)
		}
		if binary.BigEndian.Uint16(in[2:]) != next {
			continue
		}
		got = append(got, in[4:n]...)
		c.WriteToUDP(ack(next), from)
		if next++; n < 516 {
			break
		}
	}
	if !bytes.Equal(got, loader) {
		t.Errorf("%d of %d bytes", len(got), len(loader))
	}
}
