package health

import "time"

// GPUChecks is the catalogue of what readers measure on GPUs, by the case they saw: health-checks.md section 1.2. G5, G6
// and G31 have tables of their own. Thresholds are the readers' part; what follows is here.
func GPUChecks() []Rule {
	idle, now, reset := DrainIdle, DrainNow, ResetGPU
	g := func(check, code, means string, s Severity, actions ...Action) Rule {
		return Rule{Check: check, Code: code, Means: means, Severity: s, Actions: actions, Hardware: true}
	}
	soft := func(r Rule) Rule { r.Hardware = false; return r }
	next := func(r Rule, do string) Rule { r.Next = do; return r }
	again := func(r Rule, a ...Again) Rule { r.Again = a; return r }
	return []Rule{
		next(g("G1", "pci", "fewer GPUs on the PCI bus than the SKU has", Fatal, now, Reboot), "reboot once, then power-cycle at the mains; still missing: reseat it, then RMA"),
		next(g("G1", "driver", "fewer GPUs with the driver than on the PCI bus", Fatal, now, Reboot), "reboot once, then power-cycle; still missing: RMA"),
		next(g("G1", "init", "the driver could not initialise a GPU", Fatal, now, Reboot), "reboot once, then power-cycle; still so: RMA"),
		again(next(g("G2", "", "the GPU fell off the bus", Fatal, now, Reboot), "if it is not back after the reboot: power-cycle at the mains, then reseat the GPU and its power cables"),
			Again{N: 2, Within: month, Severity: Fatal, Actions: []Action{now, QuarantineRMA}, Next: rma}),
		soft(next(g("G3", "stuck", "the driver does not answer", Fatal, now, Reboot), "power-cycle if the reboot does not end")),
		next(g("G3", "gpu", "the driver does not answer for this GPU", Fatal, now, Reboot), "power-cycle if the reboot does not end"),
		soft(g("G3", "blind", "NVML gives no answers, the machine is watched without it", Degraded, idle)),
		soft(g("G4", "absent", "the driver is not loaded", Degraded, Firmware)),
		soft(g("G4", "mismatch", "library and driver are of different versions", Degraded, Firmware)),
		soft(g("G4", "policy", "the driver is not of an allowed version", Degraded, Firmware)),
		soft(g("G4", "module", "the driver's module could not be loaded", Degraded, Firmware)),
		withFollow(g("G7", "", "uncorrectable memory errors since boot", Fatal, now, reset), "xid/94 xid/95 xid/48"),
		g("G8", "", "uncorrectable memory errors over the GPU's life", Info),
		g("G9", "", "corrected memory errors", Info),
		next(g("G9", "outlier", "far more corrected memory errors than its fleet", Degraded, idle), "run the HBM test"),
		next(g("G9", "storm", "storm of corrected memory errors", Degraded, idle), "run the HBM test"),
		g("G10", "uncorrectable", "uncorrectable SRAM error", Fatal, now, reset),
		next(g("G10", "threshold", "uncorrectable SRAM errors passed the driver's threshold", Fatal, now, QuarantineRMA), rma),
		g("G11", "", "a row remap waits for a reset", Degraded, idle, reset),
		next(g("G12", "", "a row could not be remapped", Fatal, now, QuarantineRMA), rma),
		g("G13", "none", "a memory bank has no spare rows left", Degraded, idle),
		next(g("G13", "low", "a memory bank has few spare rows left", Info), "order a spare"),
		next(g("G14", "many", "more than 512 rows are remapped", Degraded, idle), "candidate for RMA"),
		g("G14", "grew", "rows were remapped for uncorrectable errors", Info),
		g("G15", "pending", "a page retirement waits for a reboot", Degraded, idle, Reboot),
		next(g("G15", "many", "63 pages are retired", Fatal, now, QuarantineRMA), rma),
		next(g("G15", "fast", "more than 15 pages are retired, more than one new in a week", Fatal, now, QuarantineRMA), rma),
		g("G16", "channel", "a memory channel repair waits", Degraded, idle, reset),
		g("G16", "tpc", "a compute unit repair waits", Degraded, idle, reset),
		next(g("G16", "unrepairable", "memory that cannot be repaired", Fatal, now, QuarantineRMA), rma),
		next(g("G17", "", "within 5 °C of its limit for 5 minutes", Degraded, idle), "check fans, air path or cold plate"),
		next(g("G18", "", "hardware slows the clocks down", Degraded, idle), "check air, power cables and PSUs"),
		g("G19", "power", "software power cap", Info),
		next(g("G19", "thermal", "software slows the clocks down for heat", Degraded, idle), "check fans, air path or cold plate"),
		soft(g("G20", "limit", "the power limit is below the SKU's default", Degraded, idle)),
		g("G20", "idle", "idle power unlike its fleet", Info),
		next(g("G21", "", "clocks below their ceiling under load", Degraded, idle), "run the burn-in's compute phase"),
		next(g("G22", "width", "PCIe link narrower than the SKU's", Fatal, now, Reboot), "reseat the GPU or riser; then RMA"),
		next(g("G22", "speed", "PCIe link slower than the SKU's under load", Degraded, idle, reset), "reseat the GPU or riser; then RMA"),
		next(g("G23", "", "PCIe replays above the bit error rate's ceiling", Degraded, idle), "run the bandwidth test; reseat"),
		next(g("G24", "aer-fatal", "fatal PCIe error", Fatal, now, Reboot), "reseat the GPU or riser"),
		next(g("G24", "aer-nonfatal", "uncorrected PCIe error", Degraded, idle), "reseat the GPU or riser"),
		g("G24", "aer-corrected", "corrected PCIe errors", Info),
		next(g("G24", "aer-rate", "corrected PCIe errors above the bit error rate's ceiling", Degraded, idle), "run the bandwidth test; reseat"),
		next(g("G25", "", "NVLinks are missing", Fatal, now, reset), "reset it with its NVLink peers, restart the fabric manager; then RMA"),
		g("G26", "", "an NVLink is slow", Degraded, idle),
		again(g("G27", "", "NVLink replays, recoveries or CRC errors", Degraded, idle, reset), Again{N: 2, Within: 7 * day, Severity: Fatal, Actions: []Action{idle, QuarantineRMA}, Next: rma}),
		again(g("G28", "ber", "NVLink bit error rate over 1e-12", Fatal, idle, reset), Again{N: 2, Within: month, Severity: Fatal, Actions: []Action{idle, QuarantineRMA}, Next: rma}),
		g("G28", "delta", "NVLink errors", Degraded, idle),
		next(g("G29", "incomplete", "the fabric was not ready 5 minutes after boot", Fatal, now, Reboot), "restart the fabric manager, reboot; then RMA"),
		next(g("G29", "unhealthy", "the GPU's way into the fabric is unhealthy", Fatal, now, Reboot), "restart the fabric manager, reboot; then RMA"),
		soft(next(g("G29", "config", "the fabric is configured wrongly", Fatal, now, Reboot), "restart the fabric manager, reboot")),
		next(g("G29", "reduced", "the fabric has reduced bandwidth or recovers a route", Degraded, idle), "restart the fabric manager, reboot; then RMA"),
		soft(next(g("G30", "inactive", "the fabric manager does not run", Fatal, now, Reboot), "restart the service once, with no lease; then reboot")),
		soft(g("G30", "version", "fabric manager and driver are of different versions", Fatal, idle, Firmware)),
		next(g("G32", "", "the InfoROM is corrupt", Degraded, Firmware), "flash it again; then RMA"),
		soft(g("G33", "", "VBIOS or GPU firmware is not of an allowed version", Degraded, Firmware)),
		next(g("G34", "", "the GPU is not the one of the last inventory", Degraded, idle), "a person confirms the exchange"),
		soft(g("G35", "", "ECC, MIG, persistence or compute mode differs from policy", Info)),
		soft(g("G36", "", "processes or memory are left over on the GPU", Degraded, idle, Reboot)),
		soft(g("G37", "", "confidential computing differs from policy", Degraded, idle)),
		next(g("G38", "", "the power source changed", Degraded, idle), "check auxiliary power and its cables"),
		g("G39", "nonfatal", "poisoned data, contained", Degraded, TellTenant, idle, reset),
		g("G39", "fatal", "poisoned data, not contained", Fatal, now, reset),
		g("G40", "", "GPUs cannot reach each other as the SKU promises", Degraded, idle),
		soft(g("G41", "", "one GPU works slower than its neighbours", Info)),
		soft(g("G42", "", "processes are stuck in the driver", Degraded, idle)),
	}
}

// withFollow is for what is polled: the line of the log that explains it may be older than the poll.
func withFollow(r Rule, rules string) Rule {
	r.Follow, r.Back = rules, time.Minute
	return r
}
