package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/backup"
	"github.com/hostler-project/hostler/inventory/etcd"
)

// A backup is taken beside a running daemon, read back, noted, and pruned; a damaged one is found out.
func TestBackup(t *testing.T) {
	c := config(t)
	var log buffer
	stop := start(t, c, &log)
	dir := t.TempDir()
	file := filepath.Join(dir, "one.snapshot")
	out, err := runCommand(t, c, "", "backup", file)
	if err != nil || !strings.Contains(out, "revision") || !strings.Contains(out, c.Keys) {
		t.Fatalf("%v: %s", err, out)
	}
	m, err := backup.ReadManifest(file)
	if err != nil || m.Site != c.Site || m.Era == "" || m.Revision < 2 || m.Bytes == 0 || m.Version == "" || m.Time.IsZero() {
		t.Errorf("manifest %+v, %v", m, err)
	}
	for _, f := range []string{file, file + ".json"} {
		if st, err := os.Stat(f); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f, st, err)
		}
	}
	s, err := openRunning(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	kv, err := s.Get(t.Context(), inventory.KeyBackup)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := inventory.Decode[inventory.Backup](kv); err != nil || b.V.Revision != m.Revision || b.V.SHA256 != m.SHA256 {
		t.Errorf("what the store notes: %+v, %v", b, err)
	}

	folder := t.TempDir()
	for range 4 {
		if out, err := runCommand(t, c, "", "backup", folder, "--keep", "2"); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	if left, err := fs.Glob(os.DirFS(folder), "*"); err != nil || len(left) != 4 { // two files, two manifests
		t.Errorf("after --keep 2: %v, %v", left, err)
	}
	if _, err := runCommand(t, c, "", "backup", file, "--keep", "2"); err == nil || !strings.Contains(err.Error(), "folder") {
		t.Errorf("--keep with a file: %v", err)
	}

	if _, err := runCommand(t, c, "", "backup", filepath.Join(dir, "nowhere", "x")); err == nil {
		t.Error("into a folder that is not there: no error")
	}
	if left, err := fs.Glob(os.DirFS(dir), "*"); err != nil || fmt.Sprint(left) != "[one.snapshot one.snapshot.json]" {
		t.Errorf("what is left lying around: %v, %v", left, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if _, err := runCommand(t, c, "", "backup", filepath.Join(dir, "two.snapshot")); err == nil || !strings.Contains(err.Error(), "is hostlerd running?") {
		t.Errorf("without a daemon: %v", err)
	}

	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func([]byte) []byte{
		"cut off":    func(b []byte) []byte { return b[:len(b)-4096] },
		"a bit":      func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"the digest": func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
		"nothing":    func(b []byte) []byte { return nil },
	} {
		if err := os.WriteFile(file, spoil(bytes.Clone(whole)), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := backup.ReadManifest(file); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("%s: the manifest holds: %v", name, err)
		}
		if _, err := etcd.InspectSnapshot(file); err == nil {
			t.Errorf("%s: it can be read through", name)
		}
	}
}

// A store that is full is backed up all the same; only the note cannot be made, and that is said.
func TestBackupOfAFullStore(t *testing.T) {
	c := config(t)
	c.Etcd.Quota = 4 << 20
	var log buffer
	start(t, c, &log)
	fill(t, c)
	file := filepath.Join(t.TempDir(), "full.snapshot")
	out, err := runCommand(t, c, "", "backup", file)
	if err != nil || !strings.Contains(out, "could not take note") {
		t.Errorf("%v: %s", err, out)
	}
	if _, err := backup.ReadManifest(file); err != nil {
		t.Error(err)
	}
}
