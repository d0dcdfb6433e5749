package cmd

import (
	"go/ast"
	"go/token"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Every package says once what it owns.
func TestEveryPackageHasOneComment(t *testing.T) {
	comments, packages := map[string][]string{}, map[string]bool{}
	for _, s := range sources(t) {
		name := s.ast.Name.Name
		if s.test && s.folder != "cmd" || strings.HasSuffix(name, "_test") {
			continue
		}
		packages[s.folder] = true
		if s.ast.Doc == nil {
			continue
		}
		comments[s.folder] = append(comments[s.folder], s.file)
		text := s.ast.Doc.Text()
		base := s.folder[strings.LastIndex(s.folder, "/")+1:]
		if name != "main" && !strings.HasPrefix(text, "Package "+name+" ") {
			t.Errorf("%s: the comment of a package begins with: Package %s", s.file, name)
		}
		if name == "main" && !strings.HasPrefix(text, "Command "+base+" ") && !strings.EqualFold(strings.Fields(text)[0], base) {
			t.Errorf("%s: the comment of a program begins with: Command %s", s.file, base)
		}
		if len(strings.Fields(text)) < 8 {
			t.Errorf("%s: say what the package owns, the flow through it, what it does not do", s.file)
		}
	}
	for p := range packages {
		if n := len(comments[p]); n != 1 {
			t.Errorf("package %s has %d package comments %v; want one", p, n, comments[p])
		}
	}
}

// standard are methods that an interface of the standard library calls for: it documents them.
var standard = []string{"Error", "Unwrap", "String", "MarshalText", "UnmarshalText", "MarshalJSON", "UnmarshalJSON", "ServeHTTP", "Describe", "Collect"}

// What other packages can use has a sentence. Functions whose whole body is one line, and values of a type that is
// explained, say it all themselves.
func TestExportedNamesAreDocumented(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || s.ast.Name.Name == "main" {
			continue
		}
		undocumented := func(name *ast.Ident) {
			t.Errorf("%s: %s has no comment", s.set.Position(name.Pos()), name.Name)
		}
		for _, d := range s.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				method := d.Recv != nil && (!receiverExported(d) || slices.Contains(standard, d.Name.Name))
				if d.Name.IsExported() && d.Doc == nil && !method && !isPlain(s, d) {
					undocumented(d.Name)
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					switch spec := spec.(type) {
					case *ast.TypeSpec:
						if spec.Name.IsExported() && d.Doc == nil && spec.Doc == nil {
							undocumented(spec.Name)
						}
					case *ast.ValueSpec:
						if d.Doc == nil && spec.Doc == nil && spec.Comment == nil && spec.Type == nil && spec.Names[0].IsExported() {
							undocumented(spec.Names[0])
						}
					}
				}
			}
		}
	}
}

// isPlain says whether a function is a line or two.
func isPlain(s source, d *ast.FuncDecl) bool {
	return d.Body != nil && s.set.Position(d.End()).Line-s.set.Position(d.Pos()).Line <= 2
}

func receiverExported(d *ast.FuncDecl) bool {
	t := d.Recv.List[0].Type
	if p, ok := t.(*ast.StarExpr); ok {
		t = p.X
	}
	if g, ok := t.(*ast.IndexExpr); ok {
		t = g.X
	}
	id, ok := t.(*ast.Ident)
	return !ok || id.IsExported()
}

var unfinished = regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|X` + `XX|HA` + `CK)\b`)

// Nothing runs before main, nothing is left for later, no test is switched off.
func TestNothingHiddenOrLeftOver(t *testing.T) {
	for _, s := range sources(t) {
		for i, line := range strings.Split(s.text, "\n") {
			if w := unfinished.FindString(line); w != "" && !s.test {
				t.Errorf("%s:%d: %s: do it, or open an issue", s.file, i+1, w)
			}
		}
		for _, d := range s.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil && d.Name.Name == "init" {
					t.Errorf("%s: func init: call it from where it is needed", s.set.Position(d.Pos()))
				}
			case *ast.GenDecl:
				if d.Tok == token.VAR && !s.test {
					for _, v := range d.Specs {
						globals(t, s, v.(*ast.ValueSpec))
					}
				}
			}
		}
	}
}

// globals refuses package variables that hold something alive: a logger, a lock, a client.
func globals(t *testing.T, s source, v *ast.ValueSpec) {
	alive := func(e ast.Expr) bool {
		sel, ok := e.(*ast.SelectorExpr)
		if !ok {
			return false
		}
		pkg, ok := sel.X.(*ast.Ident)
		return ok && (pkg.Name == "slog" || pkg.Name == "log" || pkg.Name == "sync" || pkg.Name == "atomic")
	}
	types := []ast.Expr{v.Type}
	for _, val := range v.Values {
		if c, ok := val.(*ast.CallExpr); ok {
			types = append(types, c.Fun)
		}
		if c, ok := val.(*ast.CompositeLit); ok {
			types = append(types, c.Type)
		}
	}
	for _, e := range types {
		if p, ok := e.(*ast.StarExpr); ok {
			e = p.X
		}
		if e != nil && alive(e) {
			t.Errorf("%s: a package variable that is alive: make it a field", s.set.Position(v.Pos()))
		}
	}
}
