//go:build cgo

package main

import (
	driver "github.com/NVIDIA/go-nvml/pkg/nvml"

	wire "github.com/hostler-project/hostler/health/nvml"
)

// maxLinks is more than any GPU has.
const maxLinks = 36

var (
	linkStateSymbols   = []string{"nvmlDeviceGetNvLinkState"}
	linkCounterSymbols = []string{"nvmlDeviceGetNvLinkErrorCounter"}
)

// legacyCounters are what GPUs of before Hopper have in the place of three fields.
var legacyCounters = []struct {
	key      string
	counters []driver.NvLinkErrorCounter
}{
	{"link.replay", []driver.NvLinkErrorCounter{driver.NVLINK_ERROR_DL_REPLAY}},
	{"link.recovery", []driver.NvLinkErrorCounter{driver.NVLINK_ERROR_DL_RECOVERY}},
	{"link.crc", []driver.NvLinkErrorCounter{driver.NVLINK_ERROR_DL_CRC_FLIT, driver.NVLINK_ERROR_DL_CRC_DATA}},
}

// links reads every NVLink that the GPU has. A card without them has no "link.state" at all, which is not the same as
// links that are down.
func (l *lib) links(g *gpu) {
	clear(g.Links)
	var state []wire.Value
	if !l.hasAll(linkStateSymbols) {
		return
	}
	for i := range maxLinks {
		var up driver.EnableState
		ret := l.call("nvmlDeviceGetNvLinkState", g.Bus, func() (ret driver.Return) {
			up, ret = g.dev.GetNvLinkState(i)
			return ret
		})
		if ret == driver.ERROR_INVALID_ARGUMENT || ret == driver.ERROR_NOT_SUPPORTED {
			break // beyond the last one; or there are none
		}
		if l.lostBy(g, ret); !g.open {
			return
		}
		state = append(state, value(uint64(up), ret))
	}
	if len(state) == 0 {
		return
	}
	g.Links["link.state"] = state
	var keys []string
	var fields []driver.FieldValue
	for _, r := range wire.Readings {
		if r.Link && r.Field != 0 {
			keys = append(keys, r.Key)
			for i := range state {
				fields = append(fields, driver.FieldValue{FieldId: r.Field, ScopeId: uint32(i)})
			}
		}
	}
	values := l.fieldValues(g, fields)
	if !g.open {
		return
	}
	for i, k := range keys {
		g.Links[k] = values[i*len(state) : (i+1)*len(state)]
	}
	for _, c := range legacyCounters {
		if vs := g.Links[c.key]; vs[0].Unsupported && l.hasAll(linkCounterSymbols) {
			l.legacy(g, c.key, c.counters, vs)
		}
	}
}

// legacy reads a counter of every link by the old call.
func (l *lib) legacy(g *gpu, key string, counters []driver.NvLinkErrorCounter, into []wire.Value) {
	for i := range into {
		var sum uint64
		for _, c := range counters {
			var n uint64
			ret := l.call("nvmlDeviceGetNvLinkErrorCounter", g.Bus, func() (ret driver.Return) {
				n, ret = g.dev.GetNvLinkErrorCounter(i, c)
				return ret
			})
			if sum += n; ret != driver.SUCCESS {
				into[i] = value(0, ret)
				return
			}
		}
		into[i] = number(sum)
	}
}
