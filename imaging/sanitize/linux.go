package sanitize

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/hostler-project/hostler/imaging/disk"
	"github.com/hostler-project/hostler/inventory"
)

// A System is where the kernel shows its drives. The zero value is the running Linux.
type System struct {
	Sys string // "" means /sys
	Dev string // "" means /dev
	// Send sends an admin command to a character device; nil means by ioctl.
	Send func(path string, c *Command) error
}

// virtualDisks are block devices that keep nothing themselves.
var virtualDisks = regexp.MustCompile(`^(loop|ram|zram|dm-|md|sr|fd|nbd|nvme|mtdblock)`)

// Discover returns all media of the machine, with what NVMe drives say of themselves. A drive that does not answer is
// in the error; the others are returned with it.
func (s System) Discover() ([]inventory.Medium, error) {
	drives, err := s.Drives()
	errs := []error{err}
	all := make([]inventory.Medium, 0, len(drives))
	for _, d := range drives {
		m := d.Medium()
		if m.Kind == inventory.MediumNVMe {
			c, spaces, _, err := describe(d)
			if err != nil {
				errs = append(errs, fmt.Errorf("sanitize: %s: %w", m, err))
			} else {
				fill(&m, c, spaces)
			}
		}
		all = append(all, m)
	}
	return all, errors.Join(errs...)
}

// Drives returns all drives of the machine, by name. The list is made anew at every call.
func (s System) Drives() ([]Drive, error) {
	if s.Sys == "" {
		s.Sys = "/sys"
	}
	if s.Dev == "" {
		s.Dev = "/dev"
	}
	if s.Send == nil {
		s.Send = sendIoctl
	}
	var all []Drive
	for _, name := range entries(filepath.Join(s.Sys, "class/nvme")) {
		dir := filepath.Join(s.Sys, "class/nvme", name)
		all = append(all, &linuxDrive{sys: s, m: inventory.Medium{Slot: slot(dir), Device: name, Kind: inventory.MediumNVMe,
			Model: line(dir, "model"), Serial: line(dir, "serial"), Firmware: line(dir, "firmware_rev")}})
	}
	if _, err := os.Stat(filepath.Join(s.Sys, "block")); err != nil { // without it, "no disk" would be a lie
		return nil, fmt.Errorf("sanitize: look for disks: %w", err)
	}
	var errs []error
	for _, name := range entries(filepath.Join(s.Sys, "block")) {
		if virtualDisks.MatchString(name) {
			continue
		}
		dir := filepath.Join(s.Sys, "block", name)
		sectors, err := strconv.ParseInt(line(dir, "size"), 10, 64) // of 512 bytes, whatever the drive's are
		if err != nil {
			errs = append(errs, fmt.Errorf("sanitize: size of %s: %v", name, err))
			continue
		}
		if sectors == 0 { // a reader without a medium in it
			continue
		}
		lba, err := strconv.Atoi(line(dir, "queue/logical_block_size"))
		if err != nil {
			errs = append(errs, fmt.Errorf("sanitize: block size of %s: %v", name, err))
			continue
		}
		serial := line(dir, "serial") // virtio
		if serial == "" {
			serial = pageSerial(dir)
		}
		all = append(all, &linuxDrive{sys: s, m: inventory.Medium{Slot: slot(dir), Device: name, Kind: inventory.MediumDisk,
			Model: line(dir, "device/model"), Serial: serial, Firmware: line(dir, "device/rev"), Size: sectors * 512,
			Namespaces: []inventory.Namespace{{ID: 1, Size: sectors * 512, LBA: lba}}}})
	}
	return all, errors.Join(errs...)
}

// linuxDrive is a drive of the running system.
type linuxDrive struct {
	sys System
	m   inventory.Medium
}

// Medium returns what sysfs says.
func (d *linuxDrive) Medium() inventory.Medium { return d.m }

// Admin sends a command to the controller's character device.
func (d *linuxDrive) Admin(c *Command) error {
	if d.m.Kind != inventory.MediumNVMe {
		return fmt.Errorf("%s knows no NVMe commands", d.m.Device)
	}
	return d.sys.Send(filepath.Join(d.sys.Dev, d.m.Device), c)
}

// hidden path devices of native multipath: nvme0c1n2 is a path of nvme0n2.
var pathName = regexp.MustCompile(`^(nvme\d+)(?:c\d+)?(n\d+)$`)

// spaces maps namespace ids to block device names.
func (d *linuxDrive) spaces() (map[uint32]string, error) {
	all := map[uint32]string{}
	if d.m.Kind != inventory.MediumNVMe {
		return map[uint32]string{1: d.m.Device}, nil
	}
	for _, e := range entries(filepath.Join(d.sys.Sys, "class/nvme", d.m.Device)) {
		p := pathName.FindStringSubmatch(e)
		if p == nil {
			continue
		}
		name := p[1] + p[2]
		id, err := strconv.ParseUint(line(filepath.Join(d.sys.Sys, "block", name), "nsid"), 10, 32)
		if err != nil {
			return nil, fmt.Errorf("namespace id of %s: %v", name, err)
		}
		all[uint32(id)] = name
	}
	return all, nil
}

// Visible lists the namespaces with block devices.
func (d *linuxDrive) Visible() ([]uint32, error) {
	all, err := d.spaces()
	var ids []uint32
	for id := range all {
		ids = append(ids, id)
	}
	return ids, err
}

// Open opens a namespace's block device, alone and directly.
func (d *linuxDrive) Open(nsid uint32) (Namespace, error) {
	all, err := d.spaces()
	if err != nil {
		return nil, err
	}
	if all[nsid] == "" {
		return nil, fmt.Errorf("no block device for namespace %d", nsid)
	}
	return disk.Open(filepath.Join(d.sys.Dev, all[nsid]), disk.Options{})
}

// nvmeAdminCmd is struct nvme_passthru_cmd of linux/nvme_ioctl.h.
type nvmeAdminCmd struct {
	opcode, flags                            uint8
	_                                        uint16
	nsid, cdw2, cdw3                         uint32
	metadata, addr                           uint64
	metadataLen, dataLen                     uint32
	cdw10, cdw11, cdw12, cdw13, cdw14, cdw15 uint32
	timeoutMs, result                        uint32
}

const nvmeIoctlAdminCmd = 0xc0484e41 // _IOWR('N', 0x41, struct nvme_admin_cmd)

// sendIoctl sends an admin command by ioctl, whose return value is the drive's status.
func sendIoctl(path string, c *Command) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	raw := nvmeAdminCmd{opcode: c.Opcode, nsid: c.NSID, cdw10: c.CDW10, cdw11: c.CDW11, cdw12: c.CDW12,
		dataLen: uint32(len(c.Data)), timeoutMs: uint32(c.Timeout.Milliseconds())}
	var pin runtime.Pinner
	defer pin.Unpin()
	var buf []byte
	if len(c.Data) > 0 {
		buf = disk.Buffer(len(c.Data))
		pin.Pin(&buf[0])
		raw.addr = uint64(uintptr(unsafe.Pointer(&buf[0])))
	}
	status, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), nvmeIoctlAdminCmd, uintptr(unsafe.Pointer(&raw)))
	if errno != 0 {
		return fmt.Errorf("%s: NVMe command 0x%02x: %w", path, c.Opcode, errno)
	}
	if status != 0 {
		return Status(status)
	}
	copy(c.Data, buf)
	c.Result = raw.result
	return nil
}

func entries(dir string) []string {
	list, err := os.ReadDir(dir)
	if err != nil { // no such bus in this machine
		return nil
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	sort.Strings(names)
	return names
}

func line(dir, name string) string {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// pageSerial reads the serial of a SCSI or SATA disk from VPD page 0x80 (SPC-4, section 7.8.13).
func pageSerial(dir string) string {
	b, err := os.ReadFile(filepath.Join(dir, "device/vpd_pg80"))
	if err != nil || len(b) < 4 {
		return ""
	}
	return text(b[4:])
}

var pciAddress = regexp.MustCompile(`^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$`)

// slot is the PCI address nearest to the device; disks behind one controller are told apart by what follows it.
func slot(dir string) string {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return ""
	}
	parts := strings.Split(real, "/")
	for i := len(parts) - 1; i >= 0; i-- {
		if !pciAddress.MatchString(parts[i]) {
			continue
		}
		for _, p := range parts[i+1:] {
			if strings.Contains(p, ":") { // SCSI address host:channel:id:lun
				return parts[i] + "/" + p
			}
		}
		return parts[i]
	}
	return ""
}
