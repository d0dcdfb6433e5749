package main

import (
	"bufio"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// firstModules are loaded before any device is looked at. virtio_rng is the very first: without entropy the first random
// number waits for ever in an emulated machine, and that is the DHCP client's (rack.md, fact 4). The others belong to no
// device that has a modalias when it is needed: the power button, its key events, the BMC's device file.
var firstModules = []string{"virtio_pci", "virtio_rng", "button", "evdev", "ipmi_devintf"}

// modules resolves names and modaliases to files of one kernel, from the indexes that depmod wrote (modules.dep(5),
// modules.alias), and loads them with what they depend on.
type modules struct {
	dir     string
	insert  func(file string) error
	file    map[string]string   // module name → path below dir
	needs   map[string][]string // module name → paths that must be loaded before, in that order
	aliases map[string][]alias  // by bus ("pci", "virtio"): the part before the first colon
	tried   map[string]bool     // by path
}

// An alias says which module drives the devices whose modalias matches a shell pattern.
type alias struct{ pattern, module string }

// readModules reads the indexes in dir. With an error the result is empty and usable.
func readModules(dir string, insert func(string) error) (*modules, error) {
	m := &modules{dir: dir, insert: insert, file: map[string]string{}, needs: map[string][]string{}, aliases: map[string][]alias{}, tried: map[string]bool{}}
	err := eachLine(filepath.Join(dir, "modules.dep"), func(line string) {
		file, needs, ok := strings.Cut(line, ":")
		if !ok {
			return
		}
		name := moduleName(file)
		list := strings.Fields(needs)
		slices.Reverse(list) // modules.dep names the nearest first
		m.file[name], m.needs[name] = file, list
	})
	if err != nil {
		return m, err
	}
	return m, eachLine(filepath.Join(dir, "modules.alias"), func(line string) {
		f := strings.Fields(line)
		if len(f) != 3 || f[0] != "alias" {
			return
		}
		bus, _, _ := strings.Cut(f[1], ":")
		m.aliases[bus] = append(m.aliases[bus], alias{slashless(f[1]), f[2]})
	})
}

// LoadAll loads the first modules, then what drives the devices that sysfs shows, again and again while new drivers bring new
// devices to light. A module that cannot be loaded is logged; the machine may do without.
func (m *modules) LoadAll(log *slog.Logger, sys string) {
	for _, name := range firstModules {
		m.log(log, m.Load(name))
	}
	for range 5 {
		before := len(m.tried)
		for _, a := range m.modaliases(sys) {
			for _, name := range m.Match(a) {
				m.log(log, m.Load(name))
			}
		}
		if len(m.tried) == before {
			return
		}
	}
}

func (m *modules) log(log *slog.Logger, err error) {
	if err != nil {
		log.Warn("a driver is missing", "err", err)
	}
}

// Match names the modules for a device.
func (m *modules) Match(modalias string) []string {
	bus, _, _ := strings.Cut(modalias, ":")
	text := slashless(modalias)
	var names []string
	for _, a := range m.aliases[bus] {
		if ok, err := path.Match(a.pattern, text); err == nil && ok && !slices.Contains(names, a.module) {
			names = append(names, a.module)
		}
	}
	return names
}

// Load loads a module after those that it needs, each once. One that this kernel does not have as a file is built in, or
// not for this machine: that is no error.
func (m *modules) Load(name string) error {
	name = moduleName(name)
	file, have := m.file[name]
	if !have {
		return nil
	}
	for _, f := range append(slices.Clone(m.needs[name]), file) {
		if m.tried[f] {
			continue
		}
		m.tried[f] = true
		if err := m.insert(filepath.Join(m.dir, f)); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("load module %s: %w", moduleName(f), err)
		}
	}
	return nil
}

// moduleName is the name of a module as the kernel uses it: no folder, no suffix, underscores.
func moduleName(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".")
	return strings.ReplaceAll(name, "-", "_")
}

// slashless makes path.Match, whose * stops at a slash, match as fnmatch does without FNM_PATHNAME.
func slashless(s string) string { return strings.ReplaceAll(s, "/", "\x01") }

// modaliases are those of the devices on buses that any of our modules has an alias for. Walking all of sysfs instead
// costs seconds in an emulated machine.
func (m *modules) modaliases(sys string) []string {
	buses := map[string]bool{"platform": true, "pnp": true} // their devices carry aliases of other prefixes (acpi, dmi)
	for b := range m.aliases {
		buses[b] = true
	}
	seen := map[string]bool{}
	for _, bus := range slices.Sorted(maps.Keys(buses)) {
		files, err := filepath.Glob(filepath.Join(sys, "bus", bus, "devices", "*", "modalias"))
		if err != nil { // a prefix that is no name of a bus
			continue
		}
		for _, f := range files {
			b, err := os.ReadFile(f) // a device that went away meanwhile is as good as absent
			if a := strings.TrimSpace(string(b)); err == nil && a != "" {
				seen[a] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

// insertModule gives one file to the kernel, which unpacks .xz and .zst itself where it can.
func insertModule(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	flags := 0
	if !strings.HasSuffix(file, ".ko") {
		flags = unix.MODULE_INIT_COMPRESSED_FILE
	}
	return unix.FinitModule(int(f.Fd()), "", flags)
}

func eachLine(file string, f func(string)) error {
	in, err := os.Open(file)
	if err != nil {
		return err
	}
	defer in.Close()
	s := bufio.NewScanner(in)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		f(s.Text())
	}
	return s.Err()
}
