// Package mutants asks whether the tests would notice: it flips every comparison of the gate to ready and of the claim
// transaction, one at a time, drops every condition of their transactions, and runs the tests that should fail.
//
// All mutants are compiled at once. Instrument rewrites a source so that each place asks a switch whether it is the one
// to be wrong now (switch.go is the file that is added to the package); go test -overlay builds the test binaries from
// that, so the tree is never touched; each run then names one mutant in its environment. `make mutants` runs all of
// them, go test ./... a few (mutants_test.go). What cannot make a difference stands in equivalent.go, with the reason.
package mutants

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strings"
)

// A Mutant is one place and one way to be wrong there.
type Mutant struct {
	ID    int
	File  string // its name in the package's folder
	Line  int
	Func  string
	Gate  bool   // on the way to ready
	Code  string // the line
	Text  string // what stands there
	What  string // what becomes of it
	Alike string // why no test can notice; "" where one must
}

// A Scope says which functions of a file are mutated, and which of them are the gate to ready.
type Scope struct {
	File  string
	Funcs []string
	Gate  []string
}

// Ledger is the scope of make mutants, in package inventory/ledger.
var Ledger = []Scope{
	{File: "gate.go", Gate: []string{"gate", "OpenCertificate", "Uncovered", "Offer"}, Funcs: []string{"publish", "Withdraw"}},
	{File: "ledger.go", Gate: []string{"move"}, Funcs: []string{"commit", "writable", "fallIll", "getWell", "enter", "carry", "endClaim", "put", "write", "Current", "term", "Note", "EndClaim"}},
	{File: "claims.go", Funcs: []string{"Claim", "claim", "sameClaim", "candidates", "Confirm", "Release", "Renew", "reserved", "retry"}},
}

// negated and swapped are what becomes of an operator.
var (
	negated = map[token.Token]string{token.EQL: "!=", token.NEQ: "==", token.LSS: ">=", token.LEQ: ">", token.GTR: "<=", token.GEQ: "<"}
	edged   = map[token.Token]string{token.LSS: "<=", token.LEQ: "<", token.GTR: ">=", token.GEQ: ">"}
	swapped = map[token.Token]string{token.LAND: "||", token.LOR: "&&"}
)

// An edit puts text around a piece of the source, or in place of it.
type edit struct {
	from, to      int
	before, after string
	instead       bool // before stands in place of from…to
}

// An instrument collects the mutants of one file.
type instrument struct {
	src   []byte
	set   *token.FileSet
	scope Scope
	fn    string
	next  *int
	out   []Mutant
	edits []edit
}

// Instrument rewrites a source: every mutant of the scope is in it, asleep. next is the number of the last mutant so far.
func Instrument(src []byte, s Scope, next *int) ([]byte, []Mutant, error) {
	in := &instrument{src: src, set: token.NewFileSet(), scope: s, next: next}
	file, err := parser.ParseFile(in.set, s.File, src, parser.SkipObjectResolution)
	if err != nil {
		return nil, nil, fmt.Errorf("mutants: %w", err)
	}
	missing := slices.Concat(s.Gate, s.Funcs)
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || !slices.Contains(missing, f.Name.Name) {
			continue
		}
		missing = slices.DeleteFunc(missing, func(n string) bool { return n == f.Name.Name })
		in.fn = f.Name.Name
		in.body(f.Body)
	}
	if len(missing) > 0 {
		return nil, nil, fmt.Errorf("mutants: %s has no %s: mend the scope", s.File, strings.Join(missing, ", "))
	}
	return in.rewritten(), in.out, nil
}

// body walks a function.
func (in *instrument) body(b ast.Node) {
	ast.Inspect(b, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.IfStmt:
			in.boolean(n.Cond)
		case *ast.ForStmt:
			in.boolean(n.Cond)
		case *ast.SwitchStmt:
			if n.Tag == nil {
				for _, c := range n.Body.List {
					for _, e := range c.(*ast.CaseClause).List {
						in.boolean(e)
					}
				}
			}
		case *ast.BinaryExpr:
			in.binary(n)
		case *ast.UnaryExpr:
			if n.Op == token.NOT {
				in.boolean(n.X)
			}
		case *ast.CallExpr:
			in.call(n)
		case *ast.CompositeLit:
			if in.text(n.Type) == "[]inventory.Cond" && len(n.Elts) > 0 {
				ids := in.conds(n.Elts)
				in.edits = append(in.edits, edit{from: in.at(n.Pos()), to: in.at(n.Lbrace) + 1, before: "mutantKeep([]int{" + ids + "}, ", instead: true},
					edit{from: in.at(n.Rbrace), to: in.at(n.Rbrace) + 1, before: ")", instead: true})
			}
		}
		return true
	})
}

// boolean mutates a condition that is no comparison itself: it is taken for its opposite.
func (in *instrument) boolean(e ast.Expr) {
	switch e := e.(type) {
	case *ast.CallExpr, *ast.Ident, *ast.SelectorExpr, *ast.IndexExpr:
		id := in.add(e, "!("+in.text(e)+")")
		in.around(e, fmt.Sprintf("mutantNot(%d, ", id), ")")
	}
}

func (in *instrument) binary(n *ast.BinaryExpr) {
	x, y := in.text(n.X), in.text(n.Y)
	if op, ok := negated[n.Op]; ok {
		id := in.add(n, x+" "+op+" "+y)
		in.around(n, fmt.Sprintf("mutantNot(%d, ", id), ")")
	}
	if op, ok := edged[n.Op]; ok {
		id := in.add(n, x+" "+op+" "+y)
		in.around(n, fmt.Sprintf("mutantEdge(%d, ", id), fmt.Sprintf(", (%s) == (%s))", x, y))
	}
	if op, ok := swapped[n.Op]; ok {
		in.boolean(n.X)
		in.boolean(n.Y)
		id := in.add(n, x+" "+op+" "+y)
		name := map[token.Token]string{token.LAND: "mutantAnd", token.LOR: "mutantOr"}[n.Op]
		in.around(n, fmt.Sprintf("%s(%d, ", name, id), ") })")
		at := in.at(n.OpPos)
		in.edits = append(in.edits, edit{from: at, to: at + 2, before: ", func() bool { return (", instead: true})
	}
}

// call drops what a transaction compares: conditions that are appended, and the guard of put.
func (in *instrument) call(n *ast.CallExpr) {
	name := in.text(n.Fun)
	if name == "put" && in.text(n.Args[len(n.Args)-1]) == "true" {
		guard := n.Args[len(n.Args)-1]
		id := in.add(n, strings.TrimSuffix(in.text(n), "true)")+"false)")
		in.around(guard, fmt.Sprintf("mutantNot(%d, ", id), ")")
	}
	if name != "append" || !slices.Contains([]string{"t.If", "c.If", "conds"}, in.text(n.Args[0])) && !strings.HasPrefix(in.text(n.Args[0]), "l.term(") {
		return
	}
	if strings.HasPrefix(in.text(n.Args[0]), "l.term(") {
		id := in.add(n.Args[0], "nothing")
		in.around(n.Args[0], fmt.Sprintf("mutantDrop(%d, ", id), ")")
	}
	rest := n.Args[1:]
	if n.Ellipsis != token.NoPos {
		id := in.add(rest[0], "nothing")
		in.around(rest[0], fmt.Sprintf("mutantDrop(%d, ", id), ")")
		return
	}
	ids := in.conds(rest)
	in.edits = append(in.edits, edit{from: in.at(rest[0].Pos()), to: in.at(rest[len(rest)-1].End()), before: "mutantKeep([]int{" + ids + "}, ", after: ")..."})
}

// conds makes a mutant of each condition: it is not compared.
func (in *instrument) conds(list []ast.Expr) string {
	var ids []string
	for _, e := range list {
		ids = append(ids, fmt.Sprint(in.add(e, "nothing")))
	}
	return strings.Join(ids, ", ")
}

func (in *instrument) add(n ast.Node, what string) int {
	*in.next++
	line := in.set.Position(n.Pos()).Line
	m := Mutant{ID: *in.next, File: in.scope.File, Line: line, Code: strings.TrimSpace(strings.Split(string(in.src), "\n")[line-1]), Func: in.fn, Gate: slices.Contains(in.scope.Gate, in.fn),
		Text: oneLine(in.text(n)), What: oneLine(what)}
	in.out = append(in.out, m)
	return m.ID
}

func (in *instrument) around(n ast.Node, before, after string) {
	in.edits = append(in.edits, edit{from: in.at(n.Pos()), to: in.at(n.End()), before: before, after: after})
}

func (in *instrument) at(p token.Pos) int { return in.set.Position(p).Offset }

func (in *instrument) text(n ast.Node) string {
	if n == nil {
		return ""
	}
	return string(in.src[in.at(n.Pos()):in.at(n.End())])
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// rewritten is the source with all edits: what is wider goes around what is narrower.
func (in *instrument) rewritten() []byte {
	opens, closes, skip := map[int][]edit{}, map[int][]edit{}, map[int]edit{}
	for _, e := range in.edits {
		if e.instead {
			skip[e.from] = e
			continue
		}
		opens[e.from] = append(opens[e.from], e)
		closes[e.to] = append(closes[e.to], e)
	}
	for _, list := range closes { // of two around the same piece, the first to open is the last to close
		slices.Reverse(list)
	}
	var out strings.Builder
	for i := 0; i <= len(in.src); {
		for _, e := range sorted(closes[i], func(a, b edit) int { return b.from - a.from }) {
			out.WriteString(e.after)
		}
		for _, e := range sorted(opens[i], func(a, b edit) int { return b.to - a.to }) {
			out.WriteString(e.before)
		}
		if i == len(in.src) {
			break
		}
		if e, ok := skip[i]; ok {
			out.WriteString(e.before)
			i = e.to
			continue
		}
		out.WriteByte(in.src[i])
		i++
	}
	return []byte(out.String())
}

func sorted(list []edit, by func(a, b edit) int) []edit {
	list = slices.Clone(list)
	slices.SortStableFunc(list, by)
	return list
}
