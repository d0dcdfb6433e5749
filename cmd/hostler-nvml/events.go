//go:build cgo

package main

import (
	"time"

	driver "github.com/NVIDIA/go-nvml/pkg/nvml"

	wire "github.com/hostler-project/hostler/health/nvml"
)

var eventSymbols = []string{"nvmlEventSetCreate", "nvmlEventSetFree", "nvmlEventSetWait_v2", "nvmlDeviceGetSupportedEventTypes", "nvmlDeviceRegisterEvents"}

// register asks for every event that a GPU says it knows, each bit by itself, and gives back those that it got.
func (l *lib) register(g *gpu) wire.Value {
	if !l.hasAll(eventSymbols) {
		return wire.NotSupported()
	}
	if l.set == nil {
		ret := l.call("nvmlEventSetCreate", "", func() (ret driver.Return) {
			l.set, ret = l.nvml.EventSetCreate()
			return ret
		})
		if ret != driver.SUCCESS {
			l.set = nil
			return value(0, ret)
		}
	}
	var supported, got uint64
	ret := l.call("nvmlDeviceGetSupportedEventTypes", g.Bus, func() (ret driver.Return) {
		supported, ret = g.dev.GetSupportedEventTypes()
		return ret
	})
	if ret != driver.SUCCESS {
		return value(0, ret)
	}
	for _, e := range wire.EventTypes {
		if supported&e.Bit == 0 {
			continue
		}
		if l.call("nvmlDeviceRegisterEvents", g.Bus, func() driver.Return { return g.dev.RegisterEvents(e.Bit, l.set) }) == driver.SUCCESS {
			got |= e.Bit
		}
	}
	return wire.Number(int64(got))
}

// events fetches what came since the last time; it does not wait for more.
func (l *lib) events() []wire.Event {
	out := l.pending
	l.pending = nil
	if l.set == nil {
		return out
	}
	for range 1000 { // a storm is cut here and goes on with the next beat
		var e driver.EventData
		ret := l.call("nvmlEventSetWait_v2", "", func() (ret driver.Return) {
			e, ret = l.set.Wait(0)
			return ret
		})
		if ret != driver.SUCCESS {
			break // the time is over, or the set is no good any more: then the polls still see the GPUs' state
		}
		out = append(out, l.event(e))
	}
	return out
}

func (l *lib) event(e driver.EventData) wire.Event {
	w := wire.Event{At: time.Now(), Type: e.EventType, Bus: l.busOfDevice(e.Device)}
	if e.EventType == driver.EventTypeXidCriticalError {
		w.Xid = e.EventData
	}
	if e.GpuInstanceId != 0xffffffff && e.EventType == driver.EventTypeXidCriticalError {
		w.GI = &e.GpuInstanceId
	}
	if e.ComputeInstanceId != 0xffffffff && e.EventType == driver.EventTypeXidCriticalError {
		w.CI = &e.ComputeInstanceId
	}
	return w
}

// busOfDevice finds a handle among the open ones; a handle that is not there (a MIG instance's) is asked.
func (l *lib) busOfDevice(d driver.Device) string {
	for _, g := range l.gpus {
		if g.open && g.dev == d {
			return g.Bus
		}
	}
	bus := ""
	l.call("nvmlDeviceGetPciInfo_v3", "", func() driver.Return {
		info, ret := d.GetPciInfo()
		bus = busOf(info)
		return ret
	})
	return bus
}

// dropEvents frees the set: it holds handles that a new enumeration replaces. What it still has is kept.
func (l *lib) dropEvents() {
	if l.set == nil {
		return
	}
	l.pending = l.events()
	l.call("nvmlEventSetFree", "", l.set.Free)
	l.set = nil
	for _, g := range l.gpus {
		g.events = false
	}
}
