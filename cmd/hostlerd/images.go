package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/hostler-project/hostler/imaging"
	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/api"
	"github.com/hostler-project/hostler/inventory/ledger"
)

// library is the image store as the API wants it.
type library struct{ imaging.Library }

// Check takes a manifest in and says which bytes are missing.
func (l library) Check(manifest, signature []byte) (string, api.Missing, error) {
	d, m, err := l.PutManifest(manifest, signature)
	out := api.Missing{Chunks: m.Chunks}
	for _, b := range m.Blobs {
		out.Blobs = append(out.Blobs, b.SHA256)
	}
	return d, out, refusal(err)
}

// PutChunk takes a chunk in.
func (l library) PutChunk(_, chunk string, r io.Reader) error {
	return refusal(l.Library.PutChunk(chunk, r))
}

// PutBlob takes a kernel or initrd in that the manifest names.
func (l library) PutBlob(image, blob string, r io.Reader) error {
	m, err := l.Manifest(image)
	if err != nil {
		return refusal(err)
	}
	for _, b := range []*imaging.Blob{m.Kernel, m.Initrd} {
		if b != nil && b.SHA256 == blob {
			return refusal(l.Library.PutBlob(*b, r))
		}
	}
	return ledger.Refuse("", "image %s has no blob %s", m.Name, blob)
}

// Finish offers the image.
func (l library) Finish(ctx context.Context, image string) (inventory.ImageRecord, error) {
	m, err := l.Library.Finish(ctx, image)
	if err != nil {
		return inventory.ImageRecord{}, refusal(err)
	}
	rec := inventory.ImageRecord{Schema: inventory.Schema, Digest: image, Name: m.Name, Size: m.Size, Chunks: len(m.Chunks), Arch: m.Arch,
		Boot: m.BootModes, OS: m.OS, Kexec: m.Kernel != nil && !m.Measured, Imported: time.Now().UTC()}
	for _, c := range m.Chunks {
		rec.Stored += int64(c.Packed)
	}
	text, sig, err := l.ManifestBytes(image)
	if err != nil {
		return rec, err
	}
	for _, k := range l.Trusted {
		if _, err := imaging.Verify(text, sig, []imaging.PublicKey{k}); err == nil {
			rec.SignedBy = k.String()
			return rec, nil
		}
	}
	return rec, ledger.Refuse("add the author's key to images.trusted_keys", "no trusted key signed image %s any more", m.Name)
}

// Open finds a file of an image for the boot port.
func (l library) Open(digest, name string) (*os.File, bool) {
	kind, sum, _ := strings.Cut(name, "/")
	var f *os.File
	var err error
	switch kind {
	case "chunk":
		f, err = l.OpenChunk(sum)
	case "blob":
		f, err = l.OpenBlob(sum)
	default:
		f, err = l.OpenManifest(digest, name)
	}
	return f, err == nil
}

// whole says what of an offered image's bytes is not on the disk.
func (l library) whole(image string) error {
	lacks, err := l.Lacks(image)
	if err == nil && !lacks.None() {
		err = fmt.Errorf("%d chunks and %d blobs are gone", len(lacks.Chunks), len(lacks.Blobs))
	}
	return err
}

// refusal turns what the library says about content into an answer for the caller; faults of our disk stay faults.
func refusal(err error) error {
	var path *os.PathError
	if err == nil || errors.As(err, &path) {
		return err
	}
	return &ledger.Refusal{Why: err.Error()}
}
