package dhcp

import (
	"encoding/binary"
	"net"
)

// iPXE waits 14.5 s for an IPv6 router before it boots. This file ends that
// wait: a router solicitation is answered by an advertisement that announces
// no router (lifetime 0), no prefix and no DHCPv6, so nobody configures
// anything from it. It is built on Ethernet frames: it works where the host's
// own IPv6 is switched off.

const (
	icmpRouterSolicit = 133
	icmpRouterAdvert  = 134
)

// allRouters is the Ethernet group of ff02::2, allNodes that of ff02::1.
var (
	allRouters = net.HardwareAddr{0x33, 0x33, 0, 0, 0, 2}
	allNodes   = net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
)

// advertFor answers the router solicitation in the Ethernet frame f as RFC
// 4861 sections 6.1.1 and 6.2.6 say, in the name of card mac. It returns nil
// for every other frame.
func advertFor(f []byte, mac net.HardwareAddr) []byte {
	const eth, ip, icmp = 14, 40, 8
	if len(f) < eth+ip+icmp || binary.BigEndian.Uint16(f[12:]) != etherIPv6 {
		return nil
	}
	h, n := f[eth:], int(binary.BigEndian.Uint16(f[eth+4:]))
	if h[0]>>4 != 6 || h[6] != 58 || h[7] != 255 || n < icmp || len(h) < ip+n {
		return nil // not ICMPv6, routed, or cut short
	}
	src, dst, m := h[8:24], h[24:40], h[ip:ip+n]
	if m[0] != icmpRouterSolicit || m[1] != 0 || fold(sum(pseudo(src, dst, n), m)) != 0xffff {
		return nil
	}

	to, toIP := net.HardwareAddr(f[6:12]), net.IP(src)
	if toIP.IsUnspecified() || !toIP.IsLinkLocalUnicast() {
		to, toIP = allNodes, net.IPv6linklocalallnodes
	}
	a := make([]byte, eth+ip+16+8)
	copy(a, to)
	copy(a[6:], mac)
	binary.BigEndian.PutUint16(a[12:], etherIPv6)
	r := a[eth:]
	r[0], r[6], r[7] = 0x60, 58, 255
	binary.BigEndian.PutUint16(r[4:], 24)
	copy(r[8:24], linkLocal(mac))
	copy(r[24:40], toIP)
	body := r[ip:]
	body[0] = icmpRouterAdvert
	body[4] = 64 // hop limit; flags, router lifetime and timers stay 0
	body[16], body[17] = 1, 1
	copy(body[18:], mac) // source link-layer address option
	binary.BigEndian.PutUint16(body[2:], ^fold(sum(pseudo(r[8:24], r[24:40], len(body)), body)))
	return a
}

// pseudo starts the checksum of an ICMPv6 message of n bytes (RFC 8200 section
// 8.1).
func pseudo(src, dst []byte, n int) uint32 {
	return sum(sum(uint32(n)+58, src), dst)
}

// linkLocal is the address that a card forms from its MAC (RFC 4291 appendix A).
func linkLocal(mac net.HardwareAddr) net.IP {
	return net.IP{0xfe, 0x80, 0, 0, 0, 0, 0, 0, mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]}
}
