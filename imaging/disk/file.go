package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A File is a Device on a block device, or on a regular file that stands in for one.
type File struct {
	f      *os.File
	size   int64
	sector int
	block  bool

	mu     sync.Mutex
	direct bool
	why    string // why I/O is not direct
	slow   string // why zeros are written one by one
}

// Options say how to open a device. The zero value opens for reading and writing, exclusively and directly.
type Options struct {
	ReadOnly bool
	Shared   bool // do not claim the device: it may be in use by a file system
	Sector   int  // logical block size to pretend on a regular file; 0 means 512
}

// Open opens a block device or a regular file. A block device is claimed (O_EXCL): Open fails while a file system on it
// is mounted. Where the system refuses direct I/O (tmpfs), it goes through the page cache, and Cached says why.
func Open(path string, o Options) (*File, error) {
	mode := os.O_RDWR
	if o.ReadOnly {
		mode = os.O_RDONLY
	}
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("disk: open: %w", err)
	}
	d := &File{block: st.Mode()&os.ModeDevice != 0 && st.Mode()&os.ModeCharDevice == 0, direct: true}
	if !d.block && !st.Mode().IsRegular() {
		return nil, fmt.Errorf("disk: open %s: neither a block device nor a regular file", path)
	}
	if d.block && !o.Shared {
		mode |= unix.O_EXCL
	}
	d.f, err = os.OpenFile(path, mode|unix.O_DIRECT, 0)
	if errors.Is(err, unix.EINVAL) {
		d.direct, d.why = false, "the file system does not know direct I/O"
		d.f, err = os.OpenFile(path, mode, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("disk: open: %w", err)
	}
	d.size, d.sector = st.Size(), max(o.Sector, 512)
	if d.block {
		if d.size, err = d.f.Seek(0, io.SeekEnd); err == nil {
			d.sector, err = unix.IoctlGetInt(int(d.f.Fd()), unix.BLKSSZGET)
		}
		if err != nil {
			d.f.Close()
			return nil, fmt.Errorf("disk: ask %s for its size: %w", path, err)
		}
	}
	return d, nil
}

// Name returns the path that was opened.
func (d *File) Name() string { return d.f.Name() }

// Size returns the size in bytes.
func (d *File) Size() int64 { return d.size }

// SectorSize returns the logical block size in bytes.
func (d *File) SectorSize() int { return d.sector }

// Close releases the device.
func (d *File) Close() error { return d.f.Close() }

// Cached says why I/O goes through the page cache; "" means that it is direct.
func (d *File) Cached() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.why
}

// ZeroedSlowly says why zeros were written one by one; "" means that they were not.
func (d *File) ZeroedSlowly() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.slow
}

// ReadAt reads from the medium.
func (d *File) ReadAt(p []byte, off int64) (int, error) {
	if !d.isDirect() || aligned(p, off, d.sector) {
		n, err := d.f.ReadAt(p, off)
		if !d.undirect(err) {
			return n, err
		}
		return d.f.ReadAt(p, off)
	}
	b, from := d.around(p, off)
	n, err := d.f.ReadAt(b, from)
	got := copy(p, b[min(int(off-from), n):n])
	if got == len(p) {
		return got, nil
	}
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return got, err
}

// WriteAt writes to the medium. A write that does not fill its sectors reads them first.
func (d *File) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > d.size {
		return 0, fmt.Errorf("disk: write %s: bytes %d to %d are outside its %d", d.Name(), off, off+int64(len(p)), d.size)
	}
	if !d.isDirect() || aligned(p, off, d.sector) {
		n, err := d.f.WriteAt(p, off)
		if !d.undirect(err) {
			return n, err
		}
		return d.f.WriteAt(p, off)
	}
	b, from := d.around(p, off)
	if from != off || len(b) != len(p) {
		if _, err := d.f.ReadAt(b, from); err != nil {
			return 0, err
		}
	}
	copy(b[off-from:], p)
	if _, err := d.f.WriteAt(b, from); err != nil {
		return 0, err
	}
	return len(p), nil
}

// around returns a direct buffer for whole sectors around p, and where they begin.
func (d *File) around(p []byte, off int64) ([]byte, int64) {
	s := int64(d.sector)
	from, to := off/s*s, (off+int64(len(p))+s-1)/s*s
	return Buffer(int(to - from)), from
}

func (d *File) isDirect() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.direct
}

// undirect turns direct I/O off after the system refused it for a regular file (some file systems accept the flag and
// refuse the I/O), and says whether to try again. A block device that refuses an aligned request has a fault.
func (d *File) undirect(err error) bool {
	if !errors.Is(err, unix.EINVAL) || d.block || !d.isDirect() {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := unix.FcntlInt(d.f.Fd(), unix.F_SETFL, 0); err != nil {
		return false
	}
	d.direct, d.why = false, "the file system refused direct I/O"
	return true
}

// Sync waits until what was written is on the medium. Where I/O is not direct it then empties the page cache of it, so
// that what is read next comes from the medium as well.
func (d *File) Sync() error {
	if err := d.f.Sync(); err != nil {
		return fmt.Errorf("disk: flush: %w", err)
	}
	if !d.isDirect() {
		_ = unix.Fadvise(int(d.f.Fd()), 0, 0, unix.FADV_DONTNEED) // advice: tmpfs has no medium and ignores it
	}
	return nil
}

// zeroStep bounds one zeroing ioctl, which cannot be interrupted.
const zeroStep = 1 << 30

// Zero makes a range of whole sectors read as zeros: BLKZEROOUT on a block device (the kernel uses the drive's Write
// Zeroes where it has it), a hole or zero extent in a regular file, plain writing where neither is offered.
func (d *File) Zero(ctx context.Context, off, length int64) error {
	if off < 0 || length < 0 || off+length > d.size || off%int64(d.sector) != 0 || length%int64(d.sector) != 0 {
		return fmt.Errorf("disk: zero %s: bytes %d to %d are not whole sectors of its %d bytes", d.Name(), off, off+length, d.size)
	}
	for length > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(length, zeroStep)
		err := d.zeroFast(off, n)
		if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EINVAL) {
			d.mu.Lock()
			d.slow = err.Error()
			d.mu.Unlock()
			err = d.zeroSlow(ctx, off, n)
		}
		if err != nil {
			return fmt.Errorf("disk: zero %s at %d: %w", d.Name(), off, err)
		}
		off, length = off+n, length-n
	}
	return nil
}

func (d *File) zeroFast(off, n int64) error {
	if !d.block {
		return unix.Fallocate(int(d.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	}
	r := [2]uint64{uint64(off), uint64(n)}
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, d.f.Fd(), unix.BLKZEROOUT, uintptr(unsafe.Pointer(&r))); e != 0 {
		return e
	}
	return nil
}

func (d *File) zeroSlow(ctx context.Context, off, n int64) error {
	b := Buffer(MiB)
	for n > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		k := min(n, MiB)
		if _, err := d.WriteAt(b[:k], off); err != nil {
			return err
		}
		off, n = off+k, n-k
	}
	return nil
}

// Reread asks the kernel to read the partition table again. A device that is in use keeps its old one: that is not an
// error here, since nothing of ours depends on partition nodes.
func (d *File) Reread() {
	if d.block {
		_ = unix.IoctlSetInt(int(d.f.Fd()), unix.BLKRRPART, 0)
	}
}
