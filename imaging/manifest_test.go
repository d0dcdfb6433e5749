package imaging

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"aead.dev/minisign"
)

func goodManifest() *Manifest {
	return &Manifest{Schema: 1, Name: "debian-12", Arch: "amd64", BootModes: []string{"uefi"}, Size: 6 * mib, SectorSize: 512, ChunkSize: ChunkSize,
		Kernel: &Blob{SHA256: strings.Repeat("a", 64), Size: 9}, Cmdline: "ro",
		Chunks: []Chunk{{SHA256: strings.Repeat("0", 64), Packed: 100}, {Zero: true}}}
}

func TestManifestFaultsAreNamed(t *testing.T) {
	for _, c := range []struct {
		want  string // "" means that it is good
		spoil func(m *Manifest)
	}{
		{"", func(m *Manifest) {}},
		{"schema 2", func(m *Manifest) { m.Schema = 2 }},
		{"name", func(m *Manifest) { m.Name = "A/b" }},
		{"arch", func(m *Manifest) { m.Arch = "x86" }},
		{"boot_modes", func(m *Manifest) { m.BootModes = nil }},
		{"boot_modes", func(m *Manifest) { m.BootModes = []string{"uefi", "uefi"} }},
		{"sector_size", func(m *Manifest) { m.SectorSize = 0 }},
		{"chunk_size", func(m *Manifest) { m.ChunkSize = 1 }},
		{"truncated", func(m *Manifest) { m.Size++ }},
		{"truncated", func(m *Manifest) { m.Chunks = m.Chunks[:1] }},
		{"chunk 1", func(m *Manifest) { m.Chunks[1] = Chunk{} }},
		{"chunk 0", func(m *Manifest) { m.Chunks[0].SHA256 = "../../etc/passwd" }},
		{"chunk 0", func(m *Manifest) { m.Chunks[0].Packed = 1 << 30 }},
		{"size", func(m *Manifest) { m.Size = 1 << 60 }},
		{"size", func(m *Manifest) { m.Size = -512 }},
		{"cmdline", func(m *Manifest) { m.Cmdline = "a\nb" }},
		{"without kernel", func(m *Manifest) { m.Kernel = nil }},
		{"kernel or initrd", func(m *Manifest) { m.Initrd = &Blob{SHA256: "x", Size: 1} }},
		{"seed", func(m *Manifest) { m.Seed = &Extent{Offset: 5 * mib, Size: 2 * mib} }},
		{"seed", func(m *Manifest) { m.Seed = &Extent{Offset: 1<<63 - 512, Size: mib} }},
		{"root", func(m *Manifest) { m.Root = &Root{} }},
	} {
		m := goodManifest()
		c.spoil(m)
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Decode(b)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
	for text, want := range map[string]string{"": "EOF", "[]": "cannot", `{"schema":1,"nmae":"x"}`: "nmae", `{"schema":1}{}`: "follows"} {
		if _, err := Decode([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestOnlyTrustedSignaturesCount(t *testing.T) {
	key, pub := testKey(t)
	_, other := testKey(t)
	b, err := json.Marshal(goodManifest())
	if err != nil {
		t.Fatal(err)
	}
	sig := minisign.Sign(key, b)
	if m, err := Verify(b, sig, []PublicKey{other, pub}); err != nil || m.Name != "debian-12" {
		t.Errorf("got %v", err)
	}
	changed := bytes.Replace(b, []byte("debian-12"), []byte("debian-13"), 1)
	for name, c := range map[string]struct {
		b, sig []byte
		keys   []PublicKey
	}{"another key": {b, sig, []PublicKey{other}}, "no keys": {b, sig, nil}, "changed": {changed, sig, []PublicKey{pub}}} {
		if _, err := Verify(c.b, c.sig, c.keys); !errors.Is(err, ErrUntrusted) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Verify(b, []byte("nonsense"), []PublicKey{pub}); err == nil {
		t.Error("nonsense is a signature")
	}
}

func TestKeys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image.key")
	pub, err := GenerateKey(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := GenerateKey(path); err == nil {
		t.Error("a key was written over")
	}
	text, err := os.ReadFile(path + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{string(text), pub.String()} {
		if k, err := ParsePublicKey(s); err != nil || !k.Equal(pub) {
			t.Errorf("%q: %v", s, err)
		}
	}
	if _, err := ParsePublicKey("RWnothing"); err == nil {
		t.Error("nonsense is a key")
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadKey(path, nil); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that all can read: %v", err)
	}
	for name, body := range map[string]string{"nonsense": "hello", "empty": ""} {
		p := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(p, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadKey(p, nil); err == nil {
			t.Errorf("%s is a key", name)
		}
	}
}

func TestSniff(t *testing.T) {
	at := func(off int, s string) []byte { b := make([]byte, SniffLen); copy(b[off:], s); return b }
	for _, m := range magics {
		head, tail := at(0, ""), []byte(nil)
		if m.at < 0 {
			tail = at(0, "")
			copy(tail[len(tail)+m.at:], m.bytes)
		} else {
			head = at(m.at, m.bytes)
		}
		if got := Sniff(head, tail); got != m.format {
			t.Errorf("%s at %d: got %q", m.format, m.at, got)
		}
		if err := checkRaw("disk", head, tail); err == nil || !strings.Contains(err.Error(), m.format) || !strings.Contains(err.Error(), "raw images only") {
			t.Errorf("%s: %v", m.format, err)
		}
	}
	for name, b := range map[string][]byte{"zeros": at(0, ""), "boot sector": at(0, "\xeb\x63\x90"), "gpt": at(512, "EFI PART"), "nothing": nil, "short": {'Q', 'F'}} {
		if f := Sniff(b, nil); f != "" {
			t.Errorf("%s looks like %s", name, f)
		}
	}
}

func TestLibraryKeepsOnlyWhatItChecked(t *testing.T) {
	f, pub := packed(t, rawDisk(t, testSize, someData))
	lib := Library{Root: t.TempDir(), Trusted: []PublicKey{pub}}
	d, miss, err := lib.PutManifest(f.Bytes, f.Signature)
	if err != nil || d != f.Digest || len(miss.Chunks) != 3 || len(miss.Blobs) != 1 {
		t.Fatalf("%s %+v %v", d, miss, err)
	}
	if all, err := lib.List(); err != nil || len(all) != 1 || all[0].Ready {
		t.Errorf("%+v %v", all, err)
	}
	if _, err := lib.Finish(t.Context(), d); err == nil || !strings.Contains(err.Error(), "3 chunks and 1 blobs are missing") {
		t.Errorf("an image without its bytes: %v", err)
	}
	chunk := func(c string) []byte {
		b, err := os.ReadFile(filepath.Join(f.Path, chunkFolder, c+chunkExt))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, c := range map[string]struct {
		digest string
		body   []byte
	}{
		"wrong digest": {miss.Chunks[0], chunk(miss.Chunks[1])}, "not zstd": {miss.Chunks[0], []byte("hello")}, "cut": {miss.Chunks[0], chunk(miss.Chunks[0])[:50]},
		"a path": {"../../../tmp/x", chunk(miss.Chunks[0])}, "too long": {miss.Chunks[0], make([]byte, MaxPacked+1)},
	} {
		if err := lib.PutChunk(c.digest, bytes.NewReader(c.body)); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if err := lib.PutBlob(miss.Blobs[0], strings.NewReader("MZ kernex")); !errors.Is(err, ErrContent) {
		t.Errorf("a wrong kernel: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(lib.Root, "*s", "*")); len(left) != 1 { // images/<digest>
		t.Errorf("refused bytes left %q", left)
	}
	for _, c := range miss.Chunks {
		if err := lib.PutChunk(c, bytes.NewReader(chunk(c))); err != nil {
			t.Fatal(err)
		}
	}
	if err := lib.PutBlob(miss.Blobs[0], strings.NewReader("MZ kernel")); err != nil {
		t.Fatal(err)
	}
	if _, err := lib.Finish(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if _, again, err := lib.PutManifest(f.Bytes, f.Signature); err != nil || !again.None() {
		t.Errorf("a second import: %+v %v", again, err)
	}
	e, err := lib.Entry(d)
	if err != nil || !e.Ready || e.Manifest.Name != "debian" {
		t.Errorf("%+v %v", e, err)
	}
	r, err := lib.OpenChunk(miss.Chunks[0])
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	for _, bad := range []string{"", "../images", strings.Repeat("0", 64)} {
		if _, err := lib.OpenChunk(bad); !errors.Is(err, ErrNoImage) {
			t.Errorf("chunk %q: %v", bad, err)
		}
		if _, err := lib.Entry(bad); !errors.Is(err, ErrNoImage) {
			t.Errorf("image %q: %v", bad, err)
		}
	}
	if _, _, err := (Library{Root: lib.Root}).PutManifest(f.Bytes, f.Signature); !errors.Is(err, ErrUntrusted) {
		t.Errorf("nobody is trusted: %v", err)
	}
	path := filepath.Join(lib.Root, "images", d, manifestFile)
	if err := os.WriteFile(path, bytes.Replace(f.Bytes, []byte("debian"), []byte("debiax"), 1), 0o644); err != nil {
		t.Fatal(err)
	}
	if all, err := lib.List(); err == nil || len(all) != 0 || !strings.Contains(err.Error(), "changed on this disk") {
		t.Errorf("a changed manifest: %+v %v", all, err)
	}
}

// An author who signs a container is refused at import all the same.
func TestImportSniffs(t *testing.T) {
	key, pub := testKey(t)
	raw := append([]byte("QFI\xfb"), make([]byte, ChunkSize-4)...)
	p, err := newPacker()
	if err != nil {
		t.Fatal(err)
	}
	frame := p.pack(raw, nil)
	m := goodManifest()
	m.Kernel, m.Cmdline, m.Chunks[0] = nil, "", Chunk{SHA256: Digest(raw), Packed: len(frame)}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	lib := Library{Root: t.TempDir(), Trusted: []PublicKey{pub}}
	d, _, err := lib.PutManifest(b, minisign.Sign(key, b))
	if err != nil {
		t.Fatal(err)
	}
	if err := lib.PutChunk(m.Chunks[0].SHA256, bytes.NewReader(frame)); err != nil {
		t.Fatal(err)
	}
	var fe *FormatError
	if _, err := lib.Finish(t.Context(), d); !errors.As(err, &fe) || !strings.Contains(err.Error(), "qemu-img convert -O raw") {
		t.Errorf("got %v", err)
	}
	if e, err := lib.Entry(d); err != nil || e.Ready {
		t.Errorf("it is offered: %+v %v", e, err)
	}
}
