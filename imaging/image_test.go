package imaging

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hostler-project/hostler/imaging/disk"
)

const testSize = 26*mib + 512*7 // seven chunks, the last one short and crooked

// rawDisk writes a bootable-looking raw disk: GPT, ESP, root, data in some places, zeros elsewhere.
func rawDisk(t testing.TB, size int64, fill func(b []byte)) string {
	t.Helper()
	b := make([]byte, size)
	fill(b)
	tab := disk.NewTable(size, 512)
	last := (uint64(size)/512 - 40) / 2048 * 2048
	tab.Partitions = []disk.Partition{
		{Slot: 1, Type: disk.TypeESP, ID: disk.NewGUID(), First: 2048, Last: 4095, Name: "esp"},
		{Slot: 2, Type: disk.TypeRootX, ID: disk.NewGUID(), First: 4096, Last: last - 1, Name: "root"},
	}
	head := tab.Head()
	copy(head, "\xeb\x63\x90boot code")
	copy(b, head)
	copy(b[tab.TailOffset():], tab.Tail())
	path := filepath.Join(t.TempDir(), "raw")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// someData fills three chunks of the seven: compressible, random, and the crooked end.
func someData(b []byte) {
	copy(b[mib+512:], bytes.Repeat([]byte("tenant system "), 50_000))
	r := rand.NewChaCha8([32]byte{1})
	r.Read(b[9*mib : 11*mib])
	r.Read(b[len(b)-300_000 : len(b)-100_000])
}

func testKey(t testing.TB) (PrivateKey, PublicKey) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image.key")
	pub, err := GenerateKey(path)
	if err != nil {
		t.Fatal(err)
	}
	key, err := LoadKey(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return key, pub
}

// Chunk makes an image folder a source.
func (f *Folder) Chunk(_ context.Context, digest string, _ int) (io.ReadCloser, error) {
	return f.OpenChunk(digest)
}

// Chunk makes a library a source.
func (l Library) Chunk(_ context.Context, digest string, _ int) (io.ReadCloser, error) {
	return l.OpenChunk(digest)
}

// packed packs the test disk and reads the folder back, every chunk verified.
func packed(t testing.TB, raw string) (*Folder, PublicKey) {
	t.Helper()
	key, pub := testKey(t)
	kernel := filepath.Join(t.TempDir(), "vmlinuz")
	if err := os.WriteFile(kernel, []byte("MZ kernel"), 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "img")
	p, err := Pack(t.Context(), PackOptions{Disk: raw, Out: out, Name: "debian", OS: "Debian 12", BootModes: []string{"uefi", "bios"},
		Kernel: kernel, Cmdline: "root=LABEL=root ro", Key: key})
	if err != nil {
		t.Fatal(err)
	}
	f, err := VerifyFolder(t.Context(), out, []PublicKey{pub}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if f.Digest != p.Digest {
		t.Fatalf("digest %s, packed as %s", f.Digest, p.Digest)
	}
	return f, pub
}

// target is a sparse file in place of a disk, with 0xee at its beginning and where the test image has zeros.
func target(t testing.TB, size int64) *disk.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, bytes.Repeat([]byte{0xee}, 6*mib), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	d, err := disk.Open(path, disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func contents(t testing.TB, d disk.Device) []byte {
	t.Helper()
	b := disk.Buffer(int(d.Size()))
	if _, err := d.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

// sgdisk is the judge of partition tables from outside; make test installs it.
func sgdisk(t *testing.T, path string) {
	t.Helper()
	if _, err := exec.LookPath("sgdisk"); err != nil {
		return
	}
	if out, err := exec.Command("sgdisk", "-v", path).CombinedOutput(); err != nil || !strings.Contains(string(out), "No problems found") {
		t.Errorf("sgdisk -v: %v\n%s", err, out)
	}
}

// From the author's raw disk to a seeded disk on the node, each end checked from outside.
func TestAnImageGoesFromPackToDisk(t *testing.T) {
	t.Parallel()
	rawPath := rawDisk(t, testSize, someData)
	f, pub := packed(t, rawPath)
	lib := Library{Root: t.TempDir(), Trusted: []PublicKey{pub}}
	digest, m, err := lib.ImportFolder(t.Context(), f.Path)
	if err != nil || digest != f.Digest {
		t.Fatal(digest, err)
	}
	if m.Root == nil || m.Root.Partition != 2 || m.Seed != nil || !m.Chunks[1].Zero || m.Chunks[2].Zero {
		t.Errorf("manifest %+v", m)
	}
	for _, size := range []int64{testSize + 17*mib, testSize + 17*mib + 512, 100 * mib} {
		d := target(t, size)
		var seen []string
		r, err := Write(t.Context(), m, lib, d, Options{Progress: func(p Progress) {
			if p.Done == p.Total {
				seen = append(seen, p.Phase)
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		if strings.Join(seen, ",") != "write,read back" || r.Zeroed == 0 || r.Retries != 0 || !r.Moved {
			t.Errorf("phases %v, result %+v", seen, r)
		}
		raw, err := os.ReadFile(rawPath)
		if err != nil {
			t.Fatal(err)
		}
		got := contents(t, d)
		if !bytes.Equal(got[:440], raw[:440]) || !bytes.Equal(got[mib:testSize-33*512], raw[mib:testSize-33*512]) {
			t.Error("the disk is not the image")
		}
		if bytes.Contains(got[mib:size-512], []byte("EFI PART")) {
			t.Error("a backup table was left in the middle")
		}
		sgdisk(t, d.Name())
		if err := r.CheckWarm(t.Context(), d, 64); err != nil {
			t.Error(err)
		}
		for range 2 { // the second time it is there already
			if err := Seed(t.Context(), d, m, SeedData{MetaData: []byte("instance-id: i-1\n"), UserData: []byte("#cloud-config\n")}); err != nil {
				t.Fatal(err)
			}
		}
		sgdisk(t, d.Name())
		tab, err := disk.ReadTable(d, 512)
		if err != nil {
			t.Fatal(err)
		}
		p, ok := tab.Find(isSeed)
		if !ok || len(tab.Partitions) != 3 || p.Size(512) != seedSize {
			t.Errorf("partitions %+v", tab.Partitions)
		}
		if _, err := exec.LookPath("mtype"); err == nil {
			vol := filepath.Join(t.TempDir(), "vol")
			if err := os.WriteFile(vol, contents(t, d)[p.Offset(512):][:seedSize], 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command("mtype", "-i", vol, "::user-data").Output()
			if err != nil || string(out) != "#cloud-config\n" {
				t.Errorf("user-data %q %v", out, err)
			}
		}
		if err := r.CheckWarm(t.Context(), d, 64); err == nil {
			t.Error("a seeded disk passes as warm")
		}
	}
}

func TestAReservedSeedPartitionIsUsed(t *testing.T) {
	raw := rawDisk(t, 32*mib, func(b []byte) { someData(b) })
	d, err := disk.Open(raw, disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	tab, err := disk.ReadTable(d, 512)
	if err != nil {
		t.Fatal(err)
	}
	tab.Partitions[1].Last = 30*2048 - 1
	tab.Partitions = append(tab.Partitions, disk.Partition{Slot: 5, Type: disk.TypeData, ID: disk.NewGUID(), First: 30 * 2048, Last: 31*2048 - 1, Name: "cidata"})
	if err := disk.WriteTable(d, tab); err != nil {
		t.Fatal(err)
	}
	d.Close()
	f, _ := packed(t, raw)
	if f.Manifest.Seed == nil || f.Manifest.Seed.Offset != 30*mib || f.Manifest.Seed.Size != mib {
		t.Fatalf("seed %+v", f.Manifest.Seed)
	}
	to := target(t, 32*mib) // exactly the image: nothing moves
	r, err := Write(t.Context(), f.Manifest, f, to, Options{})
	if err != nil || r.Moved {
		t.Fatal(r, err)
	}
	if err := Seed(t.Context(), to, f.Manifest, SeedData{MetaData: []byte("instance-id: a")}); err != nil {
		t.Fatal(err)
	}
	if got := contents(t, to); string(got[30*mib+43:30*mib+49]) != "CIDATA" {
		t.Error("no file system in the reserved partition")
	}
	if err := Seed(t.Context(), to, f.Manifest, SeedData{MetaData: []byte("x")}); err == nil {
		t.Error("a seed without instance-id was taken")
	}
}

func TestAWarmDiskThatChangedIsNotHandedOver(t *testing.T) {
	t.Parallel()
	f, _ := packed(t, rawDisk(t, testSize, someData))
	for name, off := range map[string]int64{"first MiB": 600_000, "last MiB": 64*mib - 700, "a chunk": 9*mib + 5, "a zero chunk": 5 * mib} {
		t.Run(name, func(t *testing.T) {
			d := target(t, 64*mib)
			r, err := Write(t.Context(), f.Manifest, f, d, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := d.WriteAt([]byte{0x5a}, off); err != nil {
				t.Fatal(err)
			}
			if err := r.CheckWarm(t.Context(), d, 64); err == nil {
				t.Error("the change was not seen")
			}
		})
	}
}

func TestPackRefuses(t *testing.T) {
	t.Parallel()
	key, _ := testKey(t)
	good := func(b []byte) { someData(b) }
	for _, c := range []struct {
		name, want string
		make       func(t *testing.T) string
		opt        func(o *PackOptions)
	}{
		{"qcow2", "qemu-img convert -O raw", func(t *testing.T) string {
			return file(t, append([]byte("QFI\xfb\x00\x00\x00\x03"), make([]byte, 5*mib)...))
		}, nil},
		{"small qcow2", "qcow2", func(t *testing.T) string {
			return file(t, append([]byte("QFI\xfb\x00\x00\x00\x03"), make([]byte, 1000)...))
		}, nil},
		{"fixed vhd", "vhd", func(t *testing.T) string {
			p := rawDisk(t, testSize, good)
			b, _ := os.ReadFile(p)
			copy(b[len(b)-512:], "conectix")
			return file(t, b)
		}, nil},
		{"odd size", "truncated", func(t *testing.T) string { p := rawDisk(t, testSize, good); os.Truncate(p, testSize-1); return p }, nil},
		{"cut short", "truncated", func(t *testing.T) string { p := rawDisk(t, testSize, good); os.Truncate(p, testSize-4096); return p }, nil},
		{"no table", "no GUID partition table", func(t *testing.T) string { return file(t, make([]byte, 8*mib)) }, nil},
		{"wrong name", "name", nil, func(o *PackOptions) { o.Name = "../x" }},
		{"wrong mode", "boot_modes", nil, func(o *PackOptions) { o.BootModes = []string{"coreboot"} }},
		{"newline in cmdline", "cmdline", nil, func(o *PackOptions) { o.Kernel, o.Cmdline = file(t, []byte("k")), "a\nb" }},
		{"missing kernel", "no such file", nil, func(o *PackOptions) { o.Kernel = "/nonexistent" }},
		{"cmdline without kernel", "without kernel", nil, func(o *PackOptions) { o.Cmdline = "quiet" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := PackOptions{Out: filepath.Join(t.TempDir(), "out"), Name: "x", BootModes: []string{"uefi"}, Key: key}
			if c.make != nil {
				o.Disk = c.make(t)
			} else {
				o.Disk = rawDisk(t, testSize, good)
				c.opt(&o)
			}
			_, err := Pack(t.Context(), o)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if _, err := os.Stat(filepath.Join(o.Out, manifestFile)); err == nil {
				t.Error("a refused disk left a manifest")
			}
		})
	}
	f, _ := packed(t, rawDisk(t, testSize, good))
	if _, err := Pack(t.Context(), PackOptions{Disk: rawDisk(t, testSize, good), Out: f.Path, Name: "x", BootModes: []string{"uefi"}, Key: key}); err == nil {
		t.Error("Pack wrote over another image")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	out := t.TempDir()
	if _, err := Pack(ctx, PackOptions{Disk: rawDisk(t, testSize, good), Out: out, Name: "x", BootModes: []string{"uefi"}, Key: key}); err == nil {
		t.Error("a cancelled pack reports success")
	}
	if _, err := os.Stat(filepath.Join(out, manifestFile)); err == nil {
		t.Error("a cancelled pack left a manifest")
	}
}

func file(t *testing.T, b []byte) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(p, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}
