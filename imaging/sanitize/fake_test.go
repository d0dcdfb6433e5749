package sanitize

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"

	"github.com/hostler-project/hostler/imaging/disk"
	"github.com/hostler-project/hostler/inventory"
)

// A fakeDrive is an NVMe controller that does what its fields say. Its namespaces are real bytes.
type fakeDrive struct {
	mu       sync.Mutex
	m        inventory.Medium
	caps     inventory.MediumCaps
	spaces   map[uint32]*fakeSpace
	detached []uint32
	sstat    uint16
	scdw10   uint32
	polls    int // log reads until a running sanitize ends
	asked    []string

	// oddities
	lies      string // "nothing": success without erasing; "markers": erases only what was written last
	dead      bool
	diesAt    uint8              // opcode at which it dies
	refuse    map[uint8]Status   // opcode → status
	fails     int                // so many sanitizes end as failed
	onErase   func(d *fakeDrive) // what else happens then
	leave     byte               // what erased blocks read as
	noise     bool               // erased blocks read as noise
	invisible map[uint32]bool    // namespaces without a block device
}

type fakeSpace struct {
	d         *fakeDrive
	b         []byte
	lba       int
	dlfeat    byte
	protected bool
	deaf      bool           // swallows writes
	badRead   map[int64]bool // sectors of 4096 that cannot be read
	written   map[int64]int  // offset → length of small writes, the markers
}

// newDrive is a healthy drive full of tenant data: format, no sanitize.
func newDrive(serial string, sizes ...int) *fakeDrive {
	d := &fakeDrive{m: inventory.Medium{Slot: "0000:00:04.0", Device: "nvme0", Kind: inventory.MediumNVMe, Serial: serial},
		caps: inventory.MediumCaps{OACS: 1<<1 | 1<<3, FNA: 0}, spaces: map[uint32]*fakeSpace{}, invisible: map[uint32]bool{}}
	r := rand.NewChaCha8([32]byte{7})
	for i, n := range sizes {
		s := &fakeSpace{d: d, b: make([]byte, n), lba: 512, dlfeat: 1, badRead: map[int64]bool{}, written: map[int64]int{}}
		r.Read(s.b)
		d.spaces[uint32(i+1)] = s
	}
	return d
}

func (d *fakeDrive) Medium() inventory.Medium { return d.m }

func (d *fakeDrive) Visible() ([]uint32, error) {
	var ids []uint32
	for id := range d.spaces {
		if !d.invisible[id] {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

func (d *fakeDrive) Open(nsid uint32) (Namespace, error) {
	s := d.spaces[nsid]
	if s == nil {
		return nil, errors.New("no such device")
	}
	return s, nil
}

var errDead = errors.New("input/output error")

func (d *fakeDrive) Admin(c *Command) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c.Opcode == d.diesAt && d.diesAt != 0 {
		d.dead = true
	}
	if d.dead {
		return errDead
	}
	if s, ok := d.refuse[c.Opcode]; ok {
		return s
	}
	le := binary.LittleEndian
	switch c.Opcode {
	case opIdentify:
		clear(c.Data)
		switch c.CDW10 {
		case 1:
			copy(c.Data[4:24], d.m.Serial+"                    ")
			copy(c.Data[24:64], "Fake drive                              ")
			le.PutUint16(c.Data[256:], d.caps.OACS)
			le.PutUint32(c.Data[328:], d.caps.SANICAP)
			c.Data[524] = d.caps.FNA
		case 0:
			s := d.spaces[c.NSID]
			if s == nil {
				return Status(0x0b)
			}
			le.PutUint64(c.Data, uint64(len(s.b)/s.lba))
			c.Data[33] = s.dlfeat
			if s.protected {
				c.Data[99] = 1
			}
			c.Data[128+2] = 9
			if s.lba == 4096 {
				c.Data[128+2] = 12
			}
		case 0x02, 0x10:
			at := 0
			for id := c.NSID + 1; id < 64 && at < 4096; id++ {
				_, attached := d.spaces[id]
				for _, h := range d.detached {
					attached = attached || h == id && c.CDW10 == 0x10
				}
				if attached {
					le.PutUint32(c.Data[at:], id)
					at += 4
				}
			}
		}
	case opGetLog:
		if d.caps.SANICAP == 0 {
			return Status(0x4109)
		}
		if d.sstat == sanRunning {
			if d.polls--; d.polls <= 0 {
				d.sstat = sanDone
				if d.fails > 0 {
					d.fails--
					d.sstat = sanFailed
				} else {
					d.wipe(allNamespaces)
				}
			}
		}
		clear(c.Data)
		le.PutUint16(c.Data[2:], d.sstat)
		le.PutUint32(c.Data[4:], d.scdw10)
	case opSanitize:
		d.asked = append(d.asked, "sanitize")
		if d.caps.SANICAP == 0 {
			return Status(0x4001)
		}
		if d.sstat == sanRunning {
			return Status(0x1d)
		}
		d.sstat, d.scdw10, d.polls = sanRunning, c.CDW10, 3
	case opFormat:
		d.asked = append(d.asked, "format")
		if d.sstat == sanFailed {
			return Status(0x1c)
		}
		if c.CDW10>>9&7 == 0 {
			return nil // no secure erase was asked: nothing is erased here
		}
		d.wipe(c.NSID)
	default:
		return Status(0x4001)
	}
	return nil
}

func (d *fakeDrive) wipe(nsid uint32) {
	r := rand.NewChaCha8([32]byte{9})
	for id, s := range d.spaces {
		if nsid != allNamespaces && nsid != id {
			continue
		}
		switch {
		case d.lies == "nothing":
		case d.lies == "markers":
			for off, n := range s.written {
				clear(s.b[off : off+int64(n)])
			}
		case d.noise:
			r.Read(s.b)
		default:
			for i := range s.b {
				s.b[i] = d.leave
			}
		}
	}
	if d.onErase != nil {
		d.onErase(d)
	}
}

func (s *fakeSpace) Name() string    { return "fake" }
func (s *fakeSpace) Size() int64     { return int64(len(s.b)) }
func (s *fakeSpace) SectorSize() int { return s.lba }
func (s *fakeSpace) Close() error    { return nil }
func (s *fakeSpace) Sync() error     { return s.usable() }

func (s *fakeSpace) usable() error {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	if s.d.dead || s.d.sstat == sanRunning || s.d.sstat == sanFailed {
		return errDead
	}
	return nil
}

func (s *fakeSpace) ReadAt(p []byte, off int64) (int, error) {
	if err := s.usable(); err != nil {
		return 0, err
	}
	for at := range s.badRead {
		if at < off+int64(len(p)) && off < at+4096 {
			return 0, errDead
		}
	}
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	return copy(p, s.b[off:]), nil
}

func (s *fakeSpace) WriteAt(p []byte, off int64) (int, error) {
	if err := s.usable(); err != nil {
		return 0, err
	}
	if s.protected {
		return 0, errors.New("operation not permitted")
	}
	if s.deaf {
		return len(p), nil
	}
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	s.written[off] = len(p)
	return copy(s.b[off:], p), nil
}

func (s *fakeSpace) Zero(_ context.Context, off, n int64) error {
	if err := s.usable(); err != nil {
		return err
	}
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	if s.d.lies == "" {
		clear(s.b[off : off+n])
	}
	return nil
}

var _ disk.Device = (*fakeSpace)(nil)
