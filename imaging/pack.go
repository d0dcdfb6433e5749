package imaging

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"aead.dev/minisign"
	"github.com/google/renameio/v2"
	"golang.org/x/sync/errgroup"

	"github.com/hostler-project/hostler/imaging/disk"
)

// The names inside an image folder.
const (
	manifestFile  = "manifest.json"
	signatureFile = "manifest.json.minisig"
	chunkFolder   = "chunks"
	blobFolder    = "blobs"
	chunkExt      = ".zst"
)

// SeedLabel names the partition and file system that NoCloud looks for.
const SeedLabel = "CIDATA"

// PackOptions say what becomes an image. Kernel, Initrd and Cmdline are for kexec; without them only a reboot enters
// the image.
type PackOptions struct {
	Disk       string // raw disk with a GUID partition table
	Out        string // folder to make; must not hold another image
	Name       string
	OS         string // for people, such as "Debian 12"
	Arch       string // "" means amd64
	BootModes  []string
	SectorSize int // 0 means 512
	Kernel     string
	Initrd     string
	Cmdline    string
	Measured   bool
	Root       *Root // nil: the partition that its type or name calls the root
	Key        PrivateKey
	Workers    int            // 0 means all cores
	Progress   func(Progress) // may be nil; called from several goroutines, one at a time
}

// Progress is how far a Pack, verification or Write is.
type Progress struct {
	Phase  string // "pack", "verify", "write", "read back"
	Done   int64  // raw bytes finished, zeros included
	Total  int64
	Packed int64 // compressed bytes moved so far
}

// Packed is what Pack made.
type Packed struct {
	Digest   string
	Manifest *Manifest
	Bytes    int64 // compressed, all chunks
}

// Pack makes an image folder: chunks, blobs, then manifest and signature, so that a cut pack is no image. It needs no
// network and runs nothing.
func Pack(ctx context.Context, o PackOptions) (*Packed, error) {
	f, err := os.Open(o.Disk)
	if err != nil {
		return nil, fmt.Errorf("imaging: pack: %w", err)
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, fmt.Errorf("imaging: pack %s: %w", o.Disk, err)
	}
	m := &Manifest{Schema: manifestSchema, Name: o.Name, OS: o.OS, Arch: o.Arch, BootModes: o.BootModes, Size: size,
		SectorSize: o.SectorSize, Measured: o.Measured, Cmdline: o.Cmdline, Root: o.Root, ChunkSize: ChunkSize}
	if m.Arch == "" {
		m.Arch = "amd64"
	}
	if m.SectorSize == 0 {
		m.SectorSize = 512
	}
	if err := inspect(m, f, o.Disk); err != nil {
		return nil, err
	}
	blobs := map[string][]byte{}
	if m.Kernel, err = readBlob(o.Kernel, blobs); err != nil {
		return nil, err
	}
	if m.Initrd, err = readBlob(o.Initrd, blobs); err != nil {
		return nil, err
	}
	// Everything but the chunks is known: name every fault before the long part.
	m.Chunks = make([]Chunk, (size+ChunkSize-1)/ChunkSize)
	for i := range m.Chunks {
		m.Chunks[i].Zero = true
	}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("imaging: pack %s: %w", o.Disk, err)
	}
	if _, err := os.Stat(filepath.Join(o.Out, manifestFile)); err == nil {
		return nil, fmt.Errorf("imaging: pack: %s holds an image already: name another folder", o.Out)
	}
	for _, d := range []string{chunkFolder, blobFolder} {
		if err := os.MkdirAll(filepath.Join(o.Out, d), 0o755); err != nil {
			return nil, fmt.Errorf("imaging: pack: %w", err)
		}
	}
	for name, b := range blobs {
		if err := writeFile(filepath.Join(o.Out, blobFolder, name), b); err != nil {
			return nil, err
		}
	}
	if err := packChunks(ctx, m, f, o); err != nil {
		return nil, err
	}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("imaging: pack %s: %w", o.Disk, err)
	}
	text, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("imaging: pack: %w", err)
	}
	sig := minisign.Sign(o.Key, text)
	if err := writeFile(filepath.Join(o.Out, signatureFile), sig); err != nil {
		return nil, err
	}
	if err := writeFile(filepath.Join(o.Out, manifestFile), text); err != nil {
		return nil, err
	}
	p := &Packed{Digest: Digest(text), Manifest: m}
	for _, c := range m.Chunks {
		p.Bytes += int64(c.Packed)
	}
	return p, nil
}

// inspect refuses a disk that is none, is cut short, or could not boot or be seeded as declared, and notes root and
// seed partitions.
func inspect(m *Manifest, r io.ReaderAt, name string) error {
	if m.Size%512 != 0 || m.Size < 4*mib {
		head := make([]byte, min(m.Size, SniffLen))
		if _, err := r.ReadAt(head, 0); err == nil {
			if err := checkRaw(name, head, nil); err != nil {
				return err
			}
		}
		return fmt.Errorf("imaging: %s has %d bytes: a disk has at least 4 MiB and whole sectors; truncated?", name, m.Size)
	}
	head, tail := make([]byte, mib), make([]byte, 512)
	if _, err := r.ReadAt(head, 0); err != nil {
		return fmt.Errorf("imaging: read %s: %w", name, err)
	}
	if _, err := r.ReadAt(tail, m.Size-512); err != nil {
		return fmt.Errorf("imaging: read %s: %w", name, err)
	}
	if err := checkRaw(name, head, tail); err != nil {
		return err
	}
	t, err := disk.ReadTable(r, m.SectorSize)
	if err != nil {
		return fmt.Errorf("imaging: %s: %w: an image needs a GUID partition table, where the seed is appended", name, err)
	}
	if end := int64(t.Last+1) * int64(m.SectorSize); end > m.Size {
		return fmt.Errorf("imaging: %s has %d bytes, its partition table is of a disk of %d: truncated", name, m.Size, end)
	}
	if len(t.Head()) > mib {
		return fmt.Errorf("imaging: %s: its partition table is longer than 1 MiB", name)
	}
	if slices.Contains(m.BootModes, "bios") && (head[510] != 0x55 || head[511] != 0xaa || disk.IsZero(head[:440])) {
		return fmt.Errorf("imaging: %s has no boot code in its first sector, but boot modes say bios", name)
	}
	if _, esp := t.Find(func(p disk.Partition) bool { return p.Type == disk.TypeESP }); !esp && slices.Contains(m.BootModes, "uefi") {
		return fmt.Errorf("imaging: %s has no EFI system partition, but boot modes say uefi", name)
	}
	if p, ok := t.Find(isSeed); ok {
		m.Seed = &Extent{Offset: p.Offset(t.Sector), Size: p.Size(t.Sector)}
	}
	isRoot := func(p disk.Partition) bool {
		return p.Type == disk.TypeRootX || p.Type == disk.TypeRootA || p.Name == "root"
	}
	if p, ok := t.Find(isRoot); ok && m.Root == nil {
		m.Root = &Root{Partition: p.Slot}
	}
	return nil
}

func isSeed(p disk.Partition) bool { return strings.EqualFold(p.Name, SeedLabel) }

// readBlob reads a file into blobs under its digest.
func readBlob(path string, blobs map[string][]byte) (*Blob, error) {
	if path == "" {
		return nil, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("imaging: pack: %w", err)
	}
	sum := sha256.Sum256(b)
	blob := &Blob{SHA256: hex.EncodeToString(sum[:]), Size: int64(len(b))}
	blobs[blob.SHA256] = b
	return blob, nil
}

func packChunks(ctx context.Context, m *Manifest, r io.ReaderAt, o PackOptions) error {
	meter := &meter{say: o.Progress, p: Progress{Phase: "pack", Total: m.Size}}
	return eachChunk(ctx, o.Workers, len(m.Chunks), func(ctx context.Context, next func() (int, bool)) error {
		p, err := newPacker()
		if err != nil {
			return err
		}
		raw, packed := make([]byte, ChunkSize), make([]byte, 0, MaxPacked)
		for i, ok := next(); ok; i, ok = next() {
			b := raw[:m.Length(i)]
			if _, err := r.ReadAt(b, int64(i)*ChunkSize); err != nil {
				return fmt.Errorf("imaging: read %s: %w", o.Disk, err)
			}
			if !disk.IsZero(b) {
				sum := sha256.Sum256(b)
				packed = p.pack(b, packed)
				m.Chunks[i] = Chunk{SHA256: hex.EncodeToString(sum[:]), Packed: len(packed)}
				path := filepath.Join(o.Out, chunkFolder, m.Chunks[i].SHA256+chunkExt)
				if err := writeFile(path, packed); err != nil {
					return err
				}
			}
			meter.add(len(b), m.Chunks[i].Packed)
		}
		return nil
	})
}

// eachChunk runs workers goroutines that draw the numbers 0 to n-1 from next; the first error stops all.
func eachChunk(ctx context.Context, workers, n int, work func(ctx context.Context, next func() (int, bool)) error) error {
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	g, inner := errgroup.WithContext(ctx)
	var mu sync.Mutex
	at := 0
	next := func() (int, bool) {
		mu.Lock()
		defer mu.Unlock()
		if at == n || inner.Err() != nil {
			return 0, false
		}
		at++
		return at - 1, true
	}
	for range min(workers, n) {
		g.Go(func() error { return work(inner, next) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

// A meter adds up progress and tells it, one call at a time.
type meter struct {
	mu  sync.Mutex
	say func(Progress)
	p   Progress
}

func (m *meter) add(raw, packed int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.p.Done += int64(raw)
	m.p.Packed += int64(packed)
	if m.say != nil {
		m.say(m.p)
	}
}

// writeFile writes a file whole or not at all.
func writeFile(path string, b []byte) error {
	if err := renameio.WriteFile(path, b, 0o644, renameio.WithTempDir(filepath.Dir(path)), renameio.IgnoreUmask()); err != nil {
		return fmt.Errorf("imaging: write: %w", err)
	}
	return nil
}
