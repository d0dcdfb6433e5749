package dhcp

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Options that the library has no name for, or that we write as raw bytes.
const (
	optIPXE     = 175 // iPXE's encapsulated options
	serverPort  = 67
	clientPort  = 68
	replyMax    = 1472 // bytes of UDP payload in an Ethernet frame
	fileField   = 127  // bytes of the BOOTP file field, without its final zero
	defaultTerm = time.Hour
)

// noProxyDHCP is option 175 with sub-option 176 = 1 (ipxe.no-pxedhcp): iPXE
// otherwise repeats its discovery for seconds in the hope of a ProxyDHCP
// server.
var noProxyDHCP = []byte{176, 1, 1}

// A Dest says where a reply goes.
type Dest struct {
	Addr netip.AddrPort   // where to
	MAC  net.HardwareAddr // if set, in a frame to this card on Wire: the client has no address yet, and answers no ARP
	Wire string           // network card; "" means as routed
	From netip.Addr       // our address on that segment
}

// Respond decides about one packet that came in on the card wire ("" for a
// socket bound to none) from the given sender. It returns the reply, or nil,
// and what became of the packet. No packet makes it panic. Several goroutines
// may call it at once.
func (s *Server) Respond(ctx context.Context, wire string, pkt []byte, from netip.AddrPort, now time.Time) (reply []byte, to Dest, what Outcome) {
	defer func() {
		if r := recover(); r != nil {
			reply, to, what = nil, Dest{}, Panicked
			s.panics.Caught(s.Log, part, r, pkt, "from", from)
		}
		s.counters.outcome[what].Add(1)
	}()
	p, what := parse(pkt)
	if what != Answered {
		return nil, Dest{}, what
	}
	g := s.segmentOf(wire, p)
	if g == nil {
		return nil, Dest{}, NoSegment
	}
	q := p.query(g.Name)
	a, what := s.admit(ctx, g, q, now)
	if what != Answered {
		return nil, Dest{}, what
	}
	kind, what := s.decide(g, p, q, a)
	if what != Answered && what != Refused {
		return nil, Dest{}, what
	}
	reply = g.build(p, q, a, kind)
	if len(reply) > replyMax {
		return nil, Dest{}, TooLarge
	}
	switch kind {
	case dhcpv4.MessageTypeOffer:
		s.counters.offers.Add(1)
	case dhcpv4.MessageTypeAck:
		s.counters.acks.Add(1)
	}
	return reply, g.dest(p, a, kind), what
}

// admit asks the Directory, within the limits. The outcome is Answered if the
// conversation goes on.
func (s *Server) admit(ctx context.Context, g *Segment, q Query, now time.Time) (Answer, Outcome) {
	known := s.Directory.Knows(q)
	if known && g.Mode == Observe {
		return Answer{}, OnlyObserve
	}
	if !known {
		if !s.limits.stranger(s.Limits, now) {
			return Answer{}, TooMany
		}
		if s.Seen != nil {
			s.Seen(q)
		}
		switch g.Mode {
		case Observe:
			return Answer{}, OnlyObserve
		case Authoritative:
			return Answer{}, Stranger
		}
	}
	if !s.limits.machine(s.Limits, g.Name, [6]byte(q.MAC), now) {
		return Answer{}, TooMany
	}
	if q.Type == Release || q.Type == Decline {
		return Answer{}, Answered // what they ask needs no answer, see decide
	}
	a := s.Directory.Answer(ctx, q)
	switch {
	case !a.Known:
		return Answer{}, Stranger
	case !a.IP.IsValid() || !g.Subnet.Contains(a.IP) || a.IP == g.Address:
		return Answer{}, NoAddress
	}
	a.Boot = a.Boot && known // a stranger gets no boot file, whatever the Directory says
	return a, Answered
}

// enrols says whether answering pkt would write to the inventory: a stranger's
// packet on an enrol segment.
func (s *Server) enrols(wire string, pkt []byte) (yes bool) {
	if !slices.ContainsFunc(s.Segments, func(g Segment) bool { return g.Mode == Enrol && (g.Interface == wire || g.Interface == "") }) {
		return false
	}
	defer func() {
		if recover() != nil {
			yes = false // Respond will meet it too, and tell
		}
	}()
	p, what := parse(pkt)
	if what != Answered {
		return false
	}
	g := s.segmentOf(wire, p)
	return g != nil && g.Mode == Enrol && !s.Directory.Knows(p.query(g.Name))
}

// decide is RFC 2131 section 4.3 for a server whose addresses are fixed.
func (s *Server) decide(g *Segment, p *message, q Query, a Answer) (dhcpv4.MessageType, Outcome) {
	ours := p.server == g.Address
	switch p.typ {
	case Discover:
		return dhcpv4.MessageTypeOffer, Answered
	case Request:
		if p.server.IsValid() && !ours {
			if s.Rival != nil {
				s.Rival(g.Name, p.server)
			}
			return 0, OtherServer
		}
		if q.Asked == a.IP {
			return dhcpv4.MessageTypeAck, Answered
		}
		if !q.Asked.IsValid() {
			return 0, Malformed // a REQUEST names its address, always
		}
		return dhcpv4.MessageTypeNak, Refused
	case Inform:
		if p.client != a.IP {
			return 0, Stranger
		}
		return dhcpv4.MessageTypeAck, Answered
	case Decline:
		// Somebody else uses the address. It is the machine's own, so there is no
		// other to give; a person has to look.
		if ours && s.Seen != nil {
			s.Seen(q)
		}
		return 0, Noted
	}
	return 0, Noted // Release: addresses are fixed or expire by themselves
}

// build makes the reply. The library is used for the encoding only.
func (g *Segment) build(p *message, q Query, a Answer, kind dhcpv4.MessageType) []byte {
	us := net.IP(g.Address.AsSlice())
	r := &dhcpv4.DHCPv4{
		OpCode:        dhcpv4.OpcodeBootReply,
		HWType:        p.HWType,
		TransactionID: p.TransactionID,
		Flags:         p.Flags,
		GatewayIPAddr: p.GatewayIPAddr,
		ClientHWAddr:  p.ClientHWAddr,
		Options:       make(dhcpv4.Options, 16),
	}
	set := func(code dhcpv4.OptionCode, v []byte) { r.Options[code.Code()] = v }
	set(dhcpv4.OptionDHCPMessageType, []byte{byte(kind)})
	set(dhcpv4.OptionServerIdentifier, us)
	for _, code := range []dhcpv4.OptionCode{
		dhcpv4.OptionClientIdentifier,        // RFC 6842
		dhcpv4.OptionClientMachineIdentifier, // PXE 2.1 table 2-2
		dhcpv4.OptionRelayAgentInformation,   // RFC 3046, verbatim
	} {
		if v, has := p.Options[code.Code()]; has {
			set(code, v)
		}
	}
	if kind == dhcpv4.MessageTypeNak {
		r.Flags |= 0x8000 // RFC 2131 section 4.3.2: a relay must broadcast it
		set(dhcpv4.OptionMessage, []byte("that is not your address"))
		return r.ToBytes()
	}

	r.ServerIPAddr = us
	r.ClientIPAddr = p.ClientIPAddr
	if p.typ != Inform {
		r.YourIPAddr = a.IP.AsSlice()
		term := a.Lease
		if term <= 0 {
			term = defaultTerm
		}
		set(dhcpv4.OptionIPAddressLeaseTime, seconds(term))
		set(dhcpv4.OptionRenewTimeValue, seconds(term/2))
		set(dhcpv4.OptionRebindingTimeValue, seconds(term*7/8))
	}
	set(dhcpv4.OptionSubnetMask, net.CIDRMask(g.Subnet.Bits(), 32))
	if a.Router.Is4() {
		set(dhcpv4.OptionRouter, a.Router.AsSlice())
	}
	var dns []byte
	for _, d := range a.DNS {
		if d.Is4() && len(dns) < 12 {
			dns = append(dns, d.AsSlice()...)
		}
	}
	if dns != nil {
		set(dhcpv4.OptionDomainNameServer, dns)
	}

	b := g.bootFor(q, a)
	if b.ipxe {
		set(dhcpv4.GenericOptionCode(optIPXE), noProxyDHCP)
	}
	if b.file != "" {
		r.ServerHostName = g.Address.String()
		set(dhcpv4.OptionTFTPServerName, []byte(g.Address.String()))
		set(dhcpv4.OptionBootfileName, []byte(b.file))
		if len(b.file) <= fileField {
			r.BootFileName = b.file
		}
	}
	if b.http {
		set(dhcpv4.OptionClassIdentifier, []byte("HTTPClient"))
	}
	return r.ToBytes()
}

func seconds(d time.Duration) []byte {
	return binary.BigEndian.AppendUint32(nil, uint32(min(d/time.Second, 1<<32-1)))
}

// dest is RFC 2131 section 4.1: through the relay, or to the address that the
// client has, or to the one it is about to have, or to everybody.
func (g *Segment) dest(p *message, a Answer, kind dhcpv4.MessageType) Dest {
	nak := kind == dhcpv4.MessageTypeNak
	switch {
	case p.relay.IsValid():
		return Dest{Addr: netip.AddrPortFrom(p.relay, serverPort), From: g.Address}
	case g.Interface == "": // a renewal that was routed to us
		return Dest{Addr: netip.AddrPortFrom(p.client, clientPort), From: g.Address}
	case nak || p.IsBroadcast() && p.client != a.IP:
		return Dest{Addr: netip.AddrPortFrom(broadcastIP, clientPort), From: g.Address, MAC: broadcastMAC, Wire: g.Interface}
	case p.client == a.IP:
		return Dest{Addr: netip.AddrPortFrom(a.IP, clientPort), From: g.Address, Wire: g.Interface}
	}
	return Dest{Addr: netip.AddrPortFrom(a.IP, clientPort), From: g.Address, MAC: p.ClientHWAddr, Wire: g.Interface}
}

var (
	broadcastIP  = netip.AddrFrom4([4]byte{255, 255, 255, 255})
	broadcastMAC = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
)
