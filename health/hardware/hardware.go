// Package hardware reads what one machine is made of, and says where it falls short of its SKU.
//
// Read walks /proc and /sys (any root, so that a test can give a tree of its own) into inventory.Hardware: firmware and
// product from SMBIOS, processors, memory, network interfaces, NVIDIA GPUs as the PCI bus shows them, Secure Boot and the
// BMC's device. Compare is pure: a SKU and a Hardware in, mismatches with slot, expected and found out.
// Media are not read here: erasing must see exactly what inspection sees, so imaging/sanitize finds them and the caller
// fills Hardware.Media. Nothing here decides what a mismatch leads to.
package hardware

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/hostler-project/hostler/inventory"
)

// Read tells what the machine under root ("/" for this one) is made of, without its media. A thing that is not there is
// left empty, which Compare treats as a mismatch; a thing that is there and cannot be read is an error.
func Read(root string) (inventory.Hardware, error) {
	t := tree(root)
	hw := inventory.Hardware{
		Manufacturer: t.text("sys/class/dmi/id/sys_vendor"),
		Product:      t.text("sys/class/dmi/id/product_name"),
		Serial:       t.text("sys/class/dmi/id/product_serial"),
		UUID:         strings.ToLower(t.text("sys/class/dmi/id/product_uuid")),
		BIOSVersion:  t.text("sys/class/dmi/id/bios_version"),
		Kernel:       t.text("proc/sys/kernel/osrelease"),
		Arch:         runtime.GOARCH,
		BMCInBand:    t.has("dev/ipmi0"),
	}
	var errs []error
	note := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	var err error
	hw.CPUModel, hw.CPUs, err = t.cpus()
	note(err)
	hw.MemoryBytes, err = t.memory()
	note(err)
	hw.Firmware, hw.SecureBoot, err = t.firmware()
	note(err)
	hw.NICs, err = t.nics()
	note(err)
	hw.GPUs, err = t.gpus()
	note(err)
	return hw, errors.Join(errs...)
}

// A tree is the root folder that /proc, /sys and /dev are read below.
type tree string

func (t tree) path(name string) string { return filepath.Join(string(t), name) }

func (t tree) has(name string) bool {
	_, err := os.Stat(t.path(name))
	return err == nil
}

// text is the trimmed content of a file, "" when it is not there: SMBIOS fields are optional one by one.
func (t tree) text(name string) string {
	b, err := os.ReadFile(t.path(name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// entries lists a folder; one that does not exist is empty (a machine without network has no sys/class/net).
func (t tree) entries(name string) ([]string, error) {
	list, err := os.ReadDir(t.path(name))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("hardware: list %s: %w", t.path(name), err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names, nil
}

// cpus are the logical processors that the kernel runs on, and the first one's model.
func (t tree) cpus() (model string, n int, err error) {
	b, err := os.ReadFile(t.path("proc/cpuinfo"))
	if err != nil {
		return "", 0, fmt.Errorf("hardware: count processors: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(line, ":")
		switch strings.TrimSpace(key) {
		case "processor":
			n++
		case "model name":
			if model == "" {
				model = strings.TrimSpace(value)
			}
		}
	}
	if n == 0 {
		return "", 0, fmt.Errorf("hardware: %s names no processor", t.path("proc/cpuinfo"))
	}
	return model, n, nil
}

// memory is MemTotal of proc/meminfo in bytes: what firmware and kernel left to use.
func (t tree) memory() (int64, error) {
	b, err := os.ReadFile(t.path("proc/meminfo"))
	if err != nil {
		return 0, fmt.Errorf("hardware: measure memory: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 3 || f[0] != "MemTotal:" || f[2] != "kB" {
			continue
		}
		kb, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("hardware: measure memory: MemTotal %q is no number", f[1])
		}
		return kb << 10, nil
	}
	return 0, fmt.Errorf("hardware: %s has no MemTotal in kB", t.path("proc/meminfo"))
}

// The SecureBoot variable of the UEFI specification (3.3): four bytes of attributes, then 1 when it is enforced.
const secureBoot = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"

// firmware is bios or uefi, and whether Secure Boot is enforced. A firmware without that variable has no Secure Boot; an
// empty efivars folder means that nobody mounted it, so nothing is known.
func (t tree) firmware() (kind string, secure bool, err error) {
	if !t.has("sys/firmware/efi") {
		return "bios", false, nil
	}
	vars, err := t.entries("sys/firmware/efi/efivars")
	if err != nil {
		return "uefi", false, err
	}
	if len(vars) == 0 {
		return "uefi", false, errors.New("hardware: read Secure Boot: no UEFI variables are visible (is efivarfs mounted?)")
	}
	if !t.has(secureBoot) {
		return "uefi", false, nil
	}
	b, err := os.ReadFile(t.path(secureBoot))
	if err != nil {
		return "uefi", false, fmt.Errorf("hardware: read Secure Boot: %w", err)
	}
	if len(b) != 5 {
		return "uefi", false, fmt.Errorf("hardware: read Secure Boot: the variable has %d bytes, want 5", len(b))
	}
	return "uefi", b[4] == 1, nil
}
