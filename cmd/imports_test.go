// Package cmd has no program of its own: its tests hold the rules of the house over all sources. Who may import whom is
// here; what comments and programs must be like is in house_test.go and programs_test.go, what the manual shows in
// manual_test.go. All of them read the sources themselves, so that Go's test cache sees every change.
package cmd

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/hostler-project/hostler/"

// mayImport says which of our packages the sources of a folder may import: the row with the longest matching folder
// counts. "x" is package x alone, "x/..." x and all below it. Design.md section 3, one level finer.
var mayImport = []struct {
	folder string
	may    string
	not    string // what it therefore does not know
}{
	{"inventory", "", "how anything is done"},
	{"inventory/lifecycle", "inventory", "stores, nodes' moves"},
	{"inventory/ledger", "inventory inventory/lifecycle", "hardware, the API"},
	{"inventory/audit", "inventory inventory/ledger inventory/lifecycle", "hardware, the API, which store it is"},
	{"inventory/memstore", "inventory", "records"},
	{"inventory/storetest", "inventory", "records"},
	{"inventory/etcd", "inventory", "records"},
	{"inventory/blob", "inventory", "records"},
	{"inventory/backup", "inventory inventory/ledger inventory/lifecycle", "how a snapshot is made or loaded"},
	{"inventory/doctor", "inventory", "how facts are collected"},
	{"inventory/api", "inventory inventory/audit inventory/doctor inventory/ledger inventory/lifecycle", "hardware, which store it is"},
	{"inventory/client", "inventory inventory/api inventory/audit inventory/doctor", "stores, commands"},
	{"inventory/web", "inventory inventory/api inventory/audit inventory/ledger inventory/lifecycle", "hardware, which store it is"},

	{"bmc", "inventory bmc/...", "nodes' lives, images, lifecycle"},
	{"imaging", "inventory imaging/...", "which node, why now"},
	{"health", "inventory health/...", "what is done about it"},

	{"provisioner", "inventory inventory/ledger inventory/lifecycle bmc/... imaging/... health/... provisioner/...", "the API, which store it is, flags, files"},
	{"provisioner/barrier", "", "whose packet it was"},
	{"provisioner/dhcp", "inventory provisioner/barrier", "nodes and their states"},
	{"provisioner/tftp", "inventory provisioner/barrier", "nodes and their states"},
	{"provisioner/httpboot", "inventory provisioner/barrier", "nodes and their states"},

	{"cmd/hostlerd", "inventory/... bmc/... imaging/... health/... provisioner/... internal/version", "the virtual rack"},
	{"cmd/hostler", "inventory/... imaging/... internal/version", "hardware, provisioner"},
	{"cmd/hostler-agent", "inventory imaging/... health/... internal/version", "records' store, API, provisioner"},
	{"cmd/hostler-nvml", "health health/nvml internal/version", "who judges what it reads"},
	{"cmd/hostler-rack", "internal/...", "the daemon's parts"},
	{"internal/version", "", "everything"},
	{"internal/fuzz", "", "what is fuzzed: it runs go test"},
	{"internal/story", "internal/... inventory inventory/lifecycle", "how any of it is done: it runs the programs"},
	{"internal/faults", "internal/... inventory/... bmc/bmctest provisioner/agentapi", "how any of it is done: it runs the programs"},
	{"internal/gpucheck", "health health/nvml internal/...", "alerts, nodes: it prints for a person"},
	{"internal/mutants", "", "everything: it rewrites sources and runs their tests"},
	{"internal/sim", "inventory/... health/hardware provisioner/...", "programs, processes, sockets: it has fakes of everything outside"},
	{"internal", "internal/...", "the product: it runs the programs"},
}

// helpers are packages for tests: no program may contain one.
var helpers = []string{"inventory/memstore", "inventory/storetest", "inventory/api/apitest", "bmc/bmctest", "internal/faults", "internal/frugal", "internal/sim"}

// rehearsals are stand-ins that ship with hostler-rack: any test may use them, as an operator does.
const rehearsals = "internal/standin/..."

// onlyIn says where a package of somebody else may be imported. "" is nowhere.
var onlyIn = []struct{ pkg, folders, why string }{
	{"go.etcd.io/", "inventory/etcd", "one place knows how etcd fails"},
	{"github.com/bougou/go-ipmi", "bmc", "one place knows how controllers fail"},
	{"github.com/bmc-toolbox/", "bmc", "one place knows how controllers fail"},
	{"github.com/danielgtaylor/huma", "inventory/api", "routes are one table"},
	{"github.com/spf13/", "cmd", "only programs read flags"},
	{"os/exec", "provisioner cmd internal", "argv and environment are no place for secrets; the exec fence is the one seam"},
	{"flag", "", "programs use cobra and --long flags"},
	{"C", "", "programs build with CGO_ENABLED=0"},
	{"plugin", "", "programs build with CGO_ENABLED=0"},
	{"github.com/NVIDIA/go-nvml", "cmd/hostler-nvml", "it needs cgo, and a call of it can hang for ever: only a process that can be given up may"},
}

// A source is one Go file of ours.
type source struct {
	file    string // from the root of the repository
	folder  string
	test    bool
	set     *token.FileSet
	ast     *ast.File
	text    string
	imports []string
}

// sources parses every Go file of the repository. Reading them makes Go's test cache depend on them.
func sources(t *testing.T) []source {
	t.Helper()
	tree := os.DirFS("..")
	var out []source
	err := fs.WalkDir(tree, ".", func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (file == "out" || file == "bin" || d.Name() == "testdata" || len(d.Name()) > 1 && d.Name()[0] == '.'):
			return fs.SkipDir
		case path.Ext(file) != ".go":
			return nil
		}
		text, err := fs.ReadFile(tree, file)
		if err != nil {
			return err
		}
		s := source{file: file, folder: path.Dir(file), test: strings.HasSuffix(file, "_test.go"), set: token.NewFileSet(), text: string(text)}
		if s.ast, err = parser.ParseFile(s.set, file, text, parser.ParseComments|parser.SkipObjectResolution); err != nil {
			return err
		}
		for _, i := range s.ast.Imports {
			p, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			s.imports = append(s.imports, p)
		}
		out = append(out, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 100 {
		t.Fatalf("only %d sources were found: the test looks in the wrong place", len(out))
	}
	return out
}

// within says whether folder is f, or below it.
func within(folder, f string) bool { return folder == f || strings.HasPrefix(folder, f+"/") }

// matches says whether a package is one of a list like "a b/...".
func matches(pkg, list string) bool {
	return slices.ContainsFunc(strings.Fields(list), func(f string) bool {
		if deep, ok := strings.CutSuffix(f, "/..."); ok {
			return within(pkg, deep)
		}
		return pkg == f
	})
}

func TestImportsPointOneWay(t *testing.T) {
	for _, s := range sources(t) {
		best := -1
		for i, r := range mayImport {
			if within(s.folder, r.folder) && (best < 0 || len(r.folder) > len(mayImport[best].folder)) {
				best = i
			}
		}
		if s.folder == "cmd" {
			continue // these tests
		}
		if best < 0 {
			t.Errorf("%s: its folder has no row in mayImport: say what it may know", s.file)
			continue
		}
		row := mayImport[best]
		for _, p := range s.imports {
			to, ours := strings.CutPrefix(p, module)
			switch {
			case !ours, to == s.folder, matches(to, row.may):
			case s.test && matches(to, rehearsals):
			case s.test && within(to, strings.SplitN(s.folder, "/", 2)[0]): // a test may stand its neighbours up
			case (s.test || slices.Contains(helpers, s.folder)) && matches(to, strings.Join(helpers, " ")+" inventory inventory/api inventory/audit inventory/ledger inventory/lifecycle"):
			default:
				t.Errorf("%s imports %s, but %s may import only [%s]: it does not know %s", s.file, to, row.folder, row.may, row.not)
			}
			if !s.test && ours && slices.Contains(helpers, to) && !slices.Contains(helpers, s.folder) {
				t.Errorf("%s imports %s, which is for tests", s.file, to)
			}
		}
	}
}

func TestOthersPackagesStayWhereTheyBelong(t *testing.T) {
	for _, s := range sources(t) {
		for _, r := range onlyIn {
			inside := slices.ContainsFunc(strings.Fields(r.folders), func(f string) bool { return within(s.folder, f) })
			for _, p := range s.imports {
				if inside || p != r.pkg && !(strings.ContainsAny(r.pkg, "./") && strings.HasPrefix(p, r.pkg)) {
					continue
				}
				if s.test && (r.pkg == "flag" || r.pkg == "os/exec") {
					continue // golden files are renewed with -update; a real peer is a process
				}
				t.Errorf("%s imports %s, which only [%s] may: %s", s.file, p, r.folders, r.why)
			}
		}
	}
}
