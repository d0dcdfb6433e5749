package health

import "time"

// Kinds of bits in the registers of XID 74.
const (
	bitIgnored = "ignored"
	bitOthers  = "sympathetic" // follows another error; by itself it counts
	bitECC     = "ecc"
	bitHW      = "hardware"
	bitSignal  = "signal"
	bitRepeat  = "repeat"    // counts when it comes again
	bitRate    = "threshold" // of corrected errors; nothing was lost
)

// A Link74Row says what bits of one register of XID 74 mean. Registers count from 0; those that Hopper fills are 0, 2, 3, 4.
type Link74Row struct {
	Register int
	Bits     []int
	Kind     string
}

// Links74 is the catalogue's workflow for XID 74.
func Links74() []Link74Row {
	return []Link74Row{
		{0, []int{0, 23, 30}, bitIgnored},
		{0, []int{1, 20}, bitOthers},
		{0, []int{4, 5}, bitECC},
		{0, []int{8, 9, 12, 16, 17, 24, 28}, bitHW},
		{0, []int{21, 22}, bitSignal},
		{0, []int{27, 29}, bitRepeat},
		{2, []int{0, 1, 2, 6}, bitECC},
		{2, []int{13}, bitHW},
		{2, []int{16, 17, 18, 19}, bitRepeat},
		{3, []int{16, 17, 18}, bitOthers},
		{4, []int{18, 19, 21, 22, 24, 25, 27, 28}, bitECC},
		{4, []int{20, 23, 26, 29}, bitRate},
	}
}

// links74 decides a line of XID 74 by its registers; the worst kind counts. A line without registers, or with bits that no
// row has, keeps the severity of the table.
func links74(s Signal, r Rule) Rule {
	kinds, unknown := map[string]bool{}, false
	for i, w := range s.Words {
		for bit := range 32 {
			if w>>bit&1 == 0 {
				continue
			}
			if k := kind74(i, bit); k != "" {
				kinds[k] = true
			} else {
				unknown = true
			}
		}
	}
	rmaWithin := func(within time.Duration) []Again {
		return []Again{{N: 2, Within: within, Unit: true, Severity: Fatal, Actions: []Action{DrainNow, QuarantineRMA}, Next: rma}}
	}
	idle := func(next string) {
		r.Severity, r.Actions, r.Next = Degraded, []Action{DrainIdle, ResetGPU}, next
	}
	switch {
	case kinds[bitHW]:
		r.Case = bitHW
		r.Again, r.Next = rmaWithin(7*day), "check the link's mechanical seat, reseat the GPU; if it comes back within 7 days, RMA"
	case kinds[bitECC]:
		r.Case = bitECC
		r.Again, r.Next = rmaWithin(day), "ECC or parity of the link; twice in a day means RMA"
	case kinds[bitSignal]:
		r.Next = "reseat the GPU and check the link's connectors: its signal is marginal"
	case unknown, len(kinds) == 0:
	case kinds[bitRepeat]:
		idle("if it comes back within a day, run the field diagnostic")
		r.Case, r.Again = bitRepeat, rmaWithin(day)
	case kinds[bitOthers]:
		idle("usually follows another error: look at the peer and the switches first")
	default:
		r.Severity, r.Actions, r.Hardware = Info, nil, false
	}
	return r
}

func kind74(register, bit int) string {
	for _, row := range Links74() {
		if row.Register != register {
			continue
		}
		for _, b := range row.Bits {
			if b == bit {
				return row.Kind
			}
		}
	}
	return ""
}
