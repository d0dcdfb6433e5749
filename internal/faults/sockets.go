package faults

import (
	"bufio"
	"fmt"
	"os"
	"strings"
)

// udpInode finds the socket that is bound to a UDP port of this namespace, in /proc/net/udp and udp6 (proc(5)); "" where
// none is.
func udpInode(port int) string {
	want := fmt.Sprintf(":%04X", port)
	for _, table := range []string{"/proc/net/udp", "/proc/net/udp6"} {
		f, err := os.Open(table)
		if err != nil {
			continue
		}
		defer f.Close()
		for s := bufio.NewScanner(f); s.Scan(); {
			if w := strings.Fields(s.Text()); len(w) > 9 && strings.HasSuffix(w[1], want) {
				return w[9]
			}
		}
	}
	return ""
}
