package lifecycle

import (
	"time"

	i "github.com/hostler-project/hostler/inventory"
)

// States is the table of states, in the order a healthy node meets them.
var States = []State{
	{Name: i.Discovered, Means: "Seen, not yet ours: listed, gets no boot file and no power act.", Step: "discovered", Rest: true},
	{Name: i.Inspecting, Means: "Booted into the service OS; its hardware is compared with the SKU.", Step: "inspect", Posts: 2},
	{Name: i.Firmware, Means: "Every component is brought to the SKU's baseline.", Deadline: 6 * time.Hour, Alarm: 2 * time.Hour, Destroys: true},
	{Name: i.Sanitizing, Means: "Every medium ever seen is erased and read back; a certificate is signed.", Step: "sanitize", Deadline: 30 * time.Minute, Destroys: true},
	{Name: i.BurnIn, Means: "New or repaired: the full test profile runs.", Step: "test", Deadline: 6 * time.Hour, Destroys: true},
	{Name: i.Verifying, Means: "Known node: the short test profile runs.", Step: "test", Deadline: 15 * time.Minute, Destroys: true},
	{Name: i.Ready, Means: "Erased, tested, warm in the service OS: can be rented.", Step: "ready", Rest: true},
	{Name: i.Reserved, Means: "Claimed; waits for the confirm that names image and user data.", Step: "reserved", Deadline: 60 * time.Minute},
	{Name: i.Provisioning, Means: "The tenant's image is written, seeded and entered.", Step: "provision", Deadline: 60 * time.Minute, Posts: 1, Destroys: true},
	{Name: i.InUse, Means: "The tenant's.", Step: "in-use", Rest: true, Owned: true},
	{Name: i.Servicing, Means: "Worked on with the holder's consent.", Deadline: 60 * time.Minute, Posts: 1, Owned: true},
	{Name: i.Draining, Means: "The tenant's notice is running.", Step: "drain", Deadline: 24 * time.Hour, Owned: true},
	{Name: i.Fencing, Means: "Cut off from the tenant's network and power-cycled into the service OS.", Step: "fence", Posts: 2},
	{Name: i.Quarantined, Means: "Something is wrong: not for sale until somebody decides.", Step: "quarantine", Rest: true, Alarm: 4 * time.Hour},
	{Name: i.Repair, Means: "A technician exchanges parts.", Rest: true, Alarm: 24 * time.Hour},
	{Name: i.Maintenance, Means: "Taken out by an operator.", Rest: true, Alarm: 24 * time.Hour},
	{Name: i.Retiring, Means: "Leaving for good: erased, or every medium disposed of.", Deadline: 2 * time.Hour, Destroys: true},
	{Name: i.Retired, Means: "Gone. Its record stays.", Rest: true},
}

// Edges is every way a node can go. No flag opens another.
var Edges = append([]Edge{
	{"", Appear, i.Discovered, Reconciler, "DHCP seen on an enrol segment, BMC lease, or manifest import", Effects{}},
	{i.Discovered, Approve, i.Inspecting, Reconciler, "operator, or approve: auto and the BMC says the chassis is off", Effects{Taint: true}},
	{i.Discovered, Adopt, i.InUse, Reconciler, "operator: a running machine enters with an existing claim, untouched", Effects{Generation: true, Taint: true}},
	{i.Discovered, Maintain, i.Maintenance, Reconciler, "operator, with reason", Effects{}},

	{i.Inspecting, Drift, i.Firmware, Reconciler, "bill of materials holds, firmware drift found", Effects{}},
	{i.Inspecting, Done, i.Sanitizing, Reconciler, "bill of materials holds, no drift", Effects{Wipe: true}},
	{i.Inspecting, Failed, i.Quarantined, Reconciler, "mismatch (slot, expected, found), or no boot after 2 tries", Effects{Generation: true}},
	{i.Inspecting, Timeout, i.Quarantined, Reconciler, "deadline", Effects{Generation: true}},

	{i.Firmware, Done, i.Sanitizing, Reconciler, "every component at baseline, read back after reset", Effects{Wipe: true}},
	{i.Firmware, Failed, i.Quarantined, Reconciler, "failed or unconfirmed", Effects{Generation: true}},
	{i.Firmware, Timeout, i.Quarantined, Reconciler, "deadline", Effects{Generation: true}},

	{i.Sanitizing, DoneBurnIn, i.BurnIn, Reconciler, "certificate signed; node new, or back from repair", Effects{Clean: true}},
	{i.Sanitizing, Done, i.Verifying, Reconciler, "certificate signed; node known", Effects{Clean: true}},
	{i.Sanitizing, Failed, i.Quarantined, Reconciler, "a medium without proof; taint stays", Effects{Generation: true}},
	{i.Sanitizing, Timeout, i.Quarantined, Reconciler, "deadline; taint stays", Effects{Generation: true}},

	{i.BurnIn, Done, i.Ready, Reconciler, "full profile passed", Effects{}},
	{i.BurnIn, Failed, i.Quarantined, Reconciler, "failed (test, component)", Effects{Generation: true}},
	{i.BurnIn, Timeout, i.Quarantined, Reconciler, "deadline", Effects{Generation: true}},
	{i.Verifying, Done, i.Ready, Reconciler, "verify profile passed", Effects{}},
	{i.Verifying, Failed, i.Quarantined, Reconciler, "failed twice", Effects{Generation: true}},
	{i.Verifying, Timeout, i.Quarantined, Reconciler, "deadline", Effects{Generation: true}},

	{i.Ready, Recheck, i.Verifying, Reconciler, "test age near its limit, staging another image, outdated service OS", Effects{}},
	{i.Ready, Lost, i.Inspecting, Reconciler, "silent 5 min or boot id changed, at most 2 in 7 days", Effects{}},
	{i.Ready, Rollout, i.Firmware, Reconciler, "firmware rollout", Effects{}},
	{i.Ready, Claim, i.Reserved, API, "claim", Effects{Generation: true}},
	{i.Ready, Maintain, i.Maintenance, Reconciler, "operator, with reason", Effects{}},
	{i.Ready, Retire, i.Retiring, Reconciler, "operator", Effects{Wipe: true}},

	{i.Reserved, Release, i.Ready, API, "released before confirm", Effects{EndClaim: true}},
	{i.Reserved, Expire, i.Ready, Reconciler, "reservation expired before confirm", Effects{EndClaim: true}},
	{i.Reserved, Timeout, i.Ready, Reconciler, "no confirm within the longest reservation", Effects{EndClaim: true}},
	{i.Reserved, Confirm, i.Provisioning, API, "confirm: image digest, seed, network", Effects{Taint: true, Wipe: true}},

	{i.Provisioning, Done, i.InUse, Reconciler, "hand-off done", Effects{}},
	{i.Provisioning, Again, i.Provisioning, Reconciler, "failed before hand-off: one retry", Effects{}},
	{i.Provisioning, Failed, i.Fencing, Reconciler, "failed again", Effects{}},
	{i.Provisioning, Timeout, i.Fencing, Reconciler, "deadline", Effects{}},
	{i.Provisioning, Release, i.Fencing, API, "released", Effects{}},

	{i.InUse, Release, i.Draining, API, "release, end of term, reclaim", Effects{}},
	{i.InUse, DrainNow, i.Draining, Reconciler, "drain-now alert, or operator", Effects{}},
	{i.InUse, Service, i.Servicing, Reconciler, "holder's consent", Effects{}},
	{i.InUse, Reinstall, i.Provisioning, Reconciler, "holder's reinstall: same claim, taint stays", Effects{Wipe: true}},
	{i.InUse, Emergency, i.Quarantined, Reconciler, "leak by two sensors or a latched alarm, over-temperature", Effects{Generation: true}},
	{i.InUse, ForceReclaim, i.Quarantined, Reconciler, "operator, with reason", Effects{Generation: true}},

	{i.Servicing, Done, i.InUse, Reconciler, "done", Effects{}},
	{i.Servicing, Failed, i.InUse, Reconciler, "failed: ready=false with the reason", Effects{}},
	{i.Servicing, Timeout, i.InUse, Reconciler, "deadline: ready=false with the reason", Effects{}},

	{i.Draining, Cancel, i.InUse, Reconciler, "drain cancelled before its notice ended", Effects{}},
	{i.Draining, Done, i.Fencing, Reconciler, "notice over, or tenant done", Effects{}},
	{i.Draining, Timeout, i.Fencing, Reconciler, "notice over", Effects{}},

	{i.Fencing, Done, i.Inspecting, Reconciler, "fence observed, power-cycled, this session's agent answers", Effects{EndClaim: true}},
	{i.Fencing, Failed, i.Quarantined, Reconciler, "fence or power unconfirmed", Effects{Generation: true}},
	{i.Fencing, Timeout, i.Quarantined, Reconciler, "deadline", Effects{Generation: true}},

	{i.Quarantined, Return, i.Inspecting, Reconciler, "operator, or a rule: at most 2 in 30 days", Effects{}},
	{i.Quarantined, ToRepair, i.Repair, Reconciler, "triage: hardware", Effects{}},
	{i.Quarantined, Maintain, i.Maintenance, Reconciler, "operator, with reason", Effects{}},
	{i.Quarantined, Retire, i.Retiring, Reconciler, "operator", Effects{Wipe: true}},
	{i.Repair, Repaired, i.Inspecting, Reconciler, "technician: parts, serials, a disposition for each removed medium", Effects{Taint: true}},
	{i.Repair, Retire, i.Retiring, Reconciler, "operator", Effects{Wipe: true}},
	{i.Maintenance, Return, i.Inspecting, Reconciler, "operator", Effects{Taint: true}},
	{i.Maintenance, Retire, i.Retiring, Reconciler, "operator", Effects{Wipe: true}},
	{i.Retiring, Done, i.Retired, Reconciler, "certificate, or dispositions for every medium", Effects{Clean: true}},
	{i.Retiring, Failed, i.Quarantined, Reconciler, "failed", Effects{Generation: true}},
	{i.Retiring, Timeout, i.Quarantined, Reconciler, "deadline", Effects{Generation: true}},
	{i.Retired, SeenAgain, i.Discovered, Reconciler, "same serial seen again and approved", Effects{}},
}, append(fromAny(), afterRestore()...)...)

// fromAny writes out the two rows of design.md section 5 that hold for many states: quarantine from any state that is
// not the tenant's, and an operator's abort of a state that works.
func fromAny() []Edge {
	var out []Edge
	for _, s := range States {
		if s.Owned || s.Name == i.Quarantined || s.Name == i.Retired {
			continue
		}
		// While fencing, and from the moment in which an agent is told to enter the tenant's system, that system may run:
		// its claim stays until the power is confirmed off.
		with := Effects{Generation: true, EndClaim: s.Name != i.Fencing && s.Name != i.Provisioning}
		out = append(out, Edge{s.Name, Quarantine, i.Quarantined, Reconciler,
			"prevent-transition alert, identity conflict, operator", with})
		if !s.Rest {
			out = append(out, Edge{s.Name, Abort, i.Quarantined, Reconciler,
				"operator", with})
		}
	}
	return out
}

// afterRestore writes out what becomes of a node whose record came back from a backup. Whoever may have got a tenant
// since is fenced before anything else: cut off, switched off, and only then inspected and erased. A tenant's stays its
// tenant's, and what rests elsewhere stays there, tainted: its way back leads through sanitizing.
func afterRestore() []Edge {
	var out []Edge
	for _, s := range States {
		to, why := i.Fencing, "may have had another tenant since the backup"
		switch {
		case s.Owned:
			to, why = s.Name, "its tenant's, as far as the backup knows: to be confirmed by a person"
		case s.Rest && s.Name != i.Ready:
			to, why = s.Name, "stays; whatever was done since the backup is not known"
		}
		out = append(out, Edge{s.Name, Restored, to, Restorer, why, Effects{Generation: true, Taint: true, Wipe: true, Jump: true}})
	}
	return out
}
