package dhcp

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

var ourMAC = net.HardwareAddr{0x02, 0xaa, 0xbb, 0xcc, 0xdd, 0xee}

// solicit is a router solicitation as iPXE sends it: from its link-local
// address, with its MAC in an option.
func solicit(t testing.TB, from net.HardwareAddr, src net.IP) []byte {
	dst := net.ParseIP("ff02::2")
	m := &icmp.Message{Type: ipv6.ICMPTypeRouterSolicitation, Body: &icmp.RawBody{Data: append([]byte{0, 0, 0, 0, 1, 1}, from...)}}
	body, err := m.Marshal(icmp.IPv6PseudoHeader(src, dst))
	if err != nil {
		t.Fatal(err)
	}
	f := append(append(bytes.Clone(allRouters), from...), 0x86, 0xdd, 0x60, 0, 0, 0, 0, byte(len(body)), 58, 255)
	return append(append(append(f, src.To16()...), dst...), body...)
}

func TestAdvertAnswersASolicitation(t *testing.T) {
	for name, tt := range map[string]struct {
		src, dst string
		mac      net.HardwareAddr
	}{
		"from a link-local address": {"fe80::5054:ff:fe12:3401", "fe80::5054:ff:fe12:3401", macA},
		"from no address":           {"::", "ff02::1", allNodes},
		"from a global address":     {"fd77::5", "ff02::1", allNodes},
	} {
		t.Run(name, func(t *testing.T) {
			a := advertFor(solicit(t, macA, net.ParseIP(tt.src)), ourMAC)
			if a == nil {
				t.Fatal("no answer")
			}
			h, err := ipv6.ParseHeader(a[14:])
			if err != nil {
				t.Fatal(err)
			}
			if !h.Dst.Equal(net.ParseIP(tt.dst)) || !bytes.Equal(a[:6], tt.mac) || h.HopLimit != 255 || h.NextHeader != 58 || h.PayloadLen != len(a)-54 {
				t.Errorf("header %v to %x", h, a[:6])
			}
			if h.Src.String() != "fe80::aa:bbff:fecc:ddee" {
				t.Errorf("from %v", h.Src)
			}
			if fold(sum(pseudo(h.Src, h.Dst, h.PayloadLen), a[54:])) != 0xffff {
				t.Error("wrong checksum")
			}
			// type 134, code 0, hop limit 64, flags 0, lifetime 0, timers 0, one
			// option: our MAC. No prefix.
			got := hex.EncodeToString(a[58:])
			if want := "40000000" + "0000000000000000" + "0101" + hex.EncodeToString(ourMAC); a[54] != 134 || a[55] != 0 || got != want {
				t.Errorf("got %x, want 8600 and %s", a[54:], want)
			}
		})
	}
}

func TestAdvertIgnoresTheRest(t *testing.T) {
	good := solicit(t, macA, net.ParseIP("fe80::1"))
	change := func(at int, v byte) []byte { b := bytes.Clone(good); b[at] = v; return b }
	for name, f := range map[string][]byte{
		"nothing": nil, "cut": good[:60], "IPv4": change(12, 8), "routed": change(14+7, 64), "UDP": change(14+6, 17),
		"another type": change(54, 135), "another code": change(55, 1), "wrong checksum": change(56, good[56]+1), "longer than it is": change(14+5, 200),
	} {
		if a := advertFor(f, ourMAC); a != nil {
			t.Errorf("%s: answered with %x", name, a)
		}
	}
}

// The frame to a client without an address is what the kernel would send.
func TestFrame(t *testing.T) {
	payload := []byte("odd")
	src, dst := netip.MustParseAddrPort("192.168.77.1:67"), netip.MustParseAddrPort("192.168.77.10:68")
	f := frame(ourMAC, macA, src, dst, payload)
	if !bytes.Equal(f[:6], macA) || !bytes.Equal(f[6:12], ourMAC) || binary.BigEndian.Uint16(f[12:]) != 0x0800 {
		t.Errorf("Ethernet header %x", f[:14])
	}
	h, err := ipv4.ParseHeader(f[14:])
	if err != nil {
		t.Fatal(err)
	}
	if h.TotalLen != 31 || h.Protocol != 17 || !h.Src.Equal(src.Addr().AsSlice()) || !h.Dst.Equal(dst.Addr().AsSlice()) || fold(sum(0, f[14:34])) != 0xffff {
		t.Errorf("IPv4 header %v", h)
	}
	u := f[34:]
	if fold(sum(sum(17+uint32(len(u)), f[26:34]), u)) != 0xffff || binary.BigEndian.Uint16(u) != 67 || binary.BigEndian.Uint16(u[2:]) != 68 || !bytes.Equal(u[8:], payload) {
		t.Errorf("UDP %x", u)
	}
}
