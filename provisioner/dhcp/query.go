package dhcp

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
)

// A Query is what a machine said about itself.
type Query struct {
	Segment     string           // name of the segment it is on
	Type        Type             // what it asks
	MAC         net.HardwareAddr // six bytes; from the chaddr field
	UUID        string           // option 97 as SMBIOS, BMCs and dmidecode print it; "" if absent or a vendor's dummy
	Arch        Arch             // option 93; meaningful if PXE or HTTP
	UserClass   string           // option 77, printable part
	VendorClass string           // option 60, printable part
	IPXE        bool             // it is iPXE: the script may follow at once
	PXE         bool             // firmware that boots by TFTP
	HTTP        bool             // firmware that boots by HTTP
	Relay       netip.Addr       // giaddr; invalid when not relayed
	Asked       netip.Addr       // the address that it asks for or has; invalid if none
}

// A Type is what a client asks, option 53.
type Type string

// The questions that clients ask.
const (
	Discover Type = "discover"
	Request  Type = "request"
	Decline  Type = "decline"
	Release  Type = "release"
	Inform   Type = "inform"
)

var types = map[dhcpv4.MessageType]Type{
	dhcpv4.MessageTypeDiscover: Discover,
	dhcpv4.MessageTypeRequest:  Request,
	dhcpv4.MessageTypeDecline:  Decline,
	dhcpv4.MessageTypeRelease:  Release,
	dhcpv4.MessageTypeInform:   Inform,
}

// dummyUUIDs are given by vendors to every board, so they identify nothing.
var dummyUUIDs = map[string]bool{
	"00000000-0000-0000-0000-000000000000": true,
	"ffffffff-ffff-ffff-ffff-ffffffffffff": true,
	"03000200-0400-0500-0006-000700080009": true,
	"00020003-0004-0005-0006-000700080009": true,
	"12345678-1234-5678-90ab-cddeefaabbcc": true,
	"78563412-3412-7856-90ab-cddeefaabbcc": true,
}

// swapUUID turns the first three fields round: SMBIOS stores them little-endian, and OVMF and iPXE send them so (both
// seen here). RFC 4578 does not say.
func swapUUID(u string) string {
	if len(u) != 36 {
		return u
	}
	pick := func(at ...int) (s string) {
		for _, i := range at {
			s += u[i : i+2]
		}
		return s
	}
	return pick(6, 4, 2, 0) + "-" + pick(11, 9) + "-" + pick(16, 14) + u[18:]
}

// A message is a well-formed request with the fields that deciding needs.
type message struct {
	*dhcpv4.DHCPv4
	typ    Type
	relay  netip.Addr // giaddr, or invalid
	client netip.Addr // ciaddr, or invalid
	asked  netip.Addr // option 50, or invalid
	server netip.Addr // option 54, or invalid
}

const headerLen = 240 // fixed BOOTP fields and the magic cookie

// parse reads a request. The outcome is Answered unless the packet is to be
// dropped.
func parse(b []byte) (*message, Outcome) {
	switch {
	case len(b) < headerLen, len(b) > replyMax:
		return nil, Malformed // no boot client fragments its request
	case b[0] != byte(dhcpv4.OpcodeBootRequest):
		return nil, NotRequest
	case b[1] != byte(iana.HWTypeEthernet) || b[2] != 6 || b[3] > 16:
		return nil, Malformed // hlen 255, Infiniband, too many hops (RFC 1542 section 4.1.1)
	case b[28]&1 != 0 || [6]byte(b[28:34]) == [6]byte{}:
		return nil, Malformed // a group or zero address is no machine
	}
	d, err := dhcpv4.FromBytes(b)
	if err != nil {
		return nil, Malformed
	}
	if oddOptions(d.Options) {
		return nil, Malformed
	}
	p := &message{DHCPv4: d, relay: addr4(d.GatewayIPAddr), client: addr4(d.ClientIPAddr)}
	for _, f := range []struct {
		code dhcpv4.OptionCode
		to   *netip.Addr
	}{{dhcpv4.OptionRequestedIPAddress, &p.asked}, {dhcpv4.OptionServerIdentifier, &p.server}} {
		if v, has := d.Options[f.code.Code()]; has {
			if len(v) != 4 {
				return nil, Malformed
			}
			*f.to = addr4(v)
		}
	}
	kind, has := d.Options[dhcpv4.OptionDHCPMessageType.Code()]
	if !has {
		return nil, PlainBOOTP
	}
	if len(kind) != 1 {
		return nil, Malformed
	}
	if p.typ, has = types[dhcpv4.MessageType(kind[0])]; !has {
		return nil, NotRequest
	}
	if p.relay.IsMulticast() || p.client.IsMulticast() || p.relay.IsLoopback() || p.client.IsLoopback() {
		return nil, Malformed
	}
	return p, Answered
}

// oddOptions says whether the options are of no sane client: overload (option
// 52) would hide more of them in the file fields, which no boot firmware does
// and the library does not read; and an identity or a wish list of no bytes is
// neither (RFC 2132 sections 9.8 and 9.14, RFC 4578 section 2.3).
func oddOptions(o dhcpv4.Options) bool {
	if o.Has(dhcpv4.OptionOptionOverload) {
		return true
	}
	for _, code := range []dhcpv4.OptionCode{dhcpv4.OptionParameterRequestList, dhcpv4.OptionClientIdentifier, dhcpv4.OptionClientMachineIdentifier} {
		if v, has := o[code.Code()]; has && len(v) == 0 {
			return true
		}
	}
	return false
}

// query is what the Directory is told about p.
func (p *message) query(segment string) Query {
	o := p.Options
	q := Query{
		Segment:     segment,
		Type:        p.typ,
		MAC:         p.ClientHWAddr,
		UUID:        uuid(o[dhcpv4.OptionClientMachineIdentifier.Code()]),
		UserClass:   printable(o[dhcpv4.OptionUserClassInformation.Code()]),
		VendorClass: printable(o[dhcpv4.OptionClassIdentifier.Code()]),
		Relay:       p.relay,
		Asked:       p.asked,
	}
	if !q.Asked.IsValid() {
		q.Asked = p.client
	}
	if v := o[dhcpv4.OptionClientSystemArchitectureType.Code()]; len(v) >= 2 {
		q.Arch = Arch(binary.BigEndian.Uint16(v))
	}
	// User class "iPXE" comes bare, or with the length byte of RFC 3004, which
	// printable has dropped. Option 175 is iPXE's own.
	q.IPXE = q.UserClass == "iPXE" || len(o[optIPXE]) > 0
	q.PXE = strings.HasPrefix(q.VendorClass, "PXEClient")
	q.HTTP = strings.HasPrefix(q.VendorClass, "HTTPClient")
	return q
}

// uuid formats option 97: one type byte, 0, and sixteen bytes (RFC 4578
// section 2.3), the first three fields little-endian.
func uuid(v []byte) string {
	if len(v) != 17 || v[0] != 0 {
		return ""
	}
	s := swapUUID(fmt.Sprintf("%x-%x-%x-%x-%x", v[1:5], v[5:7], v[7:9], v[9:11], v[11:17]))
	if dummyUUIDs[s] {
		return ""
	}
	return s
}

// printable keeps what may be shown to a person: at most 64 characters of
// plain ASCII. The text comes from anybody on the wire.
func printable(v []byte) string {
	out := make([]byte, 0, min(len(v), 64))
	for _, c := range v {
		if c >= 0x20 && c < 0x7f && len(out) < 64 {
			out = append(out, c)
		}
	}
	return string(out)
}

// addr4 is the address in ip, or the invalid one for 0.0.0.0.
func addr4(ip net.IP) netip.Addr {
	a, ok := netip.AddrFromSlice(ip)
	if !ok || a.Unmap().IsUnspecified() {
		return netip.Addr{}
	}
	return a.Unmap()
}
