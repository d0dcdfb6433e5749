package burnin

import (
	"bytes"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hostler-project/hostler/inventory"
)

// A fakeDrive is a drive in memory with faults to switch on.
type fakeDrive struct {
	mu         sync.Mutex
	name       string
	size       int64
	data       map[int64][]byte // chunks by offset; absent ones are zero
	smart      []byte
	flip       bool // one bit of what is read is wrong, after the first write
	lose       bool // writes are acknowledged and dropped
	unreadable bool
	wasWritten bool
	onWrite    func()
}

func newDrive(name string) *fakeDrive {
	d := &fakeDrive{name: name, size: 256 << 20, data: map[int64][]byte{}, smart: make([]byte, smartBytes)}
	d.smart[1], d.smart[2], d.smart[3] = 0x43, 0x01, 100 // 323 K
	return d
}

func (d *fakeDrive) disk() Disk {
	return Disk{
		Medium: inventory.Medium{Slot: "0000:00:04.0", Device: d.name, Kind: inventory.MediumNVMe, Serial: "S" + d.name, Size: d.size},
		Open:   func() (Device, error) { return d, nil },
		LogPage: func(page uint8, b []byte) error {
			if page != smartPage || d.smart == nil {
				return syscall.EIO
			}
			copy(b, d.smart)
			return nil
		},
	}
}

func (d *fakeDrive) ReadAt(b []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	time.Sleep(time.Microsecond)
	if d.unreadable {
		return 0, syscall.EIO
	}
	clear(b)
	copy(b, d.data[off])
	if d.flip && d.wasWritten {
		b[777] ^= 4
	}
	return len(b), nil
}

func (d *fakeDrive) WriteAt(b []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	time.Sleep(time.Microsecond)
	d.wasWritten = true
	if !d.lose {
		d.data[off] = bytes.Clone(b)
	}
	if d.onWrite != nil {
		d.onWrite()
	}
	return len(b), nil
}

func (d *fakeDrive) isZero() bool {
	for _, b := range d.data {
		if len(bytes.Trim(b, "\x00")) > 0 {
			return false
		}
	}
	return true
}

func (d *fakeDrive) Size() int64  { return d.size }
func (d *fakeDrive) Sync() error  { return nil }
func (d *fakeDrive) Close() error { return nil }

func TestAnImageUnderTheScratchRegionSurvives(t *testing.T) {
	d := newDrive("nvme0")
	kept := bytes.Repeat([]byte("tenant image, staged"), chunk/20+1)[:chunk]
	d.data[d.size/8*7] = kept
	res := testDisk(t.Context(), d.disk(), maxPiece, 50*time.Millisecond)
	if res.Verdict != inventory.Pass || !bytes.Equal(d.data[d.size/8*7], kept) {
		t.Errorf("%+v", res)
	}
}
