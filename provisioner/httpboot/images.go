package httpboot

import (
	"net/http"
	"net/netip"
	"os"
	"strings"
)

// Images serves imported images: manifest, signature, chunks, blobs.
type Images struct {
	// Open finds a file of an image (64 hex digits) by name, such as
	// "manifest.json", "chunk/<sha256>" or "blob/<sha256>". The name has passed
	// the grammar of paths; it is looked up, never joined to a folder.
	Open func(digest, name string) (f *os.File, ok bool)

	// Allowed says whether this client may read it: it has an order for it.
	Allowed func(client netip.Addr, digest string) bool
}

// image serves /image/<digest>/<name>, where the name may have folders.
func (h *Handler) image(w http.ResponseWriter, r *http.Request, parts []string) {
	if h.Images == nil || !hexOK(parts[1], 64) || !h.Images.Allowed(clientIP(r), parts[1]) {
		notFound(w)
		return
	}
	f, ok := h.Images.Open(parts[1], strings.Join(parts[2:], "/"))
	if !ok {
		notFound(w)
		return
	}
	file, ok := regular(f)
	if !ok {
		notFound(w)
		return
	}
	// What lies below a digest never changes.
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	serve(w, r, file)
}
