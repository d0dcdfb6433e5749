package mutants

import (
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// Every kind of mutant, in a function that has each once.
func TestInstrument(t *testing.T) {
	const src = `package p

func f(t *Txn, conds []inventory.Cond, n int, ok bool, s []string) bool {
	t.If = append(t.If, a.Unchanged(), b.Unchanged())
	t.If = append(l.term(1), c.Unchanged())
	t.If = append(t.If, conds...)
	list := []inventory.Cond{d.Unchanged(), inventory.Cond{Key: "x"}}
	switch {
	case n == 3:
	case has(n):
	}
	if err := put(t, d, 1, true); err != nil || !ok &&
		len(s) < 2 {
		return ok
	}
	return false
}

func other(n int) bool { return n == 1 }
`
	next := 0
	out, found, err := Instrument([]byte(src), Scope{File: "p.go", Gate: []string{"f"}}, &next)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.ParseFile(token.NewFileSet(), "p.go", out, 0); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var got []string
	for _, m := range found {
		got = append(got, fmt.Sprintf("%d %s → %s", m.Line, m.Text, m.What))
		if !m.Gate || m.Func != "f" {
			t.Errorf("%+v", m)
		}
	}
	want := []string{"4 a.Unchanged() → nothing", "4 b.Unchanged() → nothing", "5 l.term(1) → nothing", "5 c.Unchanged() → nothing", "6 conds → nothing",
		`7 d.Unchanged() → nothing`, `7 inventory.Cond{Key: "x"} → nothing`, "9 n == 3 → n != 3", "10 has(n) → !(has(n))",
		"12 err != nil || !ok && len(s) < 2 → err != nil && !ok && len(s) < 2", "12 err != nil → err == nil",
		"12 !ok && len(s) < 2 → !ok || len(s) < 2", "12 ok → !(ok)", "13 len(s) < 2 → len(s) >= 2", "13 len(s) < 2 → len(s) <= 2", "12 put(t, d, 1, true) → put(t, d, 1, false)"}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, piece := range []string{"append(t.If, mutantKeep([]int{", "mutantDrop(", "func() bool { return (", "mutantEdge(", "(len(s)) == (2))", "return n == 1 }"} {
		if !strings.Contains(string(out), piece) {
			t.Errorf("no %q in\n%s", piece, out)
		}
	}
	if _, _, err := Instrument([]byte(src), Scope{File: "p.go", Funcs: []string{"gone"}}, &next); err == nil {
		t.Error("a scope that names no function was taken")
	}
}

// With HOSTLER_MUTANTS=all, every mutant: a table, and whether the marks are met. Else a few of the gate, which the
// ledger's tests must notice.
func TestMutants(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	lab, err := NewLab(root, t.TempDir(), "inventory/ledger", Ledger)
	if err != nil {
		t.Fatal(err)
	}
	if err := excuse(lab.Mutants); err != nil {
		t.Fatal(err)
	}
	if os.Getenv("HOSTLER_MUTANTS") != "all" {
		few(t, lab)
		return
	}
	began := time.Now()
	results := map[int]Result{}
	var left []Mutant
	for _, m := range lab.Mutants {
		if m.Alike == "" {
			left = append(left, m)
		}
	}
	for _, s := range Suites {
		if len(left) == 0 {
			break
		}
		if err := lab.Build(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		began, before := time.Now(), len(left)
		left = lab.Hunt(t.Context(), s, left, runtime.NumCPU(), func(r Result) { results[r.ID] = r })
		fmt.Printf("%s noticed %d of %d in %v\n", s.Package, before-len(left), before, time.Since(began).Round(time.Second))
	}
	report(lab.Mutants, results, time.Since(began))
}

// few runs the first, the middle and the last mutant of the gate.
func few(t *testing.T, lab *Lab) {
	if err := lab.Build(t.Context(), Suites[0]); err != nil {
		t.Fatal(err)
	}
	var gate []Mutant
	for _, m := range lab.Mutants {
		if m.Gate && m.Func == "gate" && m.Alike == "" {
			gate = append(gate, m)
		}
	}
	for _, m := range lab.Hunt(t.Context(), Suites[0], []Mutant{gate[0], gate[len(gate)/2], gate[len(gate)-1]}, runtime.NumCPU(), func(Result) {}) {
		t.Errorf("%s:%d: %s → %s: no test noticed", m.File, m.Line, m.Text, m.What)
	}
}

// report prints the table and the marks.
func report(all []Mutant, results map[int]Result, took time.Duration) {
	type count struct{ noticed, of int }
	var gate, total count
	var survivors []Mutant
	fmt.Printf("\n%-16s %-14s %-22s %s\n", "PLACE", "FUNC", "OUTCOME", "MUTATION")
	alike := 0
	for _, m := range all {
		outcome := "SURVIVED"
		if r, ok := results[m.ID]; ok {
			outcome = "noticed, " + r.By
		}
		if m.Alike != "" {
			alike++
			outcome = "alike"
		} else {
			total.of++
			if m.Gate {
				gate.of++
			}
			if _, ok := results[m.ID]; !ok {
				survivors = append(survivors, m)
			} else {
				total.noticed++
				if m.Gate {
					gate.noticed++
				}
			}
		}
		fmt.Printf("%-16s %-14s %-22s %s → %s\n", fmt.Sprintf("%s:%d", m.File, m.Line), m.Func, outcome, m.Text, m.What)
	}
	fmt.Printf("\nalike (no test can tell; the reasons are in internal/mutants/equivalent.go): %d\n", alike)
	for _, m := range all {
		if m.Alike != "" {
			fmt.Printf("  %s:%d %s → %s: %s\n", m.File, m.Line, m.Text, m.What, m.Alike)
		}
	}
	fmt.Printf("survivors: %d\n", len(survivors))
	for _, m := range survivors {
		fmt.Printf("  %s:%d in %s: %s → %s\n", m.File, m.Line, m.Func, m.Text, m.What)
	}
	percent := 100 * float64(total.noticed) / float64(max(1, total.of))
	fmt.Printf("in the gate to ready: %d of %d noticed\n", gate.noticed, gate.of)
	fmt.Printf("in all: %d of %d noticed (%.1f %%), in %v\n", total.noticed, total.of, percent, took.Round(time.Second))
	met := 0
	for _, ok := range []bool{gate.noticed == gate.of, percent >= 95} {
		if ok {
			met++
		}
	}
	fmt.Printf("marks: %d met, %d missed\n", met, 2-met)
}
