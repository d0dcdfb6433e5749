package api

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/hostler-project/hostler/inventory"
)

// Columns of a manifest (design.md section 16), in the order that export and documentation use. A file may have them in
// any order and leave some out.
var Columns = []string{"name", "serial", "sku", "rack", "slot", "mac", "ip", "bmc_addr", "bmc_protocol", "credential", "approve"}

// A manifestRow is one node of a manifest. Spec has only what the row says.
type manifestRow struct {
	line int
	spec inventory.Spec
}

// maxRows bounds a manifest.
const maxRows = 20000

// parseManifest reads a manifest and names every fault with its line.
func parseManifest(text string) (rows []manifestRow, faults []string) {
	bad := func(line int, format string, a ...any) {
		faults = append(faults, fmt.Sprintf("line %d: ", line)+fmt.Sprintf(format, a...))
	}
	r := csv.NewReader(strings.NewReader(strings.TrimPrefix(text, "\ufeff")))
	r.TrimLeadingSpace, r.Comment, r.FieldsPerRecord = true, '#', -1
	head, err := r.Read()
	if err != nil {
		return nil, []string{"line 1: the first line must name the columns: " + strings.Join(Columns, ",")}
	}
	line, _ := r.FieldPos(0)
	for i, h := range head {
		head[i] = strings.ToLower(strings.TrimSpace(h))
		switch {
		case !slices.Contains(Columns, head[i]):
			bad(line, "there is no column %s; have %s", quote(h), strings.Join(Columns, ","))
		case slices.Contains(head[:i], head[i]):
			bad(line, "column %s is there twice", quote(h))
		}
	}
	if !slices.Contains(head, "name") {
		bad(line, "column name is missing")
	}
	if len(faults) > 0 {
		return nil, faults
	}
	seen := map[string]int{} // what must be unique → its line
	for len(rows) <= maxRows {
		cells, err := r.Read()
		if err == io.EOF {
			return rows, faults
		}
		if err != nil {
			var p *csv.ParseError
			if errors.As(err, &p) {
				bad(p.Line, "%v", p.Err)
			} else {
				bad(0, "%v", err)
			}
			return rows, faults // the reader has lost its place
		}
		line, _ := r.FieldPos(0)
		if len(cells) != len(head) {
			bad(line, "%d cells under %d columns", len(cells), len(head))
			continue
		}
		row := manifestRow{line: line}
		for i, c := range cells {
			fill(&row.spec, head[i], strings.TrimSpace(c))
		}
		for _, f := range rowFaults(row.spec) {
			bad(line, "%s", f)
		}
		for _, u := range unique(row.spec) {
			if at, have := seen[u]; have {
				bad(line, "%s is on line %d already", u, at)
			}
			seen[u] = line
		}
		rows = append(rows, row)
	}
	bad(line, "more than %d rows", maxRows)
	return rows, faults
}

// fill writes one cell into the spec.
func fill(s *inventory.Spec, column, v string) {
	switch column {
	case "name":
		s.Name = v
	case "serial":
		s.Serial = v
	case "sku":
		s.SKU = v
	case "rack":
		s.Rack = v
	case "slot":
		s.Slot = v
	case "mac":
		for _, m := range strings.FieldsFunc(strings.ToLower(v), func(r rune) bool { return r == ' ' || r == ';' || r == ',' }) {
			if hw, err := net.ParseMAC(m); err == nil {
				m = hw.String() // the one form that packets are looked up by
			}
			s.MACs = append(s.MACs, m)
		}
	case "ip":
		s.IP = v
	case "bmc_addr":
		s.BMC.Addr = v
	case "bmc_protocol":
		s.BMC.Protocol = strings.ToLower(v)
	case "credential":
		s.BMC.Credential = v
	case "approve":
		s.Approve = strings.ToLower(v)
	}
}

func rowFaults(s inventory.Spec) []string {
	out := specFaults(s)
	if s.Name == "" {
		out = append(out, "name is empty")
	}
	if s.Serial == "" && len(s.MACs) == 0 {
		out = append(out, "a serial or a mac is needed to recognize the machine")
	}
	if s.Approve != "" && s.Approve != "auto" {
		out = append(out, "approve "+quote(s.Approve)+": auto, or nothing")
	}
	if s.Approve == "auto" && (s.SKU == "" || s.BMC.Addr == "" || s.BMC.Credential == "") {
		out = append(out, "approve auto needs sku, bmc_addr and credential")
	}
	return out
}

// unique are the values that no other row may have.
func unique(s inventory.Spec) []string {
	var out []string
	for _, u := range []struct{ word, value string }{{"name", s.Name}, {"serial", strings.ToLower(s.Serial)}, {"ip", s.IP}, {"bmc_addr", s.BMC.Addr}} {
		if u.value != "" {
			out = append(out, u.word+" "+quote(u.value))
		}
	}
	for _, m := range s.MACs {
		out = append(out, "mac "+quote(m))
	}
	return out
}

// quote shows a value from outside, bounded.
func quote(v string) string {
	if len(v) > 60 {
		v = v[:60]
	}
	return strconv.Quote(v)
}
