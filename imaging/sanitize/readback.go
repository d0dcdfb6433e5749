package sanitize

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	randv2 "math/rand/v2"
	"sync"

	"github.com/hostler-project/hostler/imaging/disk"
	"github.com/hostler-project/hostler/inventory"
)

// A tag begins every marker of one erasure: random, so that nothing else looks like it.
type tag [24]byte

func newTag() tag {
	var t tag
	rand.Read(t[:]) // never fails
	return t
}

// A find is what was planted in and taken from one namespace before the erasure.
type find struct {
	n       namespace
	markers []int64
	prints  map[int64]uint64 // offset → keyed hash of a block that held data
	key     uint64
}

// prepare takes fingerprints of data that is there, plants the markers, and reads them again: what cannot be written
// cannot be looked for.
func (e *eraser) prepare(ctx context.Context) []find {
	var all []find
	for _, n := range e.spaces {
		f, err := e.mark(ctx, n)
		if err != nil {
			e.fault("namespace %d: %v", n.ID, err)
			return nil
		}
		all = append(all, f)
	}
	return all
}

func (e *eraser) mark(ctx context.Context, n namespace) (find, error) {
	f := find{n: n, prints: map[int64]uint64{}, key: randv2.Uint64()}
	d, err := e.d.Open(n.ID)
	if err != nil {
		return f, err
	}
	defer d.Close()
	if d.Size() != n.Size || d.SectorSize() != n.LBA {
		return f, fmt.Errorf("the block device has %d bytes in blocks of %d, the drive says %d of %d", d.Size(), d.SectorSize(), n.Size, n.LBA)
	}
	b := disk.Buffer(printSize)
	for _, off := range places(n.Size, printSize, prints, randv2.Int64N) {
		if err := ctx.Err(); err != nil {
			return f, err
		}
		if _, err := d.ReadAt(b, off); err == nil && !disk.IsZero(b) && !disk.IsOnes(b) { // unreadable now: read again after
			f.prints[off] = disk.Sum(f.key, b)
		}
	}
	mark := disk.Buffer(n.LBA)
	rand.Read(mark)
	copy(mark, e.tag[:])
	f.markers = places(n.Size, int64(n.LBA), markers, randv2.Int64N)
	for _, off := range f.markers {
		binary.LittleEndian.PutUint64(mark[len(e.tag):], uint64(off))
		if _, err := d.WriteAt(mark, off); err != nil {
			return f, fmt.Errorf("plant a marker at %d: %w", off, err)
		}
	}
	if err := d.Sync(); err != nil {
		return f, fmt.Errorf("plant markers: %w", err)
	}
	got := disk.Buffer(n.LBA)
	for _, off := range f.markers {
		binary.LittleEndian.PutUint64(mark[len(e.tag):], uint64(off))
		if _, err := d.ReadAt(got, off); err != nil || !bytes.Equal(got, mark) {
			return f, fmt.Errorf("the marker at %d does not read back (%v): the drive keeps no writes", off, err)
		}
	}
	return f, nil
}

// readBack looks at every namespace and judges.
func (e *eraser) readBack(ctx context.Context, finds []find) {
	for _, f := range finds {
		r, err := e.look(ctx, f)
		e.p.Reads = append(e.p.Reads, r)
		if err != nil {
			e.fault("namespace %d: read back: %v", f.n.ID, err)
			continue
		}
		zero, ones, other := e.t.leaves(f.n.reads)
		for _, c := range []struct {
			wrong bool
			what  string
		}{
			{r.Found > 0, fmt.Sprintf("%d of %d markers are still there: the drive erased nothing or not all", r.Found, r.Planted)},
			{r.Unchanged > 0, fmt.Sprintf("%d of %d sampled blocks still hold what they held: the drive did not erase them", r.Unchanged, r.Printed)},
			{r.Looked < r.Planted, fmt.Sprintf("%d of %d places of markers cannot be read", r.Planted-r.Looked, r.Planted)},
			{r.Unreadable > 0, fmt.Sprintf("%d bytes cannot be read", r.Unreadable)},
			{r.Zero > 0 && !zero, fmt.Sprintf("%d bytes read as zeros, which %s does not leave on this drive", r.Zero, e.t.name)},
			{r.Ones > 0 && !ones, fmt.Sprintf("%d bytes read as ones, which %s does not leave on this drive", r.Ones, e.t.name)},
			{r.Other > 0 && !other, fmt.Sprintf("%d bytes are neither zeros nor ones, which %s does not leave on this drive", r.Other, e.t.name)},
			{r.Bytes == 0, "nothing was read"},
		} {
			if c.wrong {
				e.fault("namespace %d: %s", f.n.ID, c.what)
			}
		}
	}
}

// giveUp is how many unreadable bytes are enough: every read of a dying drive may take half a minute.
const giveUp = 64 << 20

// look reads one namespace as planned, with several requests in flight.
func (e *eraser) look(ctx context.Context, f find) (inventory.ReadBack, error) {
	r := inventory.ReadBack{Namespace: f.n.ID, Planted: len(f.markers), Printed: len(f.prints)}
	d, err := e.d.Open(f.n.ID)
	if err != nil {
		return r, err
	}
	defer d.Close()
	if d.Size() != f.n.Size {
		return r, fmt.Errorf("it has %d bytes now and had %d", d.Size(), f.n.Size)
	}
	b := disk.Buffer(f.n.LBA)
	for _, off := range f.markers {
		if _, err := d.ReadAt(b, off); err == nil {
			r.Looked++
			if bytes.HasPrefix(b, e.tag[:]) {
				r.Found++
			}
		}
	}
	b = disk.Buffer(printSize)
	for off, was := range f.prints {
		if _, err := d.ReadAt(b, off); err != nil {
			r.Unreadable += printSize
		} else if disk.Sum(f.key, b) == was {
			r.Unchanged++
		}
	}
	spans, words := plan(f.n.Size, e.t.method == inventory.MethodClear, randv2.Int64N)
	r.Plan = words
	var total int64
	for _, s := range spans {
		total += s.n
	}
	work := make(chan span)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			b := disk.Buffer(readStep)
			for s := range work {
				got := e.count(d, b[:s.n], s.off, f.n.LBA)
				mu.Lock()
				r.Bytes, r.Zero, r.Ones, r.Other = r.Bytes+got.Bytes, r.Zero+got.Zero, r.Ones+got.Ones, r.Other+got.Other
				r.Unreadable, r.Found = r.Unreadable+got.Unreadable, max(r.Found, got.Found)
				e.tell("read back", r.Bytes+r.Unreadable, total)
				mu.Unlock()
			}
		})
	}
	for _, s := range spans {
		mu.Lock()
		dead := r.Unreadable > giveUp
		mu.Unlock()
		if dead || ctx.Err() != nil {
			break
		}
		work <- s
	}
	close(work)
	wg.Wait()
	return r, ctx.Err()
}

// count reads one span and sorts its bytes. A request that fails is repeated in small pieces, to say how much is
// unreadable.
func (e *eraser) count(d Namespace, b []byte, off int64, lba int) (r inventory.ReadBack) {
	if _, err := d.ReadAt(b, off); err != nil {
		small := max(lba, 64<<10)
		if len(b) <= small {
			r.Unreadable = int64(len(b))
			return r
		}
		for at := 0; at < len(b); at += small {
			piece := b[at:min(at+small, len(b))]
			got := e.count(d, piece, off+int64(at), lba)
			r.Bytes, r.Zero, r.Ones, r.Other = r.Bytes+got.Bytes, r.Zero+got.Zero, r.Ones+got.Ones, r.Other+got.Other
			r.Unreadable, r.Found = r.Unreadable+got.Unreadable, r.Found+got.Found
		}
		return r
	}
	r.Bytes = int64(len(b))
	switch {
	case disk.IsZero(b):
		r.Zero = r.Bytes
	case disk.IsOnes(b):
		r.Ones = r.Bytes
	default:
		r.Found = bytes.Count(b, e.tag[:])
		for at := 0; at < len(b); at += printSize {
			switch p := b[at:min(at+printSize, len(b))]; {
			case disk.IsZero(p):
				r.Zero += int64(len(p))
			case disk.IsOnes(p):
				r.Ones += int64(len(p))
			default:
				r.Other += int64(len(p))
			}
		}
	}
	return r
}
