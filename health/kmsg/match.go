package kmsg

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/hostler-project/hostler/health"
)

// A pattern is one kind of line that means something. Its regular expression runs only on lines that contain the literal.
type pattern struct {
	literal string
	expr    *regexp.Regexp
	signal  func(m []string) health.Signal // m are the groups of expr
}

// A Matcher knows the lines of the kernel and of its drivers that mean something (health-checks.md section 1.6). It
// remembers which GPU a notice of several lines began with, so it is for one log.
type Matcher struct {
	patterns []pattern
	notice   string // bus address in the first line of the driver's notice
}

// NewMatcher makes a Matcher.
func NewMatcher() *Matcher { return &Matcher{patterns: patterns()} }

// Match tells what a line means; false: nothing that is known.
func (m *Matcher) Match(line string) (health.Signal, bool) {
	if bdf, ok := strings.CutPrefix(line, "NVRM: The NVIDIA GPU "); ok {
		m.notice, _, _ = strings.Cut(bdf, "\n")
		m.notice, _, _ = strings.Cut(m.notice, " ")
	}
	for i := range m.patterns {
		p := &m.patterns[i]
		if !strings.Contains(line, p.literal) {
			continue
		}
		if g := p.expr.FindStringSubmatch(line); g != nil {
			s := p.signal(g)
			if s.Check == "" {
				return health.Signal{}, false
			}
			if s.Check == "G2" && s.Part.BDF == "" {
				s.Part.BDF, m.notice = health.BDF(m.notice), ""
			}
			s.Line = line
			return s, true
		}
	}
	return health.Signal{}, false
}

// Interesting says in a few hundred nanoseconds whether Match could find anything.
func (m *Matcher) Interesting(line string) bool {
	for i := range m.patterns {
		if strings.Contains(line, m.patterns[i].literal) {
			return true
		}
	}
	return strings.HasPrefix(line, "NVRM: The NVIDIA GPU ")
}

// event is what a line about a part says.
func event(check, code string, p health.Part) health.Signal {
	return health.Signal{Check: check, Code: code, Part: p, Mark: health.Event}
}

func node() health.Part { return health.Part{Kind: health.Node} }

func at(kind, bdf string) health.Part { return health.Part{Kind: kind, BDF: health.BDF(bdf)} }

func named(kind, name string) health.Part { return health.Part{Kind: kind, Slot: name} }

const bdf = `([0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}(?:\.[0-7])?)`

// patterns is the table. What comes first wins: a line about a GPU that fell off the bus may be an XID.
func patterns() []pattern {
	var out []pattern
	add := func(literal, expr string, signal func(m []string) health.Signal) {
		out = append(out, pattern{literal, regexp.MustCompile(expr), signal})
	}
	says := func(literal, expr, check, code string, part func(m []string) health.Part) {
		add(literal, expr, func(m []string) health.Signal { return event(check, code, part(m)) })
	}
	whole := func([]string) health.Part { return node() }
	gpu := func(m []string) health.Part { return at(health.GPU, m[1]) }
	drive := func(m []string) health.Part { return named(health.NVMe, m[1]) }
	disk := func(m []string) health.Part {
		if strings.HasPrefix(m[1], "nvme") {
			return named(health.NVMe, controller(m[1]))
		}
		return named(health.Disk, m[1])
	}
	nic := func(m []string) health.Part { return at(health.NIC, m[1]) }
	who := func(literal, expr, check, code string) { // groups: program, pid
		add(literal, expr, func(m []string) health.Signal {
			s := event(check, code, node())
			s.Who = "pid " + m[2] + " " + m[1]
			return s
		})
	}

	add("NVRM: Xid (", `NVRM: Xid \((?:PCI:)?([0-9a-fA-F:.]+)(?: GPU-I:(\d+))?(?: GPU-CI:\d+)?\): (\d+)(?:, (.*))?`, xid)
	add("SXid (PCI:", `(?:nvidia-)?(nvswitch\d+): SXid \(PCI:([0-9a-fA-F:.]+)\): (\d+), (.*)`, sxid)
	says("fallen off the bus", `NVRM: GPU (?:at )?(?:PCI:)?`+bdf+`: .*fallen off the bus`, "G2", "", gpu)
	says("fallen off the bus", `NVRM: The NVIDIA GPU `+bdf+`[\s\S]*fallen off the bus`, "G2", "", gpu)
	says("fallen off the bus", `NVRM: .*fallen off the bus`, "G2", "", func([]string) health.Part { return health.Part{Kind: health.GPU} })
	add("RmInitAdapter failed", `NVRM: GPU `+bdf+`: RmInitAdapter failed! \(([^)]*)\)`, func(m []string) health.Signal {
		s := event("G1", "init", at(health.GPU, m[1]))
		s.Value = m[2]
		return s
	})
	says("rm_init_adapter failed", `NVRM: GPU `+bdf+`: rm_init_adapter failed`, "G1", "init", gpu)
	says("NVRM: API mismatch", `NVRM: API mismatch`, "G4", "mismatch", whole)
	says("NVIDIA probe routine failed", `NVRM: The NVIDIA probe routine failed`, "G4", "module", whole)
	says("nvidia: probe of", `nvidia: probe of `+bdf+` failed with error`, "G4", "module", gpu)
	says("None of the NVIDIA devices", `NVRM: None of the NVIDIA devices were initialized`, "G4", "module", whole)

	add("blocked for more than", `INFO: task (.+):(\d+) blocked for more than (\d+) seconds`, func(m []string) health.Signal {
		s := event("K", "hung-task", node())
		if strings.Contains(m[1], "nvidia") || strings.HasPrefix(m[1], "nv_") || strings.HasPrefix(m[1], "UVM ") {
			s.Check, s.Code = "G42", ""
		}
		s.Who, s.Value = "pid "+m[2]+" "+m[1], m[3]+" s"
		return s
	})
	add("soft lockup", `BUG: soft lockup - CPU#(\d+) stuck for (\d+)s! \[(.+):(\d+)\]`, func(m []string) health.Signal {
		s := event("K", "soft-lockup", named(health.CPU, "CPU "+m[1]))
		s.Value, s.Who = m[2]+" s", "pid "+m[4]+" "+m[3]
		return s
	})
	says("hard LOCKUP", `Watchdog detected hard LOCKUP on cpu (\d+)`, "K", "hard-lockup", func(m []string) health.Part { return named(health.CPU, "CPU "+m[1]) })
	says("stall", `rcu.*(?:self-detected stall on CPU|detected (?:expedited )?stalls on CPUs)`, "K", "rcu-stall", whole)
	add("ut of memory: ", `(?:Memory cgroup out|Out) of memory: Kill(?:ed)? process (\d+) \((.+?)\)`, func(m []string) health.Signal {
		s := event("K", "oom", node())
		s.Who = "pid " + m[1] + " " + m[2]
		return s
	})
	says("Kernel panic - not syncing", `Kernel panic - not syncing`, "K", "panic", whole)
	says("BUG: ", `^BUG: (?:unable to handle|kernel NULL pointer|Bad page|scheduling while atomic)`, "K", "oops", whole)
	says("kernel BUG at", `kernel BUG at `, "K", "oops", whole)
	says("Oops: ", `^Oops: `, "K", "oops", whole)
	says("general protection fault", `^general protection fault, (?:probably|maybe)`, "K", "oops", whole)

	add("event severity: ", `\[Hardware Error\]: +event severity: (fatal|recoverable|corrected|info)`, func(m []string) health.Signal {
		code, ok := map[string]string{"fatal": "fatal", "recoverable": "uncorrected", "corrected": "corrected"}[m[1]]
		if !ok {
			return health.Signal{}
		}
		return event("H4", code, node())
	})
	says("Machine Check Exception", `\[Hardware Error\]: CPU (\d+): Machine Check Exception`, "H4", "uncorrected", func(m []string) health.Part { return named(health.CPU, "CPU "+m[1]) })
	says("Machine check events logged", `\[Hardware Error\]: Machine check events logged`, "H4", "corrected", whole)
	says("[Hardware Error]: Uncorrected", `\[Hardware Error\]: Uncorrected`, "H4", "uncorrected", whole)
	says("[Hardware Error]: Corrected error", `\[Hardware Error\]: Corrected error`, "H4", "corrected", whole)
	says("temperature above threshold", `CPU(\d+): (?:Core|Package) temperature above threshold`, "H6", "throttle", func(m []string) health.Part { return named(health.CPU, "CPU "+m[1]) })
	add("EDAC MC", `EDAC (MC\d+): (\d+) (CE|UE) .*?on (\S+)`, func(m []string) health.Signal {
		s := event("H3", strings.ToLower(m[3]), named(health.DIMM, m[1]+" "+m[4]))
		if n, err := strconv.ParseInt(m[2], 10, 32); err == nil && n > 1 {
			s.More = n - 1
		}
		return s
	})
	says("Memory failure: 0x", `Memory failure: 0x[0-9a-f]+: recovery action`, "H3", "ue", func([]string) health.Part { return health.Part{Kind: health.DIMM} })

	add("PCIe Bus Error: severity=", bdf+`: PCIe Bus Error: severity=(Correct|Uncorrect)(?:ed|able)(?: \((Non-Fatal|Fatal)\))?`, func(m []string) health.Signal {
		return event("H7", aer(m[2], m[3]), at(health.PCI, m[1]))
	})
	add("AER: ", `AER: (?:Multiple )?(Correct|Uncorrect)(?:ed|able)(?: \((Non-Fatal|Fatal)\))? error (?:message )?received(?: from|:) `+bdf, func(m []string) health.Signal {
		return event("H7", aer(m[1], m[2]), at(health.PCI, m[3]))
	})

	says("nvme nvme", `nvme (nvme\d+): (?:I/O .*timeout|controller is down; will reset|Device not ready; aborting reset)`, "H1", "timeout", drive)
	says("nvme nvme", `nvme (nvme\d+): (?:Disabling device after reset failure|Removing after probe failure|failed to mark controller live)`, "H1", "dead", drive)
	says("path - ", `block (nvme\d+)\S*: no (?:available|usable) path - (?:failing|requeuing) I/O`, "H1", "no-path", drive)
	says("while writing superblock", `\((\w+)\): I/O error while writing superblock`, "H1", "superblock", disk)
	says("Buffer I/O error", `Buffer I/O error on dev(?:ice)? (\w+),`, "H1", "io-error", disk)
	says("I/O error, dev ", `I/O error, dev (\w+), sector`, "H1", "io-error", disk)
	says("access beyond end of device", `attempt to access beyond end of device\s+(\w+):`, "H1", "beyond-end", disk)
	says("access beyond end of device", `(\S*?):? ?attempt to access beyond end of device`, "H1", "beyond-end", func([]string) health.Part { return health.Part{Kind: health.Disk} })
	says("Disk failure on", `md/\S+: Disk failure on (\w+), disabling`, "H1", "md", disk)
	says("Remounting filesystem read-only", `\(([\w-]+)\): Remounting filesystem read-only`, "H14", "read-only", disk)
	says("EXT4-fs error", `EXT4-fs error \(device ([\w-]+)\)`, "H14", "fs-error", disk)
	says("XFS (", `XFS \(([\w-]+)\): .*(?:has been shut down|[Ss]hutting down)`, "H14", "fs-shutdown", disk)
	says("XFS (", `XFS \(([\w-]+)\): (?:Corruption|[Mm]etadata (?:corruption|I/O error))`, "H14", "fs-error", disk)

	says("mlx5_core ", `mlx5_core `+bdf+`: .*(?:High [Tt]emperature|temperature.*threshold)`, "H8", "module-temperature", nic)
	says("insufficient power", `mlx5_core `+bdf+`: .*insufficient power on the PCIe slot`, "H8", "pci-power", nic)
	says("ACCESS_REG", `mlx5_core `+bdf+`: .*ACCESS_REG\(.*failed`, "H8", "register-access", nic)
	says("mlx5_core ", `mlx5_core `+bdf+`: .*(?:[Ff]atal error \d+ detected|device's health compromised|fatal sensor|FATAL_ERROR)`, "H8", "fatal-sensor", nic)
	add("Link ", `(?:^|\s)`+bdf+` (\S+): (?:NIC )?Link (?:is )?[Dd]own`, func(m []string) health.Signal {
		s := event("H8", "carrier", at(health.NIC, m[1]))
		s.Unit = m[2]
		return s
	})
	says("carrier lost", `(\S+): carrier lost`, "H8", "carrier", func(m []string) health.Part { return named(health.NIC, m[1]) })

	says("invalid context", `detected invalid context, skipping further processing`, "K", "peermem", whole)
	who("in libnccl", `(\S+)\[(\d+)\]: segfault at .* in libnccl`, "K", "nccl")
	says("file-max limit", `VFS: file-max limit \d+ reached`, "K", "file-max", whole)
	return out
}

func aer(corrected, fatal string) string {
	switch {
	case corrected == "Correct":
		return "aer-corrected"
	case fatal == "Fatal":
		return "aer-fatal"
	}
	return "aer-nonfatal"
}

// controller is nvme0 of nvme0n1p2.
func controller(name string) string {
	for i := len("nvme"); i < len(name); i++ {
		if name[i] < '0' || name[i] > '9' {
			return name[:i]
		}
	}
	return name
}
