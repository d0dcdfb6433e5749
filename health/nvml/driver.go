package nvml

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/hostler-project/hostler/health"
)

// loaded is which driver runs now: it changes under a worker when somebody upgrades.
type loaded struct {
	kernel string // of /proc/driver/nvidia/version
	inode  uint64 // of the library that the worker mapped
}

// loadedNow looks at the kernel module's version and at the file that a library was mapped from.
func (s *Supervisor) loadedNow(library string) loaded {
	var l loaded
	if b, err := os.ReadFile(s.VersionFile); err == nil {
		l.kernel = kernelVersion(string(b))
	}
	if st, err := os.Stat(library); library != "" && err == nil {
		if sys, ok := st.Sys().(*syscall.Stat_t); ok {
			l.inode = sys.Ino
		}
	}
	return l
}

// kernelVersion is the number in "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.82.07  Release Build …".
func kernelVersion(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	for word := range strings.FieldsSeq(line) {
		if major, rest, ok := strings.Cut(word, "."); ok && rest != "" {
			if _, err := strconv.Atoi(major); err == nil {
				return word
			}
		}
	}
	return ""
}

// PCI lists the GPUs that the kernel knows, from a folder like /sys: NVIDIA's functions of the classes 3D controller and
// VGA controller. nil: it cannot be read, which is not the same as none.
func PCI(sys string) []string {
	devices, err := os.ReadDir(filepath.Join(sys, "bus/pci/devices"))
	if err != nil {
		return nil
	}
	all := []string{}
	for _, d := range devices {
		read := func(name string) string {
			b, err := os.ReadFile(filepath.Join(sys, "bus/pci/devices", d.Name(), name))
			if err != nil {
				return ""
			}
			return strings.TrimSpace(string(b))
		}
		// The vendor first: a machine has hundreds of devices, and few of NVIDIA.
		if read("vendor") != "0x10de" {
			continue
		}
		if class := read("class"); strings.HasPrefix(class, "0x0302") || strings.HasPrefix(class, "0x0300") {
			all = append(all, health.BDF(d.Name()))
		}
	}
	slices.Sort(all)
	return all
}

// leftOver are the workers of an earlier agent that were killed and still hang in the driver. So the limit of stuck
// processes holds across restarts of the agent, and the next boot begins at none.
func (s *Supervisor) leftOver() []int {
	dirs, err := os.ReadDir(s.Proc)
	if err != nil {
		return nil
	}
	var all []int
	for _, d := range dirs {
		if pid, err := strconv.Atoi(d.Name()); err == nil && s.hangs(pid) {
			all = append(all, pid)
		}
	}
	return all
}

// hangs says whether a process is a worker with a SIGKILL that it does not follow.
func (s *Supervisor) hangs(pid int) bool {
	b, err := os.ReadFile(filepath.Join(s.Proc, strconv.Itoa(pid), "status"))
	if err != nil || !strings.HasPrefix(string(b), "Name:\thostler-nvml\n") {
		return false
	}
	for line := range strings.SplitSeq(string(b), "\n") {
		if v, ok := strings.CutPrefix(line, "ShdPnd:"); ok {
			mask, err := strconv.ParseUint(strings.TrimSpace(v), 16, 64)
			return err == nil && mask&(1<<(syscall.SIGKILL-1)) != 0
		}
	}
	return false
}
