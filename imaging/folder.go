package imaging

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// A Folder is an image as Pack made it.
type Folder struct {
	Path      string
	Bytes     []byte // the manifest's exact bytes
	Signature []byte
	Digest    string
	Manifest  *Manifest
}

// ReadFolder reads an image folder's manifest; its chunks and signature are not looked at.
func ReadFolder(path string) (*Folder, error) {
	b, err := os.ReadFile(filepath.Join(path, manifestFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("imaging: %s is no image folder (hostler image pack makes one): %w", path, err)
	}
	if err != nil {
		return nil, fmt.Errorf("imaging: %w", err)
	}
	sig, err := os.ReadFile(filepath.Join(path, signatureFile))
	if err != nil {
		return nil, fmt.Errorf("imaging: %w", err)
	}
	m, err := Decode(b)
	if err != nil {
		return nil, err
	}
	return &Folder{Path: path, Bytes: b, Signature: sig, Digest: Digest(b), Manifest: m}, nil
}

// OpenChunk opens a chunk's packed bytes.
func (f *Folder) OpenChunk(digest string) (*os.File, error) {
	return os.Open(filepath.Join(f.Path, chunkFolder, digest+chunkExt))
}

// OpenBlob opens a kernel or initrd.
func (f *Folder) OpenBlob(digest string) (*os.File, error) {
	return os.Open(filepath.Join(f.Path, blobFolder, digest))
}

// VerifyFolder checks signature, every chunk and every blob of an image folder.
func VerifyFolder(ctx context.Context, path string, trusted []PublicKey, say func(Progress)) (*Folder, error) {
	f, err := ReadFolder(path)
	if err != nil {
		return nil, err
	}
	if _, err := Verify(f.Bytes, f.Signature, trusted); err != nil {
		return nil, err
	}
	m := f.Manifest
	for _, b := range m.Blobs() {
		r, err := f.OpenBlob(b.SHA256)
		if err != nil {
			return nil, fmt.Errorf("imaging: %w", err)
		}
		err = CopyBlob(io.Discard, r, b)
		r.Close()
		if err != nil {
			return nil, err
		}
	}
	meter := &meter{say: say, p: Progress{Phase: "verify", Total: m.Size}}
	err = eachChunk(ctx, 0, len(m.Chunks), func(ctx context.Context, next func() (int, bool)) error {
		u, err := newUnpacker()
		if err != nil {
			return err
		}
		defer u.close()
		raw, buf := make([]byte, ChunkSize), make([]byte, MaxPacked+1)
		for i, ok := next(); ok; i, ok = next() {
			if c := m.Chunks[i]; !c.Zero {
				r, err := f.OpenChunk(c.SHA256)
				if err != nil {
					return fmt.Errorf("imaging: %w", err)
				}
				packed, err := readPacked(r, buf)
				r.Close()
				if err != nil {
					return err
				}
				if err := u.unpack(raw[:m.Length(i)], packed, c.SHA256); err != nil {
					return err
				}
				if err := checkFirst(m, i, raw); err != nil {
					return err
				}
			}
			meter.add(m.Length(i), m.Chunks[i].Packed)
		}
		return nil
	})
	return f, err
}

// checkFirst refuses a first chunk that looks like a container, whatever is signed.
func checkFirst(m *Manifest, i int, raw []byte) error {
	if i != 0 {
		return nil
	}
	return checkRaw("image "+m.Name, raw[:SniffLen], nil)
}

// readPacked reads a compressed chunk into buf, which is grown as needed up to MaxPacked.
func readPacked(r io.Reader, buf []byte) ([]byte, error) {
	if cap(buf) <= MaxPacked {
		buf = make([]byte, MaxPacked+1)
	}
	buf = buf[:MaxPacked+1]
	n, err := io.ReadFull(r, buf)
	switch {
	case err == nil:
		return nil, fmt.Errorf("imaging: read chunk: %w: more than %d bytes", ErrContent, MaxPacked)
	case err != io.ErrUnexpectedEOF && err != io.EOF:
		return nil, fmt.Errorf("imaging: read chunk: %w", err)
	}
	return buf[:n], nil
}

// CopyBlob copies a kernel or initrd and checks its size and SHA-256. What was copied counts only if it returns nil.
func CopyBlob(w io.Writer, r io.Reader, b Blob) error {
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(w, h), io.LimitReader(r, b.Size+1))
	if err != nil {
		return fmt.Errorf("imaging: blob %.12s: %w", b.SHA256, err)
	}
	if n != b.Size || hex.EncodeToString(h.Sum(nil)) != b.SHA256 {
		return fmt.Errorf("imaging: blob %.12s: %w (%d bytes of %d)", b.SHA256, ErrContent, n, b.Size)
	}
	return nil
}
