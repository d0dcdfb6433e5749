//go:build rack

package imaging

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/hostler-project/hostler/imaging/disk"
)

// loop makes a loop device with the given sector size: a real block device, with BLKZEROOUT, exclusive opening and a
// partition table in the kernel.
func loop(t *testing.T, size int64, sector int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, bytes.Repeat([]byte{0xee}, 6*mib), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "-f", "--show", "--direct-io=on", "-b", strconv.Itoa(sector), path).CombinedOutput()
	if err != nil {
		t.Fatalf("losetup: %v: %s", err, out)
	}
	dev := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "-d", dev).CombinedOutput(); err != nil {
			t.Errorf("losetup -d: %v: %s", err, out)
		}
	})
	return dev
}

// The whole way on real block devices, with 512 and with 4096-byte sectors.
func TestWriteAndSeedABlockDevice(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		t.Run(strconv.Itoa(sector), func(t *testing.T) {
			key, _ := testKey(t)
			size := int64(28 * mib)
			raw := filepath.Join(t.TempDir(), "raw")
			if err := os.WriteFile(raw, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(raw, size); err != nil {
				t.Fatal(err)
			}
			rd, err := disk.Open(raw, disk.Options{Sector: sector})
			if err != nil {
				t.Fatal(err)
			}
			tab := disk.NewTable(size, sector)
			one := uint64(mib / sector)
			tab.Partitions = []disk.Partition{{Slot: 1, Type: disk.TypeESP, ID: disk.NewGUID(), First: one, Last: 20*one - 1, Name: "esp"}}
			if err := disk.WriteTable(rd, tab); err != nil {
				t.Fatal(err)
			}
			if _, err := rd.WriteAt(bytes.Repeat([]byte("tenant "), 300_000), 3*mib); err != nil {
				t.Fatal(err)
			}
			rd.Close()
			out := filepath.Join(t.TempDir(), "img")
			if _, err := Pack(t.Context(), PackOptions{Disk: raw, Out: out, Name: "x", BootModes: []string{"uefi"}, SectorSize: sector, Key: key}); err != nil {
				t.Fatal(err)
			}
			f, err := ReadFolder(out)
			if err != nil {
				t.Fatal(err)
			}
			d, err := disk.Open(loop(t, 80*mib, sector), disk.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			if d.SectorSize() != sector || d.Cached() != "" {
				t.Fatalf("sector size %d, cached %q", d.SectorSize(), d.Cached())
			}
			if _, err := disk.Open(d.Name(), disk.Options{}); err == nil || !strings.Contains(err.Error(), "busy") {
				t.Errorf("opened twice: %v", err)
			}
			r, err := Write(t.Context(), f.Manifest, f, d, Options{})
			if err != nil || len(r.Remarks) != 0 {
				t.Fatal(r, err)
			}
			if err := r.CheckWarm(t.Context(), d, 64); err != nil {
				t.Error(err)
			}
			if err := Seed(t.Context(), d, f.Manifest, SeedData{MetaData: []byte("instance-id: i-1\n")}); err != nil {
				t.Fatal(err)
			}
			sgdisk(t, d.Name())
		})
	}
}
