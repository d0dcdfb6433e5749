package health

import "time"

// XIDs is the table of NVIDIA's error numbers, to be read beside the manual: health-checks.md section 1.3. The manual
// marks some numbers as unused; they get evidence and a person.
func XIDs() []Rule {
	tell, idle, now := TellTenant, DrainIdle, DrainNow
	x := func(codes string, s Severity, actions ...Action) Rule {
		return Rule{Check: CheckXID, Code: codes, Severity: s, Actions: actions}
	}
	row := func(r Rule, nvidia, means string) Rule {
		r.NVIDIA, r.Means = nvidia, means
		return r
	}
	return []Rule{
		row(x("8", Info, tell), "RESTART_APP (support)", "a channel stopped responding"),
		row(x("11, 69", Info, tell), "RESTART_APP (check app)", "a program sent the GPU bad commands"),
		row(with(x("32, 80", Info, tell), func(r *Rule) {
			r.Again = []Again{{N: 3, Within: day, Burst: 3 * time.Minute, Severity: Degraded, Actions: []Action{idle}, Next: "check the slot's PCIe errors and replays (G23, G24); reseat the GPU if they grow"}}
		}), "RESTART_APP (check app)", "the GPU received bad or corrupted commands"),
		row(with(x("13", Info, tell), func(r *Rule) {
			r.Again = []Again{{N: 2, Within: day, Burst: 15 * time.Second, Unit: true, Severity: Degraded, Actions: []Action{idle}, Next: "run the burn-in's compute phase on this GPU; the same unit failed twice"}}
		}), "RESTART_APP (WORKFLOW_XID_13)", "graphics engine exception"),
		row(with(x("31", Info, tell), func(r *Rule) {
			r.Again = []Again{{N: 2, Within: day, Burst: 3 * time.Minute, Who: 2, Severity: Degraded, Actions: []Action{idle}, Next: "run the burn-in on this GPU; programs of different owners met the fault"}}
		}), "RESTART_APP (WORKFLOW_XID_31)", "MMU fault"),
		row(x("25, 39-41, 60, 68, 70-72, 75-77, 82-86, 88-89, 96-105, 126-135, 139", Info, tell), "RESTART_APP (support; 25 check app; 60 inv. software)", "an engine of the GPU (copy, security, video, JPEG, optical flow) reported an error"),
		row(x("14, 37, 38, 43, 44, 66, 67, 93, 106, 107, 141, 152, 153", Info), "IGNORE (mostly support)", "notice of driver or firmware"),
		row(x("92", Info), "IGNORE (support)", "high rate of corrected memory errors"),
		row(x("160", Info), "IGNORE (inv. software)", "a channel's retirement was recorded"),
		row(with(x("157, 161", Degraded, idle), func(r *Rule) {
			r.Hardware, r.Next = true, "read row-remap failure and repair status (G12, G16); a failure flag means RMA"
		}), "IGNORE (157 support; 161 inv. software)", "a resource's retirement failed"),
		row(with(x("45", Info), func(r *Rule) {
			r.Again = []Again{{N: 5, Within: time.Hour, Burst: time.Second, Alone: true, SameWho: true, Severity: Degraded, Actions: []Action{idle}, Next: "restart the fabric manager when idle, then run the burn-in on this GPU"}}
		}), "WORKFLOW_XID_45 (alone: restart FM; with others: ignore)", "a channel was cleaned up"),
		row(with(x("46", Fatal, now, ResetGPU), func(r *Rule) { r.Hardware = true }), "RESET_GPU (support)", "the GPU stopped processing"),
		row(with(x("48", Fatal, now, ResetGPU), func(r *Rule) {
			r.Hardware, r.Follow = true, "xid/63 xid/64 xid/94 xid/95"
			r.Next = "after the reset run the HBM test; rows remapped and spares left say whether it goes to RMA"
		}), "WORKFLOW_XID_48", "double-bit memory error"),
		row(with(x("54", Fatal, QuarantineRMA), func(r *Rule) {
			r.Hardware, r.NoReboot, r.Next = true, true, "check the GPU's auxiliary power connector and its cable, both ends"
		}), "CHECK_MECHANICALS", "auxiliary power is missing"),
		row(with(x("61", Degraded, idle, ResetGPU), func(r *Rule) { r.Hardware, r.Again = true, secondIn30d() }), "CONTACT_SUPPORT", "power management unit stopped at a breakpoint"),
		row(with(x("62", Fatal, now, ResetGPU), func(r *Rule) { r.Hardware, r.Again = true, secondIn30d() }), "RESET_GPU (support)", "power management unit halted"),
		row(with(x("63", Degraded, idle, ResetGPU), func(r *Rule) {
			r.Hardware, r.Next = true, "nothing by hand: the remap takes effect at the reset"
		}), "IGNORE", "a row was marked for remapping, or a page for retirement"),
		row(with(x("64", Fatal, now, ResetGPU), func(r *Rule) {
			r.Hardware, r.Next = true, "read the row-remap failure flag (G12) after the reset: set means RMA"
		}), "RESET_GPU (support)", "recording a row remap or page retirement failed"),
		row(with(x("122-125", Degraded, idle), func(r *Rule) {
			r.Hardware, r.Again, r.Next = true, secondIn30d(), "check the InfoROM (G32); flash it again if it is corrupt"
		}), "CONTACT_SUPPORT", "reading or writing the board's SPI flash or InfoROM failed"),
		row(with(x("1-7, 9, 10, 12, 15-24, 26-30, 33-36, 42, 47, 49-53, 55-59, 65, 73, 81, 87, 90, 91, 111-118, 138, 142", Degraded, idle), func(r *Rule) {
			r.Next = "save an evidence bundle and ask NVIDIA: the catalogue has no use for this number"
		}), "CONTACT_SUPPORT", "a number that the catalogue marks as unused"),
		row(with(x("74", Fatal, now, ResetGPU), func(r *Rule) {
			r.Hardware, r.Decode = true, decodeLinks74
		}), "WORKFLOW_NVLINK_ERR (support)", "NVLink error"),
		row(with(x("78", Degraded, Firmware), func(r *Rule) { r.Next = "install matching driver and vGPU software" }), "UPDATE_SWFW", "a vGPU did not start"),
		row(with(x("79", Fatal, now, Reboot), func(r *Rule) {
			r.Hardware, r.Again = true, []Again{{N: 2, Within: month, Severity: Fatal, Actions: []Action{now, QuarantineRMA}, Next: rma}}
			r.Next = "if it is not back after the reboot: power-cycle at the mains, then reseat the GPU and its power cables"
		}), "RESTART_BM (support)", "the GPU fell off the bus"),
		row(with(x("94", Degraded, tell, idle, ResetGPU), func(r *Rule) { r.Hardware = true }), "RESTART_APP (ignore sympathetic)", "contained memory error"),
		row(with(x("95", Fatal, now, ResetGPU), func(r *Rule) { r.Hardware = true }), "RESET_GPU (ignore sympathetic)", "uncontained memory error"),
		row(x("108, 137", Info), "IGNORE (XID_137_FLOW)", "NVLink refused a remote access; look for 144 to 150, or a fault of the peer"),
		row(with(x("109", Degraded, ResetGPU), func(r *Rule) {
			r.Again = []Again{{N: 2, Within: day, Burst: 3 * time.Minute, Severity: Fatal, Actions: []Action{now, ResetGPU}}}
		}), "RESET_GPU (support)", "switching contexts timed out"),
		row(x("110", Fatal, ResetGPU), "RESET_GPU (inv. software)", "security fault"),
		row(with(x("119, 120", Fatal, now, ResetGPU), func(r *Rule) {
			r.Next = "if the reset fails: reboot"
			r.Again = []Again{{N: 3, Within: month, Severity: Fatal, Actions: []Action{now, Firmware}, Next: "install the driver again or another version"},
				{N: 4, Within: month, Severity: Fatal, Actions: []Action{now, QuarantineRMA}, Next: rma}}
		}), "RESET_GPU (inv. software)", "the GPU's system processor (GSP) failed or did not answer"),
		row(x("121", Info), "IGNORE (support)", "corrected error on the chip-to-chip link"),
		row(with(x("136", Fatal, ResetGPU), func(r *Rule) {
			r.Hardware, r.Next = true, "check NVLink cable and backplane of the GPU; reseat it"
		}), "RESET_GPU (inv. link)", "link training failed"),
		row(with(x("140", Fatal, now, ResetGPU), func(r *Rule) { r.Hardware, r.Next = true, "after the reset run the HBM test" }), "RESET_GPU (support)", "memory error that was not recovered"),
		row(with(x("143", Fatal, ResetGPU, Reboot), func(r *Rule) { r.Hardware = true }), "RESET_GPU (support)", "the GPU did not initialise"),
		row(with(x("144-150", Info), func(r *Rule) { r.Decode = decodeNVLink5 }), "WORKFLOW_NVLINK5_ERR", "NVLink 5 unit (SAW, RLW, TLW, TREX, NVLPW, NETIR, MSE) reported"),
		row(x("151", Degraded, Reboot), "RESTART_VM (support)", "key rotation failed (confidential computing)"),
		row(x("154", Info), "XID_154 (informational about another XID)", "the recovery action changed; its words are the verdict (G5)"),
		row(x("155", Degraded, idle, ResetGPU), "RESET_GPU (inv. software/user)", "NVLink error declared by software"),
		row(with(x("158", Fatal, now, ResetGPU), func(r *Rule) { r.Hardware = true }), "RESET_GPU (support)", "fatal timeout"),
		row(with(x("156", Degraded, idle, ResetGPU), func(r *Rule) { r.Hardware = true }), "RESET_GPU (ignore)", "a resource was marked for retirement"),
		row(with(x("159", Info), func(r *Rule) { r.Attach = anyXID }), "CHECK_UVM (sympathetic)", "error on the coherent host interface, a neighbour's"),
		row(with(x("162", Info), func(r *Rule) { r.Undoes = "xid/163" }), "none yet", "power smoothing is engaged again"),
		row(x("163", Info), "none yet", "power smoothing is disengaged"),
		row(with(x("164, 165", Degraded), func(r *Rule) { r.Hardware, r.Next = true, "order the part: power smoothing wears out" }), "none yet", "power smoothing has little or no life left"),
		row(with(x("166, 170", Degraded), func(r *Rule) { r.Next = "a person checks the set-up of confidential computing" }), "none yet", "encrypted NVLink traffic before it was set up, or an interrupt in confidential mode"),
		row(with(x("167", Fatal, Reboot), func(r *Rule) { r.Hardware = true }), "none yet", "fatal PCIe timeout"),
		row(with(x("168", Degraded, idle, QuarantineRMA), func(r *Rule) {
			r.Hardware, r.Next = true, "the GPU has less memory than was sold: replace it"
		}), "none yet", "memory capacity is reduced"),
		row(with(x("169", Fatal, ResetGPU), func(r *Rule) { r.Hardware = true }), "none yet", "security processor (SEC2) halted"),
		row(with(x("171, 172", Info), func(r *Rule) { r.Attach = "xid/48" }), "none yet", "details of an uncorrectable memory error"),
		row(with(x("173", Fatal, now, ResetGPU), func(r *Rule) { r.Hardware = true }), "in driver only", "fatal error on the chip-to-chip link"),
		row(x("174", Info), "in driver only", "a channel was ended silently"),
		row(with(x("175", Fatal, now, ResetGPU), func(r *Rule) { r.Hardware = true }), "in driver only", "memory subsystem error"),
		row(x("176", Info), "in driver only", "corrected PCIe error; its rate counts (G24)"),
	}
}

// rma is what a technician does with a part that is not to come back.
const rma = "take the part out, attach its evidence bundle, and start the return to its maker"

// anyXID is for rows that belong to whatever else is on the part.
const anyXID = "xid"

func secondIn30d() []Again {
	return []Again{{N: 2, Within: month, Severity: Fatal, Actions: []Action{DrainNow, QuarantineRMA}, Next: rma}}
}

func with(r Rule, change func(*Rule)) Rule {
	change(&r)
	return r
}
