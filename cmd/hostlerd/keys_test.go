package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The first start makes the keys, for our eyes only; every later one finds the same.
func TestKeysAreMadeOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "keys")
	one, err := loadKeys(dir, "site")
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("folder: %v, %v", st.Mode(), err)
	}
	before := map[string][]byte{}
	for _, name := range []string{"certificate.key", "ca.key", "ca.crt", "secrets.age"} {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v", name, err)
		}
		if before[name], err = os.ReadFile(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	sealed, err := one.Seal([]byte("password"))
	if err != nil || bytes.Contains(sealed, []byte("password")) {
		t.Fatal(err)
	}
	two, err := loadKeys(dir, "another name")
	if err != nil {
		t.Fatal(err)
	}
	plain, err := two.Unseal(sealed)
	if err != nil || string(plain) != "password" || !one.Certificate.Equal(two.Certificate) || one.Authority.Pin() != two.Authority.Pin() || one.Authority.Token("s", "n") != two.Authority.Token("s", "n") {
		t.Errorf("the second start has other keys: %q, %v", plain, err)
	}
	for name, b := range before {
		if now, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(b, now) {
			t.Errorf("%s was written again: %v", name, err)
		}
	}

	other, err := loadKeys(filepath.Join(t.TempDir(), "keys"), "site")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Unseal(sealed); err == nil || !strings.Contains(err.Error(), "another key") {
		t.Errorf("unsealed with another site's key: %v", err)
	}
	if other.Authority.Pin() == one.Authority.Pin() {
		t.Error("two sites have one authority")
	}
}

// A start that was killed between two files goes on; a folder that was mixed, spoilt or opened to others is refused,
// with the file's name and never its content.
func TestKeyFaults(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(t *testing.T, dir string)
		want string // "": it goes on
	}{
		{"killed before the authority's key", func(t *testing.T, dir string) { remove(t, dir, "ca.key") }, ""},
		{"killed before the last file", func(t *testing.T, dir string) { remove(t, dir, "secrets.age") }, ""},
		{"others may look", func(t *testing.T, dir string) { chmod(t, dir, 0o750) }, "chmod 700"},
		{"everybody may look", func(t *testing.T, dir string) { chmod(t, dir, 0o701) }, "chmod 700"},
		{"certificate of another authority", func(t *testing.T, dir string) { swap(t, dir, "ca.crt", "ca.crt") }, "do not belong together"},
		{"no certificate", func(t *testing.T, dir string) { remove(t, dir, "ca.crt") }, "ca.crt"},
		{"spoilt authority", func(t *testing.T, dir string) { spoil(t, dir, "ca.key") }, "ca.key"},
		{"spoilt certificate key", func(t *testing.T, dir string) { spoil(t, dir, "certificate.key") }, "certificate.key"},
		{"the authority's key as certificate key", func(t *testing.T, dir string) { swap(t, dir, "ca.key", "certificate.key") }, "not an Ed25519 key"},
		{"the certificate key as the authority's", func(t *testing.T, dir string) { swap(t, dir, "certificate.key", "ca.key") }, "not an ECDSA key"},
		{"spoilt secrets", func(t *testing.T, dir string) { spoil(t, dir, "secrets.age") }, "secrets.age"},
		{"a folder where a key belongs", func(t *testing.T, dir string) {
			remove(t, dir, "secrets.age")
			if err := os.Mkdir(filepath.Join(dir, "secrets.age"), 0o700); err != nil {
				t.Fatal(err)
			}
		}, "secrets.age"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "keys")
			if _, err := loadKeys(dir, "site"); err != nil {
				t.Fatal(err)
			}
			c.edit(t, dir)
			_, err := loadKeys(dir, "site")
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v", err)
			}
			files, _ := filepath.Glob(filepath.Join(dir, "*"))
			for _, f := range files {
				b, _ := os.ReadFile(f)
				for line := range strings.Lines(string(b)) {
					if line = strings.TrimSpace(line); len(line) > 8 && !strings.HasPrefix(line, "-----") && strings.Contains(err.Error(), line) {
						t.Errorf("a line of %s is in the error: %v", f, err)
					}
				}
			}
		})
	}
}

func chmod(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, dir, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

// spoil leaves out the middle of a key.
func spoil(t *testing.T, dir, name string) {
	t.Helper()
	path := filepath.Join(dir, name)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(b[:len(b)/3:len(b)/3], b[len(b)/2:]...), 0o600); err != nil {
		t.Fatal(err)
	}
}

// swap puts a file of another site's keys in.
func swap(t *testing.T, dir, from, to string) {
	t.Helper()
	other := filepath.Join(t.TempDir(), "keys")
	if _, err := loadKeys(other, "other"); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(other, from))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, to), b, 0o600); err != nil {
		t.Fatal(err)
	}
}
