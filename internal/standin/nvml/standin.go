// Package nvml is a stand-in for NVIDIA's driver library: a C source that answers the calls of hostler-nvml from a folder
// of text files, and the Go side that writes those files. Tests use it, and hostler-rack, so that an operator can rehearse
// a fault; docs/rehearse-gpu-faults.md says how to do that by hand. It knows nothing of what is made of the answers.
package nvml

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

//go:embed library/nvml.c
var source []byte

// ErrNoCompiler says that this machine cannot build the library.
var ErrNoCompiler = errors.New("there is no C compiler (cc): apt-get install gcc libc6-dev")

// Folder is the variable that tells the library where its state is.
const Folder = "HOSTLER_STANDIN_NVML"

// Build compiles the library into dir and gives its path, libnvidia-ml.so.1.
func Build(ctx context.Context, dir string) (string, error) {
	cc, err := exec.LookPath("cc")
	if err != nil {
		return "", ErrNoCompiler
	}
	lib := filepath.Join(dir, "libnvidia-ml.so.1")
	cmd := exec.CommandContext(ctx, cc, "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-Wl,-soname,libnvidia-ml.so.1", "-o", lib, "-x", "c", "-", "-lpthread")
	cmd.Stdin = strings.NewReader(string(source))
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the stand-in library: %w\n%s", err, out)
	}
	return lib, nil
}

// A Machine is a folder of state.
type Machine struct {
	dir  string
	gpus int
}

// New writes a machine of n healthy GPUs of a shape into dir: state, and the parts of sysfs and /proc that go with it.
func New(dir, shape string, n int) (*Machine, error) {
	s, ok := Shapes[shape]
	if !ok || n < 1 || n > len(buses) {
		return nil, fmt.Errorf("stand-in: %d GPUs of shape %q: there are A100, H100, H200, B200 and H100-PCIe, 1 to %d of them", n, shape, len(buses))
	}
	m := &Machine{dir: dir, gpus: n}
	var errs []error
	for i := range n {
		errs = append(errs, m.write(gpu(i), s.lines(i)), m.pci(i))
	}
	errs = append(errs, m.write("events", nil), m.write("driver", []string{"version 580.82.07", "nvml 13.580.82.07", "cuda 13000", "cc.feature 0", "cc.environment 0"}))
	errs = append(errs, m.KernelModule("580.82.07"))
	return m, errors.Join(errs...)
}

func gpu(i int) string { return fmt.Sprintf("gpu%d", i) }

// Env is what the library must find in its environment.
func (m *Machine) Env() string { return Folder + "=" + m.dir }

// Sys stands for /sys.
func (m *Machine) Sys() string { return filepath.Join(m.dir, "sys") }

// VersionFile stands for /proc/driver/nvidia/version.
func (m *Machine) VersionFile() string { return filepath.Join(m.dir, "kernel-module") }

// Bus is a GPU's address as sysfs writes it.
func (m *Machine) Bus(i int) string { return fmt.Sprintf("0000:%02x:00.0", buses[i]) }

// Set changes one value of a GPU, or several: key, value, key, value. It is one change: no call sees half of it.
func (m *Machine) Set(i int, pairs ...string) error { return m.set(gpu(i), pairs) }

// Driver changes values of the driver.
func (m *Machine) Driver(pairs ...string) error { return m.set("driver", pairs) }

// Hang makes a call on a GPU block for ever, or all ("all"); "" ends that.
func (m *Machine) Hang(i int, call string) error { return m.Set(i, "hang", word(call)) }

// HangDriver makes a call block whichever GPU it is about.
func (m *Machine) HangDriver(call string) error { return m.Driver("hang", word(call)) }

func word(call string) string {
	if call == "" {
		return "none"
	}
	return call
}

// Lose makes every call on a GPU say that it is lost, and takes it out of the driver's list.
func (m *Machine) Lose(i int) error { return m.Set(i, "lost", "1", "unlisted", "1") }

// Unplug takes a GPU out of the kernel's list too.
func (m *Machine) Unplug(i int) error {
	return os.RemoveAll(filepath.Join(m.Sys(), "bus/pci/devices", m.Bus(i)))
}

// Event throws an event: its type bit, and for an XID its number.
func (m *Machine) Event(i int, bit, xid uint64) error {
	return m.append("events", fmt.Sprintf("gpu%d %x %d\n", i, bit, xid))
}

// KernelModule changes the version of the module that runs.
func (m *Machine) KernelModule(version string) error {
	return os.WriteFile(m.VersionFile(), []byte("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  "+version+"  Release Build\n"), 0o644)
}

func (m *Machine) set(file string, pairs []string) error {
	if len(pairs)%2 != 0 {
		return fmt.Errorf("stand-in: %s: a value is missing in %v", file, pairs)
	}
	old, err := os.ReadFile(filepath.Join(m.dir, file))
	if err != nil {
		return fmt.Errorf("stand-in: %w", err)
	}
	lines := strings.Split(strings.TrimSuffix(string(old), "\n"), "\n")
	for i := 0; i < len(pairs); i += 2 {
		found := false
		for j, l := range lines {
			if strings.HasPrefix(l, pairs[i]+" ") {
				lines[j], found = pairs[i]+" "+pairs[i+1], true
			}
		}
		if !found {
			lines = append(lines, pairs[i]+" "+pairs[i+1])
		}
	}
	return m.write(file, lines)
}

// write replaces a file in one step.
func (m *Machine) write(file string, lines []string) error {
	path := filepath.Join(m.dir, file)
	text := ""
	if len(lines) > 0 {
		text = strings.Join(lines, "\n") + "\n"
	}
	if err := os.MkdirAll(m.dir, 0o755); err != nil {
		return fmt.Errorf("stand-in: %w", err)
	}
	if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
		return fmt.Errorf("stand-in: %w", err)
	}
	return os.Rename(path+".new", path)
}

func (m *Machine) append(file, line string) error {
	f, err := os.OpenFile(filepath.Join(m.dir, file), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("stand-in: %w", err)
	}
	_, err = f.WriteString(line)
	return errors.Join(err, f.Close())
}

// pci writes the kernel's view of a GPU.
func (m *Machine) pci(i int) error {
	dir := filepath.Join(m.Sys(), "bus/pci/devices", m.Bus(i))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("stand-in: %w", err)
	}
	return errors.Join(os.WriteFile(filepath.Join(dir, "vendor"), []byte("0x10de\n"), 0o644), os.WriteFile(filepath.Join(dir, "class"), []byte("0x030200\n"), 0o644))
}
