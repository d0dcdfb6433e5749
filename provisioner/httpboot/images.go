package httpboot

import (
	"net/http"
	"net/netip"
	"os"
	"strings"
)

// Images serves the folders of imported images: manifest, signature, chunks.
type Images struct {
	// Folder is where the image with this digest (64 hex digits) lies.
	Folder func(digest string) (path string, ok bool)

	// Allowed says whether this client may read it: it has an order for it.
	Allowed func(client netip.Addr, digest string) bool
}

// open opens one file of an image. os.Root keeps it inside the folder, whatever
// the name is and wherever a link points.
func (m *Images) open(client netip.Addr, digest, name string) (File, bool) {
	if !hexOK(digest, 64) || !m.Allowed(client, digest) {
		return File{}, false
	}
	path, ok := m.Folder(digest)
	if !ok {
		return File{}, false
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return File{}, false
	}
	defer root.Close()
	f, err := root.Open(name)
	if err != nil {
		return File{}, false
	}
	return regular(f)
}

// image serves /image/<digest>/<name>, where the name may have folders.
func (h *Handler) image(w http.ResponseWriter, r *http.Request, parts []string) {
	if h.Images == nil {
		notFound(w)
		return
	}
	f, ok := h.Images.open(clientIP(r), parts[1], strings.Join(parts[2:], "/"))
	if !ok {
		notFound(w)
		return
	}
	// What lies below a digest never changes.
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	serve(w, r, f)
}
