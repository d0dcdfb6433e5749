package imaging

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hostler-project/hostler/imaging/disk"
)

// headSize is how much of both ends of the disk is zeroed first; the first of them is written last.
const headSize = mib

// seedSize is the size of an appended seed partition (design.md, section 9).
const seedSize = 16 * mib

// Options tune a Write; the zero value is good.
type Options struct {
	Progress func(Progress)
	Workers  int           // goroutines that fetch, check and write; 0: as the machine has cores, 4 to 32
	Tries    int           // how often a chunk with wrong bytes is fetched; 0 means 5
	Patience time.Duration // how long a chunk may get no bytes at all before the write is given up; 0 means 5 min
	Attempt  time.Duration // deadline of one fetch of one chunk; 0 means 1 min
}

// A Result is what a Write did. It remembers keyed hashes of all it wrote, for CheckWarm by the same process.
type Result struct {
	Bytes    int64         // raw size of the image
	Zeroed   int64         // of these, zeroed by command
	Packed   int64         // compressed bytes fetched, repeats included
	Retries  int           // fetches that had to be repeated
	Moved    bool          // the backup partition table went to the end of a larger disk
	Writing  time.Duration // fetching, checking, writing, flushing
	Reading  time.Duration // reading back
	Remarks  []string      // what was done another way than hoped, and why
	key      uint64
	sums     []uint64 // per chunk as written; 0 for zero chunks
	last     uint64   // of the disk's last MiB
	diskSize int64
}

// Write puts the image on the disk. It returns nil only when every byte was checked against the manifest, written,
// flushed and read back from the medium. Before anything is written, a disk that does not fit is refused; from the
// first write until everything else was read back, the first MiB is zero, so that a cut write never boots.
func Write(ctx context.Context, m *Manifest, src Source, d disk.Device, o Options) (*Result, error) {
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("imaging: write: %w", err)
	}
	w := &writer{m: m, src: src, d: d, o: o, r: &Result{Bytes: m.Size, key: rand.Uint64(), sums: make([]uint64, len(m.Chunks)), diskSize: d.Size()}}
	w.o.Tries, w.o.Patience, w.o.Attempt = max(o.Tries, 0), max(o.Patience, 0), max(o.Attempt, 0)
	if w.o.Tries == 0 {
		w.o.Tries = 5
	}
	if w.o.Patience == 0 {
		w.o.Patience = 5 * time.Minute
	}
	if w.o.Attempt == 0 {
		w.o.Attempt = time.Minute
	}
	if w.o.Workers <= 0 {
		w.o.Workers = min(max(4, runtime.GOMAXPROCS(0)+2), 32)
	}
	if err := w.fits(); err != nil {
		return nil, err
	}
	if err := w.begin(ctx); err != nil {
		return nil, err
	}
	start := time.Now()
	if err := w.body(ctx); err != nil {
		return nil, err
	}
	w.r.Writing = time.Since(start)
	start = time.Now()
	if err := w.readBack(ctx); err != nil {
		return nil, err
	}
	w.r.Reading = time.Since(start)
	if err := w.finish(ctx); err != nil {
		return nil, err
	}
	w.r.Retries, w.r.Packed = int(w.retries.Load()), w.packed.Load()
	if f, ok := d.(interface {
		Cached() string
		ZeroedSlowly() string
	}); ok {
		if why := f.Cached(); why != "" {
			w.r.Remarks = append(w.r.Remarks, "not direct I/O: "+why)
		}
		if why := f.ZeroedSlowly(); why != "" {
			w.r.Remarks = append(w.r.Remarks, "zeros were written one by one: "+why)
		}
	}
	return w.r, nil
}

type writer struct {
	m       *Manifest
	src     Source
	d       disk.Device
	o       Options
	r       *Result
	head    []byte  // chunk 0 as it shall be
	patches []patch // what the image's bytes become on this disk, beside the head
	retries atomic.Int64
	packed  atomic.Int64
}

// A patch replaces bytes of the image, or follows them.
type patch struct {
	off int64
	b   []byte
}

// put lays the part of the patch that falls into [off, off+len(b)) over b and says whether there was one.
func (p patch) put(b []byte, off int64) bool {
	from, to := max(p.off, off), min(p.off+int64(len(p.b)), off+int64(len(b)))
	if from >= to {
		return false
	}
	copy(b[from-off:to-off], p.b[from-p.off:])
	return true
}

func (w *writer) fits() error {
	if s := w.d.SectorSize(); s != w.m.SectorSize {
		return fmt.Errorf("imaging: write %s: its sectors have %d bytes, image %s is made for %d: reformat the drive or use another image",
			w.d.Name(), s, w.m.Name, w.m.SectorSize)
	}
	if w.d.Size() < w.m.Size {
		return fmt.Errorf("imaging: write %s: disk too small: it has %d bytes, image %s needs %d", w.d.Name(), w.d.Size(), w.m.Name, w.m.Size)
	}
	return nil
}

// begin fetches the first chunk, which decides what else is written where, and only then zeroes both ends of the disk.
func (w *writer) begin(ctx context.Context) error {
	if w.m.Chunks[0].Zero {
		return fmt.Errorf("imaging: write %s: image %s begins with zeros: it has no partition table", w.d.Name(), w.m.Name)
	}
	u, err := newUnpacker()
	if err != nil {
		return err
	}
	defer u.close()
	w.head = disk.Buffer(w.m.Length(0))
	if err := w.fetch(ctx, u, 0, w.head, make([]byte, MaxPacked+1)); err != nil {
		return err
	}
	if err := checkFirst(w.m, 0, w.head); err != nil {
		return err
	}
	if err := w.moveTable(); err != nil {
		return err
	}
	for _, off := range []int64{0, w.d.Size() - headSize} {
		if err := w.d.Zero(ctx, off, headSize); err != nil {
			return fmt.Errorf("imaging: write %s: %w", w.d.Name(), err)
		}
	}
	if err := w.d.Sync(); err != nil {
		return fmt.Errorf("imaging: write %s: %w", w.d.Name(), err)
	}
	b := disk.Buffer(headSize)
	for _, off := range []int64{0, w.d.Size() - headSize} {
		if _, err := w.d.ReadAt(b, off); err != nil || !disk.IsZero(b) {
			return fmt.Errorf("imaging: write %s: the MiB at %d was zeroed and does not read as zeros (%v)", w.d.Name(), off, err)
		}
	}
	return nil
}

// moveTable computes the partition table for this disk: the backup belongs to its real end.
func (w *writer) moveTable() error {
	t, err := disk.ReadTable(byteReader(w.head), w.m.SectorSize)
	if err != nil {
		return fmt.Errorf("imaging: image %s: %w", w.m.Name, err)
	}
	old := int64(t.Last) * int64(t.Sector)
	if old >= w.m.Size || len(t.Head()) > headSize {
		return fmt.Errorf("imaging: image %s: its partition table is of a larger disk: truncated", w.m.Name)
	}
	if w.r.Moved = old+int64(t.Sector) != w.d.Size(); w.r.Moved {
		t.Grow(w.d.Size())
		copy(w.head, t.Head())
		w.patches = []patch{
			{old, make([]byte, t.Sector)}, // no second backup header in the middle of the disk
			{t.TailOffset(), t.Tail()},
		}
	}
	if _, reserved := t.Find(isSeed); !reserved {
		if _, err := t.Append(seedSize, disk.TypeData, SeedLabel); err != nil {
			return fmt.Errorf("imaging: write %s: disk too small for image %s and its seed: %w", w.d.Name(), w.m.Name, err)
		}
	}
	return nil
}

// body writes everything but the first MiB, and flushes.
func (w *writer) body(ctx context.Context) error {
	meter := &meter{say: w.o.Progress, p: Progress{Phase: "write", Total: w.m.Size}}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return w.zeroRuns(ctx, meter) })
	g.Go(func() error {
		return eachChunk(ctx, w.o.Workers, len(w.m.Chunks), func(ctx context.Context, next func() (int, bool)) error {
			u, err := newUnpacker()
			if err != nil {
				return err
			}
			defer u.close()
			raw, packed := disk.Buffer(ChunkSize), make([]byte, MaxPacked+1)
			for i, ok := next(); ok; i, ok = next() {
				if w.plainZero(i) {
					continue
				}
				b := raw[:w.m.Length(i)]
				if err := w.chunk(ctx, u, i, b, packed); err != nil {
					return err
				}
				meter.add(len(b), w.m.Chunks[i].Packed)
			}
			return nil
		})
	})
	if err := g.Wait(); err != nil {
		return err
	}
	for _, p := range w.patches {
		if b, off := p.beyond(w.m.Size); len(b) > 0 {
			if _, err := w.d.WriteAt(b, off); err != nil {
				return fmt.Errorf("imaging: write %s at %d: %w", w.d.Name(), off, err)
			}
		}
	}
	if err := w.d.Sync(); err != nil {
		return fmt.Errorf("imaging: write %s: %w", w.d.Name(), err)
	}
	return nil
}

// beyond is the part of the patch that follows an image of that size.
func (p patch) beyond(size int64) ([]byte, int64) {
	skip := min(max(size-p.off, 0), int64(len(p.b)))
	return p.b[skip:], p.off + skip
}

// plainZero says whether chunk i is zero and stays so.
func (w *writer) plainZero(i int) bool {
	if !w.m.Chunks[i].Zero {
		return false
	}
	off, end := int64(i)*ChunkSize, int64(i)*ChunkSize+int64(w.m.Length(i))
	for _, p := range w.patches {
		if p.off < end && off < p.off+int64(len(p.b)) && !disk.IsZero(p.b) {
			return false
		}
	}
	return true
}

func (w *writer) zeroRuns(ctx context.Context, meter *meter) error {
	for i := 0; i < len(w.m.Chunks); {
		n := int64(0)
		k := i
		for k < len(w.m.Chunks) && w.plainZero(k) {
			n += int64(w.m.Length(k))
			k++
		}
		if n == 0 {
			i++
			continue
		}
		if err := w.d.Zero(ctx, int64(i)*ChunkSize, n); err != nil {
			return fmt.Errorf("imaging: write %s: %w", w.d.Name(), err)
		}
		w.r.Zeroed += n
		meter.add(int(n), 0)
		i = k
	}
	return nil
}

// chunk fetches, patches, remembers and writes one chunk; of the first one, all behind the first MiB.
func (w *writer) chunk(ctx context.Context, u *unpacker, i int, b, packed []byte) error {
	off := int64(i) * ChunkSize
	switch {
	case i == 0:
		copy(b, w.head)
	case w.m.Chunks[i].Zero:
		clear(b)
	default:
		if err := w.fetch(ctx, u, i, b, packed); err != nil {
			return err
		}
	}
	for _, p := range w.patches {
		p.put(b, off)
	}
	w.r.sums[i] = disk.Sum(w.r.key, b)
	if i == 0 {
		copy(w.head, b)
		b, off = b[headSize:], headSize
	}
	if _, err := w.d.WriteAt(b, off); err != nil {
		return fmt.Errorf("imaging: write %s at %d: %w", w.d.Name(), off, err)
	}
	return nil
}

// fetch gets chunk i until it is right. A source that is away is waited for, wrong bytes are asked for again a few
// times, and a final answer ends it.
func (w *writer) fetch(ctx context.Context, u *unpacker, i int, raw, packed []byte) error {
	c := w.m.Chunks[i]
	begin, wrong := time.Now(), 0
	for try := 0; ; try++ {
		err := func() error {
			ctx, cancel := context.WithTimeout(ctx, w.o.Attempt)
			defer cancel()
			r, err := w.src.Chunk(ctx, c.SHA256, c.Packed)
			if err != nil {
				return err
			}
			defer r.Close()
			b, err := readPacked(r, packed)
			w.packed.Add(int64(len(b)))
			if err != nil {
				return err
			}
			return u.unpack(raw, b, c.SHA256)
		}()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("imaging: chunk %d: %w", i, context.Cause(ctx))
		}
		if errors.Is(err, ErrContent) {
			wrong++
		}
		var final *SourceError
		if errors.As(err, &final) || wrong >= w.o.Tries || time.Since(begin) > w.o.Patience {
			return fmt.Errorf("imaging: chunk %d of image %s, tried %d times: %w", i, w.m.Name, try+1, err)
		}
		w.retries.Add(1)
		pause := min(50*time.Millisecond<<min(try, 7), 5*time.Second)
		select {
		case <-ctx.Done():
		case <-time.After(pause/2 + rand.N(pause/2)):
		}
	}
}

// finish writes the first MiB: all but its first sector, then that (one sector is what a drive writes whole or not at
// all; without it neither BIOS nor UEFI boots). What fails here leaves a disk that does not boot.
func (w *writer) finish(ctx context.Context) error {
	err := func() error {
		sector := int64(w.d.SectorSize())
		for _, part := range []struct{ from, to int64 }{{sector, headSize}, {0, sector}} {
			if err := ctx.Err(); err != nil {
				return err
			}
			if _, err := w.d.WriteAt(w.head[part.from:part.to], part.from); err != nil {
				return fmt.Errorf("imaging: write %s at %d: %w", w.d.Name(), part.from, err)
			}
			if err := w.d.Sync(); err != nil {
				return fmt.Errorf("imaging: write %s: %w", w.d.Name(), err)
			}
		}
		return w.r.compare(w.d, 0, disk.Buffer(w.m.Length(0)), false, nil)
	}()
	if err != nil {
		clean := context.WithoutCancel(ctx)
		return errors.Join(err, w.d.Zero(clean, 0, headSize), w.d.Sync())
	}
	if f, ok := w.d.(interface{ Reread() }); ok {
		f.Reread()
	}
	return nil
}

// byteReader reads from memory at any offset.
type byteReader []byte

// ReadAt never reads past the bytes that there are.
func (b byteReader) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > int64(len(b)) {
		return 0, errors.New("past the bytes that are there")
	}
	return copy(p, b[off:]), nil
}
