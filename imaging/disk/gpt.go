package disk

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"unicode/utf16"
)

// A Table is a GUID partition table (UEFI 2.10, section 5.3) together with the sectors it lives in.
type Table struct {
	Sector     int    // bytes
	Last       uint64 // LBA of the backup header: the last of the disk
	FirstUse   uint64 // first LBA that partitions may use
	LastUse    uint64 // last one
	ID         GUID
	Partitions []Partition

	slots int    // entries in the array
	boot  []byte // sector 0, boot code included
}

// A Partition is one used entry of a Table.
type Partition struct {
	Slot        int // from 1, as in sda1
	Type, ID    GUID
	First, Last uint64 // LBA, both included
	Attributes  uint64
	Name        string
}

// Offset returns where the partition begins, in bytes.
func (p Partition) Offset(sector int) int64 { return int64(p.First) * int64(sector) }

// Size returns the partition's length in bytes.
func (p Partition) Size(sector int) int64 { return int64(p.Last-p.First+1) * int64(sector) }

// A GUID is kept as on disk: the first three groups little-endian.
type GUID [16]byte

// The partition types that we look for or make.
var (
	TypeESP   = MustGUID("C12A7328-F81F-11D2-BA4B-00A0C93EC93B")
	TypeData  = MustGUID("EBD0A0A2-B9E5-4433-87C0-68B6B72699C7") // basic data
	TypeLinux = MustGUID("0FC63DAF-8483-4772-8E79-3D69D8477DE4")
	TypeRootX = MustGUID("4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709") // root, x86-64 (UAPI.2 discoverable partitions)
	TypeRootA = MustGUID("B921B045-1DF0-41C3-AF44-4C6F280D3FAE") // root, arm64
)

// MustGUID parses a GUID in its usual text form; it panics on a wrong one, which only a wrong constant can be.
func MustGUID(s string) GUID {
	raw, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || len(raw) != 16 {
		panic("disk: bad GUID " + s)
	}
	var g GUID
	for i, j := range [16]int{3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15} {
		g[i] = raw[j]
	}
	return g
}

// NewGUID returns a random GUID (version 4).
func NewGUID() GUID {
	var g GUID
	rand.Read(g[:]) // never fails
	g[7] = g[7]&0x0f | 0x40
	g[8] = g[8]&0x3f | 0x80
	return g
}

// ErrNoTable is in the chain of ReadTable's error when there is no GUID partition table at all.
var ErrNoTable = errors.New("no GUID partition table")

const (
	entrySize = 128
	maxSlots  = 1024
	signature = "EFI PART"
)

// ReadTable reads and checks the primary table. r need only hold the first MiB of the disk.
func ReadTable(r io.ReaderAt, sector int) (*Table, error) {
	head := make([]byte, 2*sector)
	if _, err := r.ReadAt(head, 0); err != nil {
		return nil, fmt.Errorf("disk: read partition table: %w", err)
	}
	h := head[sector:]
	if string(h[:8]) != signature {
		return nil, fmt.Errorf("disk: %w with %d-byte sectors", ErrNoTable, sector)
	}
	le := binary.LittleEndian
	size := le.Uint32(h[12:])
	if size < 92 || int(size) > sector {
		return nil, fmt.Errorf("disk: partition table: header of %d bytes", size)
	}
	sum := le.Uint32(h[16:])
	le.PutUint32(h[16:], 0)
	if crc32.ChecksumIEEE(h[:size]) != sum {
		return nil, errors.New("disk: partition table: header checksum is wrong")
	}
	t := &Table{Sector: sector, Last: le.Uint64(h[32:]), FirstUse: le.Uint64(h[40:]), LastUse: le.Uint64(h[48:]),
		ID: GUID(h[56:72]), slots: int(le.Uint32(h[80:])), boot: head[:sector:sector]}
	at, each := le.Uint64(h[72:]), le.Uint32(h[84:])
	if each != entrySize || t.slots < 1 || t.slots > maxSlots || at != 2 || le.Uint64(h[24:]) != 1 {
		return nil, fmt.Errorf("disk: partition table: %d entries of %d bytes at LBA %d: only 1 to %d of %d at LBA 2 are understood",
			t.slots, each, at, maxSlots, entrySize)
	}
	array := make([]byte, t.slots*entrySize)
	if _, err := r.ReadAt(array, int64(at)*int64(sector)); err != nil {
		return nil, fmt.Errorf("disk: read partition entries: %w", err)
	}
	if crc32.ChecksumIEEE(array) != le.Uint32(h[88:]) {
		return nil, errors.New("disk: partition table: checksum of the entries is wrong")
	}
	for i := range t.slots {
		e := array[i*entrySize:][:entrySize]
		if GUID(e[:16]) == (GUID{}) {
			continue
		}
		u := make([]uint16, 36)
		for k := range u {
			u[k] = le.Uint16(e[56+2*k:])
		}
		name, _, _ := strings.Cut(string(utf16.Decode(u)), "\x00")
		t.Partitions = append(t.Partitions, Partition{Slot: i + 1, Type: GUID(e[:16]), ID: GUID(e[16:32]),
			First: le.Uint64(e[32:]), Last: le.Uint64(e[40:]), Attributes: le.Uint64(e[48:]), Name: name})
	}
	return t, t.check()
}

// check holds what every later computation relies on.
func (t *Table) check() error {
	if t.FirstUse < t.firstFree() || t.LastUse < t.FirstUse || t.LastUse >= t.Last || t.Last < t.LastUse+1+t.arraySectors() || t.Last >= 1<<50 {
		return fmt.Errorf("disk: partition table: usable from LBA %d to %d on a disk that ends at %d cannot be", t.FirstUse, t.LastUse, t.Last)
	}
	for i, p := range t.Partitions {
		if p.First < t.FirstUse || p.Last > t.LastUse || p.Last < p.First {
			return fmt.Errorf("disk: partition %d: LBA %d to %d is outside %d to %d", p.Slot, p.First, p.Last, t.FirstUse, t.LastUse)
		}
		for _, q := range t.Partitions[:i] {
			if p.First <= q.Last && q.First <= p.Last {
				return fmt.Errorf("disk: partitions %d and %d overlap", q.Slot, p.Slot)
			}
		}
	}
	return nil
}

// NewTable returns an empty table for a disk of size bytes. Sector 0 holds the protective MBR and no boot code.
func NewTable(size int64, sector int) *Table {
	t := &Table{Sector: sector, ID: NewGUID(), slots: 128, boot: make([]byte, sector)}
	t.FirstUse = max(t.firstFree(), uint64(MiB/sector))
	t.boot[510], t.boot[511] = 0x55, 0xaa
	copy(t.boot[446:], []byte{0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0})
	t.Grow(size)
	return t
}

func (t *Table) arraySectors() uint64 {
	return uint64((t.slots*entrySize + t.Sector - 1) / t.Sector)
}

func (t *Table) firstFree() uint64 { return 2 + t.arraySectors() }

// Grow moves the table's end to that of a disk of size bytes.
func (t *Table) Grow(size int64) {
	t.Last = uint64(size/int64(t.Sector)) - 1
	t.LastUse = t.Last - t.arraySectors() - 1
}

// Find returns the first partition for which ok holds.
func (t *Table) Find(ok func(Partition) bool) (Partition, bool) {
	for _, p := range t.Partitions {
		if ok(p) {
			return p, true
		}
	}
	return Partition{}, false
}

// Append adds a partition of size bytes at the end of the disk, so that whatever comes before it can grow.
func (t *Table) Append(size int64, kind GUID, name string) (Partition, error) {
	align := uint64(MiB / t.Sector)
	need := (uint64(size) + uint64(t.Sector) - 1) / uint64(t.Sector)
	end, used := t.FirstUse, map[int]bool{}
	for _, p := range t.Partitions {
		end, used[p.Slot] = max(end, p.Last+1), true
	}
	end = (end + align - 1) / align * align
	if t.LastUse+1 < need || (t.LastUse+1-need)/align*align < end {
		return Partition{}, fmt.Errorf("disk: no room for a partition %s of %d MiB: %d MiB are free at the end", name, size/MiB,
			int64(max(t.LastUse+1, end)-end)*int64(t.Sector)/MiB)
	}
	p := Partition{Type: kind, ID: NewGUID(), First: (t.LastUse + 1 - need) / align * align, Name: name}
	p.Last = p.First + need - 1
	for p.Slot = 1; used[p.Slot]; p.Slot++ {
	}
	if p.Slot > t.slots {
		return Partition{}, fmt.Errorf("disk: no room for a partition %s: all %d entries are used", name, t.slots)
	}
	t.Partitions = append(t.Partitions, p)
	return p, nil
}

// Head returns the bytes of the first sectors: protective MBR, primary header, entries.
func (t *Table) Head() []byte {
	array := t.array()
	boot := bytes.Clone(t.boot)
	for e := 446; e < 510; e += 16 { // the protective entry covers the disk, or as much as 32 bits can say
		if boot[e+4] == 0xee && binary.LittleEndian.Uint32(boot[e+8:]) == 1 {
			binary.LittleEndian.PutUint32(boot[e+12:], uint32(min(t.Last, 0xffffffff)))
		}
	}
	return append(append(boot, t.header(1, t.Last, 2, array)...), array...)
}

// Tail returns the bytes of the disk's last sectors: entries, backup header.
func (t *Table) Tail() []byte {
	array := t.array()
	return append(array, t.header(t.Last, 1, t.Last-t.arraySectors(), array)...)
}

// TailOffset is where Tail belongs, in bytes.
func (t *Table) TailOffset() int64 { return int64(t.Last-t.arraySectors()) * int64(t.Sector) }

func (t *Table) array() []byte {
	le := binary.LittleEndian
	a := make([]byte, t.arraySectors()*uint64(t.Sector))
	for _, p := range t.Partitions {
		e := a[(p.Slot-1)*entrySize:][:entrySize]
		copy(e, p.Type[:])
		copy(e[16:], p.ID[:])
		le.PutUint64(e[32:], p.First)
		le.PutUint64(e[40:], p.Last)
		le.PutUint64(e[48:], p.Attributes)
		for k, u := range utf16.Encode([]rune(p.Name)) {
			if k < 36 {
				le.PutUint16(e[56+2*k:], u)
			}
		}
	}
	return a
}

func (t *Table) header(self, other, entries uint64, array []byte) []byte {
	le := binary.LittleEndian
	h := make([]byte, t.Sector)
	copy(h, signature)
	le.PutUint32(h[8:], 0x10000)
	le.PutUint32(h[12:], 92)
	le.PutUint64(h[24:], self)
	le.PutUint64(h[32:], other)
	le.PutUint64(h[40:], t.FirstUse)
	le.PutUint64(h[48:], t.LastUse)
	copy(h[56:], t.ID[:])
	le.PutUint64(h[72:], entries)
	le.PutUint32(h[80:], uint32(t.slots))
	le.PutUint32(h[84:], entrySize)
	le.PutUint32(h[88:], crc32.ChecksumIEEE(array[:t.slots*entrySize]))
	le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:92]))
	return h
}

// WriteTable writes the table's two copies: the backup first and flushed, so that one of the two is always whole.
func WriteTable(d Device, t *Table) error {
	if want := uint64(d.Size()/int64(t.Sector)) - 1; t.Last != want || d.SectorSize() != t.Sector {
		return fmt.Errorf("disk: write partition table of %s: made for a disk ending at LBA %d with %d-byte sectors, this one ends at %d with %d",
			d.Name(), t.Last, t.Sector, want, d.SectorSize())
	}
	if err := t.check(); err != nil {
		return err
	}
	for _, part := range []struct {
		b   []byte
		off int64
	}{{t.Tail(), t.TailOffset()}, {t.Head(), 0}} {
		if _, err := d.WriteAt(part.b, part.off); err != nil {
			return fmt.Errorf("disk: write partition table of %s: %w", d.Name(), err)
		}
		if err := d.Sync(); err != nil {
			return err
		}
	}
	return nil
}
