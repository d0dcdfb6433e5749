package handoff

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf16"

	"golang.org/x/sys/unix"

	"github.com/hostler-project/hostler/imaging/disk"
)

// Vars are a machine's EFI variables of the global namespace (UEFI 2.10, section 3.3). Get of one that is not there is
// fs.ErrNotExist.
type Vars interface {
	Get(name string) (attributes uint32, data []byte, err error)
	Set(name string, attributes uint32, data []byte) error
	Names() ([]string, error)
}

// bootAttributes: non-volatile, boot service access, runtime access.
const bootAttributes = 7

// EntryName is the description of the boot entry that DiskFirst makes.
const EntryName = "Tenant disk"

// loaderPath is the removable-media path: images install their loader there, for they know no machine (UEFI 2.10, 3.5.1.1).
var loaderPath = map[string]string{"amd64": `\EFI\BOOT\BOOTX64.EFI`, "arm64": `\EFI\BOOT\BOOTAA64.EFI`}

// DiskFirst makes the disk's EFI system partition the first persistent boot option and the next one, and reads both
// back. d is the written disk, arch its image's. It may be repeated: an entry for the same partition is used again, and
// entries of ours for disks that are gone are dropped from the order.
func DiskFirst(v Vars, d disk.Device, arch string) error {
	t, err := disk.ReadTable(d, d.SectorSize())
	if err != nil {
		return fmt.Errorf("handoff: disk first: %w", err)
	}
	esp, ok := t.Find(func(p disk.Partition) bool { return p.Type == disk.TypeESP })
	path := loaderPath[arch]
	if !ok || path == "" {
		return fmt.Errorf("handoff: disk first: %s has no EFI system partition, or %q no loader name", d.Name(), arch)
	}
	option := bootOption(EntryName, esp, path)
	order, err := bootOrder(v)
	if err != nil {
		return err
	}
	number, stale, err := findEntry(v, option)
	if err != nil {
		return err
	}
	name := fmt.Sprintf("Boot%04X", number)
	if _, old, err := v.Get(name); err != nil || !bytes.Equal(old, option) {
		if err := v.Set(name, bootAttributes, option); err != nil {
			return fmt.Errorf("handoff: disk first: write %s: %w", name, err)
		}
	}
	want := []uint16{number}
	for _, n := range order {
		if n != number && !slices.Contains(stale, n) {
			want = append(want, n)
		}
	}
	raw := make([]byte, 0, 2*len(want))
	for _, n := range want {
		raw = binary.LittleEndian.AppendUint16(raw, n)
	}
	for _, x := range []struct {
		name string
		data []byte
	}{{"BootOrder", raw}, {"BootNext", raw[:2]}} {
		if _, now, err := v.Get(x.name); err == nil && bytes.Equal(now, x.data) {
			continue // sparing the flash
		}
		if err := v.Set(x.name, bootAttributes, x.data); err != nil {
			return fmt.Errorf("handoff: disk first: write %s: %w", x.name, err)
		}
	}
	for _, x := range []struct {
		name string
		data []byte
	}{{name, option}, {"BootOrder", raw}, {"BootNext", raw[:2]}} {
		if _, now, err := v.Get(x.name); err != nil || !bytes.Equal(now, x.data) {
			return fmt.Errorf("handoff: disk first: %s does not read back as written (%v): set the boot order in the firmware's menu", x.name, err)
		}
	}
	return nil
}

func bootOrder(v Vars) ([]uint16, error) {
	_, raw, err := v.Get("BootOrder")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("handoff: disk first: read BootOrder: %w", err)
	}
	var order []uint16
	for ; len(raw) >= 2; raw = raw[2:] {
		order = append(order, binary.LittleEndian.Uint16(raw))
	}
	return order, nil
}

// findEntry returns the number of the entry that is option already, or a free one, and the numbers of other entries of
// our name.
func findEntry(v Vars, option []byte) (number uint16, stale []uint16, err error) {
	names, err := v.Names()
	if err != nil {
		return 0, nil, fmt.Errorf("handoff: disk first: list variables: %w", err)
	}
	used, found := map[uint16]bool{}, false
	for _, n := range names {
		var k uint16
		if len(n) != 8 || !strings.HasPrefix(n, "Boot") {
			continue
		}
		if _, err := fmt.Sscanf(n[4:], "%04X", &k); err != nil {
			continue
		}
		used[k] = true
		_, data, err := v.Get(n)
		switch {
		case err != nil:
		case bytes.Equal(data, option) && !found:
			number, found = k, true
		case description(data) == EntryName:
			stale = append(stale, k)
		}
	}
	if found {
		return number, stale, nil
	}
	if len(stale) > 0 { // written over: variables are few
		return stale[0], stale[1:], nil
	}
	for number = 0; used[number]; number++ {
	}
	return number, nil, nil
}

// bootOption is an EFI_LOAD_OPTION (UEFI 2.10, section 3.1.3) with a short-form path: hard drive partition, file.
func bootOption(name string, p disk.Partition, path string) []byte {
	le := binary.LittleEndian
	hd := make([]byte, 42) // section 10.3.5.1
	hd[0], hd[1] = 4, 1
	le.PutUint16(hd[2:], 42)
	le.PutUint32(hd[4:], uint32(p.Slot))
	le.PutUint64(hd[8:], p.First)
	le.PutUint64(hd[16:], p.Last-p.First+1)
	copy(hd[24:], p.ID[:])
	hd[40], hd[41] = 2, 2 // GPT; signature is a GUID
	file := append([]byte{4, 4, 0, 0}, ucs2(path)...)
	le.PutUint16(file[2:], uint16(len(file)))
	nodes := append(append(hd, file...), 0x7f, 0xff, 4, 0)
	o := le.AppendUint32(nil, 1) // LOAD_OPTION_ACTIVE
	o = le.AppendUint16(o, uint16(len(nodes)))
	return append(append(o, ucs2(name)...), nodes...)
}

func ucs2(s string) []byte {
	var b []byte
	for _, u := range append(utf16.Encode([]rune(s)), 0) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return b
}

func description(option []byte) string {
	var u []uint16
	for b := option[min(6, len(option)):]; len(b) >= 2; b = b[2:] {
		c := binary.LittleEndian.Uint16(b)
		if c == 0 {
			break
		}
		u = append(u, c)
	}
	return string(utf16.Decode(u))
}

const globalVariable = "8be4df61-93ca-11d2-aa0d-00e098032b8c"

const immutable = 0x10 // FS_IMMUTABLE_FL of linux/fs.h

// EFIVars are the variables as efivarfs shows them, mounted at Dir.
type EFIVars struct{ Dir string }

func (e EFIVars) path(name string) string { return filepath.Join(e.Dir, name+"-"+globalVariable) }

// Get reads a variable: four bytes of attributes, then data.
func (e EFIVars) Get(name string) (uint32, []byte, error) {
	b, err := os.ReadFile(e.path(name))
	if err != nil {
		return 0, nil, err
	}
	if len(b) < 4 {
		return 0, nil, fmt.Errorf("EFI variable %s has %d bytes", name, len(b))
	}
	return binary.LittleEndian.Uint32(b), b[4:], nil
}

// Set writes a variable in one write, as efivarfs wants it. Existing ones are immutable files until told otherwise, so
// that rm -rf does not brick machines.
func (e EFIVars) Set(name string, attributes uint32, data []byte) error {
	path := e.path(name)
	if err := mutable(path); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	n, err := f.Write(append(binary.LittleEndian.AppendUint32(nil, attributes), data...))
	if err == nil && n != len(data)+4 {
		err = io.ErrShortWrite
	}
	return errors.Join(err, f.Close())
}

// mutable takes the immutable flag from a file. One that is not there, and a file system without flags, are fine.
func mutable(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil || flags&immutable == 0 {
		return nil
	}
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags&^immutable); err != nil {
		return fmt.Errorf("make %s writable: %w", filepath.Base(path), err)
	}
	return nil
}

// Names lists the variables of the global namespace.
func (e EFIVars) Names() ([]string, error) {
	list, err := os.ReadDir(e.Dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, f := range list {
		if n, ok := strings.CutSuffix(f.Name(), "-"+globalVariable); ok {
			names = append(names, n)
		}
	}
	return names, nil
}
