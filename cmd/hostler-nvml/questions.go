//go:build cgo

package main

import (
	"fmt"
	"slices"

	driver "github.com/NVIDIA/go-nvml/pkg/nvml"

	wire "github.com/hostler-project/hostler/health/nvml"
)

// A question is one call on a GPU and the readings that its answer fills.
type question struct {
	keys    []string
	symbols []string // all that it calls, the one named on the page first
	slow    bool
	ask     func(driver.Device) ([]wire.Value, driver.Return)
	or      *question // the same for a library that lacks a symbol
}

func one(key, symbol string, ask func(driver.Device) (wire.Value, driver.Return)) question {
	r, _ := wire.Find(key)
	return question{[]string{key}, []string{symbol}, r.Slow, func(d driver.Device) ([]wire.Value, driver.Return) {
		v, ret := ask(d)
		return []wire.Value{v}, ret
	}, nil}
}

func many(symbol string, ask func(driver.Device) ([]wire.Value, driver.Return), keys ...string) question {
	r, _ := wire.Find(keys[0])
	return question{keys, []string{symbol}, r.Slow, ask, nil}
}

func (q question) orElse(o question) question {
	q.or = &o
	return q
}

// integer and words are the two usual shapes of an answer.
func integer[T ~int | ~int32 | ~uint32 | ~uint64](n T, ret driver.Return) (wire.Value, driver.Return) {
	return number(uint64(n)), ret
}

func words(s string, ret driver.Return) (wire.Value, driver.Return) { return wire.Text(s), ret }

func numbers[T ~uint32 | ~uint64](n ...T) []wire.Value {
	out := make([]wire.Value, len(n))
	for i, x := range n {
		out[i] = number(uint64(x))
	}
	return out
}

func flag(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

func ecc(key string, kind driver.MemoryErrorType, counter driver.EccCounterType) question {
	return one(key, "nvmlDeviceGetTotalEccErrors", func(d driver.Device) (wire.Value, driver.Return) { return integer(d.GetTotalEccErrors(kind, counter)) })
}

func eccAt(key string, kind driver.MemoryErrorType, counter driver.EccCounterType, where driver.MemoryLocation) question {
	return one(key, "nvmlDeviceGetMemoryErrorCounter", func(d driver.Device) (wire.Value, driver.Return) {
		return integer(d.GetMemoryErrorCounter(kind, counter, where))
	})
}

const (
	corrected   = driver.MEMORY_ERROR_TYPE_CORRECTED
	uncorrected = driver.MEMORY_ERROR_TYPE_UNCORRECTED
	volatile    = driver.VOLATILE_ECC
	aggregate   = driver.AGGREGATE_ECC
	dram        = driver.MEMORY_LOCATION_DRAM
	sram        = driver.MEMORY_LOCATION_SRAM
)

// temperature is the heartbeat, too.
var temperature = one("temp.gpu", "nvmlDeviceGetTemperatureV", func(d driver.Device) (wire.Value, driver.Return) {
	t, ret := d.GetTemperatureV().V1()
	return wire.Number(int64(t.Temperature)), ret
}).orElse(one("temp.gpu", "nvmlDeviceGetTemperature", func(d driver.Device) (wire.Value, driver.Return) {
	return integer(d.GetTemperature(driver.TEMPERATURE_GPU))
}))

// questions are all calls on a GPU but fields, links, pairs and events, in the order of the checks.
var questions = []question{
	ecc("ecc.volatile.uncorrected", uncorrected, volatile),
	eccAt("ecc.volatile.uncorrected.dram", uncorrected, volatile, dram),
	eccAt("ecc.volatile.uncorrected.sram", uncorrected, volatile, sram),
	ecc("ecc.aggregate.uncorrected", uncorrected, aggregate),
	eccAt("ecc.aggregate.uncorrected.dram", uncorrected, aggregate, dram),
	eccAt("ecc.aggregate.uncorrected.sram", uncorrected, aggregate, sram),
	ecc("ecc.volatile.corrected", corrected, volatile),
	eccAt("ecc.volatile.corrected.dram", corrected, volatile, dram),
	ecc("ecc.aggregate.corrected", corrected, aggregate),
	many("nvmlDeviceGetSramEccErrorStatus", func(d driver.Device) ([]wire.Value, driver.Return) {
		s, ret := d.GetSramEccErrorStatus()
		return numbers(s.VolatileUncParity, s.VolatileUncSecDed, s.VolatileCor, s.AggregateUncParity, s.AggregateUncSecDed, s.AggregateCor,
			s.AggregateUncBucketL2, s.AggregateUncBucketSm, s.AggregateUncBucketPcie, s.AggregateUncBucketMcu, s.AggregateUncBucketOther,
			uint64(s.BThresholdExceeded)), ret
	}, "sram.volatile.parity", "sram.volatile.secded", "sram.volatile.corrected", "sram.aggregate.parity", "sram.aggregate.secded", "sram.aggregate.corrected",
		"sram.l2", "sram.sm", "sram.pcie", "sram.mcu", "sram.other", "sram.threshold"),
	one("sram.unique", "nvmlDeviceGetSramUniqueUncorrectedEccErrorCounts", func(d driver.Device) (wire.Value, driver.Return) {
		// Without a buffer the driver says how many it has.
		var c driver.EccSramUniqueUncorrectedErrorCounts
		c.Version = driver.STRUCT_VERSION(c, 1)
		ret := d.GetSramUniqueUncorrectedEccErrorCounts(&c)
		if ret == driver.ERROR_INSUFFICIENT_SIZE {
			ret = driver.SUCCESS
		}
		return integer(c.EntryCount, ret)
	}),
	many("nvmlDeviceGetRemappedRows", func(d driver.Device) ([]wire.Value, driver.Return) {
		cor, unc, pending, failure, ret := d.GetRemappedRows()
		return numbers(flag(pending), flag(failure), uint32(unc), uint32(cor)), ret
	}, "remap.pending", "remap.failure", "remap.uncorrectable", "remap.correctable"),
	many("nvmlDeviceGetRowRemapperHistogram", func(d driver.Device) ([]wire.Value, driver.Return) {
		h, ret := d.GetRowRemapperHistogram()
		return numbers(h.Max, h.High, h.Partial, h.Low, h.None), ret
	}, "remap.banks.max", "remap.banks.high", "remap.banks.partial", "remap.banks.low", "remap.banks.none"),
	one("retired.pending", "nvmlDeviceGetRetiredPagesPendingStatus", func(d driver.Device) (wire.Value, driver.Return) {
		return integer(d.GetRetiredPagesPendingStatus())
	}),
	retired("retired.single", driver.PAGE_RETIREMENT_CAUSE_MULTIPLE_SINGLE_BIT_ECC_ERRORS),
	retired("retired.double", driver.PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR),
	many("nvmlDeviceGetRepairStatus", func(d driver.Device) ([]wire.Value, driver.Return) {
		s, ret := d.GetRepairStatus()
		return numbers(s.BChannelRepairPending, s.BTpcRepairPending), ret
	}, "repair.channel", "repair.tpc"),
	one("memory.unrepairable", "nvmlDeviceGetUnrepairableMemoryFlag_v1", func(d driver.Device) (wire.Value, driver.Return) {
		s, ret := d.GetUnrepairableMemoryFlag_v1()
		return integer(s.BUnrepairableMemory, ret)
	}),

	temperature,
	one("temp.margin", "nvmlDeviceGetMarginTemperature", func(d driver.Device) (wire.Value, driver.Return) {
		m, ret := d.GetMarginTemperature()
		return wire.Number(int64(m.MarginTemperature)), ret
	}),
	one("clocks.reasons", "nvmlDeviceGetCurrentClocksEventReasons", func(d driver.Device) (wire.Value, driver.Return) {
		return integer(d.GetCurrentClocksEventReasons())
	}).orElse(one("clocks.reasons", "nvmlDeviceGetCurrentClocksThrottleReasons", func(d driver.Device) (wire.Value, driver.Return) {
		return integer(d.GetCurrentClocksThrottleReasons())
	})),
	one("power.usage", "nvmlDeviceGetPowerUsage", func(d driver.Device) (wire.Value, driver.Return) { return integer(d.GetPowerUsage()) }),
	one("power.limit", "nvmlDeviceGetEnforcedPowerLimit", func(d driver.Device) (wire.Value, driver.Return) {
		return integer(d.GetEnforcedPowerLimit())
	}),
	one("power.default", "nvmlDeviceGetPowerManagementDefaultLimit", func(d driver.Device) (wire.Value, driver.Return) {
		return integer(d.GetPowerManagementDefaultLimit())
	}),
	one("clock.sm", "nvmlDeviceGetClockInfo", func(d driver.Device) (wire.Value, driver.Return) { return integer(d.GetClockInfo(driver.CLOCK_SM)) }),
	one("clock.memory", "nvmlDeviceGetClockInfo", func(d driver.Device) (wire.Value, driver.Return) {
		return integer(d.GetClockInfo(driver.CLOCK_MEM))
	}),
	one("clock.sm.max", "nvmlDeviceGetMaxClockInfo", func(d driver.Device) (wire.Value, driver.Return) {
		return integer(d.GetMaxClockInfo(driver.CLOCK_SM))
	}),
	one("clock.memory.max", "nvmlDeviceGetMaxClockInfo", func(d driver.Device) (wire.Value, driver.Return) {
		return integer(d.GetMaxClockInfo(driver.CLOCK_MEM))
	}),
	one("busy", "nvmlDeviceGetUtilizationRates", func(d driver.Device) (wire.Value, driver.Return) {
		u, ret := d.GetUtilizationRates()
		return integer(u.Gpu, ret)
	}),
	one("pcie.gen", "nvmlDeviceGetCurrPcieLinkGeneration", func(d driver.Device) (wire.Value, driver.Return) {
		return integer(d.GetCurrPcieLinkGeneration())
	}),
	one("pcie.width", "nvmlDeviceGetCurrPcieLinkWidth", func(d driver.Device) (wire.Value, driver.Return) { return integer(d.GetCurrPcieLinkWidth()) }),
	one("pcie.gen.max", "nvmlDeviceGetMaxPcieLinkGeneration", func(d driver.Device) (wire.Value, driver.Return) {
		return integer(d.GetMaxPcieLinkGeneration())
	}),
	one("pcie.width.max", "nvmlDeviceGetMaxPcieLinkWidth", func(d driver.Device) (wire.Value, driver.Return) {
		return integer(d.GetMaxPcieLinkWidth())
	}),
	one("pcie.replay", "nvmlDeviceGetPcieReplayCounter", func(d driver.Device) (wire.Value, driver.Return) {
		return integer(d.GetPcieReplayCounter())
	}),
	one("nvlink.encrypted", "nvmlDeviceGetNvLinkInfo", func(d driver.Device) (wire.Value, driver.Return) {
		i, ret := d.GetNvLinkInfo().V1()
		return integer(i.IsNvleEnabled, ret)
	}),
	many("nvmlDeviceGetGpuFabricInfoV", func(d driver.Device) ([]wire.Value, driver.Return) {
		i, ret := d.GetGpuFabricInfoV().V3()
		if ret == driver.ERROR_ARGUMENT_VERSION_MISMATCH || ret == driver.ERROR_INVALID_ARGUMENT { // of before 580
			old, ret := d.GetGpuFabricInfoV().V2()
			return append(numbers(uint32(old.State), old.Status, old.HealthMask), wire.NotSupported()), ret
		}
		return numbers(uint32(i.State), i.Status, i.HealthMask, uint32(i.HealthSummary)), ret
	}, "fabric.state", "fabric.status", "fabric.mask", "fabric.summary"),

	one("inforom.valid", "nvmlDeviceValidateInforom", func(d driver.Device) (wire.Value, driver.Return) {
		ret := d.ValidateInforom()
		if ret == driver.ERROR_CORRUPTED_INFOROM {
			return wire.Number(0), driver.SUCCESS
		}
		return wire.Number(1), ret
	}),
	one("inforom.image", "nvmlDeviceGetInforomImageVersion", func(d driver.Device) (wire.Value, driver.Return) { return words(d.GetInforomImageVersion()) }),
	one("inforom.checksum", "nvmlDeviceGetInforomConfigurationChecksum", func(d driver.Device) (wire.Value, driver.Return) {
		return integer(d.GetInforomConfigurationChecksum())
	}),
	one("vbios", "nvmlDeviceGetVbiosVersion", func(d driver.Device) (wire.Value, driver.Return) { return words(d.GetVbiosVersion()) }),
	one("gsp", "nvmlDeviceGetGspFirmwareVersion", func(d driver.Device) (wire.Value, driver.Return) { return words(d.GetGspFirmwareVersion()) }),
	one("name", "nvmlDeviceGetName", func(d driver.Device) (wire.Value, driver.Return) { return words(d.GetName()) }),
	one("uuid", "nvmlDeviceGetUUID", func(d driver.Device) (wire.Value, driver.Return) { return words(d.GetUUID()) }),
	one("serial", "nvmlDeviceGetSerial", func(d driver.Device) (wire.Value, driver.Return) { return words(d.GetSerial()) }),
	one("part", "nvmlDeviceGetBoardPartNumber", func(d driver.Device) (wire.Value, driver.Return) { return words(d.GetBoardPartNumber()) }),
	one("module", "nvmlDeviceGetModuleId", func(d driver.Device) (wire.Value, driver.Return) { return integer(d.GetModuleId()) }),
	one("pdi", "nvmlDeviceGetPdi", func(d driver.Device) (wire.Value, driver.Return) {
		p, ret := d.GetPdi()
		return wire.Text(fmt.Sprintf("0x%x", p.Value)), ret
	}),
	many("nvmlDeviceGetPlatformInfo", func(d driver.Device) ([]wire.Value, driver.Return) {
		p, ret := d.GetPlatformInfo()
		return numbers(uint32(p.SlotNumber), uint32(p.TrayIndex), uint32(p.HostId)), ret
	}, "platform.slot", "platform.tray", "platform.host"),
	many("nvmlDeviceGetEccMode", func(d driver.Device) ([]wire.Value, driver.Return) {
		now, pending, ret := d.GetEccMode()
		return numbers(uint32(now), uint32(pending)), ret
	}, "mode.ecc", "mode.ecc.pending"),
	one("mode.mig", "nvmlDeviceGetMigMode", func(d driver.Device) (wire.Value, driver.Return) {
		now, _, ret := d.GetMigMode()
		return integer(now, ret)
	}),
	one("mode.persistence", "nvmlDeviceGetPersistenceMode", func(d driver.Device) (wire.Value, driver.Return) { return integer(d.GetPersistenceMode()) }),
	one("mode.compute", "nvmlDeviceGetComputeMode", func(d driver.Device) (wire.Value, driver.Return) { return integer(d.GetComputeMode()) }),
	one("processes", "nvmlDeviceGetComputeRunningProcesses_v3", func(d driver.Device) (wire.Value, driver.Return) {
		p, ret := d.GetComputeRunningProcesses()
		return integer(len(p), ret)
	}),
	many("nvmlDeviceGetMemoryInfo_v2", func(d driver.Device) ([]wire.Value, driver.Return) {
		m, ret := d.GetMemoryInfo_v2()
		return numbers(m.Used, m.Total), ret
	}, "memory.used", "memory.total"),
	one("power.source", "nvmlDeviceGetPowerSource", func(d driver.Device) (wire.Value, driver.Return) { return integer(d.GetPowerSource()) }),
	one("gpm", "nvmlGpmQueryDeviceSupport", func(d driver.Device) (wire.Value, driver.Return) {
		s, ret := d.GpmQueryDeviceSupport()
		return integer(s.IsSupportedDevice, ret)
	}),
}

func retired(key string, cause driver.PageRetirementCause) question {
	return one(key, "nvmlDeviceGetRetiredPages", func(d driver.Device) (wire.Value, driver.Return) {
		pages, ret := d.GetRetiredPages(cause)
		return integer(len(pages), ret)
	})
}

// symbols are all names that the worker may call, each once: looked up before anything is called.
func symbols() []string {
	all := slices.Concat(baseSymbols, eventSymbols, fieldSymbols, linkStateSymbols, linkCounterSymbols, confidentialSymbols, readySymbols, cudaSymbols, p2pSymbols, ancestorSymbols)
	for _, q := range questions {
		if all = append(all, q.symbols...); q.or != nil {
			all = append(all, q.or.symbols...)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}
