package dhcp

import (
	"bytes"
	"context"
	"encoding/hex"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/prometheus/client_golang/prometheus"
)

var (
	ours   = netip.MustParseAddr("192.168.77.1")
	noon   = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	macA   = net.HardwareAddr{0x52, 0x54, 0, 0x12, 0x34, 0x01}
	macNew = net.HardwareAddr{0x52, 0x54, 0, 0x12, 0x34, 0x99}
	relay1 = netip.MustParseAddr("10.9.0.1")
)

// fleet is a Directory: fixed addresses by MAC, and a pool for strangers that
// it reserves from at Discover.
type fleet struct {
	fixed    map[string]Answer
	reserved map[string]netip.Addr
	next     netip.Addr
}

func newFleet() *fleet {
	return &fleet{
		fixed: map[string]Answer{
			macA.String():       {Known: true, IP: netip.MustParseAddr("192.168.77.10"), Lease: 10 * time.Minute, Boot: true},
			"52:54:00:12:34:02": {Known: true, IP: netip.MustParseAddr("192.168.77.11")}, // in use: no boot file
			"52:54:00:12:34:03": {Known: true, IP: netip.MustParseAddr("10.9.0.40"), Boot: true, Router: relay1, DNS: []netip.Addr{netip.MustParseAddr("10.9.0.2")}},
			"52:54:00:12:34:04": {Known: true, IP: netip.MustParseAddr("172.16.0.1"), Boot: true}, // a mistake
		},
		reserved: map[string]netip.Addr{},
		next:     netip.MustParseAddr("192.168.78.100"),
	}
}

func (f *fleet) Knows(q Query) bool { _, ok := f.fixed[q.MAC.String()]; return ok }

func (f *fleet) Answer(_ context.Context, q Query) Answer {
	if a, ok := f.fixed[q.MAC.String()]; ok {
		return a
	}
	ip, ok := f.reserved[q.MAC.String()]
	if !ok && q.Type == Discover {
		ip, f.next = f.next, f.next.Next()
		f.reserved[q.MAC.String()] = ip
	}
	return Answer{Known: ip.IsValid(), IP: ip, Boot: true} // a careless directory: the server must drop Boot
}

// site is a server with one segment of each kind.
func site() (*Server, *[]Query, *[]netip.Addr) {
	var seen []Query
	var rivals []netip.Addr
	return &Server{
		Directory: newFleet(),
		Segments: []Segment{
			{Name: "boot", Interface: "br0", Subnet: netip.MustParsePrefix("192.168.77.0/24"), Address: ours, Mode: Authoritative},
			{Name: "new", Interface: "br1", Subnet: netip.MustParsePrefix("192.168.78.0/24"), Address: netip.MustParseAddr("192.168.78.1"), Mode: Enrol, Port: 8081},
			{Name: "far", Subnet: netip.MustParsePrefix("10.9.0.0/24"), Address: ours, Mode: Authoritative, Relays: []netip.Addr{relay1}},
			{Name: "look", Interface: "br3", Subnet: netip.MustParsePrefix("192.168.79.0/24"), Address: netip.MustParseAddr("192.168.79.1"), Mode: Observe},
		},
		Seen:  func(q Query) { seen = append(seen, q) },
		Rival: func(_ string, a netip.Addr) { rivals = append(rivals, a) },
	}, &seen, &rivals
}

// ask is a request from one machine; clients below are what real ones send.
func ask(mac net.HardwareAddr, kind dhcpv4.MessageType, opts ...dhcpv4.Option) *dhcpv4.DHCPv4 {
	d := &dhcpv4.DHCPv4{
		OpCode: dhcpv4.OpcodeBootRequest, HWType: 1, ClientHWAddr: mac,
		TransactionID: dhcpv4.TransactionID{1, 2, 3, 4}, Options: dhcpv4.Options{},
	}
	d.UpdateOption(dhcpv4.OptMessageType(kind))
	for _, o := range opts {
		d.UpdateOption(o)
	}
	return d
}

func raw(code uint8, v string) dhcpv4.Option {
	return dhcpv4.OptGeneric(dhcpv4.GenericOptionCode(code), []byte(v))
}

var machineID = raw(97, "\x00\x33\x22\x11\x00\x55\x44\x77\x66\x88\x99\xaa\xbb\xcc\xdd\xee\xff")

// clients are the options of boot programs as seen on the wire (rack.md
// section 2, and captures of OVMF 2022.11, iPXE 1.0.0+git-20190125).
var clients = map[string][]dhcpv4.Option{
	"OVMF PXE":    {raw(57, "\x05\xc0"), raw(93, "\x00\x07"), raw(94, "\x01\x03\x00"), raw(60, "PXEClient:Arch:00007:UNDI:003000"), machineID},
	"OVMF HTTP":   {raw(57, "\x05\xc0"), raw(93, "\x00\x10"), raw(94, "\x01\x03\x00"), raw(60, "HTTPClient:Arch:00016:UNDI:003000"), machineID},
	"arm64 PXE":   {raw(93, "\x00\x0b"), raw(94, "\x01\x03\x00"), raw(60, "PXEClient:Arch:00011:UNDI:003000"), machineID},
	"arm64 HTTP":  {raw(93, "\x00\x13"), raw(60, "HTTPClient:Arch:00019:UNDI:003000"), machineID},
	"UEFI arch 9": {raw(93, "\x00\x09"), raw(60, "PXEClient:Arch:00009:UNDI:003016"), machineID},
	"BIOS ROM":    {raw(93, "\x00\x00"), raw(94, "\x01\x02\x01"), raw(60, "PXEClient:Arch:00000:UNDI:002001"), machineID},
	"IA32 UEFI":   {raw(93, "\x00\x06"), raw(60, "PXEClient:Arch:00006:UNDI:003000")},
	"iPXE BIOS": {raw(57, "\x05\xc0"), raw(93, "\x00\x00"), raw(94, "\x01\x02\x01"), raw(60, "PXEClient:Arch:00000:UNDI:002001"), raw(77, "iPXE"),
		raw(175, "\xb1\x05\x01\x1a\xf4\x10\x00\xeb\x03\x01\x00\x00\x13\x01\x01"), raw(61, "\x01\x52\x54\x00\x12\x34\x01"), machineID},
	"iPXE EFI":       {raw(93, "\x00\x07"), raw(94, "\x01\x03\x10"), raw(60, "PXEClient:Arch:00007:UNDI:003010"), raw(77, "iPXE"), raw(175, "\x13\x01\x01"), machineID},
	"iPXE, RFC 3004": {raw(93, "\x00\x00"), raw(60, "PXEClient:Arch:00000:UNDI:002001"), raw(77, "\x04iPXE")},
	"Linux":          {raw(12, "node"), raw(55, "\x01\x03\x06\x0f")},
}

// bootPart is what a reply says about booting.
type bootPart struct {
	File, Option67, Next, Option66, Class string
	NoProxy                               bool
}

func TestLoaderByFirmware(t *testing.T) {
	tftp := func(f string) bootPart { return bootPart{f, f, "192.168.77.1", "192.168.77.1", "", false} }
	http := func(f string) bootPart {
		u := "http://192.168.77.1/loader/" + f
		return bootPart{u, u, "192.168.77.1", "192.168.77.1", "HTTPClient", false}
	}
	script := "http://192.168.77.1/ipxe?mac=52:54:00:12:34:01"
	ipxe := bootPart{script, script, "192.168.77.1", "192.168.77.1", "", true}
	none := bootPart{Next: "192.168.77.1"}
	want := map[string]bootPart{
		"OVMF PXE": tftp("snponly-x86_64.efi"), "UEFI arch 9": tftp("snponly-x86_64.efi"), "arm64 PXE": tftp("snponly-arm64.efi"),
		"BIOS ROM": tftp("undionly.kpxe"), "OVMF HTTP": http("snponly-x86_64.efi"), "arm64 HTTP": http("snponly-arm64.efi"),
		"iPXE BIOS": ipxe, "iPXE EFI": ipxe, "iPXE, RFC 3004": ipxe, "Linux": none, "IA32 UEFI": none,
	}
	for name, opts := range clients {
		t.Run(name, func(t *testing.T) {
			for _, kind := range []dhcpv4.MessageType{dhcpv4.MessageTypeDiscover, dhcpv4.MessageTypeRequest} {
				s, _, _ := site()
				d := ask(macA, kind, opts...)
				if kind == dhcpv4.MessageTypeRequest {
					d.UpdateOption(dhcpv4.OptRequestedIPAddress(net.IP{192, 168, 77, 10}))
					d.UpdateOption(dhcpv4.OptServerIdentifier(ours.AsSlice()))
				}
				r := answer(t, s, "br0", d, Answered)
				got := bootPart{r.BootFileName, string(r.Options[67]), r.ServerIPAddr.String(), string(r.Options[66]), string(r.Options[60]),
					bytes.Equal(r.Options[175], []byte{176, 1, 1})}
				if diff := cmp.Diff(want[name], got); diff != "" {
					t.Errorf("%v: %s", kind, diff)
				}
				if !r.YourIPAddr.Equal(net.IP{192, 168, 77, 10}) || r.IPAddressLeaseTime(0) != 10*time.Minute {
					t.Errorf("%v: got address %v for %v", kind, r.YourIPAddr, r.IPAddressLeaseTime(0))
				}
				for _, echoed := range []uint8{61, 97} {
					if !bytes.Equal(r.Options[echoed], d.Options[echoed]) {
						t.Errorf("option %d not echoed: %x", echoed, r.Options[echoed])
					}
				}
			}
		})
	}
}

// answer sends d and returns the reply, which must be there if and only if the
// outcome comes with one.
func answer(t *testing.T, s *Server, wire string, d *dhcpv4.DHCPv4, want Outcome) *dhcpv4.DHCPv4 {
	t.Helper()
	r, _ := answerTo(t, s, wire, d, want)
	return r
}

func answerTo(t *testing.T, s *Server, wire string, d *dhcpv4.DHCPv4, want Outcome) (*dhcpv4.DHCPv4, Dest) {
	t.Helper()
	b, to, got := s.Respond(t.Context(), wire, d.ToBytes(), netip.AddrPort{}, noon)
	if got != want {
		t.Fatalf("got %v, want %v", got, want)
	}
	if (b != nil) != (want == Answered || want == Refused) {
		t.Fatalf("%v with a reply of %d bytes", got, len(b))
	}
	if b == nil {
		return nil, to
	}
	r, err := dhcpv4.FromBytes(b)
	if err != nil {
		t.Fatal(err)
	}
	if r.TransactionID != d.TransactionID || !bytes.Equal(r.ClientHWAddr, d.ClientHWAddr) || len(b) < 300 {
		t.Fatalf("not a reply to the request: %v", r.Summary())
	}
	return r, to
}

// Each case is one packet on one wire: what becomes of it, and where a reply
// goes.
func TestRespond(t *testing.T) {
	const discover, request = dhcpv4.MessageTypeDiscover, dhcpv4.MessageTypeRequest
	asked := func(a string) dhcpv4.Option { return dhcpv4.OptRequestedIPAddress(net.ParseIP(a)) }
	server := func(a string) dhcpv4.Option { return dhcpv4.OptServerIdentifier(net.ParseIP(a)) }
	from := func(a string, d *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 { d.ClientIPAddr = net.ParseIP(a); return d }
	via := func(a string, d *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 { d.GatewayIPAddr = net.ParseIP(a); return d }
	shout := func(d *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 { d.SetBroadcast(); return d }
	second, third, fourth := mac(2), mac(3), mac(4)

	everybody := Dest{netip.MustParseAddrPort("255.255.255.255:68"), broadcastMAC, "br0", ours}
	direct := Dest{netip.MustParseAddrPort("192.168.77.10:68"), macA, "br0", ours}
	routed := Dest{netip.MustParseAddrPort("192.168.77.10:68"), nil, "br0", ours}
	throughRelay := Dest{Addr: netip.MustParseAddrPort("10.9.0.1:67"), From: ours}

	tests := []struct {
		name string
		wire string
		d    *dhcpv4.DHCPv4
		want Outcome
		to   Dest
		typ  string // of the reply
	}{
		{"a known machine without an address", "br0", ask(macA, discover), Answered, direct, "OFFER"},
		{"the same, unable to receive unicast", "br0", shout(ask(macA, discover)), Answered, everybody, "OFFER"},
		{"it takes our offer", "br0", ask(macA, request, asked("192.168.77.10"), server("192.168.77.1")), Answered, direct, "ACK"},
		{"it takes another server's offer", "br0", ask(macA, request, asked("192.168.77.50"), server("192.168.77.2")), OtherServer, Dest{}, ""},
		{"it wants an address that is not its own", "br0", ask(macA, request, asked("192.168.77.11"), server("192.168.77.1")), Refused, everybody, "NAK"},
		{"it comes back with its old address", "br0", ask(macA, request, asked("192.168.77.10")), Answered, direct, "ACK"},
		{"it comes back with one from elsewhere", "br0", ask(macA, request, asked("10.1.1.1")), Refused, everybody, "NAK"},
		{"it renews", "br0", from("192.168.77.10", ask(macA, request)), Answered, routed, "ACK"},
		{"it renews and sets the broadcast flag", "br0", shout(from("192.168.77.10", ask(macA, request))), Answered, routed, "ACK"},
		{"it renews a wrong address", "br0", from("192.168.77.99", ask(macA, request)), Refused, everybody, "NAK"},
		{"an address in ciaddr is no place to send to", "br0", from("192.168.77.99", ask(macA, discover)), Answered, direct, "OFFER"},
		{"a request that names no address", "br0", ask(macA, request), Malformed, Dest{}, ""},
		{"it only asks for options", "br0", from("192.168.77.10", ask(macA, dhcpv4.MessageTypeInform)), Answered, routed, "ACK"},
		{"options for another's address", "br0", from("192.168.77.11", ask(macA, dhcpv4.MessageTypeInform)), Stranger, Dest{}, ""},
		{"it declines", "br0", ask(macA, dhcpv4.MessageTypeDecline, asked("192.168.77.10"), server("192.168.77.1")), Noted, Dest{}, ""},
		{"it releases", "br0", from("192.168.77.10", ask(macA, dhcpv4.MessageTypeRelease, server("192.168.77.1"))), Noted, Dest{}, ""},
		{"a machine in use gets an address", "br0", ask(second, discover), Answered, Dest{netip.MustParseAddrPort("192.168.77.11:68"), second, "br0", ours}, "OFFER"},
		{"the directory's address is not of this segment", "br0", ask(fourth, discover), NoAddress, Dest{}, ""},
		{"a stranger on an authoritative segment", "br0", ask(macNew, discover), Stranger, Dest{}, ""},
		{"a stranger's request", "br0", ask(macNew, request, asked("10.1.1.1")), Stranger, Dest{}, ""},
		{"a stranger's decline", "br0", ask(macNew, dhcpv4.MessageTypeDecline, server("192.168.77.1")), Stranger, Dest{}, ""},
		{"a stranger where strangers may enrol", "br1", ask(macNew, discover), Answered, Dest{netip.MustParseAddrPort("192.168.78.100:68"), macNew, "br1", netip.MustParseAddr("192.168.78.1")}, "OFFER"},
		{"an enrolling stranger that was offered nothing", "br1", ask(macNew, request, asked("192.168.78.7")), Stranger, Dest{}, ""},
		{"anybody where we only look", "br3", ask(macNew, discover), OnlyObserve, Dest{}, ""},
		{"a known machine where we only look", "br3", ask(macA, discover), OnlyObserve, Dest{}, ""},
		{"a card that is not declared", "eth7", ask(macA, discover), NoSegment, Dest{}, ""},
		{"through our relay", "br0", via("10.9.0.1", ask(third, discover, raw(82, "\x01\x04port\x02\x03sw1"))), Answered, throughRelay, "OFFER"},
		{"through our relay, to the unbound socket", "", via("10.9.0.1", ask(third, request, asked("10.9.0.40"))), Answered, throughRelay, "ACK"},
		{"a refusal goes through the relay too", "", via("10.9.0.1", ask(third, request, asked("10.9.0.41"))), Refused, throughRelay, "NAK"},
		{"a renewal that was routed to us", "br0", from("10.9.0.40", ask(third, request)), Answered, Dest{Addr: netip.MustParseAddrPort("10.9.0.40:68"), From: ours}, "ACK"},
		{"through a relay that is not listed", "br0", via("10.66.0.1", ask(third, discover)), NoSegment, Dest{}, ""},
		{"through a group address", "br0", via("224.0.0.1", ask(third, discover)), Malformed, Dest{}, ""},
		{"a server's reply", "br0", ask(macA, dhcpv4.MessageTypeOffer), NotRequest, Dest{}, ""},
		{"a lease query", "br0", ask(macA, dhcpv4.MessageType(10)), NotRequest, Dest{}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, _, _ := site()
			r, to := answerTo(t, s, tt.wire, tt.d, tt.want)
			if diff := cmp.Diff(tt.to, to, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Error(diff)
			}
			if r == nil {
				return
			}
			if r.MessageType().String() != tt.typ {
				t.Errorf("got %v, want %s", r.MessageType(), tt.typ)
			}
			if !bytes.Equal(r.Options[82], tt.d.Options[82]) {
				t.Errorf("option 82: got %x, want %x", r.Options[82], tt.d.Options[82])
			}
			if tt.typ == "NAK" && (r.YourIPAddr != nil && !r.YourIPAddr.IsUnspecified() || r.BootFileName != "") {
				t.Errorf("a refusal gives something away: %v", r.Summary())
			}
		})
	}
}

func mac(n byte) net.HardwareAddr { return net.HardwareAddr{0x52, 0x54, 0, 0x12, 0x34, n} }

// Two strangers are never offered one address, neither gets a boot file, both
// are reported with what they said of themselves.
func TestEnrol(t *testing.T) {
	s, seen, _ := site()
	a := answer(t, s, "br1", ask(mac(0xa1), dhcpv4.MessageTypeDiscover, clients["OVMF PXE"]...), Answered)
	b := answer(t, s, "br1", ask(mac(0xa2), dhcpv4.MessageTypeDiscover, clients["iPXE BIOS"]...), Answered)
	if a.YourIPAddr.Equal(b.YourIPAddr) {
		t.Errorf("both were offered %v", a.YourIPAddr)
	}
	ack := answer(t, s, "br1", ask(mac(0xa1), dhcpv4.MessageTypeRequest, dhcpv4.OptRequestedIPAddress(a.YourIPAddr), dhcpv4.OptServerIdentifier(net.IP{192, 168, 78, 1})), Answered)
	for _, r := range []*dhcpv4.DHCPv4{a, b, ack} {
		if r.BootFileName != "" || r.Options[67] != nil {
			t.Errorf("a stranger got boot file %q %q", r.BootFileName, r.Options[67])
		}
	}
	want := Query{Segment: "new", Type: Discover, MAC: mac(0xa1), UUID: "00112233-4455-6677-8899-aabbccddeeff", Arch: 7, VendorClass: "PXEClient:Arch:00007:UNDI:003000", PXE: true}
	if diff := cmp.Diff(want, (*seen)[0], cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
}

func TestRivalIsReported(t *testing.T) {
	s, _, rivals := site()
	answer(t, s, "br0", ask(macA, dhcpv4.MessageTypeRequest, dhcpv4.OptRequestedIPAddress(net.IP{192, 168, 77, 50}), dhcpv4.OptServerIdentifier(net.IP{192, 168, 77, 2})), OtherServer)
	if len(*rivals) != 1 || (*rivals)[0].String() != "192.168.77.2" {
		t.Errorf("got %v", *rivals)
	}
}

func TestUUID(t *testing.T) {
	for wire, want := range map[string]string{
		"0033221100554477668899aabbccddeeff": "00112233-4455-6677-8899-aabbccddeeff",
		"0000000000000000000000000000000000": "", // board maker's dummy
		"0003000200040005000006000700080009": "",
		"0133221100554477668899aabbccddeeff": "", // unknown type
		"00":                                 "", "": "",
	} {
		b, _ := hex.DecodeString(wire)
		if got := uuid(b); got != want {
			t.Errorf("%s: got %q, want %q", wire, got, want)
		}
	}
}

// Whatever is cut, foreign or wild gets no answer and is counted by its kind.
func TestForeignAndMalformed(t *testing.T) {
	good := ask(macA, dhcpv4.MessageTypeDiscover, clients["OVMF PXE"]...).ToBytes()
	change := func(at int, v ...byte) []byte {
		b := bytes.Clone(good)
		copy(b[at:], v)
		return b
	}
	options := func(o ...byte) []byte { return append(bytes.Clone(good[:240]), o...) }
	tests := map[string]struct {
		b    []byte
		want Outcome
	}{
		"nothing":                   {nil, Malformed},
		"one byte":                  {[]byte{1}, Malformed},
		"cut in the header":         {good[:100], Malformed},
		"cut before the cookie":     {good[:236], Malformed},
		"cut in an option":          {good[:250], Malformed},
		"no end option":             {options(53, 1, 1), Malformed},
		"another cookie":            {change(236, 1, 2, 3, 4), Malformed},
		"a reply":                   {change(0, 2), NotRequest},
		"not Ethernet":              {change(1, 32), Malformed},
		"hlen 255":                  {change(2, 255), Malformed},
		"hlen 0":                    {change(2, 0), Malformed},
		"17 hops":                   {change(3, 17), Malformed},
		"a group MAC":               {change(28, 1), Malformed},
		"a zero MAC":                {change(28, 0, 0, 0, 0, 0, 0), Malformed},
		"giaddr a group":            {change(24, 224, 0, 0, 1), Malformed},
		"giaddr loopback":           {change(24, 127, 0, 0, 1), Malformed},
		"no message type":           {options(255), PlainBOOTP},
		"empty message type":        {options(53, 0, 255), Malformed},
		"message type twice":        {options(53, 1, 1, 53, 1, 1, 255), Malformed},
		"message type 0":            {options(53, 1, 0, 255), NotRequest},
		"short requested address":   {options(53, 1, 3, 50, 2, 1, 1, 255), Malformed},
		"long server id":            {options(53, 1, 3, 54, 5, 1, 1, 1, 1, 1, 255), Malformed},
		"a wish list of nothing":    {options(53, 1, 1, 55, 0, 255), Malformed},
		"a client id of nothing":    {options(53, 1, 1, 61, 0, 255), Malformed},
		"a machine id of nothing":   {options(53, 1, 1, 97, 0, 255), Malformed},
		"overload":                  {options(52, 1, 1, 53, 1, 1, 255), Malformed},
		"overload points at itself": {append(append(bytes.Clone(good[:108]), append(bytes.Repeat([]byte{52, 1, 1}, 42), 255, 255)...), options(52, 1, 1, 53, 1, 1, 255)[236:]...), Malformed},
		"longer than a frame":       {append(options(53, 1, 1), make([]byte, replyMax)...), Malformed},
		"option 93 of one byte":     {options(53, 1, 1, 93, 1, 7, 60, 9, 'P', 'X', 'E', 'C', 'l', 'i', 'e', 'n', 't', 255), Answered},
		"1,500 options":             {append(options(53, 1, 1), append(bytes.Repeat([]byte{12, 0}, 1500), 255)...), Malformed},
		"as many as fit":            {append(options(53, 1, 1), append(bytes.Repeat([]byte{12, 0}, 610), 255)...), Answered},
		"a client id of 1,200":      {append(options(53, 1, 1), append(bytes.Repeat(append([]byte{61, 200}, make([]byte, 200)...), 6), 255)...), TooLarge},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s, _, _ := site()
			b, _, got := s.Respond(t.Context(), "br0", tt.b, netip.AddrPort{}, noon)
			if got != tt.want || (b != nil) != (tt.want == Answered) {
				t.Errorf("got %v and %d bytes, want %v", got, len(b), tt.want)
			}
			if s.Counters().Outcomes[tt.want.String()] != 1 {
				t.Errorf("not counted: %v", s.Counters())
			}
		})
	}
}

func TestPanicIsOnePacketsLoss(t *testing.T) {
	s, _, _ := site()
	s.Seen = func(Query) { panic("bug") }
	answer(t, s, "br0", ask(macNew, dhcpv4.MessageTypeDiscover), Panicked)
	answer(t, s, "br0", ask(macA, dhcpv4.MessageTypeDiscover), Answered)
	if c := s.Counters(); c.Outcomes["panicked"] != 1 || c.Offers != 1 {
		t.Errorf("got %+v", c)
	}
}

// A loud machine is cut off, the others are not; strangers by the thousand
// take nothing from the known, and the memory for them is bounded.
func TestLimits(t *testing.T) {
	s, seen, _ := site()
	s.Limits.MACs = 100
	count := func(d *dhcpv4.DHCPv4, wire string, at time.Time) Outcome {
		_, _, o := s.Respond(t.Context(), wire, d.ToBytes(), netip.AddrPort{}, at)
		return o
	}
	loud := 0
	for range 100 {
		if count(ask(macA, dhcpv4.MessageTypeDiscover), "br0", noon) == Answered {
			loud++
		}
	}
	if loud != 10 {
		t.Errorf("a loud machine got %d answers at once, want a burst of 10", loud)
	}
	if count(ask(macA, dhcpv4.MessageTypeDiscover), "br0", noon.Add(time.Second)) != Answered {
		t.Error("the machine is still cut off a second later")
	}
	for i := range 5000 {
		m := net.HardwareAddr{0x02, 0, 0, 1, byte(i >> 8), byte(i)}
		count(ask(m, dhcpv4.MessageTypeDiscover), []string{"br0", "br1"}[i%2], noon)
	}
	if len(*seen) != 200 {
		t.Errorf("%d strangers were reported in one instant, want 200", len(*seen))
	}
	if n := len(s.limits.machines); n > 100 || n != s.limits.recent.Len() {
		t.Errorf("%d machines remembered, %d in the list, limit 100", n, s.limits.recent.Len())
	}
	if o := count(ask(mac(2), dhcpv4.MessageTypeDiscover), "br0", noon); o != Answered {
		t.Errorf("a known machine in the storm: %v", o)
	}
}

func TestCheckNamesEveryFault(t *testing.T) {
	net24 := netip.MustParsePrefix("192.168.77.0/24")
	if err := Check([]Segment{{Name: "a", Interface: "br0", Subnet: net24, Address: ours, Mode: Authoritative}}); err != nil {
		t.Error(err)
	}
	err := Check([]Segment{
		{Name: "a", Interface: "br0", Subnet: net24, Address: ours, Mode: "proxy"},
		{Name: "a", Interface: "br0", Subnet: net24, Address: netip.MustParseAddr("10.0.0.1"), Mode: "on"},
		{Mode: Enrol, Subnet: netip.MustParsePrefix("fd00::/64")},
		{Name: "d", Subnet: net24, Address: ours, Mode: Observe, Relays: []netip.Addr{relay1, relay1}},
	})
	want := `segment a: mode proxy: not in this version
segment a: name: another segment has it too
segment a: mode "on": say authoritative, enrol or observe
segment a: address 10.0.0.1: is not in subnet 192.168.77.0/24
segment a: interface br0: segment a has it too
segment 3: name: give it one
segment 3: subnet fd00::/64: give an IPv4 network of /30 or larger, like 10.0.0.0/24
segment 3: address invalid IP: give our own IPv4 address on this segment
segment 3: interface: name a network card, or list the relays
segment d: relay 10.9.0.1: segment d has it too`
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Error(diff)
	}
}

func TestMetrics(t *testing.T) {
	s, _, _ := site()
	answer(t, s, "br0", ask(macA, dhcpv4.MessageTypeDiscover), Answered)
	reg := prometheus.NewPedanticRegistry()
	if err := reg.Register(s); err != nil {
		t.Fatal(err)
	}
	families, err := reg.Gather()
	if err != nil || len(families) != 4 {
		t.Fatalf("%d metrics, %v", len(families), err)
	}
	for _, f := range families {
		if f.GetName() == "hostler_dhcp_packets_total" && len(f.GetMetric()) != int(outcomes) {
			t.Errorf("%d outcomes shown, want %d", len(f.GetMetric()), outcomes)
		}
	}
	for o := range outcomes {
		if o.String() == "" {
			t.Errorf("outcome %d has no name", o)
		}
	}
}

func BenchmarkDORA(b *testing.B) {
	s, _, _ := site()
	s.Limits = Limits{PerMAC: 1e9, Segment: 1e9, Global: 1e9, Strangers: 1e9}
	discover := ask(macA, dhcpv4.MessageTypeDiscover, clients["iPXE BIOS"]...).ToBytes()
	request := ask(macA, dhcpv4.MessageTypeRequest, append(clients["iPXE BIOS"], dhcpv4.OptRequestedIPAddress(net.IP{192, 168, 77, 10}), dhcpv4.OptServerIdentifier(ours.AsSlice()))...).ToBytes()
	b.ReportAllocs()
	for b.Loop() {
		for _, p := range [][]byte{discover, request} {
			if _, _, o := s.Respond(b.Context(), "br0", p, netip.AddrPort{}, noon); o != Answered {
				b.Fatal(o)
			}
		}
	}
}
