package imaging

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hostler-project/hostler/imaging/disk"
)

// quick gives up soon.
var quick = Options{Tries: 3, Patience: 300 * time.Millisecond, Attempt: 20 * time.Second}

// serve serves an image over HTTP as hostlerd does; spoil may answer in its place.
func serve(t testing.TB, f *Folder, spoil func(w http.ResponseWriter, r *http.Request, body []byte) bool) *HTTPSource {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		kind, digest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/image/"+f.Digest+"/"), "/")
		name := filepath.Join(f.Path, chunkFolder, digest+chunkExt)
		if kind == "blob" {
			name = filepath.Join(f.Path, blobFolder, digest)
		}
		b, err := os.ReadFile(name)
		if err != nil || !IsDigest(digest) {
			http.NotFound(w, r)
			return
		}
		if spoil == nil || !spoil(w, r, b) {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
		}
	}))
	t.Cleanup(s.Close)
	return &HTTPSource{Base: s.URL, Image: f.Digest, Client: NewHTTPClient(nil)}
}

func headIsZero(t testing.TB, d disk.Device) bool {
	t.Helper()
	b := disk.Buffer(mib)
	if _, err := d.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return disk.IsZero(b)
}

// F-27: whatever the server does, either the disk is right or its first MiB is zero.
func TestBadServers(t *testing.T) {
	t.Parallel()
	f, _ := packed(t, rawDisk(t, testSize, someData))
	other, _ := packed(t, rawDisk(t, testSize, func(b []byte) { copy(b[5*mib:], "another valid image") }))
	swapped, err := os.ReadFile(filepath.Join(other.Path, chunkFolder, other.Manifest.Chunks[1].SHA256+chunkExt))
	if err != nil {
		t.Fatal(err)
	}
	p, err := newPacker()
	if err != nil {
		t.Fatal(err)
	}
	bomb := p.pack(make([]byte, 512*mib), nil)
	victim := f.Manifest.Chunks[2].SHA256
	var n atomic.Int32
	once := func(bad func(w http.ResponseWriter, r *http.Request, b []byte)) func(http.ResponseWriter, *http.Request, []byte) bool {
		n.Store(0)
		return func(w http.ResponseWriter, r *http.Request, b []byte) bool {
			if !strings.HasSuffix(r.URL.Path, victim) || n.Add(1) > 1 {
				return false
			}
			bad(w, r, b)
			return true
		}
	}
	always := func(bad func(w http.ResponseWriter, r *http.Request, b []byte)) func(http.ResponseWriter, *http.Request, []byte) bool {
		return func(w http.ResponseWriter, r *http.Request, b []byte) bool {
			if !strings.HasSuffix(r.URL.Path, victim) {
				return false
			}
			bad(w, r, b)
			return true
		}
	}
	flip := func(w http.ResponseWriter, _ *http.Request, b []byte) { b[len(b)/2] ^= 1; w.Write(b) }
	short := func(w http.ResponseWriter, _ *http.Request, b []byte) {
		w.Header().Set("Content-Length", fmt.Sprint(len(b)))
		w.Write(b[:len(b)-1])
	}
	for _, c := range []struct {
		name, want string // want "" means that it gets over it
		spoil      func(http.ResponseWriter, *http.Request, []byte) bool
	}{
		{"healthy", "", nil},
		{"one bit flipped once", "", once(flip)},
		{"one bit flipped always", "not what the digest says", always(flip)},
		{"one byte less than announced, once", "", once(short)},
		{"one byte less than announced, always", "unexpected EOF", always(short)},
		{"truncated and says so", "not what the digest says", always(func(w http.ResponseWriter, _ *http.Request, b []byte) { w.Write(b[:len(b)/2]) })},
		{"trailing garbage", "not what the digest says", always(func(w http.ResponseWriter, _ *http.Request, b []byte) { w.Write(append(b, "garbage"...)) })},
		{"endless body", "not what the digest says", always(func(w http.ResponseWriter, r *http.Request, b []byte) {
			for range 64 {
				if _, err := w.Write(make([]byte, 128<<10)); err != nil {
					return
				}
			}
		})},
		{"another image's chunk", "not what the digest says", always(func(w http.ResponseWriter, _ *http.Request, _ []byte) { w.Write(swapped) })},
		{"zstd bomb", "not what the digest says", always(func(w http.ResponseWriter, _ *http.Request, _ []byte) { w.Write(bomb) })},
		{"empty", "not what the digest says", always(func(http.ResponseWriter, *http.Request, []byte) {})},
		{"500 once", "", once(func(w http.ResponseWriter, _ *http.Request, _ []byte) { w.WriteHeader(500) })},
		{"503 always", "503", always(func(w http.ResponseWriter, _ *http.Request, _ []byte) { w.WriteHeader(503) })},
		{"404", "404", always(func(w http.ResponseWriter, r *http.Request, _ []byte) { http.NotFound(w, r) })},
		{"redirect", "redirected", always(func(w http.ResponseWriter, r *http.Request, _ []byte) {
			http.Redirect(w, r, "http://127.0.0.2:9/x", 302)
		})},
		{"slow loris once", "", once(func(w http.ResponseWriter, r *http.Request, b []byte) {
			w.Header().Set("Content-Length", fmt.Sprint(len(b)))
			w.Write(b[:100])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		})},
	} {
		t.Run(c.name, func(t *testing.T) {
			n.Store(0)
			d := target(t, 64*mib)
			o := quick
			if c.name == "slow loris once" {
				o.Attempt, o.Patience = 300*time.Millisecond, 10*time.Second
			}
			r, err := Write(t.Context(), f.Manifest, serve(t, f, c.spoil), d, o)
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, want %q", err, c.want)
				}
				if !headIsZero(t, d) {
					t.Error("the disk could boot")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := r.CheckWarm(t.Context(), d, 64); err != nil {
				t.Error(err)
			}
			if (n.Load() > 1) != (r.Retries > 0) {
				t.Errorf("asked %d times, says %d retries", n.Load(), r.Retries)
			}
		})
	}
}

// The daemon is killed in the middle and comes back: the write goes on where it was.
func TestASourceThatDiesAndComesBack(t *testing.T) {
	t.Parallel()
	f, _ := packed(t, rawDisk(t, testSize, someData))
	src := &flaky{f: f, dieAfter: 2, away: 4}
	d := target(t, 64*mib)
	r, err := Write(t.Context(), f.Manifest, src, d, Options{Workers: 1})
	if err != nil || r.Retries != 4 {
		t.Fatalf("%+v %v", r, err)
	}
	if src.given > len(f.Manifest.Digests()) {
		t.Errorf("%d chunks were fetched of %d", src.given, len(f.Manifest.Digests()))
	}
}

type flaky struct {
	f                     *Folder
	mu                    sync.Mutex
	given, dieAfter, away int
}

func (s *flaky) Chunk(ctx context.Context, digest string, n int) (io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.given >= s.dieAfter && s.away > 0 {
		s.away--
		return nil, errors.New("connection refused")
	}
	s.given++
	return s.f.Chunk(ctx, digest, n)
}

// A faulty is a disk with faults.
type faulty struct {
	*disk.File
	mu      sync.Mutex
	left    int64 // bytes that still can be written before the machine dies; -1: all
	flipAt  int64 // a bit that the medium does not keep; -1: none
	deafAt  int64 // a write that it forgets; -1: none
	badRead int64 // a place that cannot be read; -1: none
	writes  []int64
	wrote   int64
}

var errCut = errors.New("power was cut")

func (d *faulty) WriteAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.writes, d.wrote = append(d.writes, off), d.wrote+int64(len(p))
	if off <= d.deafAt && d.deafAt < off+int64(len(p)) {
		return len(p), nil
	}
	b := p
	if off <= d.flipAt && d.flipAt < off+int64(len(p)) {
		b = disk.Buffer(len(p))
		copy(b, p)
		b[d.flipAt-off] ^= 4
	}
	if d.left >= 0 && int64(len(b)) > d.left {
		n, _ := d.File.WriteAt(b[:d.left], off)
		d.left = 0
		return n, errCut
	}
	if d.left >= 0 {
		d.left -= int64(len(b))
	}
	return d.File.WriteAt(b, off)
}

func (d *faulty) Zero(ctx context.Context, off, n int64) error {
	d.mu.Lock()
	dead := d.left == 0
	d.mu.Unlock()
	if dead {
		return errCut
	}
	return d.File.Zero(ctx, off, n)
}

func (d *faulty) ReadAt(p []byte, off int64) (int, error) {
	if off <= d.badRead && d.badRead < off+int64(len(p)) {
		return 0, errors.New("unrecovered read error")
	}
	return d.File.ReadAt(p, off)
}

func newFaulty(t testing.TB, size int64) *faulty {
	return &faulty{File: target(t, size), left: -1, flipAt: -1, deafAt: -1, badRead: -1}
}

// However many bytes reach the medium before the power goes, the disk does not boot: its first sector is zero, and
// until everything else was read back, the whole first MiB is.
func TestACutWriteNeverBoots(t *testing.T) {
	t.Parallel()
	f, _ := packed(t, rawDisk(t, testSize, someData))
	whole := newFaulty(t, 64*mib)
	if _, err := Write(t.Context(), f.Manifest, f, whole, Options{Workers: 1}); err != nil {
		t.Fatal(err)
	}
	body := whole.wrote - mib // the first MiB comes last
	try := func(t testing.TB, left int64) {
		d := newFaulty(t, 64*mib)
		d.left = left
		_, err := Write(context.Background(), f.Manifest, f, d, Options{Workers: 1})
		if err == nil {
			t.Fatalf("cut after %d bytes: no error", left)
		}
		b := disk.Buffer(mib)
		if _, err := d.File.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		if !disk.IsZero(b[:512]) {
			t.Errorf("cut after %d bytes: the first sector is there", left)
		}
		if left < body && !disk.IsZero(b) {
			t.Errorf("cut after %d bytes: something of the first MiB is there", left)
		}
	}
	// Chunk 0 without its first MiB, chunk 2, the short chunk 6, the backup table, the first MiB, its first sector.
	for _, edge := range []int64{3 * mib, 7 * mib, 9*mib + 512*7, body, body + mib - 512, body + mib} {
		for _, off := range []int64{-512, 0, 512} {
			if left := edge + off; left < whole.wrote {
				try(t, left)
			}
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 12 {
		try(t, 512*(1+r.Int64N(whole.wrote/512-1)))
	}
	if last := whole.writes[len(whole.writes)-1]; last != 0 {
		t.Errorf("the last write was at %d", last)
	}
}

func TestABadMediumIsSeen(t *testing.T) {
	t.Parallel()
	f, _ := packed(t, rawDisk(t, testSize, someData))
	for _, c := range []struct {
		name, want string
		odd        func(d *faulty)
	}{
		{"a flipped bit", "not what was written", func(d *faulty) { d.flipAt = 9*mib + 77 }},
		{"a forgotten write", "not what was written", func(d *faulty) { d.deafAt = 9 * mib }},
		{"a flipped bit in the first MiB", "not what was written", func(d *faulty) { d.flipAt = mib / 2 }},
		{"a flipped bit in the backup table", "not what was written", func(d *faulty) { d.flipAt = 64*mib - 500 }},
		{"unreadable", "unrecovered read error", func(d *faulty) { d.badRead = 10 * mib }},
		{"unreadable zeros", "unrecovered read error", func(d *faulty) { d.badRead = 5 * mib }},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newFaulty(t, 64*mib)
			c.odd(d)
			_, err := Write(t.Context(), f.Manifest, f, d, quick)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if !headIsZero(t, d.File) {
				t.Error("the disk could boot")
			}
		})
	}
}

func TestADiskThatDoesNotFitIsNotTouched(t *testing.T) {
	t.Parallel()
	f, _ := packed(t, rawDisk(t, testSize, someData))
	evil := *f.Manifest
	evil.Chunks = append([]Chunk{{Zero: true}}, f.Manifest.Chunks[1:]...)
	for _, c := range []struct {
		name, want   string
		m            *Manifest
		size, sector int64
	}{
		{"too small", "disk too small", f.Manifest, testSize - 4096, 512},
		{"no room for the seed", "its seed", f.Manifest, testSize + 4*mib, 512},
		{"other sectors", "its sectors have 4096 bytes", f.Manifest, 64 * mib, 4096},
		{"no partition table", "no partition table", &evil, 64 * mib, 512},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := target(t, c.size).Name()
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			d, err := disk.Open(path, disk.Options{Sector: int(c.sector)})
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			if _, err := Write(t.Context(), c.m, f, d, quick); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
				t.Error("it was written to")
			}
		})
	}
}

// A signed image whose first chunk is a container gets no further than the node's memory.
func TestTheNodeSniffsAgain(t *testing.T) {
	f, _ := packed(t, rawDisk(t, testSize, someData))
	raw := append([]byte("QFI\xfb"), make([]byte, ChunkSize-4)...)
	p, err := newPacker()
	if err != nil {
		t.Fatal(err)
	}
	m := *f.Manifest
	packed := p.pack(raw, nil)
	m.Chunks = append([]Chunk{{SHA256: Digest(raw), Packed: len(packed)}}, f.Manifest.Chunks[1:]...)
	if err := os.WriteFile(filepath.Join(f.Path, chunkFolder, m.Chunks[0].SHA256+chunkExt), packed, 0o600); err != nil {
		t.Fatal(err)
	}
	d := target(t, 64*mib)
	var fe *FormatError
	if _, err := Write(t.Context(), &m, f, d, quick); !errors.As(err, &fe) || fe.Format != "qcow2" {
		t.Errorf("got %v", err)
	}
	if headIsZero(t, d) {
		t.Error("the disk was touched")
	}
}

func TestACancelledWriteStops(t *testing.T) {
	f, _ := packed(t, rawDisk(t, testSize, someData))
	ctx, cancel := context.WithCancel(t.Context())
	d := target(t, 64*mib)
	src := serve(t, f, func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
		if strings.HasSuffix(r.URL.Path, f.Manifest.Chunks[2].SHA256) {
			cancel()
			<-r.Context().Done()
			return true
		}
		return false
	})
	if _, err := Write(ctx, f.Manifest, src, d, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if !headIsZero(t, d) {
		t.Error("the disk could boot")
	}
}

func TestBlobsAreChecked(t *testing.T) {
	f, _ := packed(t, rawDisk(t, testSize, someData))
	var b bytes.Buffer
	if err := serve(t, f, nil).Blob(t.Context(), *f.Manifest.Kernel, &b); err != nil || b.String() != "MZ kernel" {
		t.Errorf("%q %v", b.String(), err)
	}
	for name, body := range map[string]string{"changed": "MZ kernex", "short": "MZ", "long": "MZ kernel and more"} {
		src := serve(t, f, func(w http.ResponseWriter, _ *http.Request, _ []byte) bool { io.WriteString(w, body); return true })
		if err := src.Blob(t.Context(), *f.Manifest.Kernel, io.Discard); !errors.Is(err, ErrContent) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// BenchmarkWrite is performance.md section 4: bytes of disk per second, 70 % zeros, HTTP, verification and read-back
// included.
func BenchmarkWrite(b *testing.B) {
	const size = 512 * mib
	raw := rawDisk(b, size, func(p []byte) {
		text := bytes.Repeat([]byte("The quick brown fox jumps over the lazy dog. 0123456789 "), 4*mib/56)
		for i := 0; i < len(p); i += 40 * mib {
			end := min(i+12*mib, len(p))
			copy(p[i:end], text)
			for k := i; k < end-8; k += 64 { // compresses about as a file system does
				x := uint64(k) * 0x9e3779b97f4a7c15
				for j := range 8 {
					p[k+j] = byte(x >> (8 * j))
				}
			}
		}
	})
	key, pub := testKey(b)
	out := filepath.Join(b.TempDir(), "img")
	p, err := Pack(b.Context(), PackOptions{Disk: raw, Out: out, Name: "bench", BootModes: []string{"uefi"}, Key: key})
	if err != nil {
		b.Fatal(err)
	}
	f, err := VerifyFolder(b.Context(), out, []PublicKey{pub}, nil)
	if err != nil {
		b.Fatal(err)
	}
	src := serve(b, f, nil)
	b.SetBytes(size)
	var wr, rd time.Duration
	for b.Loop() {
		d := target(b, size+32*mib)
		r, err := Write(b.Context(), f.Manifest, src, d, Options{})
		if err != nil {
			b.Fatal(err)
		}
		wr, rd = wr+r.Writing, rd+r.Reading
		d.Close()
		os.Remove(d.Name())
	}
	b.ReportMetric(float64(p.Bytes)/mib, "packed-MiB")
	b.ReportMetric(float64(b.N)*size/1e6/wr.Seconds(), "write-MB/s")
	b.ReportMetric(float64(b.N)*size/1e6/rd.Seconds(), "readback-MB/s")
}
