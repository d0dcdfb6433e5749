package nvml

import "slices"

// A Reading is one thing that is asked of each GPU.
type Reading struct {
	Key   string // its name in a sample, and in the stand-in's state
	Check string // the check of health-checks.md that needs it
	Unit  string
	Field uint32 // the number for GetFieldValues; 0: the worker has a function for it
	Link  bool   // asked of every NVLink
	Slow  bool   // asked every few minutes: it does not change, or it is expensive
}

// Readings are everything that is asked of a GPU, in the order of the checks. The keys are the names of the columns in
// the stand-in's state too, so that a person who rehearses a fault sees the same words.
var Readings = []Reading{
	{"recovery", "G5", "action", 230, false, false},

	{"ecc.volatile.uncorrected", "G7", "errors", 0, false, false},
	{"ecc.volatile.uncorrected.dram", "G7", "errors", 0, false, false},
	{"ecc.volatile.uncorrected.sram", "G7", "errors", 0, false, false},
	{"ecc.aggregate.uncorrected", "G8", "errors", 0, false, false},
	{"ecc.aggregate.uncorrected.dram", "G8", "errors", 0, false, false},
	{"ecc.aggregate.uncorrected.sram", "G8", "errors", 0, false, false},
	{"ecc.volatile.corrected", "G9", "errors", 0, false, false},
	{"ecc.volatile.corrected.dram", "G9", "errors", 0, false, false},
	{"ecc.aggregate.corrected", "G9", "errors", 0, false, false},
	{"sram.volatile.parity", "G10", "errors", 0, false, false},
	{"sram.volatile.secded", "G10", "errors", 0, false, false},
	{"sram.volatile.corrected", "G10", "errors", 0, false, false},
	{"sram.aggregate.parity", "G10", "errors", 0, false, false},
	{"sram.aggregate.secded", "G10", "errors", 0, false, false},
	{"sram.aggregate.corrected", "G10", "errors", 0, false, false},
	{"sram.l2", "G10", "errors", 0, false, false},
	{"sram.sm", "G10", "errors", 0, false, false},
	{"sram.pcie", "G10", "errors", 0, false, false},
	{"sram.mcu", "G10", "errors", 0, false, false},
	{"sram.other", "G10", "errors", 0, false, false},
	{"sram.threshold", "G10", "flag", 0, false, false},
	{"sram.unique", "G10", "addresses", 0, false, true},
	{"remap.pending", "G11", "flag", 0, false, false},
	{"remap.failure", "G12", "flag", 0, false, false},
	{"remap.banks.max", "G13", "banks", 0, false, true},
	{"remap.banks.high", "G13", "banks", 0, false, true},
	{"remap.banks.partial", "G13", "banks", 0, false, true},
	{"remap.banks.low", "G13", "banks", 0, false, true},
	{"remap.banks.none", "G13", "banks", 0, false, true},
	{"remap.uncorrectable", "G14", "rows", 0, false, false},
	{"remap.correctable", "G14", "rows", 0, false, false},
	{"retired.pending", "G15", "flag", 0, false, true},
	{"retired.single", "G15", "pages", 0, false, true},
	{"retired.double", "G15", "pages", 0, false, true},
	{"repair.channel", "G16", "flag", 0, false, true},
	{"repair.tpc", "G16", "flag", 0, false, true},
	{"memory.unrepairable", "G16", "flag", 0, false, true},

	{"temp.gpu", "G17", "°C", 0, false, false},
	{"temp.margin", "G17", "°C", 0, false, false},
	{"temp.memory", "G17", "°C", 82, false, false},
	{"temp.shutdown", "G17", "°C to go", 193, false, true},
	{"temp.slowdown", "G17", "°C to go", 194, false, true},
	{"temp.memory.max", "G17", "°C to go", 195, false, true},
	{"temp.gpu.max", "G17", "°C to go", 196, false, true},
	{"clocks.reasons", "G18", "bits", 0, false, false},
	{"held.thermal", "G18", "ns", 75, false, false},
	{"held.board", "G18", "ns", 77, false, false},
	{"held.reliability", "G18", "ns", 79, false, false},
	{"held.hw-thermal", "G18", "ns", 270, false, false},
	{"held.power-brake", "G18", "ns", 271, false, false},
	{"held.power", "G19", "ns", 74, false, false},
	{"held.sw-thermal", "G19", "ns", 269, false, false},
	{"power.usage", "G20", "mW", 0, false, false},
	{"power.average", "G20", "mW", 185, false, false},
	{"power.instant", "G20", "mW", 186, false, false},
	{"power.limit", "G20", "mW", 0, false, false},
	{"power.default", "G20", "mW", 0, false, true},
	{"clock.sm", "G21", "MHz", 0, false, false},
	{"clock.memory", "G21", "MHz", 0, false, false},
	{"clock.sm.max", "G21", "MHz", 0, false, true},
	{"clock.memory.max", "G21", "MHz", 0, false, true},
	{"busy", "G21", "%", 0, false, false},
	{"pcie.gen", "G22", "generation", 0, false, false},
	{"pcie.width", "G22", "lanes", 0, false, false},
	{"pcie.gen.max", "G22", "generation", 0, false, true},
	{"pcie.width.max", "G22", "lanes", 0, false, true},
	{"pcie.replay", "G23", "events", 0, false, false},
	{"pcie.replay.rollover", "G23", "events", 95, false, false},
	{"pcie.correctable", "G23", "errors", 173, false, false},
	{"pcie.naks.received", "G23", "events", 174, false, false},
	{"pcie.receiver", "G23", "errors", 175, false, false},
	{"pcie.bad-tlp", "G23", "errors", 176, false, false},
	{"pcie.naks.sent", "G23", "events", 177, false, false},
	{"pcie.bad-dllp", "G23", "errors", 178, false, false},
	{"pcie.nonfatal", "G24", "errors", 179, false, false},
	{"pcie.fatal", "G24", "errors", 180, false, false},
	{"pcie.unsupported", "G23", "requests", 181, false, false},
	{"pcie.lcrc", "G23", "errors", 182, false, false},
	{"pcie.lane", "G23", "errors", 183, false, false},

	{"link.state", "G25", "up", 0, true, false},
	{"link.speed", "G26", "MB/s", 164, true, false},
	{"link.replay", "G27", "events", 161, true, false},
	{"link.recovery", "G27", "events", 162, true, false},
	{"link.crc", "G27", "errors", 163, true, false},
	{"link.malformed", "G28", "packets", 206, true, false},
	{"link.overrun", "G28", "events", 207, true, false},
	{"link.integrity", "G28", "errors", 211, true, false},
	{"link.recovered", "G28", "events", 213, true, false},
	{"link.unrecovered", "G28", "events", 214, true, false},
	{"link.ber", "G28", "mantissa and exponent", 220, true, false},
	{"link.symbol-ber", "G28", "mantissa and exponent", 222, true, false},
	{"nvlink.encrypted", "G26", "flag", 0, false, true},
	{"fabric.state", "G29", "state", 0, false, false},
	{"fabric.status", "G29", "code", 0, false, false},
	{"fabric.mask", "G29", "bits", 0, false, false},
	{"fabric.summary", "G29", "state", 0, false, false},

	{"inforom.valid", "G32", "flag", 0, false, true},
	{"inforom.image", "G32", "version", 0, false, true},
	{"inforom.checksum", "G32", "number", 0, false, true},
	{"vbios", "G33", "version", 0, false, true},
	{"gsp", "G33", "version", 0, false, true},
	{"name", "G34", "", 0, false, true},
	{"uuid", "G34", "", 0, false, true},
	{"serial", "G34", "", 0, false, true},
	{"part", "G34", "", 0, false, true},
	{"module", "G34", "number", 0, false, true},
	{"pdi", "G34", "", 0, false, true},
	{"platform.slot", "G34", "number", 0, false, true},
	{"platform.tray", "G34", "number", 0, false, true},
	{"platform.host", "G34", "number", 0, false, true},
	{"mode.ecc", "G35", "flag", 0, false, false},
	{"mode.ecc.pending", "G35", "flag", 0, false, false},
	{"mode.mig", "G35", "flag", 0, false, false},
	{"mode.persistence", "G35", "flag", 0, false, false},
	{"mode.compute", "G35", "mode", 0, false, false},
	{"processes", "G36", "processes", 0, false, false},
	{"memory.used", "G36", "bytes", 0, false, false},
	{"memory.total", "G36", "bytes", 0, false, false},
	{"power.source", "G38", "source", 0, false, true},
	{"events", "G39", "bits", 0, false, true}, // which events this GPU was registered for
	{"gpm", "G41", "flag", 0, false, true},    // whether it has profiling counters; they are read only for a test
}

// SystemReadings are asked of the machine.
var SystemReadings = []Reading{
	{"cc.feature", "G37", "flag", 0, false, true},
	{"cc.environment", "G37", "state", 0, false, true},
	{"cc.ready", "G37", "flag", 0, false, true},
	{"cuda", "G4", "version", 0, false, true},
}

// PeerReadings are asked of every pair of GPUs.
var PeerReadings = []Reading{
	{"read", "G40", "status", 0, false, true},
	{"nvlink", "G40", "status", 0, false, true},
	{"ancestor", "G40", "level", 0, false, true},
}

// FieldFor is the number of a reading's field in a driver: NVIDIA renumbered the clock counters between 13.0 (branch 580)
// and 13.1 (590), and gave their old numbers to power smoothing.
func FieldFor(r Reading, driver int) uint32 {
	if r.Field >= 269 && r.Field <= 271 && driver > 0 && driver < 590 {
		return r.Field - 269 + 251
	}
	return r.Field
}

// Find is the reading of a key.
func Find(key string) (Reading, bool) {
	i := slices.IndexFunc(Readings, func(r Reading) bool { return r.Key == key })
	if i < 0 {
		return Reading{}, false
	}
	return Readings[i], true
}

// An EventType is one thing that the driver reports by itself.
type EventType struct {
	Bit  uint64
	Name string
}

// EventTypes are the events that are asked for, each by itself: one that a driver does not know would lose all.
var EventTypes = []EventType{
	{0x2, "double bit error"},
	{0x8, "XID"},
	{0x80, "power source change"},
	{0x200, "single bit storm"},
	{0x400, "row remapped"},
	{0x800, "row remap failed"},
	{0x1000, "non-fatal poison"},
	{0x2000, "fatal poison"},
	{0x4000, "GPU unavailable"},
	{0x8000, "recovery action"},
}
