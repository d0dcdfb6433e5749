package disk

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf16"
)

// A FATFile is one file of a volume made by FAT.
type FATFile struct {
	Name string // letters, digits, '-', '.', '_'; at most 64 of them
	Data []byte
}

// The fixed geometry of the volumes made here (Microsoft "FAT: General Overview of On-Disk Format" 1.03).
const (
	fatCopies     = 2
	fatRootSlots  = 512 // entries of the root directory: fixed in FAT12 and FAT16
	fatMaxCluster = 65524
	fat12Below    = 4085 // clusters: with fewer, drivers take the volume for FAT12
	dirEntry      = 32
)

// FAT returns the bytes of a FAT12 or FAT16 volume of size bytes with the label and files given, all in its root
// folder. The rest of the volume is zero. It can be mounted by anything; we never do.
func FAT(size int64, sector int, label string, files []FATFile) ([]byte, error) {
	g, err := fatGeometry(size, sector)
	if err != nil {
		return nil, err
	}
	vol := Buffer(int(size))
	table := make([]uint16, g.clusters+2)
	table[0], table[1] = 0xfff8, 0xffff
	root := label11(label)
	dir := append(append([]byte{}, root[:]...), make([]byte, dirEntry-11)...)
	dir[11] = 0x08 // volume label
	next := 2
	for i, f := range files {
		n := (len(f.Data) + g.cluster - 1) / g.cluster
		if next+n > len(table) {
			return nil, fmt.Errorf("disk: file %s of %d bytes does not fit into a FAT volume of %d bytes", f.Name, len(f.Data), size)
		}
		if err := checkFATName(f.Name); err != nil {
			return nil, err
		}
		first := 0
		if n > 0 {
			first = next
			copy(vol[g.data+(next-2)*g.cluster:], f.Data)
			for k := next; k < next+n; k++ {
				table[k] = uint16(k + 1)
			}
			table[next+n-1] = 0xffff
			next += n
		}
		dir = append(dir, fatEntries(f.Name, i+1, first, len(f.Data))...)
	}
	if len(dir) > fatRootSlots*dirEntry {
		return nil, fmt.Errorf("disk: %d files are too many for the root folder of a FAT volume", len(files))
	}
	g.boot(vol, root)
	for c := range fatCopies {
		g.putTable(vol[(1+c*g.fat)*sector:], table)
	}
	copy(vol[(1+fatCopies*g.fat)*sector:], dir)
	return vol, nil
}

type fatLayout struct {
	sector, sectors int // bytes per sector; sectors of the volume
	cluster         int // bytes
	clusters        int
	fat             int // sectors of one table
	data            int // offset of cluster 2, bytes
}

// fatGeometry picks the smallest cluster that FAT16 can count.
func fatGeometry(size int64, sector int) (fatLayout, error) {
	g := fatLayout{sector: sector, sectors: int(size / int64(sector)), cluster: sector}
	rootSectors := (fatRootSlots*dirEntry + sector - 1) / sector
	for ; g.cluster <= 64<<10; g.cluster *= 2 {
		per := g.cluster / sector
		g.fat = 1
		for range 16 { // table size and cluster count depend on each other: settles in a few rounds
			g.clusters = (g.sectors - 1 - fatCopies*g.fat - rootSectors) / per
			need := (g.clusters+2)*2 + sector - 1
			g.fat = max(g.fat, need/sector)
		}
		if g.clusters <= fatMaxCluster {
			break
		}
	}
	if size%int64(sector) != 0 || g.clusters < 16 || g.clusters > fatMaxCluster {
		return g, fmt.Errorf("disk: a FAT16 volume cannot have %d bytes in %d-byte sectors", size, sector)
	}
	g.data = (1 + fatCopies*g.fat + rootSectors) * sector
	return g, nil
}

func (g fatLayout) is12() bool { return g.clusters < fat12Below }

func (g fatLayout) boot(vol []byte, label [11]byte) {
	le := binary.LittleEndian
	copy(vol, []byte{0xeb, 0x3c, 0x90})
	copy(vol[3:], "HOSTLER ")
	le.PutUint16(vol[11:], uint16(g.sector))
	vol[13] = byte(g.cluster / g.sector)
	le.PutUint16(vol[14:], 1) // reserved sectors: this one
	vol[16] = fatCopies
	le.PutUint16(vol[17:], fatRootSlots)
	if g.sectors < 1<<16 {
		le.PutUint16(vol[19:], uint16(g.sectors))
	} else {
		le.PutUint32(vol[32:], uint32(g.sectors))
	}
	vol[21] = 0xf8 // fixed disk
	le.PutUint16(vol[22:], uint16(g.fat))
	le.PutUint16(vol[24:], 32) // geometry for BIOSes of another age
	le.PutUint16(vol[26:], 64)
	vol[36], vol[38] = 0x80, 0x29
	id := NewGUID()
	copy(vol[39:43], id[:4])
	copy(vol[43:], label[:])
	if g.is12() {
		copy(vol[54:], "FAT12   ")
	} else {
		copy(vol[54:], "FAT16   ")
	}
	vol[510], vol[511] = 0x55, 0xaa
}

func (g fatLayout) putTable(to []byte, table []uint16) {
	for i, v := range table {
		if !g.is12() {
			binary.LittleEndian.PutUint16(to[2*i:], v)
			continue
		}
		at, v := i*3/2, v&0xfff
		if i%2 == 0 {
			to[at], to[at+1] = byte(v), to[at+1]&0xf0|byte(v>>8)
		} else {
			to[at], to[at+1] = to[at]&0x0f|byte(v<<4), byte(v>>4)
		}
	}
}

func checkFATName(name string) error {
	if name == "" || len(name) > 64 || strings.Trim(strings.ToLower(name), "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" ||
		strings.HasPrefix(name, ".") {
		return fmt.Errorf("disk: %q cannot be a file name on a FAT volume of ours", name)
	}
	return nil
}

func label11(s string) [11]byte {
	var l [11]byte
	copy(l[:], strings.ToUpper(s)+strings.Repeat(" ", 11))
	return l
}

// fatEntries returns the directory entries of one file: its long name in pieces of 13 letters, last piece first, and
// the short entry, whose name is only there to be unique.
func fatEntries(name string, seq, first, size int) []byte {
	le := binary.LittleEndian
	var short [11]byte
	copy(short[:], fmt.Sprintf("FILE~%-6d", seq))
	var sum byte
	for _, c := range short {
		sum = sum>>1 | sum<<7
		sum += c
	}
	u := utf16.Encode([]rune(name))
	pieces := (len(u) + 12) / 13
	var out []byte
	for p := pieces; p >= 1; p-- {
		e := make([]byte, dirEntry)
		e[0] = byte(p)
		if p == pieces {
			e[0] |= 0x40
		}
		e[11], e[13] = 0x0f, sum
		for k, at := range [13]int{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30} {
			c := uint16(0xffff)
			switch i := (p-1)*13 + k; {
			case i < len(u):
				c = u[i]
			case i == len(u):
				c = 0
			}
			le.PutUint16(e[at:], c)
		}
		out = append(out, e...)
	}
	e := make([]byte, dirEntry)
	copy(e, short[:])
	e[11] = 0x20               // archive
	le.PutUint16(e[16:], 0x21) // created and
	le.PutUint16(e[24:], 0x21) // written on 1980-01-01: no clock needed
	le.PutUint16(e[26:], uint16(first))
	le.PutUint32(e[28:], uint32(size))
	return append(out, e...)
}
