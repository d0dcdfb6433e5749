package blob_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/hostler-project/hostler/inventory/blob"
)

// Digests as sha256sum prints them.
const (
	abc     = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
	nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
)

func TestPut(t *testing.T) {
	d := newDir(t, t.TempDir())
	for _, c := range []struct {
		name, content, digest string
	}{
		{"text", "abc", abc},
		{"the same again", "abc", abc},
		{"nothing", "", nothing},
	} {
		t.Run(c.name, func(t *testing.T) {
			digest, size, err := d.Put(t.Context(), iotest.OneByteReader(strings.NewReader(c.content)))
			if digest != c.digest || size != int64(len(c.content)) || err != nil {
				t.Fatalf("got %s, %d, %v", digest, size, err)
			}
			if got := read(t, d, digest); got != c.content {
				t.Errorf("read back %q", got)
			}
			if has, err := d.Has(digest); !has || err != nil {
				t.Errorf("has: got %v, %v", has, err)
			}
		})
	}
}

func TestMissing(t *testing.T) {
	d := newDir(t, t.TempDir())
	if has, err := d.Has(abc); has || err != nil {
		t.Errorf("has: got %v, %v", has, err)
	}
	if _, err := d.Open(abc); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("open: got error %v", err)
	}
}

func TestOnlyDigestsAreNames(t *testing.T) {
	root := t.TempDir()
	d := newDir(t, filepath.Join(root, "blobs"))
	for _, name := range []string{
		"", "a", "../secret", "/etc/passwd", strings.ToUpper(abc), abc + "0", abc[1:], abc[:63] + "g", abc[:63] + "\x00",
		"../" + abc[3:], abc[:30] + "/../" + abc[34:], "sha256:" + abc, strings.Repeat("é", 32), strings.Repeat("a", 1<<20),
	} {
		for what, call := range map[string]func() error{
			"path": func() error { _, err := d.Path(name); return err },
			"open": func() error { _, err := d.Open(name); return err },
			"has":  func() error { _, err := d.Has(name); return err },
		} {
			if err := call(); err == nil || errors.Is(err, fs.ErrNotExist) || len(err.Error()) > 500 {
				t.Errorf("%s of %.80q: got error %.200v, want a short refusal", what, name, err)
			}
		}
	}
}

// A reader that breaks, or a caller that goes, leaves nothing.
func TestFailedPutLeavesNothing(t *testing.T) {
	root := t.TempDir()
	d := newDir(t, root)
	broken := errors.New("the wire broke")
	if _, _, err := d.Put(t.Context(), io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("got error %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.PutBytes(ctx, []byte("abc")); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v", err)
	}
	if got := files(t, root); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
}

// Many writers of the same bytes end with one whole file.
func TestPutAtOnce(t *testing.T) {
	root := t.TempDir()
	d := newDir(t, root)
	content := bytes.Repeat([]byte("hostler "), 1<<16)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := d.PutBytes(t.Context(), content); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	digest, err := d.PutBytes(t.Context(), content)
	if err != nil || read(t, d, digest) != string(content) {
		t.Errorf("got %s, %v", digest, err)
	}
	if got := files(t, root); len(got) != 1 {
		t.Errorf("files: %v", got)
	}
}

// A file that a broken disk cut short is written anew.
func TestPutMendsAShortFile(t *testing.T) {
	d := newDir(t, t.TempDir())
	if _, err := d.PutBytes(t.Context(), []byte("abc")); err != nil {
		t.Fatal(err)
	}
	path, err := d.Path(abc)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := d.PutBytes(t.Context(), []byte("abc")); err != nil || read(t, d, abc) != "abc" {
		t.Errorf("got %q, %v", read(t, d, abc), err)
	}
}

func TestNewDirRemovesRemains(t *testing.T) {
	root := t.TempDir()
	newDir(t, root)
	old, young := filepath.Join(root, "incoming", "old"), filepath.Join(root, "incoming", "young")
	for _, path := range []string{old, young} {
		if err := os.WriteFile(path, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	yesterday := time.Now().Add(-25 * time.Hour)
	if err := os.Chtimes(old, yesterday, yesterday); err != nil {
		t.Fatal(err)
	}
	newDir(t, root)
	if got := files(t, root); len(got) != 1 || got[0] != young {
		t.Errorf("left: %v, want only %s, which may be in use", got, young)
	}
}

func TestNewDirWhereAFileIs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := blob.NewDir(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("got error %v", err)
	}
}

func newDir(t *testing.T, root string) *blob.Dir {
	t.Helper()
	d, err := blob.NewDir(root)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func read(t *testing.T, d *blob.Dir, digest string) string {
	t.Helper()
	f, err := d.Open(digest)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func files(t *testing.T, root string) (paths []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}
