package kmsg

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/hostler-project/hostler/health"
)

// The tails of the driver's lines, after "Xid (PCI:0000:3b:00): 13, ".
var (
	pidTail   = regexp.MustCompile(`^pid='?(<unknown>|\d+)'?(?:, name=([^,]*))?`)
	smTail    = regexp.MustCompile(`\(GPC (\d+), TPC (\d+)`)
	link4Tail = regexp.MustCompile(`on link (\d+) ?\(([^)]*)\)`)
	link5Tail = regexp.MustCompile(`(\S+)\s+(Fatal|Nonfatal)\s+XC\d+\s+i\d+\s+Link\s+(-?\d+)\s*(?:\(([^)]*)\)?)?`)
	recovery  = regexp.MustCompile(`to 0x([0-9a-fA-F]+) \(([^)]*)\)`)
	sxidTail  = regexp.MustCompile(`^(Fatal|Non-fatal|Correctable|Intermediate)?,? ?(?:Link (\d+))?`)
)

// xid reads a line of a GPU. XID 154 is NVIDIA's own verdict, and becomes one (G5).
func xid(m []string) health.Signal {
	bus, mig, code, tail := m[1], m[2], m[3], m[4]
	s := event(health.CheckXID, code, at(health.GPU, bus))
	if g := pidTail.FindStringSubmatch(tail); g != nil && g[1] != "<unknown>" {
		s.Who = strings.TrimSpace("pid " + g[1] + " " + g[2])
	}
	var unit []string
	if mig != "" {
		unit = append(unit, "MIG "+strings.TrimLeft(mig, "0"))
		if strings.Trim(mig, "0") == "" {
			unit[0] = "MIG 0"
		}
	}
	switch code {
	case "13":
		if g := smTail.FindStringSubmatch(tail); g != nil {
			unit = append(unit, "GPC "+g[1]+" TPC "+g[2])
		}
	case "74":
		if g := link4Tail.FindStringSubmatch(tail); g != nil {
			unit, s.Words = append(unit, "link "+g[1]), registers(g[2])
		}
	case "144", "145", "146", "147", "148", "149", "150":
		if g := link5Tail.FindStringSubmatch(tail); g != nil {
			s.Value, s.Words = strings.ToLower(g[2]), registers(g[4])
			n, err := strconv.Atoi(g[3])
			if err == nil {
				unit = append(unit, "link "+strconv.Itoa(n))
			}
			unit = append(unit, g[1])
		}
	case "154":
		if g := recovery.FindStringSubmatch(tail); g != nil {
			return recovered(s, g[1], g[2])
		}
	}
	s.Unit = strings.Join(unit, " ")
	return s
}

// recovered makes NVIDIA's verdict of the new recovery action's number and words. A number that is new to us stays an XID
// of the table.
func recovered(s health.Signal, number, words string) health.Signal {
	n, err := strconv.ParseUint(number, 16, 32)
	code, known := health.Recoveries()[n]
	switch {
	case err != nil, !known && n != 0:
		return s
	case n == 0:
		s.Mark = health.Ended
	default:
		s.Mark = health.Holds
	}
	s.Check, s.Code, s.Value = health.CheckRecovery, code, words
	return s
}

// sxid reads a line of an NVSwitch. Lines of severity and data belong to the one before.
func sxid(m []string) health.Signal {
	name, bus, code, tail := m[1], m[2], m[3], m[4]
	n, err := strconv.Atoi(code)
	if err != nil {
		return health.Signal{}
	}
	p := at(health.NVSwitch, bus)
	p.Slot = name
	s := event(health.CheckSXid, strconv.Itoa(n), p)
	if strings.HasPrefix(tail, "Severity ") || strings.HasPrefix(tail, "Data {") {
		s.Value = health.LineDetail
		return s
	}
	if g := sxidTail.FindStringSubmatch(tail); g != nil {
		s.Value = map[string]string{"Fatal": health.LineFatal, "Non-fatal": health.LineNonfatal, "Intermediate": health.LineNonfatal, "Correctable": health.LineCorrectable}[g[1]]
		if g[2] != "" {
			l, _ := strconv.Atoi(g[2])
			s.Unit = "link " + strconv.Itoa(l)
		}
	}
	return s
}

// registers reads hex words that are divided by commas or spaces.
func registers(list string) []uint32 {
	var out []uint32
	for _, f := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' }) {
		v, err := strconv.ParseUint(strings.TrimPrefix(f, "0x"), 16, 32)
		if err != nil {
			break
		}
		out = append(out, uint32(v))
	}
	return out
}
