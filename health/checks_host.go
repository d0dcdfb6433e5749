package health

// HostChecks is the catalogue of what readers measure on the rest of the machine: health-checks.md section 1.7.
func HostChecks() []Rule {
	idle, now := DrainIdle, DrainNow
	h := func(check, code, means string, s Severity, actions ...Action) Rule {
		return Rule{Check: check, Code: code, Means: means, Severity: s, Actions: actions, Hardware: true}
	}
	soft := func(r Rule) Rule { r.Hardware = false; return r }
	next := func(r Rule, do string) Rule { r.Next = do; return r }
	hands := func(r Rule) Rule { r.NoReboot = true; return r }
	return []Rule{
		next(h("H1", "critical", "the drive raises a critical warning", Fatal, idle, QuarantineRMA), "replace the drive"),
		next(h("H1", "spare", "the drive's spare blocks are below its threshold", Fatal, idle, QuarantineRMA), "replace the drive"),
		h("H1", "used-90", "the drive is worn to 90 %", Degraded),
		next(h("H1", "used-100", "the drive is worn out", Degraded, idle, QuarantineRMA), "replace the drive"),
		h("H1", "media-errors", "the drive had new media errors", Degraded, idle),
		next(h("H1", "temperature", "the drive is too warm", Degraded, idle), "check fans and air path"),
		next(h("H2", "count", "drives are missing", Fatal, idle, QuarantineRMA), "reseat or replace the drive"),
		next(h("H2", "size", "a drive is not of the SKU's size", Fatal, idle, QuarantineRMA), "replace the drive"),
		next(h("H2", "width", "a drive's PCIe link is narrower than the SKU's", Degraded, idle), "reseat the drive"),
		soft(h("H2", "firmware", "a drive's firmware is not of an allowed version", Degraded, Firmware)),
		next(h("H3", "ue", "uncorrected memory error", Fatal, now, QuarantineRMA), "replace the DIMM"),
		h("H3", "ce", "corrected memory errors", Info),
		next(h("H3", "ce-rate", "more than 24 corrected memory errors of one DIMM in 24 hours", Degraded, idle), "replace the DIMM at the next chance"),
		next(h("H4", "fatal", "fatal machine check or platform error", Fatal, now, Reboot), "save the event log; the component it names is suspect"),
		next(h("H4", "uncorrected", "uncorrected machine check or platform error", Fatal, now, Reboot), "save the event log; the component it names is suspect"),
		h("H4", "corrected", "corrected machine check or platform error", Info),
		next(h("H4", "rate", "many corrected machine checks or platform errors", Degraded, idle), "the component it names is suspect"),
		next(h("H5", "", "less memory, fewer or slower DIMMs than the SKU has", Fatal, idle, QuarantineRMA), "reseat the DIMMs; replace the one that is missing"),
		h("H6", "count", "fewer processors than the SKU has", Degraded, idle),
		next(h("H6", "throttle", "processors slow down for heat", Degraded, idle), "check fans and heat sinks"),
		soft(h("H6", "microcode", "processors' microcode differs from policy", Degraded, Firmware)),
		next(h("H7", "width", "PCIe link narrower than the SKU's", Fatal, now, Reboot), "reseat the card"),
		next(h("H7", "speed", "PCIe link slower than the SKU's", Degraded, idle), "reseat the card"),
		next(h("H7", "aer-fatal", "fatal PCIe error", Fatal, now, Reboot), "reseat the card"),
		next(h("H7", "aer-nonfatal", "uncorrected PCIe error", Degraded, idle), "reseat the card"),
		h("H7", "aer-corrected", "corrected PCIe errors", Info),
		next(h("H7", "aer-rate", "corrected PCIe errors above the bit error rate's ceiling", Degraded, idle), "reseat the card"),
		next(h("H8", "down", "the port is down", Degraded, idle), "check cable and optic, and the switch's port"),
		next(h("H8", "flap", "the port goes down and up", Degraded, idle), "replace cable or optic"),
		next(h("H8", "errors", "the port loses or corrupts data", Fatal, idle), "replace cable or optic"),
		next(h("H8", "rate", "the port's error rate is too high", Degraded, idle), "check cable and optic"),
		next(h("H8", "missing", "the port does not answer", Fatal, idle, Reboot), "reseat the card"),
		next(h("H8", "carrier", "the port lost its carrier", Info), "check cable and optic"),
		next(h("H8", "module-temperature", "the port's optic is too hot", Degraded, idle), "check fans, air path and optic"),
		next(h("H8", "pci-power", "the slot gives the card too little power", Degraded, idle), "check the slot's power and the card's cable"),
		h("H8", "register-access", "the card refused access to a register", Degraded, idle),
		next(h("H8", "fatal-sensor", "the card reports a fatal fault of its own", Fatal, now, Reboot), "replace the card if it comes back"),
		next(h("H9", "rate", "the port runs below the SKU's rate", Fatal, idle), "check cable, optic and the switch's port"),
		next(h("H9", "count", "ports are missing", Fatal, idle, Reboot), "reseat the card"),
		soft(h("H9", "firmware", "the card's firmware is not of an allowed version", Degraded, Firmware)),
		next(h("H9", "optic", "the optic is out of its limits", Degraded, idle), "replace the optic"),
		next(h("H10", "temperature-critical", "a temperature is critical", Fatal, now, PowerCycle), "check fans and air path before power is given again"),
		next(h("H10", "temperature", "a temperature is too high", Degraded, idle), "check fans and air path"),
		next(h("H10", "fan", "a fan stands or is slow", Degraded, idle), "replace the fan"),
		next(h("H10", "psu", "power supplies are not redundant", Degraded, idle), "replace the power supply or its cord"),
		hands(next(h("H10", "leak", "coolant leaks", Fatal, now, QuarantineRMA), "power off now; do not power on before it is dry and mended")),
		next(h("H11", "critical", "new critical entries in the BMC's event log", Degraded, idle), "read the event log"),
		soft(h("H11", "full", "the BMC's event log is full", Info)),
		hands(soft(next(h("H12", "", "the BMC does not answer", Degraded, idle), "check the BMC's network; pull the mains cord for 30 seconds if it stays silent"))),
		soft(h("H13", "", "the clock is off by more than a second", Degraded, idle)),
		soft(h("H14", "full", "the root file system is over 95 % full", Degraded, idle)),
		h("H14", "read-only", "the root file system is read-only", Fatal, idle),
		h("H14", "fs-error", "a file system reports errors", Degraded, idle),
		h("H14", "fs-shutdown", "a file system was shut down", Fatal, idle),
		soft(h("H15", "", "the machine started without being asked to", Info)),
		h("H15", "often", "the machine started 3 times in 7 days without being asked to", Degraded, idle),
		soft(h("H16", "", "firmware, BIOS or driver differs from policy", Degraded, Firmware)),
		soft(h("H17", "", "PCI topology differs from the SKU's", Degraded, idle)),
		soft(h("H18", "", "kernel taint or modules differ from policy", Info)),
		soft(h("H19", "", "processes are stuck for more than a minute", Degraded, idle)),
		soft(h("H20", "", "the agent is silent", Info)),
	}
}

// LogChecks is what only the kernel's log tells (health-checks.md section 1.6). The document gives these no action: the
// severities are our own judgement.
func LogChecks() []Rule {
	k := func(check, code, means string, s Severity, actions ...Action) Rule {
		return Rule{Check: check, Code: code, Means: means, Severity: s, Actions: actions, Source: "own judgement, hostler rules 2026-11-25"}
	}
	hw := func(r Rule, do string) Rule { r.Hardware, r.Next = true, do; return r }
	return []Rule{
		k("K", "hung-task", "a task is blocked", Degraded, DrainIdle),
		k("K", "soft-lockup", "a processor is stuck in the kernel", Degraded, DrainIdle, Reboot),
		k("K", "hard-lockup", "a processor does not answer", Fatal, DrainNow, Reboot),
		k("K", "rcu-stall", "the kernel stalls", Degraded, DrainIdle),
		k("K", "oom", "memory ran out, a program was ended", Info, TellTenant),
		k("K", "panic", "the kernel panicked", Fatal, DrainNow, Reboot),
		k("K", "oops", "the kernel met a bug", Degraded, DrainIdle, Reboot),
		hw(k("H1", "timeout", "the drive did not answer in time", Degraded, DrainIdle), "reseat the drive"),
		hw(k("H1", "dead", "the drive's controller was given up", Fatal, DrainIdle, QuarantineRMA), "replace the drive"),
		hw(k("H1", "no-path", "no way to the drive is left", Fatal, DrainIdle, QuarantineRMA), "reseat the drive; replace it"),
		hw(k("H1", "io-error", "the drive failed to read or write", Degraded, DrainIdle), "replace the drive if it comes back"),
		hw(k("H1", "beyond-end", "access beyond the end of the drive", Degraded, DrainIdle), "check that the drive still has its size"),
		hw(k("H1", "superblock", "the file system's superblock could not be written", Degraded, DrainIdle), "replace the drive if it comes back"),
		hw(k("H1", "md", "a drive fell out of its array", Degraded, DrainIdle), "replace the drive"),
		k("K", "peermem", "a peer memory client used an invalid context", Info, TellTenant),
		k("K", "nccl", "a program crashed in NCCL", Info, TellTenant),
		k("K", "file-max", "no more files can be opened", Degraded, DrainIdle),
		k("K", "blind", "the kernel's log cannot be read: faults may go unseen", Degraded, DrainIdle),
		k("K", "lost", "records of the kernel's log were lost", Info),
		hw(k("K", "many-fatal", "five fatal errors within a day", Fatal, DrainNow, QuarantineRMA), rma),
		k("K", "overflow", "more faults at once than can be told apart", Degraded, DrainIdle),
	}
}
