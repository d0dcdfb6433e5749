package imaging

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"hash/crc32"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hostler-project/hostler/imaging/disk"
	"github.com/hostler-project/hostler/internal/frugal"
)

// FuzzDecode reads any bytes as a signed manifest. What is accepted holds its own limits, names nothing that could be a
// path, covers its disk exactly, and says the same when it is written again.
func FuzzDecode(f *testing.F) {
	full := goodManifest()
	full.Initrd, full.Root, full.Seed, full.OS, full.Measured = &Blob{SHA256: strings.Repeat("b", 64), Size: 9}, &Root{Partition: 1, Grows: true}, &Extent{Offset: 4 * mib, Size: mib}, "Debian 12", true
	for _, m := range []*Manifest{goodManifest(), full} {
		b, err := json.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(bytes.Replace(b, []byte(`"chunks":[`), []byte(`"chunks":[{"zero":true,"sha256":"`+strings.Repeat("0", 64)+`"},`), 1))
		f.Add(bytes.ReplaceAll(b, []byte("0000"), []byte("../.")))
	}
	f.Add([]byte(`{"schema":1,"size":-1,"chunks":[{}]}`))
	f.Add([]byte(`{"schema":1e9}`))
	f.Add([]byte(`{"schema":1,"size":9223372036854775807,"sector_size":-512,"chunk_size":4194304}`))
	f.Add(bytes.Repeat([]byte(`{"kernel":`), 20_000))
	f.Fuzz(func(t *testing.T, b []byte) {
		var m *Manifest
		var err error
		size := uint64(len(b))
		frugal.Check(t, time.Millisecond+time.Duration(size)*time.Microsecond, 256<<10+64*size, func() { m, err = Decode(b) })
		if err != nil {
			if len(err.Error()) > 4096 {
				t.Fatalf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		var sum int64
		for i, c := range m.Chunks {
			if n := m.Length(i); n < 1 || n > ChunkSize || n%m.SectorSize != 0 || c.Packed < 0 || c.Packed > MaxPacked {
				t.Fatalf("chunk %d of %d bytes, %d packed", i, n, c.Packed)
			}
			sum += int64(m.Length(i))
			if c.Zero != (c.SHA256 == "") {
				t.Fatalf("chunk %d is zero and has bytes, or neither: %+v", i, c)
			}
		}
		if sum != m.Size || m.Size < 4*mib || m.Size > maxImage {
			t.Fatalf("chunks hold %d of %d bytes", sum, m.Size)
		}
		names := m.Digests()
		for _, blob := range m.Blobs() {
			names = append(names, blob.SHA256)
		}
		for _, name := range names {
			if len(name) != 64 || strings.Trim(name, "0123456789abcdef") != "" {
				t.Fatalf("%q would become part of a path", name)
			}
		}
		if strings.ContainsAny(m.Name, "/\\ \n\x00") || m.Name == "" || m.Name[0] == '.' || strings.ContainsAny(m.Cmdline, "\n\r\x00") {
			t.Fatalf("name %q, command line %q", m.Name, m.Cmdline)
		}
		if e := m.Seed; e != nil && (e.Offset < mib || e.Offset+e.Size > m.Size || e.Size < mib) {
			t.Fatalf("seed at %+v of %d", e, m.Size)
		}
		again, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		n, err := Decode(again)
		if err != nil {
			t.Fatalf("written again it is refused: %v\n%s", err, again)
		}
		if d := cmp.Diff(m, n); d != "" {
			t.Fatal(d)
		}
	})
}

// sealed makes the checksums of a partition table right, or nearly every change would end there.
func sealed(head []byte, sector int) []byte {
	if len(head) < 2*sector {
		return head
	}
	le := binary.LittleEndian
	head = bytes.Clone(head)
	h := head[sector : 2*sector]
	if n := uint64(le.Uint32(h[80:])) * 128; n <= uint64(len(head)-2*sector) {
		le.PutUint32(h[88:], crc32.ChecksumIEEE(head[2*sector:][:n]))
	}
	if size := le.Uint32(h[12:]); size >= 20 && size <= uint32(sector) {
		le.PutUint32(h[16:], 0)
		le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:size]))
	}
	return head
}

// FuzzHeader reads any bytes as the beginning and end of a disk image: no magic in its place is overlooked, none is seen
// where it is not, and a partition table that is believed holds together and reads back as it was.
func FuzzHeader(f *testing.F) {
	for _, m := range magics {
		head, tail := []byte{}, []byte{}
		if m.at < 0 {
			tail = append(make([]byte, 512+m.at), m.bytes...)
			tail = append(tail, make([]byte, 512-len(tail))...)
		} else {
			head = append(make([]byte, m.at), m.bytes...)
		}
		f.Add(head, tail, false)
	}
	for _, sector := range []int{512, 4096} {
		t := disk.NewTable(64*mib, sector)
		if _, err := t.Append(8*mib, disk.TypeESP, "esp"); err != nil {
			f.Fatal(err)
		}
		f.Add(t.Head(), make([]byte, 512), sector == 4096)
		odd := t.Head()
		odd[2*sector+32]++ // the first partition begins elsewhere
		f.Add(odd, make([]byte, 512), sector == 4096)
	}
	f.Fuzz(func(t *testing.T, head, tail []byte, large bool) {
		var format string
		frugal.Check(t, time.Millisecond, 64<<10, func() { format = Sniff(head, tail) })
		there := map[string]bool{"": true}
		for _, m := range magics {
			b, at := head, m.at
			if at < 0 {
				b, at = tail, len(tail)+m.at
			}
			if at >= 0 && at+len(m.bytes) <= len(b) && string(b[at:at+len(m.bytes)]) == m.bytes {
				there[m.format], there[""] = true, false
			}
		}
		if !there[format] {
			t.Fatalf("it looks like %v, and is called %q", there, format)
		}
		if err := checkRaw("x", head, tail); (err != nil) == there[""] {
			t.Fatalf("raw: %v", err)
		}
		sector := 512
		if large {
			sector = 4096
		}
		head = sealed(head, sector)
		var table *disk.Table
		var err error
		frugal.Check(t, 20*time.Millisecond, 2<<20, func() { table, err = disk.ReadTable(bytes.NewReader(head), sector) })
		if err != nil {
			return
		}
		for i, p := range table.Partitions {
			if p.Size(sector) <= 0 || p.Offset(sector) < int64(len(table.Head())) || p.Last >= table.Last {
				t.Fatalf("partition %+v of %+v", p, table)
			}
			for _, q := range table.Partitions[:i] {
				if p.First <= q.Last && q.First <= p.Last {
					t.Fatalf("%+v and %+v overlap", p, q)
				}
			}
		}
		again, err := disk.ReadTable(bytes.NewReader(table.Head()), sector)
		if err != nil {
			t.Fatalf("written again it is refused: %v", err)
		}
		if len(again.Partitions) != len(table.Partitions) || again.Last != table.Last || again.ID != table.ID {
			t.Fatalf("written again it is another:\n%+v\n%+v", table, again)
		}
	})
}
