// Package blob keeps large things (images, logs, samples) in a local folder, each under the SHA-256 of its bytes.
//
// A thing is written beside its place, synced, then renamed into it, so what has a name is whole, also after a power cut.
// Putting it again is no error and costs a read of it. Names are only ever digests, checked strictly, so no name leads out
// of the folder. It does not fetch from peers, count references or delete, and trusts the disk: who acts on bytes checks
// them against the digest. Not with renameio: that wants the final name first, and ours is known when the last byte is.
package blob

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// stale is the age from which a half-written file is taken for the remains of a process that was killed.
const stale = 24 * time.Hour

// A Dir is a folder of blobs. It may be used from several goroutines and processes.
type Dir struct{ root string }

// NewDir makes the folder where it is missing, and removes what killed writers left a day ago or earlier.
func NewDir(root string) (*Dir, error) {
	d := &Dir{root: root}
	if err := os.MkdirAll(d.incoming(), 0o700); err != nil {
		return nil, fmt.Errorf("blob: make the folder: %w", err)
	}
	left, err := os.ReadDir(d.incoming())
	if err != nil {
		return nil, fmt.Errorf("blob: look for remains: %w", err)
	}
	for _, entry := range left {
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) || err == nil && time.Since(info.ModTime()) < stale {
			continue
		}
		if err := errors.Join(err, os.Remove(filepath.Join(d.incoming(), entry.Name()))); err != nil {
			return nil, fmt.Errorf("blob: remove remains: %w", err)
		}
	}
	return d, nil
}

// Put stores what r gives until its end, and tells digest and size in bytes. Nothing is left of it after an error.
func (d *Dir) Put(ctx context.Context, r io.Reader) (digest string, size int64, err error) {
	f, err := os.CreateTemp(d.incoming(), "*")
	if err != nil {
		return "", 0, fmt.Errorf("blob: put: %w", err)
	}
	defer func() {
		f.Close()
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	hash := sha256.New()
	if size, err = io.Copy(io.MultiWriter(f, hash), readUntil{ctx, r}); err != nil {
		return "", 0, fmt.Errorf("blob: put, after %d bytes: %w", size, err)
	}
	digest = hex.EncodeToString(hash.Sum(nil))
	if err := d.keep(f, digest, size); err != nil {
		return "", 0, fmt.Errorf("blob: put %s: %w", digest, err)
	}
	return digest, size, nil
}

// PutBytes stores b and gives its digest.
func (d *Dir) PutBytes(ctx context.Context, b []byte) (string, error) {
	digest, _, err := d.Put(ctx, bytes.NewReader(b))
	return digest, err
}

// Open opens a blob for reading. One that is not here gives an error that is fs.ErrNotExist.
func (d *Dir) Open(digest string) (*os.File, error) {
	path, err := d.Path(digest)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("blob: open: %w", err)
	}
	return f, nil
}

// Has says whether a blob is here.
func (d *Dir) Has(digest string) (bool, error) {
	path, err := d.Path(digest)
	if err != nil {
		return false, err
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("blob: %w", err)
	}
	return true, nil
}

// Path is where a blob is, or would be.
func (d *Dir) Path(digest string) (string, error) {
	if err := Check(digest); err != nil {
		return "", err
	}
	return filepath.Join(d.root, digest[:2], digest[2:4], digest), nil
}

// Check refuses what is not a SHA-256 in 64 lower-case hexadecimal digits.
func Check(digest string) error {
	if len(digest) != 2*sha256.Size {
		return fmt.Errorf("blob: %.80q is not a digest: %d characters, want 64", digest, len(digest))
	}
	for i := range len(digest) {
		if c := digest[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return fmt.Errorf("blob: %q is not a digest: want lower-case hexadecimal digits", digest)
		}
	}
	return nil
}

func (d *Dir) incoming() string { return filepath.Join(d.root, "incoming") }

// keep gives a written file its name, so that both survive a power cut.
func (d *Dir) keep(f *os.File, digest string, size int64) error {
	path, err := d.Path(digest)
	if err != nil {
		return err
	}
	if info, err := os.Stat(path); err == nil && info.Size() == size {
		return os.Remove(f.Name()) // it is here already
	}
	if err := f.Sync(); err != nil {
		return err
	}
	for _, dir := range []string{filepath.Dir(filepath.Dir(path)), filepath.Dir(path)} {
		if err := os.Mkdir(dir, 0o700); err == nil {
			err = sync(filepath.Dir(dir))
			if err != nil {
				return err
			}
		} else if !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return sync(filepath.Dir(path))
}

// sync makes the names in a folder durable.
func sync(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// readUntil ends a read with the context's error.
type readUntil struct {
	ctx context.Context
	r   io.Reader
}

func (r readUntil) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
