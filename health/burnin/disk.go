package burnin

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
	"unsafe"

	"github.com/hostler-project/hostler/inventory"
)

// A Disk is one medium to test.
type Disk struct {
	Medium inventory.Medium
	// Open opens the block device for reading and writing past the page cache (O_DIRECT) and for us alone.
	Open func() (Device, error)
	// LogPage reads an NVMe log page of the controller into buf; nil where there is no such thing.
	LogPage func(page uint8, buf []byte) error
}

// A Device is an open block device. Offsets and buffers given to it are multiples of 1 MiB and aligned to 4 KiB.
type Device interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Size() int64
	Sync() error
}

const (
	chunk    = 1 << 20
	maxPiece = 1 << 30 // tested of one medium at most: it is kept in memory meanwhile
)

// testDisks tests all media at the same time, as a tenant would use them.
func testDisks(ctx context.Context, r Runner, limit time.Duration) []inventory.TestResult {
	disks := r.Machine.Disks
	if len(disks) == 0 {
		return []inventory.TestResult{{Component: "media", Verdict: inventory.Inconclusive, Reason: "the machine shows no medium to test"}}
	}
	// What is read is kept until it is put back, so all of them together stay within a quarter of what is free.
	most := min(maxPiece, r.Machine.FreeMemory/4/int64(len(disks)))
	results := make([]inventory.TestResult, len(disks))
	var wg sync.WaitGroup
	for i, d := range disks {
		wg.Go(func() {
			begin := time.Now()
			results[i] = testDisk(ctx, d, most, limit)
			results[i].Component = d.Medium.String()
			results[i].Seconds = time.Since(begin).Seconds()
		})
	}
	wg.Wait()
	return results
}

// A scratch is the region of a medium that is tested.
type scratch struct {
	dev   Device
	at    int64
	was   [][]byte // what it held, in chunks, and will hold again
	seed  uint64
	spent struct{ read, write time.Duration }
	moved struct{ read, write int64 }
}

// errWrong is a medium that gave back other bytes than were written.
var errWrong = errors.New("other bytes came back")

func testDisk(ctx context.Context, d Disk, most int64, limit time.Duration) inventory.TestResult {
	res := inventory.TestResult{Verdict: inventory.Pass}
	doubt := func(verdict string, err error) inventory.TestResult {
		res.Verdict, res.Reason = verdict, err.Error()
		return res
	}
	dev, err := d.Open()
	if err != nil {
		return doubt(inventory.Inconclusive, fmt.Errorf("open it: %w", err))
	}
	defer dev.Close()
	s := scratch{dev: dev, seed: uint64(time.Now().UnixNano()) | 1}
	// The region lies at seven eighths: past what an image fills, before the backup partition table.
	s.at = dev.Size() / 8 * 7 / chunk * chunk
	most = min(most, dev.Size()/16) / chunk * chunk
	if most < chunk {
		return doubt(inventory.Inconclusive, fmt.Errorf("it has %d bytes, too few for a scratch region (or memory is short)", dev.Size()))
	}
	if err := s.save(ctx, most, time.Now().Add(limit/4)); err != nil {
		return doubt(inventory.Fail, err)
	}
	err = s.exercise(ctx)
	// Whatever happened, what was there comes back; a cancelled run too.
	if back := s.restore(); back != nil {
		err = errors.Join(err, back)
	}
	res.Values = map[string]float64{
		"tested_MB":  float64(len(s.was)) * chunk / mb,
		"read_MBps":  rate(s.moved.read, s.spent.read),
		"write_MBps": rate(s.moved.write, s.spent.write),
	}
	if err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()) && !errors.Is(err, errWrong) {
		return doubt(inventory.Aborted, err)
	}
	if err != nil {
		return doubt(inventory.Fail, err)
	}
	return res
}

// save reads the region until it is large enough or the time is over; at least one chunk.
func (s *scratch) save(ctx context.Context, most int64, until time.Time) error {
	for off := int64(0); off < most && ctx.Err() == nil; off += chunk {
		b := alignedChunk()
		if err := s.read(b, off); err != nil {
			return err
		}
		s.was = append(s.was, b)
		if !time.Now().Before(until) {
			break
		}
	}
	return nil
}

// exercise writes to every chunk a pattern that no other place and no other run has, then reads it all.
func (s *scratch) exercise(ctx context.Context) error {
	b, want := alignedChunk(), alignedChunk()
	for i := range s.was {
		if err := ctx.Err(); err != nil {
			return err
		}
		s.pattern(want, i)
		if err := s.write(want, int64(i)*chunk); err != nil {
			return err
		}
	}
	if err := s.sync(); err != nil {
		return err
	}
	for i := range s.was {
		if err := ctx.Err(); err != nil {
			return err
		}
		s.pattern(want, i)
		if err := s.expect(b, want, i); err != nil {
			return err
		}
	}
	return nil
}

// restore puts back what was there and reads that it is.
func (s *scratch) restore() error {
	for i, b := range s.was {
		if err := s.write(b, int64(i)*chunk); err != nil {
			return fmt.Errorf("put back what the scratch region held: %w", err)
		}
	}
	if err := s.sync(); err != nil {
		return err
	}
	b := alignedChunk()
	for i, was := range s.was {
		if err := s.expect(b, was, i); err != nil {
			return fmt.Errorf("put back what the scratch region held: %w", err)
		}
	}
	return nil
}

func (s *scratch) expect(b, want []byte, i int) error {
	if err := s.read(b, int64(i)*chunk); err != nil {
		return err
	}
	if bytes.Equal(b, want) {
		return nil
	}
	at := 0
	for at < len(b) && b[at] == want[at] {
		at++
	}
	return fmt.Errorf("%w at byte %d: %#02x, written was %#02x", errWrong, s.at+int64(i)*chunk+int64(at), b[at], want[at])
}

// pattern fills b with words made of the seed and each word's own address on the medium.
func (s *scratch) pattern(b []byte, i int) {
	x := uint64(s.at + int64(i)*chunk)
	for o := 0; o < len(b); o += 8 {
		binary.LittleEndian.PutUint64(b[o:], (x+uint64(o))^s.seed)
	}
}

func (s *scratch) read(b []byte, off int64) error {
	begin := time.Now()
	if _, err := s.dev.ReadAt(b, s.at+off); err != nil {
		return fmt.Errorf("read %d bytes at %d: %w", len(b), s.at+off, err)
	}
	s.spent.read += time.Since(begin)
	s.moved.read += int64(len(b))
	return nil
}

func (s *scratch) write(b []byte, off int64) error {
	begin := time.Now()
	if _, err := s.dev.WriteAt(b, s.at+off); err != nil {
		return fmt.Errorf("write %d bytes at %d: %w", len(b), s.at+off, err)
	}
	s.spent.write += time.Since(begin)
	s.moved.write += int64(len(b))
	return nil
}

func (s *scratch) sync() error {
	begin := time.Now()
	if err := s.dev.Sync(); err != nil {
		return fmt.Errorf("flush the drive's cache: %w", err)
	}
	s.spent.write += time.Since(begin)
	return nil
}

// alignedChunk is a chunk on a page boundary, as O_DIRECT wants.
func alignedChunk() []byte {
	const page = 4096
	b := make([]byte, chunk+page)
	skip := int(-uintptr(unsafe.Pointer(&b[0])) & (page - 1))
	return b[skip : skip+chunk : skip+chunk]
}
