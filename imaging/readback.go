package imaging

import (
	"context"
	"fmt"
	"math/rand/v2"

	"github.com/hostler-project/hostler/imaging/disk"
)

// readBack compares the whole range of the image, from the medium, with what was written.
func (w *writer) readBack(ctx context.Context) error {
	meter := &meter{say: w.o.Progress, p: Progress{Phase: "read back", Total: w.m.Size}}
	err := eachChunk(ctx, w.o.Workers, len(w.m.Chunks), func(ctx context.Context, next func() (int, bool)) error {
		raw := disk.Buffer(ChunkSize)
		for i, ok := next(); ok; i, ok = next() {
			b := raw[:w.m.Length(i)]
			if err := w.r.compare(w.d, i, b, i == 0, w.head); err != nil {
				return err
			}
			meter.add(len(b), 0)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, p := range w.patches {
		b, off := p.beyond(w.m.Size)
		got := make([]byte, len(b))
		if _, err := w.d.ReadAt(got, off); len(b) > 0 && (err != nil || string(got) != string(b)) {
			return fmt.Errorf("imaging: read back %s at %d: not what was written (%v)", w.d.Name(), off, err)
		}
	}
	last := disk.Buffer(headSize)
	if _, err := w.d.ReadAt(last, w.d.Size()-headSize); err != nil {
		return fmt.Errorf("imaging: read back %s: its last MiB: %w", w.d.Name(), err)
	}
	w.r.last = disk.Sum(w.r.key, last)
	return nil
}

// compare reads chunk i into b and compares it. Of an open chunk 0 the first MiB must still be zero; it is compared as
// if head's were there.
func (r *Result) compare(d disk.Device, i int, b []byte, open bool, head []byte) error {
	off := int64(i) * ChunkSize
	if _, err := d.ReadAt(b, off); err != nil {
		return fmt.Errorf("imaging: read back %s at %d: %w", d.Name(), off, err)
	}
	if open {
		if !disk.IsZero(b[:headSize]) {
			return fmt.Errorf("imaging: read back %s: the first MiB is not zero: somebody else writes to this disk", d.Name())
		}
		copy(b[:headSize], head)
	}
	if r.sums[i] == 0 && disk.IsZero(b) || r.sums[i] != 0 && r.sums[i] == disk.Sum(r.key, b) {
		return nil
	}
	return fmt.Errorf("imaging: read back %s: the %d bytes at %d are not what was written: replace the drive", d.Name(), len(b), off)
}

// CheckWarm says whether the disk still is as this Write left it: the first chunk, the last MiB and n random chunks are
// read again. It is for a disk without seed.
func (r *Result) CheckWarm(ctx context.Context, d disk.Device, n int) error {
	if d.Size() != r.diskSize {
		return fmt.Errorf("imaging: check %s: it has %d bytes and had %d: another disk", d.Name(), d.Size(), r.diskSize)
	}
	picks := []int{0}
	for _, i := range rand.Perm(len(r.sums))[:min(n, len(r.sums))] {
		picks = append(picks, i)
	}
	b := disk.Buffer(ChunkSize)
	if _, err := d.ReadAt(b[:headSize], d.Size()-headSize); err != nil {
		return fmt.Errorf("imaging: check %s: its last MiB: %w", d.Name(), err)
	}
	if disk.Sum(r.key, b[:headSize]) != r.last {
		return fmt.Errorf("imaging: check %s: its last MiB was changed", d.Name())
	}
	return eachChunk(ctx, 4, len(picks), func(ctx context.Context, next func() (int, bool)) error {
		b := disk.Buffer(ChunkSize)
		for k, ok := next(); ok; k, ok = next() {
			i := picks[k]
			if err := r.compare(d, i, b[:min(ChunkSize, r.Bytes-int64(i)*ChunkSize)], false, nil); err != nil {
				return err
			}
		}
		return nil
	})
}
