package httpboot

import (
	"net"
	"net/http"
	"net/url"
	"strings"
)

// A route is one kind of path, told by its first part.
type route struct {
	first string
	parts int // how many parts the path has, at least
	exact bool
	serve func(h *Handler, w http.ResponseWriter, r *http.Request, parts []string)
}

// routes is everything that can be asked for.
var routes = []route{
	{"ipxe", 1, true, (*Handler).script},     // /ipxe?mac=52:54:00:12:34:01
	{"loader", 2, true, (*Handler).file},     // /loader/snponly-x86_64.efi
	{"boot", 2, false, (*Handler).file},      // /boot/service/vmlinuz
	{"session", 3, true, (*Handler).session}, // /session/<32 hex digits>/session.cpio
	{"image", 3, false, (*Handler).image},    // /image/<64 hex digits>/chunks/…
}

// split takes a request's path apart. It works on the bytes that were sent, not
// on what net/http made of them: an escape, an empty part, a part that begins
// with a dot, and anything longer than 300 bytes is no path of ours.
func split(r *http.Request) ([]string, bool) {
	path := r.URL.EscapedPath()
	if len(path) > 300 || len(path) < 2 || path[0] != '/' {
		return nil, false
	}
	parts := strings.Split(path[1:], "/")
	for _, p := range parts {
		if !nameOK(p) {
			return nil, false
		}
	}
	return parts, true
}

// nameOK says whether s is one part of a path: letters, digits, dot, dash,
// underscore, not beginning with a dot or dash, 128 bytes at most.
func nameOK(s string) bool {
	return s != "" && len(s) <= 128 && s[0] != '.' && s[0] != '-' && only(s, "._-")
}

// only says whether s has nothing but ASCII letters, digits and the given
// others.
func only(s, others string) bool {
	for _, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte(others, c) >= 0:
		default:
			return false
		}
	}
	return true
}

func hexOK(s string, n int) bool {
	return len(s) == n && strings.Trim(s, "0123456789abcdef") == ""
}

// hint reads the query of a script request: nothing, or one MAC.
func hint(r *http.Request) (net.HardwareAddr, bool) {
	if r.URL.RawQuery == "" {
		return nil, true
	}
	if len(r.URL.RawQuery) > 64 {
		return nil, false
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil || len(q) != 1 || len(q["mac"]) != 1 {
		return nil, false
	}
	mac, err := net.ParseMAC(q.Get("mac"))
	return mac, err == nil && len(mac) == 6
}
