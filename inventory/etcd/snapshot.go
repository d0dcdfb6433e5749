package etcd

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.uber.org/zap"
)

// Snapshot writes the whole store as of one revision to w: a file that etcd's own tools read as well. One member is asked,
// while everybody goes on using it.
func (s *Store) Snapshot(ctx context.Context, w io.Writer) error {
	r, err := s.client.SnapshotWithVersion(ctx)
	if err != nil {
		return wrap("snapshot", err)
	}
	_, err = io.Copy(w, r.Snapshot)
	if err = errors.Join(err, r.Snapshot.Close()); err != nil {
		return fmt.Errorf("etcd: snapshot: %w", err)
	}
	return nil
}

// InspectSnapshot reads a snapshot file through: the digest that etcd put at its end, every page of the database, the
// newest revision in it. An error says that it is damaged.
func InspectSnapshot(path string) (rev int64, err error) {
	if err := checkDigest(path); err != nil {
		return 0, fmt.Errorf("etcd: snapshot %s: %w", path, err)
	}
	st, err := snapshot.NewV3(zap.NewNop()).Status(path)
	if err != nil {
		return 0, fmt.Errorf("etcd: snapshot %s: %v", path, err)
	}
	return st.Revision, nil
}

// checkDigest compares the bytes with the SHA-256 after them, as a restore does.
func checkDigest(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if st.Size()%512 != sha256.Size {
		return errors.New("it is cut off, or no snapshot")
	}
	sum := sha256.New()
	if _, err := io.CopyN(sum, f, st.Size()-sha256.Size); err != nil {
		return err
	}
	end, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	if !bytes.Equal(end, sum.Sum(nil)) {
		return errors.New("its digest does not match its bytes: it is damaged")
	}
	return nil
}
