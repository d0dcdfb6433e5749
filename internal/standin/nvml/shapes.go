package nvml

import "fmt"

// A Shape is one model of GPU as its driver describes it.
type Shape struct {
	Name      string
	Part      string
	Memory    int64 // bytes
	Links     int   // NVLinks
	LinkSpeed int   // MB/s of one direction
	NVLink5   bool  // its counters are those of NVLink 5; false: of NVLink 4, or older with OldLinks
	OldLinks  bool  // counters only by the old call, as before Hopper
	Fabric    bool  // it registers with a fabric manager
	PCIeGen   int
	Power     int // mW
	ClockSM   int // MHz
	ClockMem  int
	Events    uint64
	Modern    bool // Hopper and later: repair status, SRAM buckets, margins
}

// Shapes are the models that can be rehearsed.
var Shapes = map[string]Shape{
	"A100": {Name: "NVIDIA A100-SXM4-80GB", Part: "692-2G506-0212-002", Memory: 80 << 30, Links: 12, LinkSpeed: 25000, OldLinks: true,
		PCIeGen: 4, Power: 400000, ClockSM: 1410, ClockMem: 1593, Events: 0x8e},
	"H100": {Name: "NVIDIA H100 80GB HBM3", Part: "692-2G520-0200-000", Memory: 80 << 30, Links: 18, LinkSpeed: 26562, Fabric: true,
		PCIeGen: 5, Power: 700000, ClockSM: 1980, ClockMem: 2619, Events: 0xfe8e, Modern: true},
	"H200": {Name: "NVIDIA H200", Part: "692-2G520-0280-500", Memory: 141 << 30, Links: 18, LinkSpeed: 26562, Fabric: true,
		PCIeGen: 5, Power: 700000, ClockSM: 1980, ClockMem: 3201, Events: 0xfe8e, Modern: true},
	"B200": {Name: "NVIDIA B200", Part: "692-2G525-0225-000", Memory: 180 << 30, Links: 18, LinkSpeed: 53125, NVLink5: true, Fabric: true,
		PCIeGen: 5, Power: 1000000, ClockSM: 1965, ClockMem: 3996, Events: 0xfe8e, Modern: true},
	"H100-PCIe": {Name: "NVIDIA H100 PCIe", Part: "692-2G520-0205-000", Memory: 80 << 30,
		PCIeGen: 5, Power: 350000, ClockSM: 1755, ClockMem: 1593, Events: 0xfe8e, Modern: true},
}

// buses are where the eight GPUs of a common board sit; more go on from there.
var buses = []int{0x1b, 0x43, 0x52, 0x61, 0x9d, 0xc3, 0xd1, 0xdf, 0x0a, 0x0b, 0x0c, 0x0d, 0x8a, 0x8b, 0x8c, 0x8d}

// lines are a healthy, idle GPU of the shape, at a place of the machine.
func (s Shape) lines(place int) []string {
	var l []string
	set := func(key string, v any) { l = append(l, fmt.Sprintf("%s %v", key, v)) }
	zero := func(keys ...string) {
		for _, k := range keys {
			set(k, 0)
		}
	}
	field := func(n, v int) { set(fmt.Sprintf("field.%d", n), v) }
	set("bus", fmt.Sprintf("00000000:%02X:00.0", buses[place]))
	set("name", s.Name)
	set("uuid", fmt.Sprintf("GPU-%08x-0000-4000-8000-%012x", 0x5a110000+place, 0xc0de0000+place))
	set("serial", fmt.Sprintf("165042200%04d", 1000+place))
	set("part", s.Part)
	set("module", place+1)
	set("vbios", "96.00.A5.00.01")
	set("gsp", "580.82.07")
	set("inforom.image", "G520.0200.00.05")
	set("inforom.checksum", 0x1c0ffee)
	set("inforom.valid", 1)
	field(230, 0)
	for _, counter := range []string{"volatile", "aggregate"} {
		for _, kind := range []string{"corrected", "uncorrected"} {
			zero("ecc."+counter+"."+kind, "ecc."+counter+"."+kind+".dram", "ecc."+counter+"."+kind+".sram")
		}
	}
	zero("remap.correctable", "remap.uncorrectable", "remap.pending", "remap.failure")
	set("remap.banks.max", 640)
	zero("remap.banks.high", "remap.banks.partial", "remap.banks.low", "remap.banks.none")
	set("temp.gpu", 34)
	field(82, 38)
	set("clocks.reasons", "0x1")
	for _, f := range []int{74, 75, 76, 77, 78, 79, 80, 81, 95, 173, 174, 175, 176, 177, 178, 179, 180, 181, 182, 183, 251, 252, 253} {
		field(f, 0)
	}
	set("power.usage", s.Power/8)
	field(185, s.Power/8)
	field(186, s.Power/8)
	set("power.limit", s.Power)
	set("power.default", s.Power)
	set("power.source", 0)
	set("clock.sm", 345)
	set("clock.memory", s.ClockMem)
	set("clock.sm.max", s.ClockSM)
	set("clock.memory.max", s.ClockMem)
	set("busy", 0)
	set("pcie.gen", 1) // idle GPUs train down
	set("pcie.width", 16)
	set("pcie.gen.max", s.PCIeGen)
	set("pcie.width.max", 16)
	zero("pcie.replay")
	set("mode.ecc", 1)
	set("mode.ecc.pending", 1)
	set("mode.mig", 0)
	set("mode.persistence", 1)
	set("mode.compute", 0)
	zero("processes", "memory.used")
	set("memory.total", s.Memory)
	set("events", fmt.Sprintf("%#x", s.Events))
	zero("p2p.read")
	set("p2p.ancestor", 40)
	if s.Links > 0 {
		zero("p2p.nvlink", "nvlink.encrypted")
		set("links", s.Links)
		field(164, s.LinkSpeed)
	} else {
		set("p2p.nvlink", 5)
	}
	switch {
	case s.OldLinks:
		zero("oldlink.replay", "oldlink.recovery", "oldlink.crc", "oldlink.crc-data")
	case s.NVLink5:
		for _, f := range []int{206, 207, 211, 213, 214} {
			field(f, 0)
		}
		field(220, 1<<8|20) // 1e-20
		field(222, 1<<8|20)
	case s.Links > 0:
		for _, f := range []int{161, 162, 163} {
			field(f, 0)
		}
	}
	if s.Fabric {
		set("fabric.state", 3)
		set("fabric.status", 0)
		set("fabric.mask", healthyFabric)
		set("fabric.summary", 1)
	}
	if s.Modern {
		zero("sram.volatile.parity", "sram.volatile.secded", "sram.volatile.corrected", "sram.aggregate.parity", "sram.aggregate.secded",
			"sram.aggregate.corrected", "sram.l2", "sram.sm", "sram.pcie", "sram.mcu", "sram.other", "sram.threshold", "sram.unique",
			"repair.channel", "repair.tpc", "memory.unrepairable")
		set("temp.margin", 52)
		for f, v := range map[int]int{193: -8, 194: -2, 195: 0, 196: 0} {
			field(f, v)
		}
		set("gpm", 1)
		set("pdi", 0x1000+place)
	}
	return l
}

// healthyFabric is a health mask that says of each thing that it is well: bandwidth not reduced, no route recovery, route
// healthy, no access timeout, configuration right.
const healthyFabric = 2 | 2<<2 | 2<<4 | 2<<6 | 1<<8
