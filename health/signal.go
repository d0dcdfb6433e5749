package health

import (
	"strings"
	"time"
)

// Mark says whether a signal is a thing that happened, or a state that holds or has ended.
type Mark string

// Marks.
const (
	Event Mark = "event"
	Holds Mark = "holds" // told again at each poll while it is so
	Ended Mark = "ended" // the same Check, Code, Part and Unit was seen good
)

// A Signal is one fact that a reader saw. Readers apply the thresholds of the catalogue and say which row of it they mean;
// they judge nothing: the row's severity and actions are the Judge's business.
type Signal struct {
	Check  string    `json:"check"`          // number in the catalogue: "G6" an XID, "G31" an SXid, "H3" memory errors
	Code   string    `json:"code,omitempty"` // which XID, or which case of the check: "79", "threshold"; see Checks
	Part   Part      `json:"part"`
	Unit   string    `json:"unit,omitempty"` // of the part: "link 7", "GPC 3 TPC 1", "MIG 3"
	Mark   Mark      `json:"mark"`
	Boot   string    `json:"boot,omitempty"`  // the boot it happened in; empty: the present one
	Seq    uint64    `json:"seq,omitempty"`   // of the kernel's log; 0 where it was polled
	At     time.Time `json:"at"`              // when it happened, else when it was seen
	Value  string    `json:"value,omitempty"` // what was measured, with its unit; or the line's own severity, "fatal" or "nonfatal"
	Words  []uint32  `json:"words,omitempty"` // registers that the line carries (XID 74, 144 to 150)
	Who    string    `json:"who,omitempty"`   // process that the driver names: "pid 4242 python3"
	Line   string    `json:"line,omitempty"`  // the evidence, word for word
	More   int64     `json:"more,omitempty"`  // so many further ones like it are not told one by one
	Old    bool      `json:"old,omitempty"`   // from before the reader's start: it counts only as far as the present state agrees
	Reader string    `json:"reader"`          // kmsg, nvml, sysfs, bmc, or the Judge's own "judge"
}

// Rule names the row of the tables that a signal falls under: "xid/79", "sxid/12028", "G10/threshold", "H13".
func (s Signal) Rule() string {
	switch {
	case s.Check == CheckXID:
		return "xid/" + s.Code
	case s.Check == CheckSXid:
		return "sxid/" + s.Code
	case s.Code == "":
		return s.Check
	}
	return s.Check + "/" + s.Code
}

// Incident names what a signal belongs to within one boot: the same rule, part and unit is the same incident.
func (s Signal) Incident() string {
	id := s.Rule() + "@" + s.Part.Key()
	if s.Unit != "" {
		id += "/" + s.Unit
	}
	return strings.ReplaceAll(id, " ", "-")
}

// Checks that have tables of codes of their own.
const (
	CheckXID      = "G6"
	CheckSXid     = "G31"
	CheckRecovery = "G5" // NVIDIA's own verdict; its codes are Recovery*
)

// Codes of CheckRecovery: field 230 of NVML by number, and the words of XID 154.
const (
	RecoveryReset         = "reset"           // 1
	RecoveryReboot        = "reboot"          // 2
	RecoveryDrainP2P      = "drain-p2p"       // 3
	RecoveryDrainAndReset = "drain-and-reset" // 4
	RecoveryIMEX          = "imex"            // 5, the domain of a whole rack
)

// Recoveries gives the code of each value of NVML field 230; 0, nothing to be done, is the Mark Ended of all of them.
func Recoveries() map[uint64]string {
	return map[uint64]string{1: RecoveryReset, 2: RecoveryReboot, 3: RecoveryDrainP2P, 4: RecoveryDrainAndReset, 5: RecoveryIMEX}
}
