//go:build cgo

package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/NVIDIA/go-nvml/pkg/dl"
	driver "github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/hostler-project/hostler/health"
	wire "github.com/hostler-project/hostler/health/nvml"
)

// A lib is the opened library and what is known of the GPUs behind it.
type lib struct {
	nvml    driver.Interface
	handle  *dl.DynamicLibrary
	has     map[string]bool // symbols that this library has
	page    *wire.Page
	hello   wire.Hello
	major   int // of the driver's version
	gpus    []*gpu
	listed  string // what the GPUs were enumerated from, to see a change
	set     driver.EventSet
	calls   wire.Latency
	pending []wire.Event
}

// A gpu is one device.
type gpu struct {
	wire.GPU
	dev    driver.Device
	open   bool
	events bool // registered
}

// baseSymbols are called for every machine; without them there is no conversation.
var baseSymbols = []string{
	"nvmlInitWithFlags", "nvmlShutdown", "nvmlErrorString", "nvmlSystemGetDriverVersion", "nvmlSystemGetNVMLVersion",
	"nvmlDeviceGetCount_v2", "nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetHandleByPciBusId_v2", "nvmlDeviceGetPciInfo_v3",
	"nvmlDeviceGetUUID",
}

// call makes one call into the library: noted on the page before, timed after.
func (l *lib) call(name, bus string, f func() driver.Return) driver.Return {
	l.page.Begin(name, bus)
	ret := f()
	l.calls.Add(name, bus, l.page.End())
	return ret
}

// open loads the library and initialises it without attaching a GPU: one that is broken must not block the others.
func open(library string, page *wire.Page) *lib {
	l := &lib{page: page, has: map[string]bool{}, hello: wire.Hello{Protocol: wire.Protocol, State: wire.Broken}}
	l.handle = dl.New(library, dl.RTLD_LAZY|dl.RTLD_GLOBAL)
	if err := l.handle.Open(); err != nil {
		l.hello.State, l.hello.Text = wire.NoDriver, fmt.Sprintf("%s cannot be loaded: %v", library, err)
		return l
	}
	var missing []string
	for _, s := range symbols() {
		if l.has[s] = l.handle.Lookup(s) == nil; !l.has[s] && slices.Contains(baseSymbols, s) {
			missing = append(missing, s)
		}
	}
	l.hello.Driver.Library, l.hello.Driver.Inode = mapped(library)
	if len(missing) > 0 {
		l.hello.State, l.hello.Text = wire.NoDriver, fmt.Sprintf("%s is too old, it lacks %s", library, strings.Join(missing, ", "))
		return l
	}
	l.nvml = driver.New(driver.WithLibraryPath(library))
	ret := l.call("nvmlInitWithFlags", "", func() driver.Return {
		return l.nvml.InitWithFlags(driver.INIT_FLAG_NO_ATTACH | driver.INIT_FLAG_NO_GPUS)
	})
	switch ret {
	case driver.SUCCESS:
	case driver.ERROR_LIBRARY_NOT_FOUND, driver.ERROR_DRIVER_NOT_LOADED:
		l.hello.State, l.hello.Text = wire.NoDriver, text(ret)
		return l
	case driver.ERROR_LIB_RM_VERSION_MISMATCH:
		l.hello.State, l.hello.Text = wire.Mismatch, text(ret)
		return l
	default:
		l.hello.Text = "nvmlInitWithFlags: " + text(ret)
		return l
	}
	l.hello.State = wire.Answering
	l.call("nvmlSystemGetDriverVersion", "", func() (ret driver.Return) {
		l.hello.Driver.Version, ret = l.nvml.SystemGetDriverVersion()
		return ret
	})
	l.call("nvmlSystemGetNVMLVersion", "", func() (ret driver.Return) {
		l.hello.Driver.NVML, ret = l.nvml.SystemGetNVMLVersion()
		return ret
	})
	first, _, _ := strings.Cut(l.hello.Driver.Version, ".")
	l.major, _ = strconv.Atoi(first) // 0 where there is no version: the newest numbers are tried
	return l
}

// close shuts the library down: unloading it without that has broken other programs' checkpoints.
func (l *lib) close() {
	l.dropEvents()
	l.call("nvmlShutdown", "", l.nvml.Shutdown)
}

// mapped is the file that a library was loaded from, and its inode.
func mapped(library string) (string, uint64) {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return "", 0
	}
	name := library[strings.LastIndex(library, "/")+1:]
	base, _, _ := strings.Cut(name, ".so")
	for line := range strings.SplitSeq(string(maps), "\n") {
		f := strings.Fields(line)
		if len(f) < 6 || !strings.HasPrefix(f[5][strings.LastIndex(f[5], "/")+1:], base+".so") {
			continue
		}
		var inode uint64
		if st, err := os.Stat(f[5]); err == nil {
			if sys, ok := st.Sys().(*syscall.Stat_t); ok {
				inode = sys.Ino
			}
		}
		return f[5], inode
	}
	return "", 0
}

// enumerate opens every GPU: those that the driver lists, and those that only the kernel does. Each has its own error. It
// does so again when one comes or goes; those that could not be opened are tried again with retry.
func (l *lib) enumerate(pci, skip []string, retry bool) wire.Value {
	var count int
	ret := l.call("nvmlDeviceGetCount_v2", "", func() (ret driver.Return) {
		count, ret = l.nvml.DeviceGetCount()
		return ret
	})
	if ret != driver.SUCCESS {
		return wire.Failed(text(ret))
	}
	listed := fmt.Sprint(count, pci, skip)
	if listed == l.listed && !(retry && slices.ContainsFunc(l.gpus, func(g *gpu) bool { return !g.open })) {
		return wire.Number(int64(count))
	}
	l.listed = listed
	before := l.gpus
	l.gpus = nil
	l.dropEvents()
	add := func(g *gpu) {
		if slices.ContainsFunc(l.gpus, func(o *gpu) bool { return o.Bus == g.Bus }) {
			return
		}
		for _, o := range before { // what was read of it stays, above all who it is
			if o.Bus == g.Bus {
				g.UUID, g.Serial, g.Values, g.Links = o.UUID, o.Serial, o.Values, o.Links
			}
		}
		l.gpus = append(l.gpus, g)
	}
	for _, bus := range pci {
		if !slices.Contains(skip, bus) {
			add(l.byBus(bus))
		}
	}
	if len(pci) > 0 && len(l.gpus)+len(skip) >= count {
		return wire.Number(int64(count))
	}
	for i := range count {
		if g := l.byIndex(i); g != nil && !slices.Contains(skip, g.Bus) {
			add(g)
		}
	}
	return wire.Number(int64(count))
}

// byBus opens the GPU at a bus address.
func (l *lib) byBus(bus string) *gpu {
	g := &gpu{GPU: wire.GPU{Bus: bus}}
	ret := l.call("nvmlDeviceGetHandleByPciBusId_v2", bus, func() (ret driver.Return) {
		g.dev, ret = l.nvml.DeviceGetHandleByPciBusId(bus)
		return ret
	})
	l.opened(g, ret)
	return g
}

// byIndex opens the GPU at a place of the driver's list: how GPUs are found where the kernel's list is not to be had. A
// place that cannot be opened has no address, and is left out: the count says that one is missing.
func (l *lib) byIndex(i int) *gpu {
	g := &gpu{}
	ret := l.call("nvmlDeviceGetHandleByIndex_v2", "", func() (ret driver.Return) {
		g.dev, ret = l.nvml.DeviceGetHandleByIndex(i)
		return ret
	})
	if ret != driver.SUCCESS {
		return nil
	}
	ret = l.call("nvmlDeviceGetPciInfo_v3", "", func() driver.Return {
		info, ret := g.dev.GetPciInfo()
		g.Bus = busOf(info)
		return ret
	})
	if ret != driver.SUCCESS {
		return nil
	}
	l.opened(g, ret)
	return g
}

// opened notes how opening a GPU went.
func (l *lib) opened(g *gpu, ret driver.Return) {
	g.open = ret == driver.SUCCESS
	l.note(g, ret)
	if g.open {
		ret = l.call("nvmlDeviceGetUUID", g.Bus, func() (ret driver.Return) {
			g.UUID, ret = g.dev.GetUUID()
			return ret
		})
		l.note(g, ret)
	}
}

// note keeps what a call says about the whole GPU.
func (l *lib) note(g *gpu, ret driver.Return) {
	switch ret {
	case driver.SUCCESS:
		g.State, g.Err = wire.Present, ""
	case driver.ERROR_GPU_IS_LOST, driver.ERROR_GPU_NOT_FOUND, driver.ERROR_NOT_FOUND:
		g.State, g.Err, g.open = wire.Lost, text(ret), false
	default:
		g.State, g.Err, g.open = wire.Refused, text(ret), false
	}
}

// touch opens one GPU and makes a call on it; all calls, if a call on it is under suspicion.
func (l *lib) touch(bus string, all bool) wire.GPU {
	g := l.byBus(bus)
	l.check(g)
	if g.open && all {
		l.read(g, true)
	}
	return g.GPU
}

// temperature is the cheap call: it goes all the way to the GPU.
func (l *lib) temperature(g *gpu) driver.Return {
	q := temperature
	if !l.hasAll(q.symbols) {
		q = *q.or
	}
	if !l.hasAll(q.symbols) {
		return driver.ERROR_NOT_SUPPORTED
	}
	return l.call(q.symbols[0], g.Bus, func() driver.Return {
		_, ret := q.ask(g.dev)
		return ret
	})
}

// check makes it and notes what it says of the GPU. One that gives no temperature is well all the same.
func (l *lib) check(g *gpu) {
	if !g.open {
		return
	}
	if ret := l.temperature(g); ret != driver.ERROR_NOT_SUPPORTED {
		l.note(g, ret)
	}
}

// beat makes the cheap call on every GPU and fetches events.
func (l *lib) beat() []wire.Event {
	for _, g := range l.gpus {
		l.check(g)
	}
	return l.events()
}

func busOf(info driver.PciInfo) string {
	b := make([]byte, 0, len(info.BusId))
	for _, c := range info.BusId {
		if c == 0 {
			break
		}
		b = append(b, byte(c))
	}
	return health.BDF(string(b))
}

// text is an NVML code in words, with its number.
func text(ret driver.Return) string {
	return fmt.Sprintf("%s (NVML %d)", ret.Error(), int(ret))
}
