package dhcp

import (
	"encoding/binary"
	"net"
	"net/netip"
)

const (
	etherIPv4 = 0x0800
	etherIPv6 = 0x86dd
)

// frame wraps a UDP payload into IPv4 and Ethernet, for a client that has no
// address yet. The UDP checksum is filled in: some boot ROMs drop packets
// without one.
func frame(from, to net.HardwareAddr, src, dst netip.AddrPort, payload []byte) []byte {
	const eth, ip, udp = 14, 20, 8
	f := make([]byte, eth+ip+udp+len(payload))
	copy(f, to)
	copy(f[6:], from)
	binary.BigEndian.PutUint16(f[12:], etherIPv4)

	h := f[eth:]
	h[0] = 0x45
	binary.BigEndian.PutUint16(h[2:], uint16(ip+udp+len(payload)))
	h[8] = 64 // time to live
	h[9] = 17 // UDP
	copy(h[12:16], src.Addr().AsSlice())
	copy(h[16:20], dst.Addr().AsSlice())
	binary.BigEndian.PutUint16(h[10:], ^fold(sum(0, h[:ip])))

	u := h[ip:]
	binary.BigEndian.PutUint16(u[0:], src.Port())
	binary.BigEndian.PutUint16(u[2:], dst.Port())
	binary.BigEndian.PutUint16(u[4:], uint16(udp+len(payload)))
	copy(u[udp:], payload)
	c := ^fold(sum(sum(uint32(17)+uint32(len(u)), h[12:20]), u))
	if c == 0 {
		c = 0xffff // RFC 768: zero means no checksum
	}
	binary.BigEndian.PutUint16(u[6:], c)
	return f
}

// sum adds b to a running Internet checksum (RFC 1071), fold ends it.
func sum(start uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		start += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		start += uint32(b[0]) << 8
	}
	return start
}

func fold(s uint32) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}
