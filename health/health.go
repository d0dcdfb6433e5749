// Package health judges one machine: signals in, verdicts out.
//
// The words are here. A Signal is one fact that a reader saw: a line of the kernel's log (health/kmsg), a value of NVML
// (health/nvml), a file of sysfs (health/sysfs). A Verdict is what the Judge makes of signals: what is wrong, in which
// part, since when, by which rule, what is to be done and what a technician does next. Alerts turns verdicts into the
// words of the inventory. The rules are tables that a person can read beside the manual: XIDs, SXids, NVLink5, Links74 and
// Checks; each says where it comes from and of which date it is (health-checks.md sections 1.2 to 1.7).
//
// The flow: the NVIDIA driver's own recovery action comes first, then the tables of codes, then how signals go together,
// then how often they come. The Judge owns a clock that it is given and a journal that it writes; it reads no device, runs
// nothing, and knows neither nodes nor leases: what is done about a verdict is decided elsewhere.
package health

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Severity is how bad a thing is for whoever rents the machine.
type Severity string

// Severities, mildest first.
const (
	Info     Severity = "info"     // recorded and shown
	Degraded Severity = "degraded" // usable, but work on it has to be planned
	Fatal    Severity = "fatal"    // must not be rented
)

// Rank orders severities; a word that is not one ranks highest, so that nothing unknown passes as mild.
func (s Severity) Rank() int { return rank([]Severity{Info, Degraded, Fatal}, s) }

// Action is one thing to be done. A verdict lists them in the order of Ladder: first what happens to the lease, then what
// happens to the machine.
type Action string

// Actions.
const (
	None          Action = "none"
	TellTenant    Action = "tell-tenant"
	DrainIdle     Action = "drain-idle" // no new lease; repair when the tenant leaves
	DrainNow      Action = "drain-now"  // end or move the lease under the operator's policy
	ResetGPU      Action = "reset-gpu"
	Reboot        Action = "reboot"
	PowerCycle    Action = "power-cycle" // chassis or mains, through the BMC
	Firmware      Action = "firmware"    // flash again, or install the driver again
	QuarantineRMA Action = "quarantine-rma"
)

// Ladder lists the actions, mildest first. From ResetGPU upwards a burn-in comes before the machine returns.
func Ladder() []Action {
	return []Action{None, TellTenant, DrainIdle, DrainNow, ResetGPU, Reboot, PowerCycle, Firmware, QuarantineRMA}
}

// Rank orders actions; a word that is not one ranks highest.
func (a Action) Rank() int { return rank(Ladder(), a) }

func rank[T comparable](list []T, x T) int {
	if i := slices.Index(list, x); i >= 0 {
		return i
	}
	return len(list)
}

// Strongest is the action of a list that is highest on the ladder; None for an empty one.
func Strongest(list []Action) Action {
	best := None
	for _, a := range list {
		if a.Rank() > best.Rank() {
			best = a
		}
	}
	return best
}

// Kinds of parts.
const (
	GPU      = "gpu"
	NVSwitch = "nvswitch"
	NVMe     = "nvme"
	Disk     = "disk"
	NIC      = "nic"
	DIMM     = "dimm"
	CPU      = "cpu"
	PSU      = "psu"
	Fan      = "fan"
	PCI      = "pci" // a device or bridge of which only the bus address is known
	BMC      = "bmc"
	Node     = "node" // the machine as a whole
)

// A Part is a piece of hardware that a person can hold. A reader fills what it knows; the Judge adds the rest from what
// it was told of the machine (Judge.Know).
type Part struct {
	Kind   string `json:"kind"`
	BDF    string `json:"bdf,omitempty"` // PCI address as BDF writes it
	UUID   string `json:"uuid,omitempty"`
	Serial string `json:"serial,omitempty"`
	Slot   string `json:"slot,omitempty"` // what is printed beside it: "GPU 5", "DIMM_A3"
}

// Key names the part within one machine. The bus address comes first, because it is all that the kernel's log knows.
func (p Part) Key() string { return cmp.Or(p.BDF, p.UUID, p.Serial, p.Slot, p.Kind, Node) }

// Where says in words where the part is.
func (p Part) Where() string {
	var w []string
	say := func(format, s string) {
		if s != "" {
			w = append(w, fmt.Sprintf(format, s))
		}
	}
	say("%s", cmp.Or(p.Kind, Node))
	say("slot %s", p.Slot)
	say("serial %s", p.Serial)
	say("at %s", p.BDF)
	if p.Serial == "" {
		say("%s", p.UUID)
	}
	return strings.Join(w, ", ")
}

// BDF writes a PCI address in the one form that is used here, 0000:3b:00.0. The driver's log has no function
// ("0000:3b:00"), NVML writes eight digits of domain and capitals; anything that is no address is returned as it is.
func BDF(s string) string {
	t := strings.ToLower(strings.TrimPrefix(strings.TrimSpace(s), "PCI:"))
	fields := strings.Split(t, ":")
	if len(fields) == 2 {
		fields = append([]string{"0"}, fields...)
	}
	if len(fields) != 3 {
		return s
	}
	dev, fn, _ := strings.Cut(fields[2], ".")
	var n [4]uint64
	for i, f := range []string{fields[0], fields[1], dev, cmp.Or(fn, "0")} {
		v, err := strconv.ParseUint(f, 16, 32)
		if err != nil {
			return s
		}
		n[i] = v
	}
	return fmt.Sprintf("%04x:%02x:%02x.%x", n[0], n[1], n[2], n[3])
}
