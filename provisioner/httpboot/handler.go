package httpboot

import (
	"bytes"
	"errors"
	"net/http"
	"net/netip"
	"strconv"
	"time"
)

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &counted{ResponseWriter: w}
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler {
				panic(p)
			}
			c.status = http.StatusInternalServerError
			h.counters.add(c)
			h.panics.Caught(h.Log, part, p, nil, "method", r.Method, "client", r.RemoteAddr) // not the path: it may be a session's
			panic(http.ErrAbortHandler)                                                      // the client must not take half a file for a whole one
		}
		h.counters.add(c)
	}()
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		c.Header().Set("Allow", "GET, HEAD")
		plain(c, http.StatusMethodNotAllowed, "only GET and HEAD\n")
		return
	}
	parts, ok := split(r)
	if !ok {
		notFound(c)
		return
	}
	for _, rt := range routes {
		if rt.first == parts[0] {
			if len(parts) < rt.parts || rt.exact && len(parts) > rt.parts {
				break
			}
			rt.serve(h, c, r, parts)
			return
		}
	}
	notFound(c)
}

// script answers iPXE's question what to do.
func (h *Handler) script(w http.ResponseWriter, r *http.Request, _ []string) {
	mac, ok := hint(r)
	c := Client{IP: clientIP(r), MAC: mac}
	if !ok || !c.IP.IsValid() || h.Boot == nil {
		notFound(w)
		return
	}
	p, err := h.Boot.Plan(r.Context(), c)
	if errors.Is(err, ErrUnknown) || err == nil && mac != nil && !bytes.Equal(mac, p.MAC) {
		notFound(w)
		return
	}
	render := h.Render
	if render == nil {
		render = IPXE
	}
	var out []byte
	if err == nil {
		out, err = render(p)
	}
	if err != nil {
		// The machine is ours or may be, and we cannot say what it boots. It must
		// not fall through to its disk for that: it waits.
		if h.Log != nil {
			h.Log.Warn("httpboot: no boot script, the machine waits and asks again", "client", c.IP, "err", err)
		}
		if mac == nil {
			mac = p.MAC
		}
		wait := Plan{Kind: Wait, MAC: mac, Server: serverOf(r), Retry: 10 * time.Second, Reason: Trouble}
		if out, err = render(wait); err != nil {
			notFound(w)
			return
		}
	}
	head := w.Header()
	head.Set("Content-Type", "text/plain; charset=utf-8")
	head.Set("Content-Length", strconv.Itoa(len(out)))
	head.Set("Cache-Control", "no-store")
	if r.Method == http.MethodGet {
		w.Write(out)
	}
}

// clientIP is the address that the request came from.
func clientIP(r *http.Request) netip.Addr {
	a, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return a.Addr().Unmap()
}

// serverOf is the address that the request was sent to.
func serverOf(r *http.Request) netip.AddrPort {
	if a, ok := r.Context().Value(http.LocalAddrContextKey).(interface{ AddrPort() netip.AddrPort }); ok {
		at := a.AddrPort()
		return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	}
	return netip.AddrPort{}
}

// notFound is the one answer to everything that is not there.
func notFound(w http.ResponseWriter) { plain(w, http.StatusNotFound, "not found\n") }

func plain(w http.ResponseWriter, status int, text string) {
	head := w.Header()
	head.Set("Content-Type", "text/plain; charset=utf-8")
	head.Set("Content-Length", strconv.Itoa(len(text)))
	head.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	w.Write([]byte(text)) // net/http drops the body of an answer to HEAD
}
