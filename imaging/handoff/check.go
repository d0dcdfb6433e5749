package handoff

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// The two ways in.
const (
	Kexec  = "kexec"
	Reboot = "reboot"
)

// An Order is what the daemon says about this hand-off. Everything is a statement that somebody looked: the zero value
// allows nothing.
type Order struct {
	Qualified        bool // this image booted by kexec on this SKU, and from disk
	HasKernel        bool // the manifest names a kernel
	MeasuredBoot     bool // the manifest says that the image relies on TPM measurements
	KernelSigned     bool // its kernel is signed for this machine's keyring
	WatchdogDisarmed bool // the BMC watchdog was read back as stopped
	OverrideCleared  bool // the BMC's boot override was read back as none
	DiskFirst        bool // the disk was read back as first boot option (on BIOS machines: set through the BMC, or the SKU's order)
	KeysWiped        bool // the agent's keys are gone and its certificate is revoked
	GPUsReset        bool // GPUs and switches were reset and read back; true as well for a machine without
}

// A Host is what the checklist asks of the running machine.
type Host interface {
	// SecureBoot says whether the firmware enforces signatures.
	SecureBoot() (bool, error)
	// Modules lists the loaded kernel modules.
	Modules() ([]string, error)
}

// A Line is one condition of a kexec. Check returns nil, or what is wrong.
type Line struct {
	Name  string
	Why   string // what goes wrong without it
	Check func(h Host, o Order) error
}

// Checklist is design.md section 9. All lines must hold.
var Checklist = []Line{
	{"qualified", "an image that never booted this way on this hardware may hang where nobody looks",
		said(func(o Order) bool { return o.Qualified }, "the image is not qualified for kexec on this SKU")},
	{"kernel", "without a kernel there is nothing to enter",
		said(func(o Order) bool { return o.HasKernel }, "the image names no kernel")},
	{"secure boot", "the kernel refuses an unsigned one, and signatures would no longer mean anything", secureBoot},
	{"measured boot", "the TPM would hold our measurements, and the image's secrets would stay sealed",
		said(func(o Order) bool { return !o.MeasuredBoot }, "the image relies on measured boot")},
	{"gpu drivers", "a driver that is loaded leaves devices in a state that the next one does not expect", gpuDrivers},
	{"gpu reset", "memory and fabric state of ours would reach the tenant",
		said(func(o Order) bool { return o.GPUsReset }, "GPUs and switches were not reset and read back")},
	{"watchdog", "it would reset the tenant's machine minutes later",
		said(func(o Order) bool { return o.WatchdogDisarmed }, "the BMC watchdog was not seen disarmed")},
	{"boot override", "the tenant's own reboot would come back to us",
		said(func(o Order) bool { return o.OverrideCleared }, "the BMC boot override was not seen cleared")},
	{"disk first", "the tenant's own reboot would come back to us",
		said(func(o Order) bool { return o.DiskFirst }, "the disk was not seen as first boot option")},
	{"agent keys", "memory survives a kexec: the tenant could find them",
		said(func(o Order) bool { return o.KeysWiped }, "the agent's keys were not wiped or its certificate not revoked")},
}

func said(ok func(Order) bool, otherwise string) func(Host, Order) error {
	return func(_ Host, o Order) error {
		if ok(o) {
			return nil
		}
		return fmt.Errorf("%s", otherwise)
	}
}

func secureBoot(h Host, o Order) error {
	on, err := h.SecureBoot()
	switch {
	case err != nil:
		return fmt.Errorf("cannot tell whether Secure Boot is on: %w", err)
	case on && !o.KernelSigned:
		return fmt.Errorf("Secure Boot is on and the image's kernel is not signed for it")
	}
	return nil
}

// gpuModules hold GPUs, switches or their memory.
var gpuModules = []string{"nvidia", "nouveau", "amdgpu", "gdrdrv"}

func gpuDrivers(h Host, _ Order) error {
	mods, err := h.Modules()
	if err != nil {
		return fmt.Errorf("cannot list kernel modules: %w", err)
	}
	for _, m := range mods {
		for _, g := range gpuModules {
			if m == g || strings.HasPrefix(m, g+"_") {
				return fmt.Errorf("module %s is loaded", m)
			}
		}
	}
	return nil
}

// A Finding is one line's result.
type Finding struct {
	Name   string `json:"name"`
	Passed bool   `json:"passed"`
	Reason string `json:"reason,omitempty"` // why not, and what would go wrong
}

// A Decision is how to enter the tenant's system.
type Decision struct {
	Method   string    `json:"method"` // Kexec or Reboot
	Findings []Finding `json:"findings"`
}

// Reasons returns why it is not a kexec; nil if it is.
func (d Decision) Reasons() []string {
	var all []string
	for _, f := range d.Findings {
		if !f.Passed {
			all = append(all, f.Name+": "+f.Reason)
		}
	}
	return all
}

// Decide walks the whole checklist: kexec only if every line holds.
func Decide(h Host, o Order) Decision {
	d := Decision{Method: Kexec}
	for _, l := range Checklist {
		f := Finding{Name: l.Name, Passed: true}
		if err := l.Check(h, o); err != nil {
			f.Passed, f.Reason, d.Method = false, err.Error()+" ("+l.Why+")", Reboot
		}
		d.Findings = append(d.Findings, f)
	}
	return d
}

// Machine is the running Linux as a Host. The zero value reads /proc and /sys.
type Machine struct {
	Root string // "" means /
}

// SecureBoot reads the variable SecureBoot (UEFI 2.10, section 3.3); a machine that did not boot by UEFI has none.
func (m Machine) SecureBoot() (bool, error) {
	if _, err := os.Stat(m.path("sys/firmware/efi")); os.IsNotExist(err) {
		return false, nil
	}
	_, data, err := m.Vars().Get("SecureBoot")
	if os.IsNotExist(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return len(data) != 1 || data[0] != 0, nil
}

// Vars returns the machine's EFI variables.
func (m Machine) Vars() EFIVars { return EFIVars{Dir: m.path("sys/firmware/efi/efivars")} }

// Modules reads /proc/modules; a kernel without modules has none.
func (m Machine) Modules() ([]string, error) {
	b, err := os.ReadFile(m.path("proc/modules"))
	if os.IsNotExist(err) {
		if _, err := os.Stat(m.path("proc/version")); err != nil { // then /proc is not there at all
			return nil, err
		}
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []string
	for l := range strings.Lines(string(b)) {
		if name, _, ok := strings.Cut(l, " "); ok {
			all = append(all, name)
		}
	}
	return all, nil
}

func (m Machine) path(p string) string { return filepath.Join("/", m.Root, p) }
