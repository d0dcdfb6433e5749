package imaging

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"

	"github.com/google/renameio/v2"
)

// A Library is the daemon's store of images: a folder with images/<digest>/ for manifests and one shared chunks/ and
// blobs/, where the same bytes are kept once. Every file in it was checked before it got its name. It is safe for
// concurrent use, by several processes too.
type Library struct {
	Root    string
	Trusted []PublicKey
}

const readyFile = "ready"

// ErrNoImage is in the chain of errors about images, chunks and blobs that are not here.
var ErrNoImage = errors.New("not in the library")

// An Entry is an image in the library. It is offered only when Ready.
type Entry struct {
	Digest   string
	Manifest *Manifest
	Ready    bool
}

// Missing is what an image still lacks.
type Missing struct {
	Chunks []string `json:"chunks"`
	Blobs  []Blob   `json:"blobs"`
}

// None says whether nothing is missing.
func (m Missing) None() bool { return len(m.Chunks) == 0 && len(m.Blobs) == 0 }

// PutManifest takes a signed manifest in and says what must be put before Finish. Putting it again is no error.
func (l Library) PutManifest(manifest, sig []byte) (string, Missing, error) {
	m, err := Verify(manifest, sig, l.Trusted)
	if err != nil {
		return "", Missing{}, err
	}
	d := Digest(manifest)
	if err := l.put(filepath.Join("images", d, signatureFile), sig); err != nil {
		return d, Missing{}, err
	}
	if err := l.put(filepath.Join("images", d, manifestFile), manifest); err != nil {
		return d, Missing{}, err
	}
	return d, l.missing(m), nil
}

func (l Library) missing(m *Manifest) Missing {
	var miss Missing
	for _, c := range m.Digests() {
		if _, err := os.Stat(l.chunk(c)); err != nil {
			miss.Chunks = append(miss.Chunks, c)
		}
	}
	for _, b := range m.Blobs() {
		if _, err := os.Stat(l.blob(b.SHA256)); err != nil {
			miss.Blobs = append(miss.Blobs, b)
		}
	}
	return miss
}

// Lacks says which bytes of an image that is in the library are gone.
func (l Library) Lacks(digest string) (Missing, error) {
	m, err := l.Manifest(digest)
	if err != nil {
		return Missing{}, err
	}
	return l.missing(m), nil
}

// PutChunk takes one packed chunk in if its raw bytes have that digest.
func (l Library) PutChunk(digest string, r io.Reader) error {
	if !IsDigest(digest) {
		return fmt.Errorf("imaging: %.80q is no digest", digest)
	}
	packed, err := readPacked(r, nil)
	if err != nil {
		return err
	}
	u, err := newUnpacker()
	if err != nil {
		return err
	}
	defer u.close()
	if _, err := u.open(make([]byte, ChunkSize), packed, digest); err != nil {
		return err
	}
	return l.put(filepath.Join(chunkFolder, digest+chunkExt), packed)
}

// PutBlob takes a kernel or initrd in if its bytes have that size and digest.
func (l Library) PutBlob(b Blob, r io.Reader) error {
	if !IsDigest(b.SHA256) || b.Size < 0 || b.Size > maxBlob {
		return fmt.Errorf("imaging: %.80q of %d bytes can be no blob", b.SHA256, b.Size)
	}
	path := l.blob(b.SHA256)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("imaging: library: %w", err)
	}
	f, err := renameio.NewPendingFile(path, renameio.WithTempDir(filepath.Dir(path)), renameio.WithPermissions(0o644))
	if err != nil {
		return fmt.Errorf("imaging: library: %w", err)
	}
	defer f.Cleanup()
	if err := CopyBlob(f, r, b); err != nil {
		return err
	}
	if err := f.CloseAtomicallyReplace(); err != nil {
		return fmt.Errorf("imaging: library: %w", err)
	}
	return nil
}

// Finish offers an image: all its bytes are here, and its first chunk looks like no container.
func (l Library) Finish(ctx context.Context, digest string) (*Manifest, error) {
	m, err := l.Manifest(digest)
	if err != nil {
		return nil, err
	}
	if miss := l.missing(m); !miss.None() {
		return nil, fmt.Errorf("imaging: image %s (%.12s): %d chunks and %d blobs are missing: upload them first", m.Name, digest,
			len(miss.Chunks), len(miss.Blobs))
	}
	if c := m.Chunks[0]; !c.Zero {
		f, err := l.OpenChunk(c.SHA256)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		packed, err := readPacked(f, nil)
		if err != nil {
			return nil, err
		}
		u, err := newUnpacker()
		if err != nil {
			return nil, err
		}
		defer u.close()
		raw := make([]byte, m.Length(0))
		if err := u.unpack(raw, packed, c.SHA256); err != nil {
			return nil, err
		}
		if err := checkFirst(m, 0, raw); err != nil {
			return nil, err
		}
	}
	return m, l.put(filepath.Join("images", digest, readyFile), nil)
}

// ImportFolder takes a whole image folder in: what hostler image import does over HTTP, for the same machine.
func (l Library) ImportFolder(ctx context.Context, path string) (string, *Manifest, error) {
	f, err := ReadFolder(path)
	if err != nil {
		return "", nil, err
	}
	d, miss, err := l.PutManifest(f.Bytes, f.Signature)
	if err != nil {
		return d, nil, err
	}
	take := func(r *os.File, err error, put func(io.Reader) error) error {
		if err != nil {
			return fmt.Errorf("imaging: %w", err)
		}
		defer r.Close()
		return put(r)
	}
	for _, b := range miss.Blobs {
		r, err := f.OpenBlob(b.SHA256)
		if err := take(r, err, func(r io.Reader) error { return l.PutBlob(b, r) }); err != nil {
			return d, nil, err
		}
	}
	err = eachChunk(ctx, 0, len(miss.Chunks), func(ctx context.Context, next func() (int, bool)) error {
		for i, ok := next(); ok; i, ok = next() {
			r, err := f.OpenChunk(miss.Chunks[i])
			if err := take(r, err, func(r io.Reader) error { return l.PutChunk(miss.Chunks[i], r) }); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return d, nil, err
	}
	m, err := l.Finish(ctx, d)
	return d, m, err
}

// Manifest returns an image's manifest, its signature checked again against the keys trusted now.
func (l Library) Manifest(digest string) (*Manifest, error) {
	b, sig, err := l.ManifestBytes(digest)
	if err != nil {
		return nil, err
	}
	return Verify(b, sig, l.Trusted)
}

// ManifestBytes returns what a node needs to check an image for itself.
func (l Library) ManifestBytes(digest string) (manifest, sig []byte, err error) {
	if !IsDigest(digest) {
		return nil, nil, fmt.Errorf("imaging: image %.80q: %w", digest, ErrNoImage)
	}
	dir := filepath.Join(l.Root, "images", digest)
	if manifest, err = os.ReadFile(filepath.Join(dir, manifestFile)); err == nil {
		sig, err = os.ReadFile(filepath.Join(dir, signatureFile))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("imaging: image %s: %w", digest, ErrNoImage)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("imaging: library: %w", err)
	}
	if Digest(manifest) != digest {
		return nil, nil, fmt.Errorf("imaging: library: image %s was changed on this disk: import it again", digest)
	}
	return manifest, sig, nil
}

// Entry returns one image.
func (l Library) Entry(digest string) (Entry, error) {
	m, err := l.Manifest(digest)
	if err != nil {
		return Entry{}, err
	}
	_, err = os.Stat(filepath.Join(l.Root, "images", digest, readyFile))
	return Entry{Digest: digest, Manifest: m, Ready: err == nil}, nil
}

// List returns all images by name, then digest. One that is damaged or no longer trusted is left out and named in the
// error, which comes with the rest of the list.
func (l Library) List() ([]Entry, error) {
	dirs, err := os.ReadDir(filepath.Join(l.Root, "images"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("imaging: library: %w", err)
	}
	var all []Entry
	var errs []error
	for _, d := range dirs {
		e, err := l.Entry(d.Name())
		switch {
		case err == nil:
			all = append(all, e)
		case !errors.Is(err, ErrNoImage): // a manifest that is just being put is no fault
			errs = append(errs, err)
		}
	}
	sort.Slice(all, func(i, k int) bool {
		a, b := all[i], all[k]
		return a.Manifest.Name < b.Manifest.Name || a.Manifest.Name == b.Manifest.Name && a.Digest < b.Digest
	})
	return all, errors.Join(errs...)
}

// OpenChunk opens a packed chunk as a file, for sendfile.
func (l Library) OpenChunk(digest string) (*os.File, error) { return l.open(digest, l.chunk(digest)) }

// OpenManifest opens manifest.json of an image, or its signature manifest.json.minisig.
func (l Library) OpenManifest(image, name string) (*os.File, error) {
	if name != manifestFile && name != signatureFile {
		return nil, fmt.Errorf("imaging: %.80q is no file of an image: %w", name, ErrNoImage)
	}
	return l.open(image, filepath.Join(l.Root, "images", image, name))
}

// OpenBlob opens a kernel or initrd as a file.
func (l Library) OpenBlob(digest string) (*os.File, error) { return l.open(digest, l.blob(digest)) }

func (l Library) open(digest, path string) (*os.File, error) {
	if !IsDigest(digest) {
		return nil, fmt.Errorf("imaging: %.80q: %w", digest, ErrNoImage)
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("imaging: %s: %w", digest, ErrNoImage)
	}
	return f, err
}

func (l Library) chunk(digest string) string {
	return filepath.Join(l.Root, chunkFolder, digest+chunkExt)
}
func (l Library) blob(digest string) string { return filepath.Join(l.Root, blobFolder, digest) }

func (l Library) put(name string, b []byte) error {
	path := filepath.Join(l.Root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("imaging: library: %w", err)
	}
	return writeFile(path, b)
}
