package nvml

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/hostler-project/hostler/health"
)

// A row is one check: what it is in the catalogue (its severity, action and words are health.GPUChecks' matter), when it
// is bad, and how that is seen.
type row struct {
	check, code string
	when        string        // the threshold in words
	hold        time.Duration // bad for so long before it is told
	event       bool          // it happens; else it is a state, told at each sample until it has ended
	look        func(view) found
}

// found is what a look came to. The zero value is: it cannot be known now. What is not supported is never good, and what
// was not readable just now does not end what was bad before.
type found struct {
	known, bad bool
	value      string
}

var (
	unknown = found{}
	good    = found{known: true}
)

func bad(format string, args ...any) found {
	return found{known: true, bad: true, value: fmt.Sprintf(format, args...)}
}

// whether is bad when so, else good.
func whether(so bool, format string, args ...any) found {
	if so {
		return bad(format, args...)
	}
	return good
}

// machineRows are asked of the whole sample.
var machineRows = []row{
	{check: "G1", code: "pci", when: "the kernel lists fewer GPUs than the SKU has", look: func(v view) found {
		if v.sample.PCI == nil { // sysfs cannot be read here: the driver's own row tells
			return unknown
		}
		return whether(len(v.sample.PCI) < v.e.GPUs, "%d of %d", len(v.sample.PCI), v.e.GPUs)
	}},
	{check: "G1", code: "driver", when: "the driver lists fewer GPUs than the kernel, or than the SKU has", look: func(v view) found {
		if v.sample.Status.State != Answering || !v.sample.Count.OK() {
			return unknown
		}
		want := len(v.sample.PCI)
		if want == 0 {
			want = v.e.GPUs
		}
		n := int(v.sample.Count.N)
		return whether(n < want, "%d of %d", n, want)
	}},
	{check: "G3", code: "stuck", when: "a call blocks for 5 s, and so does a fresh process", look: func(v view) found {
		switch v.sample.Status.State {
		case DriverStuck, Blind:
			return bad("%s", v.sample.Status.Text)
		case Answering:
			return good
		}
		return unknown
	}},
	{check: "G3", code: "blind", when: "two processes hang in the driver: it is left alone until the next boot", look: func(v view) found {
		switch v.sample.Status.State {
		case Blind:
			return bad("NVML: blind since %s", v.sample.Status.Since.UTC().Format(time.RFC3339))
		case Answering:
			return good
		}
		return unknown
	}},
	{check: "G4", code: "absent", when: "there are GPUs and no driver", look: func(v view) found {
		switch v.sample.Status.State {
		case NoDriver:
			return whether(len(v.sample.PCI) > 0 || v.e.GPUs > 0, "%s", v.sample.Status.Text)
		case Answering:
			return good
		}
		return unknown
	}},
	{check: "G4", code: "mismatch", when: "library and kernel module are of different versions", look: func(v view) found {
		d := v.sample.Driver
		switch {
		case v.sample.Status.State == Mismatch:
			return bad("%s", v.sample.Status.Text)
		case v.sample.Status.State != Answering || d.Version == "" || d.Kernel == "":
			return unknown
		}
		return whether(d.Version != d.Kernel, "library %s, module %s", d.Version, d.Kernel)
	}},
	{check: "G4", code: "policy", when: "the driver's version is not allowed", look: func(v view) found {
		d := v.sample.Driver.Version
		if v.sample.Status.State != Answering || d == "" || len(v.e.Drivers) == 0 {
			return unknown
		}
		return whether(!slices.Contains(v.e.Drivers, d), "%s, allowed %s", d, strings.Join(v.e.Drivers, ", "))
	}},
	{check: "G37", when: "confidential computing is not as the policy says", look: func(v view) found {
		n, ok := v.sample.System.Number("cc.feature")
		if !ok || v.e.Confidential == nil {
			return unknown
		}
		return whether(n != *v.e.Confidential, "%d, policy %d", n, *v.e.Confidential)
	}},
}

// stateRows are asked of GPUs that do not answer, too.
var stateRows = []row{
	{check: "G1", code: "init", when: "the driver lists it and refuses it", look: func(v view) found { return whether(v.now.State == Refused, "%s", v.now.Err) }},
	{check: "G2", when: "NVML says that it is lost, or the driver does not list it any more", look: func(v view) found { return whether(v.now.State == Lost, "%s", v.now.Err) }},
	{check: "G3", code: "gpu", when: "a call on it blocks for 5 s, in a fresh process too, and not on others", look: func(v view) found {
		return whether(v.now.State == Stuck, "%s", v.now.Err)
	}},
}

// gpuRows are asked of each GPU that answers.
var gpuRows = []row{
	recoveryRow(health.RecoveryReset, 1, 6),
	recoveryRow(health.RecoveryReboot, 2, 7),
	recoveryRow(health.RecoveryDrainP2P, 3),
	recoveryRow(health.RecoveryDrainAndReset, 4),
	recoveryRow(health.RecoveryIMEX, 5),

	{check: "G7", when: "the volatile count rose", event: true, look: func(v view) found {
		return v.grew("ecc.volatile.uncorrected", "ecc.volatile.uncorrected.dram", "ecc.volatile.uncorrected.sram")
	}},
	{check: "G8", when: "the aggregate count rose", event: true, look: func(v view) found { return v.grew("ecc.aggregate.uncorrected") }},
	{check: "G9", when: "more than 20,000,000 since the driver was loaded", look: func(v view) found { return v.above("ecc.volatile.corrected", 20_000_000) }},
	{check: "G10", code: "uncorrectable", when: "volatile parity or SECDED errors > 0", look: func(v view) found {
		parity, ok1 := v.now.Values.Number("sram.volatile.parity")
		secded, ok2 := v.now.Values.Number("sram.volatile.secded")
		if !ok1 && !ok2 {
			return unknown
		}
		return whether(parity+secded > 0, "parity %d, SECDED %d; L2 %s, SM %s, PCIe %s, MCU %s, other %s", parity, secded, v.now.Values["sram.l2"],
			v.now.Values["sram.sm"], v.now.Values["sram.pcie"], v.now.Values["sram.mcu"], v.now.Values["sram.other"])
	}},
	{check: "G10", code: "threshold", when: "the driver's flag is set", look: func(v view) found { return v.above("sram.threshold", 0) }},
	{check: "G11", when: "a remap is pending", look: func(v view) found { return v.above("remap.pending", 0) }},
	{check: "G12", when: "a remap failed", look: func(v view) found { return v.above("remap.failure", 0) }},
	{check: "G13", code: "none", when: "a bank without spare rows", look: func(v view) found { return v.above("remap.banks.none", 0) }},
	{check: "G13", code: "low", when: "a bank with few spare rows", look: func(v view) found { return v.above("remap.banks.low", 0) }},
	{check: "G14", code: "many", when: "more than 512 rows remapped", look: func(v view) found {
		cor, ok1 := v.now.Values.Number("remap.correctable")
		unc, ok2 := v.now.Values.Number("remap.uncorrectable")
		if !ok1 || !ok2 {
			return unknown
		}
		return whether(cor+unc > 512, "%d for uncorrectable errors, %d for corrected ones", unc, cor)
	}},
	{check: "G14", code: "grew", when: "rows remapped for uncorrectable errors rose", event: true, look: func(v view) found { return v.grew("remap.uncorrectable") }},
	{check: "G15", code: "pending", when: "a page retirement is pending", look: func(v view) found { return v.above("retired.pending", 0) }},
	{check: "G15", code: "many", when: "63 pages or more", look: func(v view) found {
		n, ok := v.retired()
		if !ok {
			return unknown
		}
		return whether(n >= 63, "%d pages", n)
	}},
	{check: "G15", code: "fast", when: "more than 15 pages, and more than one new in 7 days", look: func(v view) found {
		n, ok := v.retired()
		if !ok {
			return unknown
		}
		for range v.fresh("retired.single") + v.fresh("retired.double") {
			v.seen("retired", 7*24*time.Hour, 0)
		}
		fresh := v.count("retired", 7*24*time.Hour)
		return whether(n > 15 && fresh > 1, "%d pages, %d new in 7 days", n, fresh)
	}},
	{check: "G16", code: "channel", when: "a channel repair is pending", look: func(v view) found { return v.above("repair.channel", 0) }},
	{check: "G16", code: "tpc", when: "a TPC repair is pending", look: func(v view) found { return v.above("repair.tpc", 0) }},
	{check: "G16", code: "unrepairable", when: "the driver's flag is set", look: func(v view) found { return v.above("memory.unrepairable", 0) }},

	{check: "G17", when: "margin 5 °C or less for 5 minutes; a negative one counts only while the clocks are held back", hold: 5 * time.Minute, look: func(v view) found {
		margin, ok := v.now.Values.Number("temp.margin")
		reasons, known := v.now.Values.Number("clocks.reasons")
		if !ok || margin < 0 && (!known || reasons&anySlowdown == 0) { // H100s have reported -50 °C in good health
			return unknown
		}
		return whether(margin <= 5, "%d °C to its limit, at %s °C", margin, v.now.Values["temp.gpu"])
	}},
	{check: "G18", when: "the slowdown bits in 6 of 10 minutes, or over 1 % of busy time by the counters", look: func(v view) found {
		reasons, ok := v.now.Values.Number("clocks.reasons")
		if !ok {
			return unknown
		}
		minutes := v.count("slowdown", 10*time.Minute)
		if reasons&hardwareSlowdown != 0 {
			minutes = v.seen("slowdown", 10*time.Minute, time.Minute)
		}
		share := v.share("held.hw-thermal", "held.power-brake")
		return whether(minutes >= 6 || share > 0.01, "bits %#x, in %d of 10 minutes, %.1f %% of busy time", reasons, minutes, 100*share)
	}},
	{check: "G19", code: "thermal", when: "over 5 % of busy time", look: func(v view) found {
		if _, ok := v.now.Values.Number("held.sw-thermal"); !ok {
			return unknown
		}
		share := v.share("held.sw-thermal")
		return whether(share > 0.05, "%.1f %% of busy time", 100*share)
	}},
	{check: "G20", code: "limit", when: "the enforced limit is below the SKU's, or below the GPU's default", look: func(v view) found {
		limit, ok := v.now.Values.Number("power.limit")
		want := v.e.PowerLimit
		if want == 0 {
			want, _ = v.now.Values.Number("power.default")
		}
		if !ok || want == 0 {
			return unknown
		}
		return whether(limit < want, "%d W of %d W", limit/1000, want/1000)
	}},
	{check: "G21", when: "over 75 MHz under the ceiling for a minute while busy, and nothing holds the clocks back; in burn-in, 3 % under the node's median", hold: time.Minute, look: lookClock},
	{check: "G22", code: "width", when: "narrower than the SKU's, or than the GPU can", look: func(v view) found {
		width, ok := v.now.Values.Number("pcie.width")
		want := v.e.PCIeWidth
		if want == 0 {
			want, _ = v.now.Values.Number("pcie.width.max")
		}
		if !ok || want == 0 {
			return unknown
		}
		return whether(width < want, "x%d of x%d", width, want)
	}},
	{check: "G22", code: "speed", when: "slower than the SKU's for half a minute while busy; idle GPUs train down", hold: 30 * time.Second, look: func(v view) found {
		gen, ok := v.now.Values.Number("pcie.gen")
		busy, known := v.now.Values.Number("busy")
		want := v.e.PCIeGen
		if want == 0 {
			want, _ = v.now.Values.Number("pcie.gen.max")
		}
		if !ok || !known || want == 0 || busy < 10 {
			return unknown
		}
		return whether(gen < want, "Gen%d of Gen%d", gen, want)
	}},
	{check: "G23", when: "replays per minute above what a bit error rate of 1e-12 makes", look: func(v view) found {
		lanes, ok1 := v.now.Values.Number("pcie.width")
		gen, ok2 := v.now.Values.Number("pcie.gen.max")
		rate, ok3 := v.rate("pcie.replay", v.now.Values["pcie.replay"])
		if !ok1 || !ok2 || !ok3 {
			return unknown
		}
		limit := replayCeiling(gen, lanes)
		return whether(rate > limit, "%.1f per minute, ceiling %.1f at Gen%d x%d", rate, limit, gen, lanes)
	}},
	{check: "G24", code: "aer-fatal", when: "the GPU's own count rose", event: true, look: func(v view) found { return v.grew("pcie.fatal") }},
	{check: "G24", code: "aer-nonfatal", when: "the GPU's own count rose", event: true, look: func(v view) found { return v.grew("pcie.nonfatal") }},
	{check: "G25", when: "fewer links up than the SKU has", look: func(v view) found {
		if v.e.Links == 0 {
			return unknown // a card without NVLink
		}
		var down []string
		for i, l := range v.now.Links["link.state"] {
			switch {
			case l.Err != "":
				return unknown
			case !l.OK() || l.N == 0:
				down = append(down, fmt.Sprint(i))
			}
		}
		up := len(v.now.Links["link.state"]) - len(down)
		return whether(up < v.e.Links, "%d of %d are up; down: %s", up, v.e.Links, orNone(down))
	}},
	{check: "G29", code: "incomplete", when: "not completed 5 minutes after boot", look: func(v view) found {
		state, ok := v.now.Values.Number("fabric.state")
		if !v.e.Fabric || !ok || v.e.Up < 5*time.Minute && state != fabricCompleted {
			return unknown
		}
		return whether(state != fabricCompleted, "state %d", state)
	}},
	{check: "G29", code: "unhealthy", when: "probe failed, route unhealthy, access timeout, or summary unhealthy", look: func(v view) found {
		return v.fabric(func(f fabric) bool { return f.status != 0 || f.routeIll || f.timeout || f.summary == 2 })
	}},
	{check: "G29", code: "config", when: "the health mask says that the configuration is wrong", look: func(v view) found {
		return v.fabric(func(f fabric) bool { return f.config >= 2 })
	}},
	{check: "G29", code: "reduced", when: "bandwidth reduced, route recovery, or summary limited", look: func(v view) found {
		return v.fabric(func(f fabric) bool { return f.narrow || f.recovers || f.summary == 3 })
	}},
	{check: "G32", when: "the driver calls it corrupt", look: func(v view) found {
		n, ok := v.now.Values.Number("inforom.valid")
		if !ok {
			return unknown
		}
		return whether(n == 0, "corrupt; image %s", v.now.Values["inforom.image"])
	}},
	{check: "G33", when: "VBIOS or GSP firmware is not allowed", look: func(v view) found {
		vbios, gsp := v.now.Values.Text("vbios"), v.now.Values.Text("gsp")
		ill := func(have string, allowed []string) bool {
			return have != "" && len(allowed) > 0 && !slices.Contains(allowed, have)
		}
		if vbios == "" && gsp == "" || len(v.e.VBIOS)+len(v.e.GSP) == 0 {
			return unknown
		}
		return whether(ill(vbios, v.e.VBIOS) || ill(gsp, v.e.GSP), "VBIOS %s, GSP %s", vbios, gsp)
	}},
	{check: "G34", when: "another serial than in the last inventory", look: func(v view) found {
		want := v.e.Serials[v.now.Bus]
		if want == "" || v.now.Serial == "" {
			return unknown
		}
		return whether(v.now.Serial != want, "serial %s, was %s", v.now.Serial, want)
	}},
	{check: "G35", when: "ECC, MIG, persistence or compute mode is not as the policy says, at hand-over", look: lookModes},
	{check: "G36", when: "a process, or over 64 MiB in use, at hand-over", look: func(v view) found {
		processes, ok1 := v.now.Values.Number("processes")
		used, ok2 := v.now.Values.Number("memory.used")
		if !v.e.HandOver || !ok1 && !ok2 {
			return unknown
		}
		return whether(processes > 0 || used > 64<<20, "%d processes, %d MiB", processes, used>>20)
	}},
	{check: "G40", when: "a pair without P2P over NVLink on a SKU that has it", look: func(v view) found {
		if !v.e.Peers || len(v.sample.Peers) == 0 {
			return unknown
		}
		var apart []string
		for _, o := range v.sample.GPUs {
			s, ok := v.sample.Peers[PeerKey("nvlink", v.now.Bus, o.Bus)]
			if ok && s.OK() && s.N != 0 {
				apart = append(apart, fmt.Sprintf("%s (status %d)", o.Bus, s.N))
			}
		}
		return whether(len(apart) > 0, "no P2P over NVLink with %s", strings.Join(apart, ", "))
	}},
}

// linkRows are asked of each NVLink.
var linkRows = []row{
	{check: "G26", when: "an active link slower than the SKU's", look: func(v view) found {
		speed, ok := v.onLink("link.speed")
		up, known := v.onLink("link.state")
		if !ok || !known || up == 0 || v.e.LinkSpeed == 0 {
			return unknown
		}
		return whether(speed < v.e.LinkSpeed, "%d MB/s of %d", speed, v.e.LinkSpeed)
	}},
	{check: "G27", when: "a replay or recovery per minute, or 100 CRC errors per second", look: func(v view) found {
		replay, ok1 := v.linkRate("link.replay")
		recovery, ok2 := v.linkRate("link.recovery")
		crc, ok3 := v.linkRate("link.crc")
		if !ok1 && !ok2 && !ok3 {
			return unknown
		}
		return whether(replay >= 1 || recovery >= 1 || crc >= 6000, "per minute: %.1f replays, %.1f recoveries, %.0f CRC errors", replay, recovery, crc)
	}},
	{check: "G28", code: "ber", when: "effective bit error rate over 1e-12", look: func(v view) found {
		n, ok := v.onLink("link.ber")
		if !ok {
			return unknown
		}
		return whether(ber(n) > 1e-12, "%.0e", ber(n))
	}},
	{check: "G28", code: "delta", when: "malformed packets, overruns, integrity errors or failed recoveries rose", event: true, look: func(v view) found {
		return v.linksGrew("link.malformed", "link.overrun", "link.integrity", "link.unrecovered")
	}},
}

// eventRows are what the driver's own events are. Those of recovery and of a GPU that became unavailable are not here:
// the sample that follows an event at once shows what they are about, and field 230 is the verdict.
var eventRows = []struct {
	bit         uint64
	check, code string
}{
	{0x8, health.CheckXID, ""}, // its number is the code
	{0x80, "G38", ""},
	{0x200, "G9", "storm"},
	{0x400, "G11", ""},
	{0x800, "G12", ""},
	{0x1000, "G39", "nonfatal"},
	{0x2000, "G39", "fatal"},
}

// Bits of the clock event reasons.
const (
	reasonIdle       = 0x1
	reasonSetting    = 0x2
	reasonPowerCap   = 0x4
	reasonSwThermal  = 0x20
	hardwareSlowdown = 0x8 | 0x40 | 0x80
	anySlowdown      = hardwareSlowdown | reasonSwThermal
	fabricCompleted  = 3
)

// recoveryRow is one value of NVIDIA's own verdict. The header of 0.13.4 has two more than the catalogue: 6, reset the
// bus, and 7, reboot the system. They are told as the weaker ones of their kind, with the number.
func recoveryRow(code string, numbers ...int64) row {
	return row{check: health.CheckRecovery, code: code, when: fmt.Sprintf("field 230 is %s", strings.Trim(fmt.Sprint(numbers), "[]")), look: func(v view) found {
		n, ok := v.now.Values.Number("recovery")
		if !ok {
			return unknown
		}
		return whether(slices.Contains(numbers, n), "recovery action %d", n)
	}}
}

func lookClock(v view) found {
	clock, ok1 := v.now.Values.Number("clock.sm")
	ceiling, ok2 := v.now.Values.Number("clock.sm.max")
	busy, ok3 := v.now.Values.Number("busy")
	reasons, ok4 := v.now.Values.Number("clocks.reasons")
	if !ok1 || !ok2 || !ok3 || !ok4 || busy < 90 {
		return unknown
	}
	if v.e.BurnIn {
		var all []int64
		for _, g := range v.sample.GPUs {
			n, ok := g.Values.Number("clock.sm")
			if b, known := g.Values.Number("busy"); !ok || !known || b < 90 {
				return unknown // not all of them work now
			}
			all = append(all, n)
		}
		slices.Sort(all)
		median := all[len(all)/2]
		return whether(float64(clock) < 0.97*float64(median), "%d MHz, the node's median is %d", clock, median)
	}
	if reasons&(reasonIdle|reasonSetting|reasonPowerCap|anySlowdown) != 0 {
		return unknown // something holds them back, which is another row's matter, or somebody set them
	}
	return whether(ceiling-clock > 75, "%d MHz of %d", clock, ceiling)
}

func lookModes(v view) found {
	if !v.e.HandOver {
		return unknown
	}
	var wrong []string
	asked := false
	for _, m := range []struct {
		key  string
		want *int64
	}{{"mode.ecc", v.e.ECC}, {"mode.mig", v.e.MIG}, {"mode.persistence", v.e.Persistence}, {"mode.compute", v.e.Compute}} {
		n, ok := v.now.Values.Number(m.key)
		if m.want == nil || !ok {
			continue
		}
		if asked = true; n != *m.want {
			wrong = append(wrong, fmt.Sprintf("%s %d, policy %d", strings.TrimPrefix(m.key, "mode."), n, *m.want))
		}
	}
	if !asked {
		return unknown
	}
	return whether(len(wrong) > 0, "%s", strings.Join(wrong, "; "))
}

// replayCeiling is how many replays a minute a link may have, by generation and lanes: DCGM's figures of a bit error rate
// of 1e-12.
func replayCeiling(gen, lanes int64) float64 {
	perLane := []float64{0.15, 0.3, 0.48, 0.96, 1.92, 3.84}
	return perLane[min(max(gen, 1), int64(len(perLane)))-1] * float64(max(lanes, 1))
}

// ber decodes a bit error rate: mantissa in bits 8 to 11, the negative exponent of ten in bits 0 to 7.
func ber(n int64) float64 { return float64(n>>8&0xf) * math.Pow10(-int(n&0xff)) }

// A fabric is the health mask taken apart.
type fabric struct {
	status, config, summary             int64
	narrow, recovers, routeIll, timeout bool
}

func (v view) fabric(ill func(fabric) bool) found {
	mask, ok := v.now.Values.Number("fabric.mask")
	state, known := v.now.Values.Number("fabric.state")
	if !v.e.Fabric || !ok || !known || state != fabricCompleted {
		return unknown
	}
	f := fabric{narrow: mask&3 == 1, recovers: mask>>2&3 == 1, routeIll: mask>>4&3 == 1, timeout: mask>>6&3 == 1, config: mask >> 8 & 0xf}
	f.status, _ = v.now.Values.Number("fabric.status")
	f.summary, _ = v.now.Values.Number("fabric.summary")
	return whether(ill(f), "status %d, mask %#x, summary %d", f.status, mask, f.summary)
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "not listed"
	}
	return strings.Join(list, ", ")
}
