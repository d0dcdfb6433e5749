package imaging

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// ChunkSize is the raw size of every chunk but the last.
const ChunkSize = 4 << 20

// MaxPacked bounds a compressed chunk: zstd grows incompressible data by a few bytes per block.
const MaxPacked = ChunkSize + 64<<10

// MaxManifest bounds a manifest: enough for a disk of a TiB.
const MaxManifest = 64 << 20

const (
	manifestSchema = 1
	maxImage       = 16 << 40
	maxBlob        = 1 << 30
	maxCmdline     = 2047 // COMMAND_LINE_SIZE on x86 is 2048
)

// A Manifest says everything about an image, and names all its bytes by digest. It is what an author signs.
type Manifest struct {
	Schema     int      `json:"schema"`
	Name       string   `json:"name"` // for people; programs use the digest
	OS         string   `json:"os,omitempty"`
	Arch       string   `json:"arch"`       // amd64 or arm64
	BootModes  []string `json:"boot_modes"` // bios, uefi
	Size       int64    `json:"size"`       // bytes of the disk
	SectorSize int      `json:"sector_size"`
	Measured   bool     `json:"measured_boot,omitempty"` // its secrets hang on TPM measurements: never kexec
	Kernel     *Blob    `json:"kernel,omitempty"`        // for kexec; nil: only a reboot enters this image
	Initrd     *Blob    `json:"initrd,omitempty"`
	Cmdline    string   `json:"cmdline,omitempty"`
	Root       *Root    `json:"root,omitempty"`
	Seed       *Extent  `json:"seed,omitempty"` // partition reserved for CIDATA; nil: one is appended
	ChunkSize  int      `json:"chunk_size"`     // ChunkSize
	Chunks     []Chunk  `json:"chunks"`
}

// A Chunk is one piece of the disk. Zero chunks are marked, not stored.
type Chunk struct {
	SHA256 string `json:"sha256,omitempty"` // of the raw bytes, hex
	Packed int    `json:"packed,omitempty"` // bytes of the zstd frame when it was packed
	Zero   bool   `json:"zero,omitempty"`
}

// A Blob is a file beside the disk, stored as it is.
type Blob struct {
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"`
}

// An Extent is a range of the disk, in bytes.
type Extent struct {
	Offset int64 `json:"offset"`
	Size   int64 `json:"size"`
}

// A Root notes which partition the system lives in, and whether it grows into the disk by itself.
type Root struct {
	Partition int  `json:"partition"`
	Grows     bool `json:"grows,omitempty"`
}

// Digest is the image's name: the SHA-256 of the manifest's exact bytes, in hex.
func Digest(manifest []byte) string {
	s := sha256.Sum256(manifest)
	return hex.EncodeToString(s[:])
}

// IsDigest says whether s is a SHA-256 in lower-case hex: nothing else becomes part of a path or URL.
func IsDigest(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}

// Length returns the raw size of chunk i.
func (m *Manifest) Length(i int) int {
	return int(min(ChunkSize, m.Size-int64(i)*ChunkSize))
}

// Digests returns every different chunk that has bytes, in disk order.
func (m *Manifest) Digests() []string {
	var all []string
	seen := map[string]bool{}
	for _, c := range m.Chunks {
		if !c.Zero && !seen[c.SHA256] {
			seen[c.SHA256] = true
			all = append(all, c.SHA256)
		}
	}
	return all
}

// Blobs returns the kernel and initrd that there are.
func (m *Manifest) Blobs() []Blob {
	var all []Blob
	for _, b := range []*Blob{m.Kernel, m.Initrd} {
		if b != nil {
			all = append(all, *b)
		}
	}
	return all
}

// Decode reads a manifest and refuses one that is not complete and consistent, naming every fault. It checks no
// signature: Verify does.
func Decode(b []byte) (*Manifest, error) {
	if len(b) > MaxManifest {
		return nil, fmt.Errorf("imaging: manifest of %d bytes: at most %d", len(b), MaxManifest)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	m := new(Manifest)
	if err := d.Decode(m); err != nil {
		return nil, fmt.Errorf("imaging: manifest: %.300v", err) // an unknown field's name can be as long as the manifest
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("imaging: manifest: something follows it")
	}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("imaging: manifest: %w", err)
	}
	return m, nil
}

var imageName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)

func (m *Manifest) check() error {
	var errs []error
	bad := func(wrong bool, format string, args ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	if m.Schema != manifestSchema {
		return fmt.Errorf("schema %d: this program knows %d", m.Schema, manifestSchema)
	}
	bad(!imageName.MatchString(m.Name), "name %.80q: lower-case letters, digits, '.', '_', '-'; at most 64", m.Name)
	bad(m.Arch != "amd64" && m.Arch != "arm64", "arch %.20q: amd64 or arm64", m.Arch)
	bad(len(m.BootModes) == 0 || len(m.BootModes) > 2, "boot_modes: bios, uefi or both")
	for i, b := range m.BootModes[:min(len(m.BootModes), 2)] {
		bad(b != "bios" && b != "uefi" || slices.Contains(m.BootModes[:i], b), "boot_modes: %.20q: bios, uefi or both", b)
	}
	bad(m.SectorSize != 512 && m.SectorSize != 4096, "sector_size %d: 512 or 4096", m.SectorSize)
	bad(m.ChunkSize != ChunkSize, "chunk_size %d: %d", m.ChunkSize, ChunkSize)
	bad(m.Initrd != nil && m.Kernel == nil, "initrd without kernel")
	bad(m.Cmdline != "" && m.Kernel == nil, "cmdline without kernel")
	bad(len(m.Cmdline) > maxCmdline || strings.ContainsFunc(m.Cmdline, func(r rune) bool { return r < ' ' || r > '~' }),
		"cmdline: printable ASCII, at most %d", maxCmdline)
	bad(m.Root != nil && (m.Root.Partition < 1 || m.Root.Partition > 128), "root: no such partition")
	for _, b := range m.Blobs() {
		bad(!IsDigest(b.SHA256) || b.Size < 1 || b.Size > maxBlob, "kernel or initrd: digest or size %d cannot be", b.Size)
	}
	bad(m.Size < 4*mib || m.Size > maxImage, "size %d: 4 MiB to 16 TiB", m.Size)
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	s := int64(m.SectorSize)
	bad(m.Size%s != 0, "size %d is not a multiple of the sector size %d: truncated?", m.Size, s)
	if e := m.Seed; e != nil {
		bad(e.Offset < mib || e.Size < mib || e.Size > 1<<30 || e.Offset > m.Size-e.Size || e.Offset%s != 0 || e.Size%s != 0,
			"seed: %d bytes at %d are no place on this disk", e.Size, e.Offset)
	}
	want := (m.Size + ChunkSize - 1) / ChunkSize
	bad(int64(len(m.Chunks)) != want, "%d chunks for a size that needs %d: truncated?", len(m.Chunks), want)
	for i, c := range m.Chunks {
		ok := IsDigest(c.SHA256) && c.Packed > 0 && c.Packed <= MaxPacked
		if c.Zero {
			ok = c.SHA256 == "" && c.Packed == 0
		}
		if !ok {
			bad(true, "chunk %d: digest, packed size or zero mark cannot be", i)
			break
		}
	}
	return errors.Join(errs...)
}
