package handoff

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/sys/unix"

	"github.com/hostler-project/hostler/imaging/disk"
)

type fakeHost struct {
	secure bool
	mods   []string
	err    error
}

func (h fakeHost) SecureBoot() (bool, error)  { return h.secure, h.err }
func (h fakeHost) Modules() ([]string, error) { return h.mods, h.err }

var allSaid = Order{Qualified: true, HasKernel: true, WatchdogDisarmed: true, OverrideCleared: true, DiskFirst: true, KeysWiped: true, GPUsReset: true}

func TestKexecOnlyIfEveryLineHolds(t *testing.T) {
	for _, c := range []struct {
		name string
		host fakeHost
		odd  func(o *Order)
		line string // the one that fails; "" means kexec
	}{
		{"all holds", fakeHost{mods: []string{"nvme", "virtio_net"}}, func(*Order) {}, ""},
		{"secure boot, signed kernel", fakeHost{secure: true}, func(o *Order) { o.KernelSigned = true }, ""},
		{"secure boot", fakeHost{secure: true}, func(*Order) {}, "secure boot"},
		{"not qualified", fakeHost{}, func(o *Order) { o.Qualified = false }, "qualified"},
		{"no kernel", fakeHost{}, func(o *Order) { o.HasKernel = false }, "kernel"},
		{"measured boot", fakeHost{}, func(o *Order) { o.MeasuredBoot = true }, "measured boot"},
		{"gpu driver", fakeHost{mods: []string{"nvme", "nvidia_uvm"}}, func(*Order) {}, "gpu drivers"},
		{"a module that only sounds like it", fakeHost{mods: []string{"nvidiafoo"}}, func(*Order) {}, ""},
		{"gpus not reset", fakeHost{}, func(o *Order) { o.GPUsReset = false }, "gpu reset"},
		{"watchdog", fakeHost{}, func(o *Order) { o.WatchdogDisarmed = false }, "watchdog"},
		{"override", fakeHost{}, func(o *Order) { o.OverrideCleared = false }, "boot override"},
		{"disk not first", fakeHost{}, func(o *Order) { o.DiskFirst = false }, "disk first"},
		{"keys", fakeHost{}, func(o *Order) { o.KeysWiped = false }, "agent keys"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := allSaid
			c.odd(&o)
			d := Decide(c.host, o)
			if c.line == "" {
				if d.Method != Kexec || d.Reasons() != nil {
					t.Errorf("got %s: %q", d.Method, d.Reasons())
				}
				return
			}
			if d.Method != Reboot || len(d.Reasons()) != 1 || !strings.HasPrefix(d.Reasons()[0], c.line+": ") {
				t.Errorf("got %s: %q", d.Method, d.Reasons())
			}
		})
	}
	if d := Decide(fakeHost{err: errors.New("no /sys")}, Order{}); d.Method != Reboot || len(d.Reasons()) != len(Checklist)-1 {
		t.Errorf("nothing said: %q", d.Reasons()) // all but measured boot, which is a fault only when it is said
	}
}

func TestMachineReadsProcAndSys(t *testing.T) {
	root := t.TempDir()
	m := Machine{Root: root}
	if _, err := m.Modules(); err == nil {
		t.Error("without /proc there are no modules loaded")
	}
	put := func(path, text string) {
		t.Helper()
		p := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put("proc/modules", "nvidia_uvm 1 0 - Live 0x0\nnvme 1 2 - Live 0x0\n")
	if mods, err := m.Modules(); err != nil || !slices.Equal(mods, []string{"nvidia_uvm", "nvme"}) {
		t.Errorf("modules %q %v", mods, err)
	}
	if on, err := m.SecureBoot(); on || err != nil {
		t.Errorf("a BIOS machine: %v %v", on, err)
	}
	for text, want := range map[string]bool{"\x06\x00\x00\x00\x00": false, "\x06\x00\x00\x00\x01": true} {
		put("sys/firmware/efi/efivars/SecureBoot-"+globalVariable, text)
		if on, err := m.SecureBoot(); on != want || err != nil {
			t.Errorf("%q: %v %v", text, on, err)
		}
	}
	put("sys/firmware/efi/efivars/SecureBoot-"+globalVariable, "x")
	if _, err := m.SecureBoot(); err == nil {
		t.Error("a short variable was believed")
	}
}

// A fakeKernel refuses what Linux refuses.
type fakeKernel struct {
	kernel, initrd []byte
	cmdline        string
	loaded         bool
}

func (k *fakeKernel) Load(kernel, initrd *os.File, cmdline string) error {
	for _, f := range []*os.File{kernel, initrd} {
		if f == nil {
			continue
		}
		if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0); err != nil || flags&unix.O_ACCMODE != unix.O_RDONLY {
			return unix.ETXTBSY
		}
	}
	var err error
	if k.kernel, err = io.ReadAll(kernel); err != nil {
		return err
	}
	if initrd != nil {
		if k.initrd, err = io.ReadAll(initrd); err == nil && len(k.initrd) == 0 {
			return unix.EINVAL
		}
	}
	k.cmdline, k.loaded = cmdline, true
	return err
}
func (k *fakeKernel) Enter() error  { return unix.EINVAL }
func (k *fakeKernel) Unload() error { k.loaded = false; return nil }

func TestLoadGivesReadOnlyFiles(t *testing.T) {
	k := new(fakeKernel)
	big := bytes.Repeat([]byte("vmlinuz "), 100_000)
	if err := Load(k, bytes.NewReader(big), strings.NewReader("initrd"), "root=LABEL=root ro"); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(k.kernel, big) || string(k.initrd) != "initrd" || k.cmdline != "root=LABEL=root ro" {
		t.Errorf("loaded %d bytes, %q, %q", len(k.kernel), k.initrd, k.cmdline)
	}
	for _, initrd := range []io.Reader{nil, strings.NewReader("")} {
		k := new(fakeKernel)
		if err := Load(k, strings.NewReader("k"), initrd, ""); err != nil || k.initrd != nil || !k.loaded {
			t.Errorf("no initrd: %v", err)
		}
	}
	for _, c := range []struct {
		name, want, cmdline string
		kernel, initrd      io.Reader
	}{
		{"unverified kernel", "digest", "", iotest.ErrReader(errors.New("not what the digest says")), nil},
		{"unverified initrd", "digest", "", strings.NewReader("k"), iotest.ErrReader(errors.New("not what the digest says"))},
		{"empty kernel", "empty", "", strings.NewReader(""), nil},
		{"newline", "printable", "a\nb", strings.NewReader("k"), nil},
	} {
		k := new(fakeKernel)
		if err := Load(k, c.kernel, c.initrd, c.cmdline); err == nil || !strings.Contains(err.Error(), c.want) || k.loaded {
			t.Errorf("%s: %v, loaded %v", c.name, err, k.loaded)
		}
	}
	if err := Enter(k); !errors.Is(err, unix.EINVAL) {
		t.Errorf("enter: %v", err)
	}
}

// fakeVars are variables in memory; deaf ones say yes and keep the old value.
type fakeVars struct {
	m    map[string][]byte
	deaf string
	sets int
}

func (v *fakeVars) Get(name string) (uint32, []byte, error) {
	b, ok := v.m[name]
	if !ok {
		return 0, nil, fs.ErrNotExist
	}
	return bootAttributes, b, nil
}

func (v *fakeVars) Set(name string, _ uint32, data []byte) error {
	if v.sets++; name != v.deaf {
		v.m[name] = bytes.Clone(data)
	}
	return nil
}
func (v *fakeVars) Names() ([]string, error) { return slices.Collect(maps.Keys(v.m)), nil }

func espDisk(t *testing.T, slot int) disk.Device {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, make([]byte, 8*disk.MiB), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := disk.Open(path, disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	tab := disk.NewTable(d.Size(), 512)
	if slot > 0 {
		tab.Partitions = []disk.Partition{{Slot: slot, Type: disk.TypeESP, ID: disk.NewGUID(), First: 2048, Last: 6143}}
	}
	if err := disk.WriteTable(d, tab); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDiskFirst(t *testing.T) {
	pxe := append([]byte{1, 0, 0, 0, 4, 0}, append(ucs2("UEFI PXEv4"), 0x7f, 0xff, 4, 0)...)
	v := &fakeVars{m: map[string][]byte{"Boot0000": pxe, "Boot0001": pxe, "BootOrder": {1, 0, 0, 0}, "BootCurrent": {0, 0}, "Timeout": {3, 0}}}
	d := espDisk(t, 1)
	if err := DiskFirst(v, d, "amd64"); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(v.m["BootOrder"], []byte{2, 0, 1, 0, 0, 0}) || !bytes.Equal(v.m["BootNext"], []byte{2, 0}) {
		t.Errorf("order %x next %x", v.m["BootOrder"], v.m["BootNext"])
	}
	o := v.m["Boot0002"]
	if description(o) != EntryName || !bytes.Contains(o, ucs2(`\EFI\BOOT\BOOTX64.EFI`)) || int(binary.LittleEndian.Uint16(o[4:])) != len(o)-6-len(ucs2(EntryName)) {
		t.Errorf("entry %x", o)
	}
	sets := v.sets
	if err := DiskFirst(v, d, "amd64"); err != nil || v.sets != sets {
		t.Errorf("again: %v, %d more writes", err, v.sets-sets)
	}
	other := espDisk(t, 1) // the next tenant's disk: the entry is used again, none piles up
	if err := DiskFirst(v, other, "amd64"); err != nil || len(v.m) != 7 || !bytes.Equal(v.m["BootOrder"], []byte{2, 0, 1, 0, 0, 0}) {
		t.Errorf("another disk: %v, %d variables, order %x", err, len(v.m), v.m["BootOrder"])
	}
	empty := &fakeVars{m: map[string][]byte{}}
	if err := DiskFirst(empty, d, "arm64"); err != nil || !bytes.Equal(empty.m["BootOrder"], []byte{0, 0}) || !bytes.Contains(empty.m["Boot0000"], ucs2("BOOTAA64.EFI")) {
		t.Errorf("no variables yet: %v %x", err, empty.m)
	}
	for _, name := range []string{"Boot0000", "BootOrder", "BootNext"} {
		if err := DiskFirst(&fakeVars{m: map[string][]byte{}, deaf: name}, d, "amd64"); err == nil || !strings.Contains(err.Error(), name+" does not read back") {
			t.Errorf("firmware ignores %s: %v", name, err)
		}
	}
	if err := DiskFirst(v, espDisk(t, 0), "amd64"); err == nil || !strings.Contains(err.Error(), "no EFI system partition") {
		t.Errorf("no ESP: %v", err)
	}
}

// The same bytes as efibootmgr writes for partition 1 at LBA 2048, 4096 sectors long.
func TestBootOptionBytes(t *testing.T) {
	p := disk.Partition{Slot: 1, First: 2048, Last: 6143, ID: disk.MustGUID("0FC63DAF-8483-4772-8E79-3D69D8477DE4")}
	want := "01000000" + "3400" + "6400" + "0000" +
		"04012a0001000000" + "0008000000000000" + "0010000000000000" + "af3dc60f838472478e793d69d8477de4" + "0202" +
		"04040600" + "0000" + "7fff0400"
	if got := hex.EncodeToString(bootOption("d", p, "")); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestEFIVarsOnAFolder(t *testing.T) {
	e := EFIVars{Dir: t.TempDir()}
	if _, _, err := e.Get("BootOrder"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if err := e.Set("BootOrder", bootAttributes, []byte{1, 0}); err != nil {
		t.Fatal(err)
	}
	a, b, err := e.Get("BootOrder")
	if err != nil || a != bootAttributes || !bytes.Equal(b, []byte{1, 0}) {
		t.Errorf("%d %x %v", a, b, err)
	}
	if names, err := e.Names(); err != nil || !slices.Equal(names, []string{"BootOrder"}) {
		t.Errorf("%q %v", names, err)
	}
}
