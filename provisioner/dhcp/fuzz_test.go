package dhcp

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/net/ipv4"

	"github.com/hostler-project/hostler/internal/frugal"
)

// generous limits: a fuzz target must see every packet judged.
var generous = Limits{PerMAC: 1e9, Segment: 1e9, Global: 1e9, Strangers: 1e9}

// FuzzRespond sends one packet to every kind of wire. Whatever it holds: no panic, a millisecond at most (F-22), no
// reply to what is foreign (P9), and a reply that is one: of this request, with our segment's words, to nobody but the
// machine, its relay or its wire.
func FuzzRespond(f *testing.F) {
	for _, opts := range clients {
		f.Add(ask(macA, dhcpv4.MessageTypeDiscover, opts...).ToBytes())
		f.Add(ask(macNew, dhcpv4.MessageTypeRequest, append(opts, dhcpv4.OptRequestedIPAddress(net.IP{10, 1, 1, 1}))...).ToBytes())
		far := ask(mac(3), dhcpv4.MessageTypeDiscover, append(opts, raw(82, "\x01\x04port\x02\x03sw1"))...)
		far.GatewayIPAddr = relay1.AsSlice()
		f.Add(far.ToBytes())
	}
	renew := ask(mac(3), dhcpv4.MessageTypeRequest)
	renew.ClientIPAddr = net.IP{10, 9, 0, 40}
	f.Add(renew.ToBytes())
	f.Add([]byte{1, 1, 6, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, wire := range []string{"br0", "br1", "br3", ""} {
			s, _, _ := site()
			s.Limits, s.Seen = generous, nil
			var reply []byte
			var to Dest
			var o Outcome
			frugal.Check(t, time.Millisecond, 256<<10, func() { reply, to, o = s.Respond(t.Context(), wire, b, netip.AddrPort{}, noon) })
			if o == Panicked || s.Counters().Panics != 0 {
				t.Fatalf("panic on %x", b)
			}
			if (reply != nil) != (o == Answered || o == Refused) {
				t.Fatalf("%v with a reply of %d bytes", o, len(reply))
			}
			if reply != nil {
				genuine(t, s, wire, b, reply, to)
			}
		}
	})
}

// genuine judges a reply by the bytes that were sent, without our own parser.
func genuine(t *testing.T, s *Server, wire string, b, reply []byte, to Dest) {
	if len(b) < headerLen || len(b) > replyMax || b[0] != 1 || [4]byte(b[236:240]) != [4]byte{99, 130, 83, 99} {
		t.Fatalf("a reply to no request: %x", b)
	}
	from, giaddr := net.HardwareAddr(b[28:34]), netip.AddrFrom4([4]byte(b[24:28]))
	known, ours := s.Directory.Knows(Query{MAC: from}), giaddr == relay1
	routed := giaddr.IsUnspecified() && netip.MustParsePrefix("10.9.0.0/24").Contains(netip.AddrFrom4([4]byte(b[12:16])))
	if far := ours || routed; !giaddr.IsUnspecified() && !ours || !far && (wire == "br3" || wire == "") || !known && (far || wire != "br1") {
		t.Fatalf("a reply to a foreign packet on %q from %v by %v", wire, from, giaddr)
	}
	if len(reply) > replyMax || len(reply) < 300 {
		t.Fatalf("a reply of %d bytes", len(reply))
	}
	r, err := dhcpv4.FromBytes(reply)
	if err != nil {
		t.Fatal(err)
	}
	if reply[0] != 2 || !bytes.Equal(reply[4:8], b[4:8]) || !bytes.Equal(reply[28:34], b[28:34]) || !bytes.Equal(reply[24:28], b[24:28]) {
		t.Fatalf("not a reply to this request:\n%x\n%x", b, reply)
	}
	var g *Segment
	for i := range s.Segments {
		if s.Segments[i].Address == to.From && (s.Segments[i].Interface == to.Wire) {
			g = &s.Segments[i]
		}
	}
	if g == nil || g.Mode == Observe || !bytes.Equal(r.Options[54], g.Address.AsSlice()) {
		t.Fatalf("no segment of ours: %+v, server %v", to, r.Options[54])
	}
	switch kind := r.MessageType(); kind {
	case dhcpv4.MessageTypeOffer, dhcpv4.MessageTypeAck:
		if yours, _ := netip.AddrFromSlice(r.YourIPAddr.To4()); r.Options[51] != nil && !g.Subnet.Contains(yours) {
			t.Fatalf("address %v is not of segment %s", yours, g.Name)
		}
	case dhcpv4.MessageTypeNak:
		if !r.YourIPAddr.IsUnspecified() || r.BootFileName != "" {
			t.Fatalf("a refusal gives something away: %v", r.Summary())
		}
	default:
		t.Fatalf("a reply of type %v", kind)
	}
	if boots := known && from.String() != "52:54:00:12:34:02"; !boots && (r.BootFileName != "" || r.Options[67] != nil) {
		t.Fatalf("%v got a boot file", from)
	}
	at := to.Addr.Addr()
	if at == relay1 != ours || at != broadcastIP && at != relay1 && !g.Subnet.Contains(at) {
		t.Fatalf("sent to %+v", to)
	}
	if to.MAC != nil {
		framed(t, frame(ourMAC, to.MAC, netip.AddrPortFrom(to.From, serverPort), to.Addr, reply), len(reply))
	}
}

// framed checks what goes out as a frame.
func framed(t *testing.T, f []byte, payload int) {
	h, err := ipv4.ParseHeader(f[14:])
	if err != nil || len(f) != 14+20+8+payload || h.TotalLen != len(f)-14 || fold(sum(0, f[14:34])) != 0xffff {
		t.Fatalf("%v, header %v of %d bytes", err, h, len(f))
	}
	u := f[34:]
	if fold(sum(sum(17+uint32(len(u)), f[26:34]), u)) != 0xffff || int(binary.BigEndian.Uint16(u[4:])) != len(u) {
		t.Fatalf("UDP %x", u[:8])
	}
}

// FuzzAdvert sends one frame. Only a router solicitation that holds is answered, with an advertisement that promises
// nothing, to its sender or to all nodes.
func FuzzAdvert(f *testing.F) {
	f.Add(solicit(f, macA, net.ParseIP("fe80::1")))
	f.Add(solicit(f, macA, net.ParseIP("::")))
	f.Fuzz(func(t *testing.T, b []byte) {
		var a []byte
		frugal.Check(t, time.Millisecond, 64<<10, func() { a = advertFor(b, ourMAC) })
		if a == nil {
			return
		}
		if len(b) < 62 || binary.BigEndian.Uint16(b[12:]) != 0x86dd || b[20] != 58 || b[21] != 255 || b[54] != 133 {
			t.Fatalf("an answer to what is no solicitation: %x", b)
		}
		if len(a) != 78 || a[54] != 134 || !bytes.Equal(a[6:12], ourMAC) || !bytes.Equal(a[60:70], make([]byte, 10)) {
			t.Fatalf("it promises something: %x", a)
		}
		if fold(sum(pseudo(a[22:38], a[38:54], 24), a[54:])) != 0xffff {
			t.Fatalf("wrong checksum: %x", a)
		}
		toSender := bytes.Equal(a[:6], b[6:12]) && bytes.Equal(a[38:54], b[22:38])
		toAll := bytes.Equal(a[:6], allNodes) && net.IP(a[38:54]).Equal(net.IPv6linklocalallnodes)
		if !toSender && !toAll {
			t.Fatalf("sent to %x, %v", a[:6], net.IP(a[38:54]))
		}
	})
}
