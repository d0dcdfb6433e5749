package rack

import "time"

// fruBytes is the size of the FRU device that ipmi_sim is told to offer.
const fruBytes = 256

// fruEpoch is where FRU board dates count from (minutes, 24 bits).
var fruEpoch = time.Date(1996, 1, 1, 0, 0, 0, 0, time.UTC)

// fru is a server's inventory as its BMC tells it, in the IPMI Platform
// Management FRU Information Storage Definition v1.0: chassis (section 10),
// board (11) and product (12) areas. Product and chassis serial are those of
// SMBIOS, so that the controller can be matched with the server behind it.
func fru(f Facts) []byte {
	made := uint32(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Sub(fruEpoch) / time.Minute)
	chassis := fruArea([]byte{0x17}, "RACK-CHASSIS", f.Serial) // 17h: rack mount chassis
	board := fruArea([]byte{0, byte(made), byte(made >> 8), byte(made >> 16)},
		"Hostler", "Virtual Board", f.Serial+"-BOARD", "RACK-BOARD", "")
	product := fruArea([]byte{0},
		"Hostler", "Virtual Rack Server", "RACK-SERVER", "1", f.Serial, "", "")

	// Common header, section 8: offsets in units of 8 bytes.
	chassisAt, boardAt := 1, 1+len(chassis)/8
	productAt := boardAt + len(board)/8
	out := sealed([]byte{1, 0, byte(chassisAt), byte(boardAt), byte(productAt), 0, 0})
	for _, area := range [][]byte{chassis, board, product} {
		out = append(out, area...)
	}
	return append(out, make([]byte, fruBytes-len(out))...)
}

// fruArea is one area: version, length, its fixed bytes, its strings (type 11b,
// 8-bit text, section 13), the end mark, padding, checksum.
func fruArea(fixed []byte, texts ...string) []byte {
	b := append([]byte{1, 0}, fixed...)
	for _, t := range texts {
		b = append(append(b, 0xC0|byte(len(t))), t...)
	}
	b = append(b, 0xC1)
	for (len(b)+1)%8 != 0 {
		b = append(b, 0)
	}
	b[1] = byte((len(b) + 1) / 8)
	return sealed(b)
}

// sealed adds the byte that makes the sum of all zero.
func sealed(b []byte) []byte {
	var sum byte
	for _, x := range b {
		sum += x
	}
	return append(b, -sum)
}
