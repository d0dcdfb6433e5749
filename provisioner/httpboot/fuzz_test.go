package httpboot

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hostler-project/hostler/internal/frugal"
)

// FuzzPath sends what follows "GET " on the wire: path, headers and all. Not one byte from outside the map comes back,
// the map is asked for nothing that could be a path, nobody is sent elsewhere, and it costs little.
func FuzzPath(f *testing.F) {
	for _, target := range hostile {
		f.Add([]byte(target + " HTTP/1.1\r\nHost: x\r\n\r\n"))
	}
	for _, target := range []string{"/ipxe?mac=52:54:00:12:34:01", "/image/" + digest + "/chunks/00", "/loader/snponly-x86_64.efi", "/session/" + secret + "/session.cpio", "/boot/service/vmlinuz"} {
		f.Add([]byte(target + " HTTP/1.1\r\nHost: 192.168.77.1\r\nUser-Agent: iPXE/1.0.0+git-20190125\r\nRange: bytes=2-4,0-\r\n\r\n"))
		f.Add([]byte("http://192.168.77.1" + target + " HTTP/1.1\r\nHost: x\r\nIf-Modified-Since: Mon, 02 Jan 2006 15:04:05 GMT\r\nIf-Range: \"x\"\r\n\r\n"))
	}
	h, b := site(f)
	want, err := os.ReadFile("testdata/service.ipxe")
	if err != nil {
		f.Fatal(err)
	}
	bodies := []string{string(want), "loader", "0123456789", "token", "{}", "chunk", "not found\n"}
	at := net.TCPAddrFromAddrPort(netip.MustParseAddrPort("192.168.77.1:80"))
	f.Fuzz(func(t *testing.T, rest []byte) {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(slices.Concat([]byte("GET "), rest))))
		if err != nil || r.Method != http.MethodGet {
			return // net/http answers that itself
		}
		r.RemoteAddr = "192.168.77.10:1234"
		r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, net.Addr(at)))
		var w *httptest.ResponseRecorder
		frugal.Check(t, 5*time.Millisecond, 512<<10, func() {
			b.asked = nil
			w = httptest.NewRecorder()
			h.ServeHTTP(w, r)
		})
		for _, name := range b.asked {
			if !pathOK(name) {
				t.Fatalf("the map was asked for %q", name)
			}
		}
		body := w.Body.String()
		switch w.Code {
		case http.StatusOK, http.StatusNotFound:
			if !slices.Contains(bodies, body) {
				t.Fatalf("got %d %q", w.Code, body)
			}
		case http.StatusPartialContent: // one range, or several with headers between
			if strings.Contains(body, "secret of the host") || len(body) > 64<<10 {
				t.Fatalf("got %d bytes: %.200q", len(body), body)
			}
		case http.StatusNotModified, http.StatusPreconditionFailed, http.StatusRequestedRangeNotSatisfiable:
		default:
			t.Fatalf("got %d %q", w.Code, body)
		}
		if w.Header().Get("Location") != "" {
			t.Fatalf("sent to %q", w.Header().Get("Location"))
		}
	})
}

// scriptLines is all that a boot script may consist of.
var scriptLines = regexp.MustCompile(`^(#!ipxe|imgfree|boot \|\| goto again|:again|:stand|goto stand|sleep [0-9]+|exit 0|echo Hostler: [a-z, ]+` +
	`|kernel http://[0-9.:]+/[A-Za-z0-9._/-]+( [A-Za-z0-9._,:/@=+-]+)* \|\| goto again|initrd --name [A-Za-z0-9._-]+ http://[0-9.:]+/[A-Za-z0-9._/-]+ \|\| goto again` +
	`|chain --replace http://[0-9.:]+/ipxe\?mac=[0-9a-f:]{17} \|\| goto again)$`)

// FuzzScript fills every field of a boot plan. Either the plan is refused, or the script has the lines of its kind and
// no others, none of which a field could have made.
func FuzzScript(f *testing.F) {
	f.Add("service", "approval", "boot/vmlinuz", "boot/initrd.img", "console", "ttyS0,115200", []byte(macA), "192.168.77.1:80", int64(5*time.Second))
	f.Add("wait", "no-order", "", "", "", "", []byte(macA), "10.0.0.1:8081", int64(time.Minute))
	f.Add("refuse", "burnt", "", "", "", "", []byte(macA), "10.0.0.1:80", int64(0))
	f.Add("disk", "", "", "", "", "", []byte(macA), "10.0.0.1:80", int64(0))
	for _, evil := range []string{"a\nb", "${x}", "a b", "../x", "a||shell", "a%0ab", "\u2028", "--", "=", "#", "initrd"} {
		f.Add("service", evil, evil, "boot/"+evil, evil, evil, []byte(macA), "[::1]:80", int64(1))
		f.Add("service", "", "boot/vmlinuz", "boot/initrd.img", "key", evil, []byte(macA), "10.0.0.1:80", int64(1))
		f.Add("service", "", "boot/vmlinuz", "boot/initrd.img", evil, "value", []byte(macA), "10.0.0.1:80", int64(1))
	}
	lines := map[Kind]int{Service: 10, Wait: 5, Disk: 3, Refuse: 5}
	f.Fuzz(func(t *testing.T, kind, reason, kernel, initrd, key, value string, mac []byte, server string, retry int64) {
		p := Plan{Kind: Kind(kind), Reason: Reason(reason), MAC: mac, Kernel: kernel, Initrds: []string{initrd, "session/" + secret + "/session.cpio"},
			Args: []Arg{{"quiet", ""}, {key, value}}, Retry: time.Duration(retry)}
		p.Server, _ = netip.ParseAddrPort(server) // an invalid one must be refused
		var out []byte
		var err error
		frugal.Check(t, time.Millisecond, 64<<10+64*uint64(len(kind)+len(reason)+len(kernel)+len(initrd)+len(key)+len(value)), func() { out, err = IPXE(p) })
		if err != nil {
			if value := strings.TrimSpace(value); len(value) > 16 && !strings.Contains(kind+reason+kernel+initrd+key, value) && strings.Contains(err.Error(), value) {
				t.Fatalf("the error repeats the value, which may be a secret: %v", err)
			}
			return
		}
		got := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
		if len(got) != lines[p.Kind] {
			t.Fatalf("%d lines of kind %s, want %d:\n%s", len(got), kind, lines[p.Kind], out)
		}
		for _, line := range got {
			if !scriptLines.MatchString(line) {
				t.Fatalf("a line that no plan has: %q", line)
			}
		}
		if strings.Contains(string(out), "..") && !strings.Contains(key+value+kernel+initrd, "..") || strings.Contains(string(out), "/../") && !strings.Contains(value, "/../") {
			t.Fatalf("a way up:\n%s", out)
		}
	})
}
