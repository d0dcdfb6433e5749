package health

// SXids is the table of the NVSwitches' error numbers: health-checks.md section 1.5. A line says itself how bad it is; for
// the numbers of Maybe that word decides, or the state of the fabric.
func SXids() []Rule {
	return []Rule{
		{Check: CheckSXid, Code: "11012, 11021-11023, 12021, 12023, 15008, 15011, 19049, 19055, 19057, 19059, 19062, 19065, 19068, 19071, 24001-24003, 20001, 20009, 20012, 22013",
			Means: "corrected single-bit error or noise of the switch", Severity: Info},
		{Check: CheckSXid, Code: "10001-10005", Means: "the host told the switch something", Severity: Info},
		{Check: CheckSXid, Code: "11004, 12028, 19084", Means: "one job on the fabric was hit; the hardware is fine", Severity: Info, Actions: []Action{TellTenant}},
		{Check: CheckSXid, Code: "11001, 11009, 11013, 11018-11020, 12001, 12002, 12022, 12024-12027, 12030-12032, 14017, 15001, 15006, 15009, 15010, 15012, 15013, 19047, 19048, 19054, 19056, 19058, 19060, 19061, 19063, 19064, 19066, 19067, 19069, 19070, 20034, 22012, 24004-24007",
			Means: "error of the switch that can be fatal", Severity: Fatal, Actions: []Action{DrainNow, ResetGPU}, Decode: decodeLine, Hardware: true,
			Next: "reset all GPUs and switches of the baseboard together; reboot if that is refused"},
		{Check: CheckSXid, Code: "12020, 22003, 22011, 23001-23017", Means: "fatal error of the switch", Severity: Fatal, Actions: []Action{DrainNow, Reboot}, Hardware: true,
			Again: []Again{{N: 2, Within: month, Severity: Fatal, Actions: []Action{DrainNow, QuarantineRMA}, Next: "replace the baseboard; " + rma}}},
	}
}

// RecoveryRules is NVIDIA's own verdict on a GPU: field 230 of NVML, and the words of XID 154.
func RecoveryRules() []Rule {
	return []Rule{
		{Check: CheckRecovery, Code: RecoveryReset, Means: "the driver asks for a reset of the GPU", Severity: Fatal, Actions: []Action{ResetGPU}},
		{Check: CheckRecovery, Code: RecoveryReboot, Means: "the driver asks for a reboot of the machine", Severity: Fatal, Actions: []Action{Reboot}},
		{Check: CheckRecovery, Code: RecoveryDrainP2P, Means: "the driver asks to end traffic between GPUs", Severity: Degraded, Actions: []Action{DrainIdle}},
		{Check: CheckRecovery, Code: RecoveryDrainAndReset, Means: "the driver asks to drain the GPU, then to reset it", Severity: Fatal, Actions: []Action{DrainNow, ResetGPU}},
		{Check: CheckRecovery, Code: RecoveryIMEX, Means: "the driver asks to recover the IMEX domain", Severity: Degraded, Actions: []Action{DrainIdle},
			Next: "recover the domain on all nodes of the rack together"},
	}
}
