package disk

import (
	"bytes"
	"context"
	"io"
	"unsafe"
)

// Align is the address and length alignment that direct I/O gets everywhere: the largest logical block in use.
const Align = 4096

// MiB is 1,048,576 bytes.
const MiB = 1 << 20

// A Device is a disk as its users need it. ReadAt and WriteAt go to the medium, not to a cache, as far as the system
// allows; they are fastest for buffers made by Buffer and for offsets and lengths that are multiples of the sector size.
type Device interface {
	io.ReaderAt
	io.WriterAt
	// Name is what to call it in errors, such as "/dev/nvme0n1".
	Name() string
	// Size is in bytes.
	Size() int64
	// SectorSize is the logical block size in bytes.
	SectorSize() int
	// Zero makes a range read as zeros, by the drive's own command where there is one.
	Zero(ctx context.Context, off, length int64) error
	// Sync returns when all that was written is on the medium.
	Sync() error
}

// Buffer returns n zero bytes at an address that direct I/O accepts.
func Buffer(n int) []byte {
	b := make([]byte, n+Align)
	skip := int(-uintptr(unsafe.Pointer(&b[0])) & (Align - 1))
	return b[skip : skip+n : skip+n]
}

var zeros = make([]byte, 64<<10)

// IsZero says whether all of b is zero.
func IsZero(b []byte) bool {
	for len(b) > len(zeros) {
		if !bytes.Equal(b[:len(zeros)], zeros) {
			return false
		}
		b = b[len(zeros):]
	}
	return bytes.Equal(b, zeros[:len(b)])
}

// aligned says whether direct I/O can take b as it is.
func aligned(b []byte, off int64, sector int) bool {
	return len(b) > 0 && uintptr(unsafe.Pointer(&b[0]))%Align == 0 && len(b)%sector == 0 && off%int64(sector) == 0
}
