package disk

import (
	"context"
	"encoding/binary"
	"io"
	"unsafe"

	"github.com/cespare/xxhash/v2"
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

// IsZero says whether all of b is zero. It is plain arithmetic on words: an emulated CPU does that four times as fast
// as the vector instructions behind bytes.Equal, and a real one as fast as memory gives it.
func IsZero(b []byte) bool { return isAll(b, 0) }

// IsOnes says whether all of b is 0xff.
func IsOnes(b []byte) bool { return isAll(b, ^uint64(0)) }

func isAll(b []byte, word uint64) bool {
	le := binary.LittleEndian
	for len(b) >= 32 {
		if (le.Uint64(b)^word)|(le.Uint64(b[8:])^word)|(le.Uint64(b[16:])^word)|(le.Uint64(b[24:])^word) != 0 {
			return false
		}
		b = b[32:]
	}
	for _, c := range b {
		if c != byte(word) {
			return false
		}
	}
	return true
}

// Sum is a keyed hash for telling whether a device gives back what it was given: xxhash, which an emulated CPU computes
// at 800 MB/s (maphash: 40, SHA-256: 10). It is no proof of content to anybody else.
func Sum(key uint64, b []byte) uint64 {
	var d xxhash.Digest
	d.ResetWithSeed(key)
	d.Write(b)
	return d.Sum64()
}

// aligned says whether direct I/O can take b as it is.
func aligned(b []byte, off int64, sector int) bool {
	return len(b) > 0 && uintptr(unsafe.Pointer(&b[0]))%Align == 0 && len(b)%sector == 0 && off%int64(sector) == 0
}
