package health

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// lines reads a table of testdata; lines that begin with # are for people.
func lines(t *testing.T, file string, columns int) [][]string {
	t.Helper()
	b, err := os.ReadFile("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	var out [][]string
	for l := range strings.Lines(string(b)) {
		if l = strings.TrimSuffix(l, "\n"); strings.HasPrefix(l, "#") {
			continue
		}
		f := strings.Split(l, "\t")
		if len(f) != columns {
			t.Fatalf("%s: %q has %d columns, want %d", file, l, len(f), columns)
		}
		out = append(out, f)
	}
	return out
}

func text(actions []Action) string { return strings.Join(words(actions), " ") }

// Every row of the document is in the table with its action, and the table has nothing that the document lacks.
func TestXIDsAreTheDocuments(t *testing.T) {
	rules, seen := Rules(), map[string]bool{}
	for _, f := range lines(t, "xid.tsv", 5) {
		codes, nvidia, ours, severity, actions := f[0], f[1], f[2], f[3], f[4]
		if w := strings.FieldsFunc(ours, func(r rune) bool { return r < 'a' || r > 'z' })[0]; slices.Contains([]string{"info", "degraded", "fatal"}, w) && w != severity && !strings.Contains(ours, "; "+severity) && !strings.Contains(ours, severity+" →") {
			t.Errorf("%s: testdata says %s, the document's words %q", codes, severity, ours)
		}
		numbers := Numbers(codes)
		if len(numbers) < strings.Count(codes, ",")+1 {
			t.Fatalf("%q reads as %v", codes, numbers)
		}
		for _, n := range numbers {
			name := "xid/" + strconv.Itoa(n)
			if seen[name] {
				t.Errorf("%s is in testdata twice", name)
			}
			seen[name] = true
			r, ok := rules[name]
			switch {
			case !ok:
				t.Errorf("%s is missing", name)
			case string(r.Severity) != severity || text(r.Actions) != actions:
				t.Errorf("%s: %s [%s], the document: %s [%s]", name, r.Severity, text(r.Actions), severity, actions)
			case !strings.Contains(nvidia, r.NVIDIA) && !slices.Contains([]int{92, 157, 160, 161}, n):
				t.Errorf("%s: NVIDIA %q, the document %q", name, r.NVIDIA, nvidia)
			case r.Means == "":
				t.Errorf("%s says nothing", name)
			}
		}
	}
	for name := range rules {
		if strings.HasPrefix(name, "xid/") && !seen[name] {
			t.Errorf("%s is not in the document", name)
		}
	}
}

func TestSXidsAreTheDocuments(t *testing.T) {
	rules, seen := Rules(), map[string]bool{}
	for _, f := range lines(t, "sxid.tsv", 6) {
		for _, n := range Numbers(f[0]) {
			name := "sxid/" + strconv.Itoa(n)
			seen[name] = true
			r, ok := rules[name]
			if !ok {
				t.Errorf("%s is missing", name)
				continue
			}
			for i, line := range []string{LineFatal, LineNonfatal} {
				got := decode(Signal{Check: CheckSXid, Code: strconv.Itoa(n), Value: line}, r, false)
				if string(got.Severity) != f[2+2*i] || text(got.Actions) != f[3+2*i] {
					t.Errorf("%s, its line says %s: %s [%s], the document: %s [%s]", name, line, got.Severity, text(got.Actions), f[2+2*i], f[3+2*i])
				}
			}
		}
	}
	for name := range rules {
		if strings.HasPrefix(name, "sxid/") && !seen[name] {
			t.Errorf("%s is not in the document", name)
		}
	}
	if got := decode(Signal{Check: CheckSXid, Code: "20034", Value: LineNonfatal}, rules["sxid/20034"], true); got.Severity != Fatal {
		t.Errorf("the fabric agrees, but it is %s", got.Severity)
	}
}

func TestUnknownNumbersAreNeverDropped(t *testing.T) {
	for _, c := range []struct {
		s        Signal
		severity Severity
		actions  string
	}{
		{Signal{Check: CheckXID, Code: "999"}, Degraded, "drain-idle"},
		{Signal{Check: "G99"}, Degraded, "drain-idle"},
		{Signal{Check: CheckSXid, Code: "99999"}, Degraded, "drain-idle"},
		{Signal{Check: CheckSXid, Code: "99999", Value: LineFatal}, Fatal, "drain-now reset-gpu"},
		{Signal{Check: CheckSXid, Code: "99999", Value: LineNonfatal}, Info, ""},
	} {
		if r := unknownRule(c.s); r.Severity != c.severity || text(r.Actions) != c.actions || !strings.Contains(r.Means, c.s.Rule()) {
			t.Errorf("%s %s: %s [%s] %s", c.s.Rule(), c.s.Value, r.Severity, text(r.Actions), r.Means)
		}
	}
}

// The decode sheet of NVLink 5 and the table are the same cases.
func TestNVLink5IsTheSheet(t *testing.T) {
	type key struct{ xid, unit, sub, status string }
	sheet, counts := map[key]string{}, map[string]int{}
	for _, f := range lines(t, "nvlink5.tsv", 6) {
		sheet[key{f[0], f[1], f[2], f[3]}] = f[4] + " " + f[5]
		counts[f[0]+" "+f[4]]++
	}
	n := 0
	for _, row := range NVLink5() {
		for _, sub := range row.Subs {
			for _, status := range row.Status {
				n++
				k := key{strconv.Itoa(row.XID), row.Unit, fmt.Sprint(sub), fmt.Sprint(status)}
				if got := row.Outcome + " " + row.Suspect; sheet[k] != got {
					t.Errorf("%+v: %q, the sheet %q", k, got, sheet[k])
				}
				if row.Suspect != "" && row.Suspect != "support" && suspect(row.Suspect) == "" {
					t.Errorf("no words for %q", row.Suspect)
				}
			}
		}
	}
	if n != len(sheet) || n != 94 {
		t.Errorf("%d cases, the sheet has %d", n, len(sheet))
	}
	for k, want := range map[string]int{"144 ignore": 4, "144 reset": 2, "145 ignore": 16, "145 reset": 9, "145 ask": 8, "146 ignore": 15, "146 reset": 5, "147 ignore": 2, "148 ignore": 1, "149 reset": 24, "150 reset": 1} {
		if counts[k] != want {
			t.Errorf("%s: %d cases, want %d", k, counts[k], want)
		}
	}
}

func TestNVLink5Lines(t *testing.T) {
	rules := Rules()
	for _, c := range []struct {
		name     string
		s        Signal
		severity Severity
		actions  string
		next     string
	}{
		{"the peer took the link down", Signal{Code: "149", Unit: "link 1 NETIR_LINK_EVT", Value: LineFatal, Words: []uint32{0x021425c6, 0}}, Fatal, "drain-now reset-gpu", "other end"},
		{"signal integrity", Signal{Code: "149", Unit: "link 8 NETIR_LINK_EVT", Value: LineFatal, Words: []uint32{0x004505c6, 0}}, Fatal, "drain-now reset-gpu", "signal"},
		{"bit errors", Signal{Code: "149", Unit: "link 3 NETIR_BER_EVENT", Value: LineNonfatal, Words: []uint32{0x00086226, 1}}, Info, "", "cable"},
		{"follows another", Signal{Code: "149", Unit: "link -1 NETIR", Value: LineFatal, Words: []uint32{0x000fe406, 0}}, Fatal, "drain-now reset-gpu", "failed first"},
		{"the recovery action decides", Signal{Code: "145", Unit: "link 12 RLW_SRC_TRACK", Value: LineNonfatal, Words: []uint32{0x040988e2, 8}}, Info, "", ""},
		{"hardware", Signal{Code: "145", Unit: "link 0 RLW_SRC_TRACK", Value: LineFatal, Words: []uint32{7, 1}}, Fatal, "drain-now reset-gpu", ""},
		{"two bits, the worst counts", Signal{Code: "144", Unit: "link 0 SAW_MVB", Value: LineFatal, Words: []uint32{1, 0x3}}, Fatal, "drain-now reset-gpu", ""},
		{"not in the sheet, fatal", Signal{Code: "148", Unit: "link 0 NEW_UNIT", Value: LineFatal, Words: []uint32{1, 1}}, Degraded, "drain-idle", "230"},
		{"not in the sheet", Signal{Code: "148", Unit: "link 0 NEW_UNIT", Value: LineNonfatal, Words: []uint32{1, 1}}, Info, "", ""},
		{"no words", Signal{Code: "149", Value: LineFatal}, Degraded, "drain-idle", "230"},
	} {
		c.s.Check = CheckXID
		r := decode(c.s, rules[c.s.Rule()], false)
		if r.Severity != c.severity || text(r.Actions) != c.actions || !strings.Contains(r.Next, c.next) {
			t.Errorf("%s: %s [%s] %q, want %s [%s] %q", c.name, r.Severity, text(r.Actions), r.Next, c.severity, c.actions, c.next)
		}
	}
}

func TestLinks74(t *testing.T) {
	for _, c := range []struct {
		name     string
		words    []uint32
		severity Severity
		actions  string
		again    string
		next     string
	}{
		{"no registers", nil, Fatal, "drain-now reset-gpu", "", ""},
		{"only noise", []uint32{1<<0 | 1<<23 | 1<<30}, Info, "", "", ""},
		{"corrected errors passed a threshold", []uint32{0, 0, 0, 0, 1 << 20}, Info, "", "", ""},
		{"ECC", []uint32{1 << 4}, Fatal, "drain-now reset-gpu", "24h0m0s quarantine-rma", "twice in a day"},
		{"ECC, fifth register", []uint32{0, 0, 0, 0, 1 << 18}, Fatal, "drain-now reset-gpu", "24h0m0s quarantine-rma", "twice in a day"},
		{"mechanical", []uint32{1<<8 | 1<<4}, Fatal, "drain-now reset-gpu", "168h0m0s quarantine-rma", "reseat"},
		{"signal integrity", []uint32{1 << 21}, Fatal, "drain-now reset-gpu", "", "reseat"},
		{"may repeat", []uint32{0, 0, 0x10000, 0, 0, 0, 0}, Degraded, "drain-idle reset-gpu", "24h0m0s quarantine-rma", "diagnostic"},
		{"follows another", []uint32{1 << 20, 0, 0, 1 << 16}, Degraded, "drain-idle reset-gpu", "", "follows another"},
		{"a bit that no row has", []uint32{1 << 31}, Fatal, "drain-now reset-gpu", "", ""},
		{"such a bit beside a mild one", []uint32{1<<31 | 1<<27}, Fatal, "drain-now reset-gpu", "", ""},
	} {
		r := decode(Signal{Check: CheckXID, Code: "74", Words: c.words}, Rules()["xid/74"], false)
		again := ""
		if len(r.Again) > 0 {
			again = fmt.Sprint(r.Again[0].Within, " ", Strongest(r.Again[0].Actions))
		}
		if r.Severity != c.severity || text(r.Actions) != c.actions || again != c.again || !strings.Contains(r.Next, c.next) {
			t.Errorf("%s: %s [%s] again %q next %q", c.name, r.Severity, text(r.Actions), again, r.Next)
		}
	}
}

// What every row of every table must be like, whatever it says.
func TestRulesAreWellFormed(t *testing.T) {
	rules := Rules()
	for name, r := range rules {
		if r.Severity.Rank() > Fatal.Rank() || r.Means == "" || r.Source == "" || r.Check == "" {
			t.Errorf("%s: %+v", name, r)
		}
		if !slices.IsSortedFunc(r.Actions, func(a, b Action) int { return a.Rank() - b.Rank() }) {
			t.Errorf("%s: actions %v are not in the ladder's order", name, r.Actions)
		}
		if r.Severity == Fatal && len(r.Actions) == 0 {
			t.Errorf("%s is fatal and asks for nothing", name)
		}
		if r.Severity == Info && Strongest(r.Actions).Rank() > TellTenant.Rank() {
			t.Errorf("%s is a notice and asks for %v", name, r.Actions)
		}
		for _, a := range r.Again {
			if a.N < 2 || a.Within == 0 || a.Severity.Rank() < r.Severity.Rank() || len(a.Actions) == 0 {
				t.Errorf("%s again: %+v", name, a)
			}
		}
		for f := range strings.FieldsSeq(r.Follow + " " + r.Undoes) {
			if _, ok := rules[f]; !ok {
				t.Errorf("%s names %s, which is no rule", name, f)
			}
		}
		if !slices.Contains([]string{"", decodeLinks74, decodeNVLink5, decodeLine}, r.Decode) {
			t.Errorf("%s: nobody decodes %q", name, r.Decode)
		}
	}
	n := len(RecoveryRules()) + len(GPUChecks()) + len(HostChecks()) + len(LogChecks())
	for name := range rules {
		if strings.Contains(name, "xid/") {
			n++
		}
	}
	if n != len(rules) {
		t.Errorf("%d rows make %d rules: one is there twice", n, len(rules))
	}
	for value, code := range Recoveries() {
		if _, ok := rules[CheckRecovery+"/"+code]; !ok {
			t.Errorf("no rule for recovery action %d, %s", value, code)
		}
	}
}
