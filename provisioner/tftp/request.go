package tftp

import (
	"bytes"
	"encoding/binary"
	"strconv"
	"strings"
)

// Opcodes and error codes of RFC 1350 and 2347.
const (
	opRead  = 1
	opWrite = 2
	opData  = 3
	opAck   = 4
	opError = 5
	opOAck  = 6

	errNotFound = 1
	errIllegal  = 4
)

// A request is a read request that we can serve.
type request struct {
	name   string
	block  int  // bytes a packet
	window int  // packets an acknowledgement
	size   bool // the client wants to know the size
	asked  struct{ block, window bool }
}

// parseRequest reads what arrived on the listening port. The outcome is Served
// if the transfer may begin.
func parseRequest(b []byte) (request, Outcome) {
	r := request{block: 512, window: 1}
	if len(b) < 4 {
		return r, Malformed
	}
	switch binary.BigEndian.Uint16(b) {
	case opRead:
	case opWrite:
		return r, WriteRefused
	default:
		return r, Malformed
	}
	fields := bytes.Split(b[2:], []byte{0})
	if len(fields) < 3 || len(fields[len(fields)-1]) != 0 {
		return r, Malformed // name and mode each end with a zero byte, and so does the packet
	}
	if !strings.EqualFold(string(fields[1]), "octet") {
		return r, Malformed
	}
	if r.name = string(fields[0]); !nameOK(r.name) {
		r.name = ""
		return r, NotFound
	}
	options := fields[2 : len(fields)-1]
	for i := 0; i+1 < len(options); i += 2 {
		n, err := strconv.Atoi(string(options[i+1]))
		if err != nil {
			continue // RFC 2347: what the server does not like it leaves out of its answer
		}
		switch strings.ToLower(string(options[i])) {
		case "blksize":
			if n >= 8 && n <= 65464 {
				r.block, r.asked.block = min(n, maxBlock), true
			}
		case "windowsize":
			if n >= 1 && n <= 65535 {
				r.window, r.asked.window = min(n, maxWindow), true
			}
		case "tsize":
			r.size = n == 0
		}
	}
	return r, Served
}

// nameOK says whether a name can be in the map at all: letters, digits, dot,
// dash, underscore, not beginning with a dot, 128 bytes at most. So nothing
// that looks like a path gets as far as a lookup or a log line.
func nameOK(name string) bool {
	if name == "" || len(name) > 128 || name[0] == '.' {
		return false
	}
	for _, c := range []byte(name) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

// optionAck answers the options that were taken; nil if there was none.
func (r request) optionAck(size int) []byte {
	var b []byte
	add := func(name string, n int) {
		b = append(append(b, name...), 0)
		b = append(strconv.AppendInt(b, int64(n), 10), 0)
	}
	if r.asked.block {
		add("blksize", r.block)
	}
	if r.asked.window {
		add("windowsize", r.window)
	}
	if r.size {
		add("tsize", size)
	}
	if b == nil {
		return nil
	}
	return append([]byte{0, opOAck}, b...)
}

func errorPacket(code byte, text string) []byte {
	return append(append([]byte{0, opError, 0, code}, text...), 0)
}
