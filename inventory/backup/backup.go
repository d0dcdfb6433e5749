// Package backup keeps copies of a site's store, and brings a site back from one.
//
// Take writes a consistent snapshot of a running store to a file, beside it a manifest (FILE.json) that says of what and
// when it is, and reads both back before either has its name. Prune keeps the newest of a folder. Plan says what a restore
// does with each node, and Apply does it to a store that was made of a snapshot and that nobody else uses yet: a new era,
// and every node that is not provably its tenant's on its way through fence and erasure (restore.go).
//
// It does not know how etcd makes or loads a snapshot (inventory/etcd), and it holds no keys, images or blobs: those are
// files that are copied apart.
package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"github.com/hostler-project/hostler/inventory"
)

// A Manifest says what a snapshot file holds.
type Manifest struct {
	Schema   int       `json:"schema"` // newest schema of the records in it
	Site     string    `json:"site"`
	Era      string    `json:"era"`
	Revision int64     `json:"revision"`
	Time     time.Time `json:"time"`
	Bytes    int64     `json:"bytes"`
	SHA256   string    `json:"sha256"`  // of the file
	Version  string    `json:"version"` // of the program that took it
}

// A Source is a store that can give all of itself.
type Source interface {
	inventory.Store
	Snapshot(ctx context.Context, w io.Writer) error
}

// A Taker takes backups of one store.
type Taker struct {
	Store   Source
	Inspect func(path string) (rev int64, err error) // reads a snapshot through
	Version string
	Now     func() time.Time
}

// Extension is what snapshot files in a folder end with, and ManifestExtension what their manifests add to the name.
const (
	Extension         = ".snapshot"
	ManifestExtension = ".json"
)

// Take writes a snapshot to path, or into path under a name of its own where that is a folder, and gives where it is. A
// file appears under its name only after it was read back whole.
func (t *Taker) Take(ctx context.Context, path string) (string, Manifest, error) {
	m, err := t.describe(ctx)
	if err != nil {
		return "", m, err
	}
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		path = filepath.Join(path, fileName(m))
	}
	out, err := renameio.NewPendingFile(path, renameio.WithPermissions(0o600))
	if err != nil {
		return "", m, fmt.Errorf("backup: %w", err)
	}
	defer func() { _ = out.Cleanup() }() // what was not finished
	sum := sha256.New()
	if err := t.Store.Snapshot(ctx, io.MultiWriter(out, sum)); err != nil {
		return "", m, err
	}
	if err := out.Sync(); err != nil {
		return "", m, fmt.Errorf("backup: %w", err)
	}
	m.SHA256 = hex.EncodeToString(sum.Sum(nil))
	if m.Revision, err = t.Inspect(out.Name()); err != nil {
		return "", m, fmt.Errorf("backup: read back: %w", err)
	}
	if err := m.matches(out.Name()); err != nil {
		return "", m, fmt.Errorf("backup: read back: %w", err)
	}
	st, err := out.Stat()
	if err != nil {
		return "", m, fmt.Errorf("backup: %w", err)
	}
	m.Bytes = st.Size()
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return "", m, fmt.Errorf("backup: %w", err)
	}
	if err := out.CloseAtomicallyReplace(); err != nil {
		return "", m, fmt.Errorf("backup: %w", err)
	}
	if err := renameio.WriteFile(path+ManifestExtension, append(text, '\n'), 0o600); err != nil {
		return "", m, fmt.Errorf("backup: %w", err)
	}
	return path, m, nil
}

// describe says what is about to be copied. A store without a site's records is refused: it is not what is meant.
func (t *Taker) describe(ctx context.Context) (Manifest, error) {
	m := Manifest{Schema: inventory.Schema, Time: t.Now().UTC(), Version: t.Version}
	r := &inventory.Read{Ctx: ctx, Store: t.Store}
	var err error
	m.Site, m.Era, err = whose(r)
	if r.Err != nil {
		return m, r.Err
	}
	return m, err
}

// whose reads a store's site and era.
func whose(r inventory.Reader) (site, era string, err error) {
	s, err1 := inventory.Decode[siteRecord](r.One(inventory.KeySite))
	e, err2 := inventory.Decode[inventory.Era](r.One(inventory.KeyEra))
	if err := errors.Join(err1, err2); err != nil {
		return "", "", err
	}
	if !s.Exists() || !e.Exists() {
		return "", "", errors.New("backup: the store holds no site: hostlerd has never run on it")
	}
	return s.V.Site, e.V.Era, nil
}

type siteRecord struct {
	Schema int    `json:"schema"`
	Site   string `json:"site"`
}

// Note writes into the store when it was last backed up, where hostler doctor looks.
func (t *Taker) Note(ctx context.Context, m Manifest) error {
	op, err := inventory.Encode(inventory.KeyBackup, inventory.Backup{Schema: inventory.Schema, Time: m.Time, Revision: m.Revision, Bytes: m.Bytes, SHA256: m.SHA256})
	if err != nil {
		return err
	}
	_, err = t.Store.Commit(ctx, inventory.Txn{Then: []inventory.Op{op}})
	return err
}

var unfit = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

// fileName sorts by time within a site.
func fileName(m Manifest) string {
	return unfit.ReplaceAllString(m.Site, "-") + "-" + m.Time.Format("20060102T150405.000Z") + Extension
}

// ReadManifest reads the manifest of a snapshot file and holds the file against it.
func ReadManifest(path string) (Manifest, error) {
	var m Manifest
	b, err := os.ReadFile(path + ManifestExtension)
	if err != nil {
		return m, fmt.Errorf("backup: its manifest: %w", err)
	}
	if err := json.Unmarshal(b, &m); err != nil || m.SHA256 == "" {
		return m, fmt.Errorf("backup: %s is not the manifest of a backup: %v", path+ManifestExtension, err)
	}
	if m.Schema > inventory.Schema {
		return m, fmt.Errorf("backup: %s holds records of schema %d, this program knows %d: use hostlerd %s or newer", path, m.Schema, inventory.Schema, m.Version)
	}
	return m, m.matches(path)
}

// matches compares a file with its manifest.
func (m Manifest) matches(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return fmt.Errorf("backup: %s: %w", path, err)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != m.SHA256 {
		return fmt.Errorf("backup: %s is damaged: its SHA-256 is %s, its manifest says %s", path, got, m.SHA256)
	}
	return nil
}

// Prune removes all but the newest keep backups of a site from a folder, and names what it removed.
func Prune(dir, site string, keep int) ([]string, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	var all []string
	for _, f := range files {
		stamp, ours := strings.CutPrefix(f.Name(), unfit.ReplaceAllString(site, "-")+"-")
		stamp, whole := strings.CutSuffix(stamp, Extension)
		if _, err := time.Parse("20060102T150405.000Z", stamp); ours && whole && err == nil {
			all = append(all, f.Name())
		}
	}
	slices.Sort(all)
	var gone []string
	for _, name := range all[:max(0, len(all)-keep)] {
		path := filepath.Join(dir, name)
		// The manifest first: without one nothing is restored from what is left.
		if err := errors.Join(removeIf(path+ManifestExtension), removeIf(path)); err != nil {
			return gone, fmt.Errorf("backup: %w", err)
		}
		gone = append(gone, path)
	}
	return gone, nil
}

func removeIf(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
