package httpboot

import (
	"bytes"
	"io"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"
)

// Files is the map of names below /loader, /boot and /session.
type Files interface {
	// Open returns what this client gets under a name such as
	// "loader/snponly-x86_64.efi", "boot/service/vmlinuz" or
	// "session/<32 hex digits>/session.cpio". The name has passed the grammar of
	// paths; it is looked up, never joined to a folder.
	Open(name string, client netip.Addr) (File, bool)
}

// A File is something to serve. If Content is an *os.File, the kernel sends it
// without copying.
type File struct {
	Content  io.ReadSeekCloser
	Modified time.Time // zero means unknown
}

// Bytes is a File in memory.
func Bytes(b []byte) File { return File{Content: memory{bytes.NewReader(b)}} }

type memory struct{ *bytes.Reader }

func (memory) Close() error { return nil }

// Map is Files that everybody may have: from name to the file on our disk.
type Map map[string]string

// Open implements Files.
func (m Map) Open(name string, _ netip.Addr) (File, bool) {
	path, ok := m[name]
	if !ok {
		return File{}, false
	}
	f, err := os.Open(path)
	if err != nil {
		return File{}, false
	}
	return regular(f)
}

// regular makes a File of f, and closes it if it is not a regular file.
func regular(f *os.File) (File, bool) {
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		f.Close()
		return File{}, false
	}
	return File{Content: f, Modified: info.ModTime()}, true
}

// file serves a name from Files.
func (h *Handler) file(w http.ResponseWriter, r *http.Request, parts []string) {
	if h.Files == nil {
		notFound(w)
		return
	}
	f, ok := h.Files.Open(strings.Join(parts, "/"), clientIP(r))
	if !ok {
		notFound(w)
		return
	}
	serve(w, r, f)
}

// session serves a name whose second part is the session's 128-bit secret.
func (h *Handler) session(w http.ResponseWriter, r *http.Request, parts []string) {
	if !hexOK(parts[1], 32) {
		notFound(w)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	h.file(w, r, parts)
}

// serve sends f, or the ranges of it that were asked for.
func serve(w http.ResponseWriter, r *http.Request, f File) {
	defer f.Content.Close()
	w.Header().Set("Content-Type", "application/octet-stream") // or net/http would read the file to guess
	http.ServeContent(w, r, "", f.Modified, f.Content)
}

// counted is a ResponseWriter that remembers what was sent. It passes ReadFrom
// on: without that, net/http would copy files through user space at three
// times the CPU (performance.md section 3).
type counted struct {
	http.ResponseWriter
	status int
	bytes  int64
}

// WriteHeader implements http.ResponseWriter.
func (c *counted) WriteHeader(status int) {
	c.status = status
	c.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (c *counted) Write(b []byte) (int, error) {
	n, err := c.ResponseWriter.Write(b)
	c.bytes += int64(n)
	return n, err
}

// ReadFrom implements io.ReaderFrom.
func (c *counted) ReadFrom(r io.Reader) (int64, error) {
	n, err := io.Copy(c.ResponseWriter, r) // net/http's own writer is an io.ReaderFrom
	c.bytes += n
	return n, err
}

// Unwrap lets http.ResponseController find the real writer.
func (c *counted) Unwrap() http.ResponseWriter { return c.ResponseWriter }
