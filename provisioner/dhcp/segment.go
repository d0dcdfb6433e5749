package dhcp

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// A Mode says how we behave on a segment.
type Mode string

// The modes of a segment.
const (
	Authoritative Mode = "authoritative" // we are the DHCP server: known machines are answered, wrong addresses refused
	Enrol         Mode = "enrol"         // as authoritative, and strangers get an address but no boot file
	Observe       Mode = "observe"       // nobody is answered, strangers are reported
	Proxy         Mode = "proxy"         // beside a foreign server; not in this version
)

// A Segment is one network that we serve: either the wire on Interface, or
// networks behind the Relays.
type Segment struct {
	Name      string
	Interface string       // network card on this wire; "" for a segment behind relays only
	Subnet    netip.Prefix // the machines' addresses
	Address   netip.Addr   // ours: server identifier, next server, host of the URLs
	Mode      Mode
	Relays    []netip.Addr // giaddr values that are answered
	Port      uint16       // of the boot HTTP server; 0 means 80
	NoAdvert  bool         // true: router solicitations stay unanswered
}

// ScriptURL is where iPXE on this segment gets the boot script of the machine
// with this MAC, which package httpboot takes as a hint.
func (s Segment) ScriptURL(mac string) string { return s.base() + "/ipxe?mac=" + mac }

// LoaderURL is where UEFI HTTP boot on this segment gets a loader.
func (s Segment) LoaderURL(loader string) string { return s.base() + "/loader/" + loader }

func (s Segment) base() string {
	if s.Port == 0 || s.Port == 80 {
		return "http://" + s.Address.String()
	}
	return "http://" + netip.AddrPortFrom(s.Address, s.Port).String()
}

// Check returns everything that is wrong with the segments, not just the first
// thing.
func Check(segments []Segment) error {
	var errs []error
	names, wires, relays := map[string]bool{}, map[string]string{}, map[netip.Addr]string{}
	for i, s := range segments {
		bad := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("segment %s: %s", or(s.Name, fmt.Sprintf("%d", i+1)), fmt.Sprintf(format, args...)))
		}
		switch {
		case s.Name == "":
			bad("name: give it one")
		case names[s.Name]:
			bad("name: another segment has it too")
		}
		names[s.Name] = true

		switch s.Mode {
		case Authoritative, Enrol, Observe:
		case Proxy:
			bad("mode proxy: not in this version")
		default:
			bad("mode %q: say authoritative, enrol or observe", s.Mode)
		}
		if !s.Subnet.IsValid() || !s.Subnet.Addr().Is4() || s.Subnet.Bits() > 30 {
			bad("subnet %v: give an IPv4 network of /30 or larger, like 10.0.0.0/24", s.Subnet)
		} else if s.Interface != "" && !s.Subnet.Contains(s.Address) {
			bad("address %v: is not in subnet %v", s.Address, s.Subnet)
		}
		if !s.Address.Is4() || s.Address.IsUnspecified() || s.Address.IsMulticast() {
			bad("address %v: give our own IPv4 address on this segment", s.Address)
		}
		if s.Interface == "" && len(s.Relays) == 0 {
			bad("interface: name a network card, or list the relays")
		}
		if other, taken := wires[s.Interface]; s.Interface != "" && taken {
			bad("interface %s: segment %s has it too", s.Interface, other)
		}
		wires[s.Interface] = s.Name
		for _, r := range s.Relays {
			if !r.Is4() || r.IsUnspecified() || r.IsMulticast() {
				bad("relay %v: give an IPv4 address", r)
			}
			if other, taken := relays[r]; taken {
				bad("relay %v: segment %s has it too", r, other)
			}
			relays[r] = s.Name
		}
	}
	return errors.Join(errs...)
}

func or(a, b string) string {
	if strings.TrimSpace(a) == "" {
		return b
	}
	return a
}

// segmentOf finds the segment of a packet that came in on the card wire ("" for
// a socket that is bound to none). A relayed packet belongs to the segment that
// lists its relay, and to no other; a renewal that was routed to us to the one
// that holds the client's address.
func (s *Server) segmentOf(wire string, p *message) *Segment {
	find := func(match func(*Segment) bool) *Segment {
		for i := range s.Segments {
			if match(&s.Segments[i]) {
				return &s.Segments[i]
			}
		}
		return nil
	}
	if p.relay.IsValid() {
		return find(func(g *Segment) bool { return slices.Contains(g.Relays, p.relay) })
	}
	here := find(func(g *Segment) bool { return wire != "" && g.Interface == wire })
	if p.client.IsValid() && (here == nil || !here.Subnet.Contains(p.client)) {
		if far := find(func(g *Segment) bool { return g.Interface == "" && g.Subnet.Contains(p.client) }); far != nil {
			return far
		}
	}
	return here
}
