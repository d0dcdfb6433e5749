package api

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/ledger"
)

// A SignedManifest is an image's manifest, its exact bytes, and its author's minisign signature over them.
type SignedManifest struct {
	Manifest  []byte `json:"manifest"`
	Signature []byte `json:"signature"`
}

// An ImageCheck says what an image still lacks here.
type ImageCheck struct {
	Digest  string  `json:"digest"`
	Missing Missing `json:"missing"`
}

// An ImageList are the images on offer, newest first under each name.
type ImageList struct {
	Images []inventory.ImageRecord `json:"images"`
}

func (s *Server) listImages(ctx context.Context, _ *struct{}) (ImageList, error) {
	r, err := s.read(ctx)
	if err != nil {
		return ImageList{}, err
	}
	return ImageList{imageRecords(r)}, nil
}

func imageRecords(r inventory.Reader) []inventory.ImageRecord {
	out := []inventory.ImageRecord{}
	for _, kv := range r.Under(inventory.PrefixImages) {
		if d, err := inventory.Decode[inventory.ImageRecord](kv); err == nil { // one of a newer version is not offered by this one
			out = append(out, d.V)
		}
	}
	slices.SortFunc(out, func(a, b inventory.ImageRecord) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), b.Imported.Compare(a.Imported), strings.Compare(a.Digest, b.Digest))
	})
	return out
}

var digestForm = regexp.MustCompile(`^[0-9a-f]{64}$`)

// image finds an image by digest, by the beginning of one, or by name (the newest of that name).
func (s *Server) image(r inventory.Reader, word string) (inventory.ImageRecord, error) {
	all := imageRecords(r)
	i := slices.IndexFunc(all, func(m inventory.ImageRecord) bool { return m.Digest == word || m.Name == word })
	if i < 0 && len(word) >= 8 {
		i = slices.IndexFunc(all, func(m inventory.ImageRecord) bool { return strings.HasPrefix(m.Digest, word) })
	}
	if i < 0 {
		return inventory.ImageRecord{}, ledger.Refuse("hostler image ls", "there is no image %s", quote(word))
	}
	if m := all[i]; m.Blocked != "" {
		return m, ledger.Refuse("hostler image ls", "image %s (%.12s) is blocked: %s", m.Name, m.Digest, m.Blocked)
	}
	return all[i], nil
}

type manifestBody struct{ Body SignedManifest }

func (s *Server) checkImage(_ context.Context, in *manifestBody) (ImageCheck, error) {
	digest, miss, err := s.Images.Check(in.Body.Manifest, in.Body.Signature)
	return ImageCheck{digest, miss}, err
}

// bytesInput is a request whose body is read as a stream: kernels and initrds are too large to be held.
type bytesInput struct {
	Image  string `path:"image" pattern:"^[0-9a-f]{64}$"`
	Digest string `path:"digest" pattern:"^[0-9a-f]{64}$"`
	body   io.Reader
}

// bodyTime bounds the upload of one chunk or blob.
const bodyTime = 10 * time.Minute

// Resolve takes the body; huma calls it after the path was checked.
func (in *bytesInput) Resolve(ctx huma.Context) []error {
	_, w := humago.Unwrap(ctx)
	err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTime))
	if err != nil && !errors.Is(err, http.ErrNotSupported) {
		return []error{errors.New("the connection is gone")}
	}
	in.body = &limited{r: ctx.BodyReader(), left: ctx.Operation().MaxBodyBytes}
	return nil
}

// limited fails at the first byte too many.
type limited struct {
	r    io.Reader
	left int64
}

func (l *limited) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if l.left -= int64(n); l.left < 0 {
		return 0, problem(http.StatusRequestEntityTooLarge, "", "the body is too long")
	}
	return n, err
}

// Taken answers an upload.
type Taken struct {
	Digest string `json:"digest"`
}

func (s *Server) putChunk(_ context.Context, in *bytesInput) (Taken, error) {
	return Taken{in.Digest}, s.Images.PutChunk(in.Image, in.Digest, in.body)
}

func (s *Server) putBlob(_ context.Context, in *bytesInput) (Taken, error) {
	return Taken{in.Digest}, s.Images.PutBlob(in.Image, in.Digest, in.body)
}

func (s *Server) commitImage(ctx context.Context, in *manifestBody) (inventory.ImageRecord, error) {
	var rec inventory.ImageRecord
	digest, miss, err := s.Images.Check(in.Body.Manifest, in.Body.Signature)
	if err != nil {
		return rec, err
	}
	if !miss.None() {
		return rec, ledger.Refuse("hostler image import FOLDER", "image %.12s is not complete: %d chunks and %d blobs are missing",
			digest, len(miss.Chunks), len(miss.Blobs))
	}
	if rec, err = s.Images.Finish(ctx, digest); err != nil {
		return rec, err
	}
	rec.Schema, rec.Digest, rec.Imported = inventory.Schema, digest, s.Now()
	err = inventory.Update(ctx, s.Store, inventory.KeyImage(digest), func(kv inventory.KV) ([]inventory.Cond, []inventory.Op, error) {
		old, err := inventory.Decode[inventory.ImageRecord](kv)
		if err != nil {
			return nil, nil, err
		}
		if old.Exists() { // imported again: what was said about it since stays
			rec = old.V
			return nil, nil, nil
		}
		op, err := inventory.Encode(inventory.KeyImage(digest), rec)
		return nil, []inventory.Op{op}, err
	})
	return rec, err
}
