package main

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hostler-project/hostler/imaging"
	"github.com/hostler-project/hostler/imaging/disk"
	"github.com/hostler-project/hostler/inventory/ledger"
)

// pack makes a small signed image: three chunks, one of them zeros, and a kernel.
func pack(t *testing.T) (*imaging.Folder, imaging.PublicKey) {
	t.Helper()
	dir := t.TempDir()
	b := make([]byte, 10<<20)
	rand.NewChaCha8([32]byte{1}).Read(b[9<<20:])
	tab := disk.NewTable(int64(len(b)), 512)
	tab.Partitions = []disk.Partition{
		{Slot: 1, Type: disk.TypeESP, ID: disk.NewGUID(), First: 2048, Last: 4095, Name: "esp"},
		{Slot: 2, Type: disk.TypeRootX, ID: disk.NewGUID(), First: 4096, Last: 18431, Name: "root"},
	}
	head := tab.Head()
	copy(head, "\xeb\x63\x90boot code")
	copy(b, head)
	copy(b[tab.TailOffset():], tab.Tail())
	for name, text := range map[string][]byte{"raw": b, "vmlinuz": []byte("MZ kernel")} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pub, err := imaging.GenerateKey(filepath.Join(dir, "image.key"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := imaging.LoadKey(filepath.Join(dir, "image.key"), nil)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "img")
	if _, err := imaging.Pack(t.Context(), imaging.PackOptions{Disk: filepath.Join(dir, "raw"), Out: out, Name: "debian", OS: "Debian 12", BootModes: []string{"uefi"},
		Kernel: filepath.Join(dir, "vmlinuz"), Cmdline: "root=LABEL=root ro", Key: key}); err != nil {
		t.Fatal(err)
	}
	f, err := imaging.VerifyFolder(t.Context(), out, []imaging.PublicKey{pub}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return f, pub
}

func read(t *testing.T, f *os.File, err error) []byte {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The library as the API has it: what is wrong with content is an answer, and an image is offered when its bytes are all
// there and its signature holds.
func TestLibrary(t *testing.T) {
	f, pub := pack(t)
	manifest, sig := f.Bytes, f.Signature
	l := library{imaging.Library{Root: t.TempDir(), Trusted: []imaging.PublicKey{pub}}}
	refused := func(what string, err error, want string) {
		t.Helper()
		var r *ledger.Refusal
		if !errors.As(err, &r) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want a refusal with %q", what, err, want)
		}
	}

	other := otherKey(t)
	_, _, err := library{imaging.Library{Root: t.TempDir(), Trusted: []imaging.PublicKey{other}}}.Check(manifest, sig)
	refused("a key that is not trusted", err, "trust")
	_, _, err = l.Check(bytes.Replace(manifest, []byte("debian"), []byte("debiam"), 1), sig)
	refused("a manifest that was changed", err, "")
	_, _, err = l.Check(manifest, nil)
	refused("no signature", err, "")

	digest, miss, err := l.Check(manifest, sig)
	if err != nil || digest != f.Digest || len(miss.Chunks) != 2 || len(miss.Blobs) != 1 {
		t.Fatalf("got %s, %+v, %v", digest, miss, err)
	}
	_, err = l.Finish(t.Context(), digest)
	refused("nothing uploaded", err, "2 chunks and 1 blobs are missing")
	for _, c := range miss.Chunks {
		file, err := f.OpenChunk(c)
		b := read(t, file, err)
		refused("a chunk under another's name", l.PutChunk(digest, strings.Repeat("0", 64), bytes.NewReader(b)), "")
		refused("half a chunk", l.PutChunk(digest, c, bytes.NewReader(b[:len(b)/2])), "")
		refused("a name that is a path", l.PutChunk(digest, "../../../etc/passwd", bytes.NewReader(b)), "is no digest")
		if err := l.PutChunk(digest, c, bytes.NewReader(b)); err != nil {
			t.Fatal(err)
		}
	}
	refused("a blob that the image does not name", l.PutBlob(digest, strings.Repeat("0", 64), strings.NewReader("x")), "image debian has no blob")
	refused("a blob of an image that is not here", l.PutBlob(strings.Repeat("0", 64), miss.Blobs[0], strings.NewReader("x")), "")
	refused("another blob's bytes", l.PutBlob(digest, miss.Blobs[0], strings.NewReader("MZ kernal")), "")
	if err := l.PutBlob(digest, miss.Blobs[0], strings.NewReader("MZ kernel")); err != nil {
		t.Fatal(err)
	}
	if _, again, err := l.Check(manifest, sig); err != nil || !again.None() {
		t.Errorf("asked again: %+v, %v", again, err)
	}

	rec, err := l.Finish(t.Context(), digest)
	if err != nil || rec.Digest != digest || rec.Name != "debian" || rec.OS != "Debian 12" || rec.Size != 10<<20 || rec.Chunks != 3 || !rec.Kexec || rec.SignedBy != pub.String() || rec.Stored == 0 || rec.Imported.IsZero() {
		t.Errorf("got %+v, %v", rec, err)
	}

	for name, want := range map[string]bool{"chunk/" + miss.Chunks[0]: true, "blob/" + miss.Blobs[0]: true, "manifest.json": true, "manifest.json.minisig": true,
		"chunk/../../keys/ca.key": false, "chunk/": false, "blob/x": false, "ready": false, "../manifest.json": false, "": false} {
		file, ok := l.Open(digest, name)
		if ok != want {
			t.Errorf("%q: found %v", name, ok)
		}
		if ok {
			read(t, file, nil)
		}
	}
	if _, ok := l.Open("../"+digest, "manifest.json"); ok {
		t.Error("an image by a path")
	}

	l.Trusted = []imaging.PublicKey{other}
	_, err = l.Finish(t.Context(), digest)
	refused("its key is trusted no more", err, "")
}

func otherKey(t *testing.T) imaging.PublicKey {
	t.Helper()
	pub, err := imaging.GenerateKey(filepath.Join(t.TempDir(), "other.key"))
	if err != nil {
		t.Fatal(err)
	}
	return pub
}

// Faults of our own disk are no answers about content.
func TestLibraryOnABadDisk(t *testing.T) {
	root := filepath.Join(t.TempDir(), "a file")
	if err := os.WriteFile(root, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f, pub := pack(t)
	l := library{imaging.Library{Root: root, Trusted: []imaging.PublicKey{pub}}}
	_, _, err := l.Check(f.Bytes, f.Signature)
	var r *ledger.Refusal
	if err == nil || errors.As(err, &r) {
		t.Errorf("got %v", err)
	}
}
