package kmsg

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A record is one read of /dev/kmsg: "6,1234,56789012,-;text\n KEY=VALUE\n" (Documentation/ABI/testing/dev-kmsg).
type record struct {
	facility int
	seq      uint64
	at       time.Duration // since boot, of the kernel's own clock
	text     string
}

// kern is the facility of the kernel itself. Whatever a program writes to /dev/kmsg has another: the kernel sees to that.
const kern = 0

// header reads what is before the text; the text is left as it came.
func header(b []byte) (record, []byte, error) {
	head, text, ok := bytes.Cut(b, []byte{';'})
	if !ok {
		return record{}, nil, fmt.Errorf("kmsg: a record without a semicolon: %.60q", b)
	}
	var n [3]uint64
	rest := head
	for i := range n {
		var field []byte
		field, rest, _ = bytes.Cut(rest, []byte{','})
		v, ok := number(field)
		if !ok {
			return record{}, nil, fmt.Errorf("kmsg: a record that begins with %.60q", head)
		}
		n[i] = v
	}
	if i := bytes.IndexByte(text, '\n'); i >= 0 { // what follows are key-value lines
		text = text[:i]
	}
	return record{facility: int(n[0] >> 3), seq: n[1], at: time.Duration(n[2]) * time.Microsecond}, text, nil
}

func number(b []byte) (uint64, bool) {
	if len(b) == 0 || len(b) > 19 {
		return 0, false
	}
	var n uint64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return n, true
}

// unescape undoes the kernel's \xNN.
func unescape(b []byte) string {
	if bytes.IndexByte(b, '\\') < 0 {
		return string(b)
	}
	var out strings.Builder
	s := string(b)
	for {
		i := strings.Index(s, `\x`)
		if i < 0 || i+4 > len(s) {
			break
		}
		out.WriteString(s[:i])
		if v, err := strconv.ParseUint(s[i+2:i+4], 16, 8); err == nil {
			out.WriteByte(byte(v))
		} else {
			out.WriteString(s[i : i+4])
		}
		s = s[i+4:]
	}
	out.WriteString(s)
	return out.String()
}
