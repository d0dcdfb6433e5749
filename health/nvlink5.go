package health

import (
	"slices"
	"strconv"
	"strings"
)

// Ways to decode the registers of a signal, for Rule.Decode.
const (
	decodeLinks74 = "links74"
	decodeNVLink5 = "nvlink5"
	decodeLine    = "line" // the line's own word, or the fabric's state
)

// Outcomes of a link event.
const (
	linkIgnore = "ignore"
	linkReset  = "reset"
	linkAsk    = "ask" // the recovery action (XID 154, field 230) decides
)

// An NVLink5Row decodes lines of XIDs 144 to 150: which unit, which sub-code (bits 20 to 25 of the first word, the interrupt
// info), which bit of the second word, the error status. Units of a pair are written with a slash.
type NVLink5Row struct {
	XID     int
	Unit    string
	Subs    []uint32
	Status  []uint32
	Outcome string
	Suspect string // whom the catalogue has one look at; a key of suspects
}

// NVLink5 is the catalogue's decode sheet: 94 cases, those with one outcome in one row (health-checks.md section 1.4).
func NVLink5() []NVLink5Row {
	none := []uint32{0}
	const top = 0x80000000
	return []NVLink5Row{
		{144, "SAW_MVB", none, []uint32{0x1, 0x8}, linkIgnore, "support"},
		{144, "SAW_MVB", none, []uint32{0x2, 0x10}, linkReset, "support"},
		{144, "SAW_MVB", none, []uint32{0x4, 0x20}, linkIgnore, ""},

		{145, "RLW_CTRL", none, []uint32{top}, linkIgnore, "support"},
		{145, "RLW_REMAP", none, []uint32{0x1, 0x2}, linkAsk, "support"},
		{145, "RLW_REMAP", none, []uint32{0x4, 0x8, 0x10, 0x20}, linkAsk, "flow"},
		{145, "RLW_REMAP", none, []uint32{0x40, 0x80}, linkReset, "support"},
		{145, "RLW_REMAP", none, []uint32{0x100, 0x200}, linkIgnore, ""},
		{145, "RLW_REMAP", none, []uint32{top}, linkIgnore, "support"},
		{145, "RLW_RSPCOL", none, []uint32{0x1}, linkIgnore, ""},
		{145, "RLW_RSPCOL", none, []uint32{0x2}, linkReset, "support"},
		{145, "RLW_RSPCOL", none, []uint32{top}, linkIgnore, "support"},
		{145, "RLW_RXPIPE", none, []uint32{0x1, 0x2, 0x4, 0x8, top}, linkIgnore, "support"},
		{145, "RLW_SRC_TRACK", none, []uint32{0x1, 0x10, 0x20}, linkReset, "support"},
		{145, "RLW_SRC_TRACK", none, []uint32{0x2}, linkIgnore, ""},
		{145, "RLW_SRC_TRACK", none, []uint32{0x4, 0x8}, linkAsk, ""},
		{145, "RLW_SRC_TRACK", none, []uint32{top}, linkIgnore, "support"},
		{145, "RLW_TAGSTATE", none, []uint32{0x1, 0x10000}, linkIgnore, ""},
		{145, "RLW_TAGSTATE", none, []uint32{0x2, 0x20000, 0x100000}, linkReset, "support"},
		{145, "RLW_TAGSTATE", none, []uint32{top}, linkIgnore, "support"},

		{146, "TLW_CTRL", none, []uint32{0x1}, linkIgnore, ""},
		{146, "TLW_CTRL", none, []uint32{0x2, top}, linkIgnore, "support"},
		{146, "TLW_CTRL", none, []uint32{0x4}, linkReset, "support"},
		{146, "TLW_RX/TLW_RX_PIPE0", none, []uint32{0x1}, linkIgnore, ""},
		{146, "TLW_RX/TLW_RX_PIPE0", none, []uint32{0x2, top}, linkIgnore, "support"},
		{146, "TLW_RX/TLW_RX_PIPE0", none, []uint32{0x4}, linkReset, "support"},
		{146, "TLW_RX/TLW_RX_PIPE1", none, []uint32{0x1}, linkIgnore, ""},
		{146, "TLW_RX/TLW_RX_PIPE1", none, []uint32{0x2, top}, linkIgnore, "support"},
		{146, "TLW_RX/TLW_RX_PIPE1", none, []uint32{0x4}, linkReset, "support"},
		{146, "TLW_TX/TLW_TX_PIPE0", none, []uint32{0x1}, linkIgnore, ""},
		{146, "TLW_TX/TLW_TX_PIPE0", none, []uint32{0x2, top}, linkIgnore, "support"},
		{146, "TLW_TX/TLW_TX_PIPE0", none, []uint32{0x4}, linkReset, "support"},
		{146, "TLW_TX/TLW_TX_PIPE1", none, []uint32{0x1}, linkIgnore, ""},
		{146, "TLW_TX/TLW_TX_PIPE1", none, []uint32{0x2, top}, linkIgnore, "support"},
		{146, "TLW_TX/TLW_TX_PIPE1", none, []uint32{0x4}, linkReset, "support"},

		{147, "TREX", none, []uint32{0x1, top}, linkIgnore, "support"},
		{148, "NVLPW_CTRL/NVLPW", none, []uint32{top}, linkIgnore, "support"},

		{149, "NETIR/NETIR_INT", none, []uint32{0x0}, linkReset, "sympathetic"},
		{149, "NETIR_BER_EVENT", none, []uint32{0x0, 0x1, 0x2, 0x3}, linkIgnore, "cable"},
		{149, "NETIR_LINK_EVT/NETIR_LINK_DOWN", none, []uint32{0x0}, linkReset, "sympathetic"},
		{149, "NETIR_LINK_EVT/NETIR_LINK_DOWN", []uint32{0x01}, []uint32{0x0}, linkReset, "daily"},
		{149, "NETIR_LINK_EVT/NETIR_LINK_DOWN", []uint32{0x02, 0x04, 0x0a}, []uint32{0x0}, linkReset, "signal"},
		{149, "NETIR_LINK_EVT/NETIR_LINK_DOWN", []uint32{0x0f, 0x11, 0x16}, []uint32{0x0}, linkReset, "software"},
		{149, "NETIR_LINK_EVT/NETIR_LINK_DOWN", []uint32{0x10, 0x12}, []uint32{0x0}, linkReset, "software signal"},
		{149, "NETIR_LINK_EVT/NETIR_LINK_DOWN", []uint32{0x15, 0x20, 0x21, 0x22, 0x23, 0x24, 0x25}, []uint32{0x0}, linkReset, "peer"},
		{149, "NETIR_LINK_EVT/NETIR_LINK_DOWN", []uint32{0x26}, []uint32{0x0}, linkIgnore, "software"},
		{149, "NETIR_LINK_EVT/NETIR_LINK_DOWN", []uint32{0x28}, []uint32{0x0}, linkIgnore, "host"},
		{149, "NETIR_LINK_EVT/NETIR_LINK_DOWN", []uint32{0x2a, 0x2b}, []uint32{0x0}, linkReset, "cable"},
		{149, "NETIR_MFDE_EVENT", none, []uint32{0x1, 0x4, 0x5, 0x7}, linkReset, "support"},
		{149, "NETIR_MFDE_EVENT", none, []uint32{0x3}, linkIgnore, ""},

		{150, "MSE_WATCHDOG", none, []uint32{0x0}, linkReset, "support"},
	}
}

// suspects are the words for a person of whom NVLink5Row.Suspect names.
func suspect(key string) string {
	return map[string]string{
		"support":         "",
		"flow":            "look for the link that failed first, on this GPU and its peer",
		"sympathetic":     "probably another link or peer failed first; if this came alone, it is this GPU",
		"daily":           "more than one a day: replace the cable, then the GPU",
		"signal":          "reseat the GPU and check the link's signal integrity",
		"cable":           "check the link's signal integrity; replace the cable",
		"software":        "somebody or some program took the link down: ask before touching hardware",
		"software signal": "ask whether the link was taken down on purpose; if not, reseat the GPU and its cable",
		"peer":            "look at the device at the other end of the link",
		"host":            "look at the host's software",
	}[key]
}

// nvlink5 decides a line of XIDs 144 to 150. What the sheet does not have is taken by the line's own word: fatal waits for
// NVIDIA's recovery action and keeps the node from being rented until then, nonfatal is recorded.
func nvlink5(s Signal, r Rule) Rule {
	var info, status uint32
	if len(s.Words) > 0 {
		info = s.Words[0]
	}
	if len(s.Words) > 1 {
		status = s.Words[1]
	}
	xid, err := strconv.Atoi(s.Code)
	worst := ""
	if err == nil && len(s.Words) > 0 {
		for _, row := range NVLink5() {
			if row.XID == xid && row.names(s.Unit) && slices.Contains(row.Subs, info>>20&0x3f) && row.has(status) && outranks(row.Outcome, worst) {
				worst, r.Next = row.Outcome, suspect(row.Suspect)
			}
		}
	}
	switch {
	case worst == linkReset:
		r.Severity, r.Actions, r.Hardware = Fatal, []Action{DrainNow, ResetGPU}, true
	case worst == linkAsk, worst == linkIgnore:
		r.Severity, r.Actions = Info, nil
	case s.Value == LineFatal:
		r.Severity, r.Actions, r.Next = Degraded, []Action{DrainIdle}, "the line says fatal and no table knows it: the recovery action (field 230) decides"
	default:
		r.Severity, r.Actions = Info, nil
	}
	return r
}

func outranks(a, b string) bool {
	order := []string{"", linkIgnore, linkAsk, linkReset}
	return slices.Index(order, a) > slices.Index(order, b)
}

// names says whether the unit of a signal, "link 8 RLW_REMAP", is the row's.
func (row NVLink5Row) names(unit string) bool {
	f := strings.Fields(unit)
	if len(f) == 0 {
		return false
	}
	name := f[len(f)-1]
	return name == row.Unit || slices.Contains(strings.Split(row.Unit, "/"), name)
}

// has says whether an error status is one of the row's; statuses of the link layer's units are bits, and several may be set.
func (row NVLink5Row) has(status uint32) bool {
	if slices.Contains(row.Status, status) {
		return true
	}
	return row.XID < 149 && slices.ContainsFunc(row.Status, func(bit uint32) bool { return status&bit != 0 })
}
