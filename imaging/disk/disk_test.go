package disk

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func sparse(t *testing.T, size int64, sector int) *File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	d, err := Open(path, Options{Sector: sector})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// have says whether a judge from outside is installed; make test installs it.
func have(tool string) bool { _, err := exec.LookPath(tool); return err == nil }

func TestAFileIsReadAndWrittenAtAnyOffset(t *testing.T) {
	d := sparse(t, 8*MiB, 0)
	for _, c := range []struct {
		name string
		off  int64
		n    int
	}{{"whole sectors", 4096, 8192}, {"inside one sector", 70001, 17}, {"across sectors", 100_000, 5000}, {"at the end", 8*MiB - 3, 3}} {
		t.Run(c.name, func(t *testing.T) {
			want := bytes.Repeat([]byte{0xa5}, c.n)
			if n, err := d.WriteAt(want, c.off); n != c.n || err != nil {
				t.Fatal(n, err)
			}
			got := make([]byte, c.n)
			if n, err := d.ReadAt(got, c.off); n != c.n || err != nil || !bytes.Equal(got, want) {
				t.Fatal(n, err)
			}
			edge := make([]byte, 1)
			if _, err := d.ReadAt(edge, c.off-1); err != nil || edge[0] != 0 {
				t.Errorf("byte before: %x %v", edge, err)
			}
		})
	}
	if _, err := d.WriteAt(make([]byte, 2), 8*MiB-1); err == nil {
		t.Error("a write past the end went through")
	}
	if err := d.Zero(t.Context(), 0, d.Size()); err != nil {
		t.Fatal(err)
	}
	all := Buffer(8 * MiB)
	if _, err := d.ReadAt(all, 0); err != nil || !IsZero(all) {
		t.Errorf("after Zero: %v", err)
	}
	all[8*MiB-1] = 1
	if IsZero(all) {
		t.Error("IsZero overlooks the last byte")
	}
	for n := range 100 {
		ones := bytes.Repeat([]byte{0xff}, n+1)
		if !IsOnes(ones) || IsZero(ones) || !IsZero(make([]byte, n)) {
			t.Errorf("%d bytes", n)
		}
		for k := range ones {
			ones[k] = 0xfe
			if IsOnes(ones) {
				t.Errorf("IsOnes overlooks byte %d of %d", k, n+1)
			}
			ones[k] = 0xff
		}
	}
	if Sum(1, all) == Sum(2, all) || Sum(1, all) != Sum(1, bytes.Clone(all)) {
		t.Error("Sum is not a keyed hash")
	}
	if err := d.Zero(t.Context(), 100, 512); err == nil || !strings.Contains(err.Error(), "whole sectors") {
		t.Errorf("crooked Zero: %v", err)
	}
}

func TestTableSurvivesItsOwnReaderAndSgdisk(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		d := sparse(t, 256*MiB, sector)
		tab := NewTable(d.Size(), sector)
		align := uint64(MiB / sector)
		tab.Partitions = []Partition{
			{Slot: 1, Type: TypeESP, ID: NewGUID(), First: align, Last: 10*align - 1, Name: "esp"},
			{Slot: 3, Type: TypeRootX, ID: NewGUID(), First: 10 * align, Last: 100*align - 1, Name: "root-é"},
		}
		p, err := tab.Append(16*MiB, TypeData, "CIDATA")
		if err != nil || p.Slot != 2 {
			t.Fatalf("%+v %v", p, err)
		}
		if err := WriteTable(d, tab); err != nil {
			t.Fatal(err)
		}
		got, err := ReadTable(d, sector)
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Partitions) != 3 || got.ID != tab.ID || got.Partitions[2].Name != "root-é" || got.Partitions[1] != p {
			t.Errorf("read %+v", got.Partitions)
		}
		if end := p.Offset(sector) + p.Size(sector); p.Size(sector) != 16*MiB || end < d.Size()-3*MiB {
			t.Errorf("appended at %d, size %d: not at the end", p.Offset(sector), p.Size(sector))
		}
		if sector == 512 && have("sgdisk") {
			out, err := exec.Command("sgdisk", "-v", d.Name()).CombinedOutput()
			if err != nil || !strings.Contains(string(out), "No problems found") {
				t.Errorf("sgdisk: %v\n%s", err, out)
			}
		}
	}
}

func TestBrokenTablesAreRefused(t *testing.T) {
	tab := NewTable(64*MiB, 512)
	tab.Partitions = []Partition{{Slot: 1, Type: TypeLinux, ID: NewGUID(), First: 2048, Last: 4095}}
	good := append(tab.Head(), make([]byte, MiB)...)
	if _, err := ReadTable(bytes.NewReader(good), 512); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, want string
		spoil      func(b []byte)
	}{
		{"no signature", "no GUID partition table", func(b []byte) { b[512] = 'X' }},
		{"header bit", "checksum", func(b []byte) { b[512+40] ^= 1 }},
		{"entry bit", "checksum of the entries", func(b []byte) { b[1024+50] ^= 1 }},
		{"overlap", "overlap", func(b []byte) {
			o := *tab
			o.Partitions = append(o.Partitions, Partition{Slot: 2, Type: TypeLinux, First: 4000, Last: 5000})
			copy(b, o.Head())
		}},
		{"outside", "outside", func(b []byte) {
			o := *tab
			o.Partitions = []Partition{{Slot: 1, Type: TypeLinux, First: 2048, Last: 1 << 40}}
			copy(b, o.Head())
		}},
		{"impossible end", "cannot be", func(b []byte) { o := *tab; o.LastUse = ^uint64(0); copy(b, o.Head()) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := bytes.Clone(good)
			c.spoil(b)
			if _, err := ReadTable(bytes.NewReader(b), 512); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	full := NewTable(16*MiB, 512)
	if _, err := full.Append(16*MiB, TypeData, "CIDATA"); err == nil || !strings.Contains(err.Error(), "no room") {
		t.Errorf("append to a full disk: %v", err)
	}
}

func TestFATIsReadByMtoolsAndFsck(t *testing.T) {
	files := []FATFile{
		{"meta-data", []byte("instance-id: i-1\n")}, {"user-data", bytes.Repeat([]byte("#cloud-config\n"), 3000)},
		{"network-config", nil}, {"a-name-of-more-than-twenty-six-letters.yaml", []byte("x")},
	}
	for _, c := range []struct {
		name   string
		size   int64
		sector int
	}{{"16 MiB, 512", 16 * MiB, 512}, {"16 MiB, 4096", 16 * MiB, 4096}, {"1 MiB, 512", MiB, 512}, {"200 MiB, 512", 200 * MiB, 512}} {
		t.Run(c.name, func(t *testing.T) {
			vol, err := FAT(c.size, c.sector, "cidata", files)
			if err != nil || int64(len(vol)) != c.size || string(vol[43:54]) != "CIDATA     " {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), "fat")
			if err := os.WriteFile(path, vol, 0o600); err != nil {
				t.Fatal(err)
			}
			if have("fsck.vfat") {
				if out, err := exec.Command("fsck.vfat", "-n", "-v", path).CombinedOutput(); err != nil {
					t.Errorf("fsck: %v\n%s", err, out)
				}
			}
			if have("mtype") && c.sector == 512 {
				for _, f := range files {
					out, err := exec.Command("mtype", "-i", path, "::"+f.Name).Output()
					if err != nil || !bytes.Equal(out, f.Data) {
						t.Errorf("%s: %v, %d bytes", f.Name, err, len(out))
					}
				}
			}
		})
	}
	for _, c := range []struct {
		want string
		size int64
		f    FATFile
	}{{"does not fit", MiB, FATFile{"user-data", make([]byte, 2*MiB)}}, {"cannot be a file name", MiB, FATFile{"../x", nil}},
		{"cannot have", 1000, FATFile{}}} {
		if _, err := FAT(c.size, 512, "X", []FATFile{c.f}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
}
