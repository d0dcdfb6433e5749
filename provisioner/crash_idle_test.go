package provisioner

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/ledger"
	"github.com/hostler-project/hostler/inventory/lifecycle"
	"github.com/hostler-project/hostler/inventory/memstore"
)

// idle are the edges of the table that nothing in this version can take, and why: events that nobody emits, and states
// that therefore no node enters. Each reason is proven below, and fails as soon as it is no longer true.
var idle = struct {
	events map[lifecycle.Event]string
	states map[inventory.State]string
}{
	map[lifecycle.Event]string{
		lifecycle.Adopt:        "no wish and no import takes in a machine that runs",
		lifecycle.Drift:        "firmware is not compared with a baseline yet",
		lifecycle.Rollout:      "firmware is not rolled out yet",
		lifecycle.Service:      "a holder cannot be asked for consent yet",
		lifecycle.Reinstall:    "a holder cannot wish for it yet",
		lifecycle.Emergency:    "no sensor is read yet",
		lifecycle.ForceReclaim: "no wish asks for it yet",
		lifecycle.Cancel:       "no wish cancels a drain yet",
		lifecycle.ToRepair:     "there is no triage yet",
		lifecycle.Repaired:     "technicians have no way to say so yet",
		lifecycle.Retire:       "the wish is refused: this version cannot retire",
		lifecycle.SeenAgain:    "nothing retires yet",
	},
	map[inventory.State]string{
		inventory.Firmware:  "no edge that leads to firmware is alive",
		inventory.Servicing: "no edge that leads to servicing is alive",
		inventory.Repair:    "no edge that leads to repair is alive",
		inventory.Retiring:  "no edge that leads to retiring is alive",
		inventory.Retired:   "no edge that leads to retired is alive",
	},
}

func idleReason(e lifecycle.Edge) string {
	if why := idle.events[e.On]; why != "" {
		return why
	}
	return idle.states[e.From]
}

func routed(e lifecycle.Edge) bool {
	return slices.ContainsFunc(routes, func(r route) bool { return r.from == e.From && r.on == e.On })
}

// looksOnly are sources that only show or check events; elsewhere, whoever names an event may emit it.
var looksOnly = []string{"inventory/lifecycle", "inventory/audit", "inventory/web", "inventory/api/why.go", "cmd/hostler", "internal/story"}

// An idle event is named by no source that could emit it, and comes out of no decision; an idle state is led to by no
// edge that is alive. Both tables name only what is in the lifecycle, and nothing that has a route.
func TestCrashMatrixIdleEdgesAreIdle(t *testing.T) {
	names := map[string]lifecycle.Event{}
	for name, value := range constants(t, "inventory/lifecycle") {
		names[name] = lifecycle.Event(value)
	}
	used := map[lifecycle.Event]string{}
	sources(t, func(file string, f *ast.File) {
		if slices.ContainsFunc(looksOnly, func(p string) bool { return file == p || strings.HasPrefix(file, p+"/") }) {
			return
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok {
				if pkg, ok := sel.X.(*ast.Ident); ok && pkg.Name == "lifecycle" && names[sel.Sel.Name] != "" {
					used[names[sel.Sel.Name]] = file
				}
			}
			return true
		})
	})
	for _, ev := range []lifecycle.Event{lifecycle.Appear, lifecycle.Claim, lifecycle.Done, lifecycle.Return} {
		if used[ev] == "" {
			t.Errorf("%s: the search finds nobody who emits it", ev)
		}
	}
	for ev, why := range idle.events {
		if used[ev] != "" {
			t.Errorf("%s: idle because %s, but %s names it: add routes for its edges", ev, why, used[ev])
		}
		if !slices.ContainsFunc(lifecycle.Edges, func(e lifecycle.Edge) bool { return e.On == ev }) {
			t.Errorf("%s is idle, but no edge of the table has it", ev)
		}
	}
	for state, why := range idle.states {
		for _, e := range lifecycle.Edges {
			if e.To == state && e.From != state && (routed(e) || idleReason(e) == "") {
				t.Errorf("%s: %s, but %s leads there", state, why, edgeName(e.From, e.On))
			}
		}
	}
	for _, r := range routes {
		if e, err := lifecycle.Find(r.from, r.on); err != nil {
			t.Errorf("a route without an edge: %v", err)
		} else if why := idleReason(e); why != "" {
			t.Errorf("%s has a route, and is idle because %s", edgeName(r.from, r.on), why)
		}
	}
	var verbs []string
	for name, value := range constants(t, "inventory") {
		if strings.HasPrefix(name, "Wish") {
			verbs = append(verbs, value)
		}
	}
	slices.Sort(verbs)
	t.Run("decisions", rapid.MakeCheck(func(t *rapid.T) {
		in := draw(t, rapid.SampledFrom(lifecycle.States).Draw(t, "state").Name)
		in.Rules.Sign = func(inventory.CertificateBody) (inventory.Certificate, error) { return inventory.Certificate{}, nil }
		for _, w := range in.View.Wishes {
			w.V.Verb = rapid.SampledFrom(verbs).Draw(t, "verb of a wish")
			in.View.Wishes[0] = w
		}
		if d := Decide(in); idle.events[d.Event] != "" {
			t.Fatalf("%s decides %s, which is idle because %s", in.View.State.V.State, d.Event, idle.events[d.Event])
		}
	}))
}

// The transaction of an edge that nobody takes yet holds all the same: failed before it is done nothing has changed,
// failed after it is done it does not happen twice, and the node then waits with a reason and a way out.
func TestCrashMatrixIdleTransactions(t *testing.T) {
	for _, e := range lifecycle.Edges {
		if idleReason(e) == "" {
			continue
		}
		t.Run(strings.ReplaceAll(edgeName(e.From, e.On), " ", "_"), func(t *testing.T) {
			for _, after := range []bool{false, true} {
				w := brought(t, e.From)
				v, rev, broke := w.view(), w.store.Rev(), 0
				w.fault = func(c memstore.Call, _ bool) error {
					if c.After != after || broke > 0 {
						return nil
					}
					broke++
					return inventory.ErrUnavailable
				}
				move := func() error {
					_, err := w.led.Move(t.Context(), v, e.On, ledger.Change{Actor: "kim", Reason: "because"})
					return err
				}
				if err := move(); !errors.Is(err, inventory.ErrUnavailable) || broke != 1 || (w.store.Rev() == rev) == after {
					t.Fatalf("failed %v, %d times, revision %d to %d", err, broke, rev, w.store.Rev())
				}
				switch err := move(); {
				case after && !errors.Is(err, ledger.ErrConflict), !after && err != nil:
					t.Errorf("asked again (done before: %v): %v", after, err)
				}
				if w.store.Rev() != rev+1 || w.view().State.V.State != e.To {
					t.Errorf("%d revisions, the node is %s", w.store.Rev()-rev, w.view().State.V.State)
				}
				w.whole()
				w.restart()
				if e.By != lifecycle.Restorer { // after it the node goes on, as from any other way into its state
					w.waits(e.To)
				}
				w.whole()
			}
		})
	}
}

// brought is a world whose node has just entered a state: by its usual way, or where there is none by the ledger alone
// along the table.
func brought(t *testing.T, s inventory.State) *world {
	switch s {
	case inventory.Draining: // not released: only such a drain could be cancelled
		return travel(t, way{after: inventory.InUse, when: settledIn(inventory.InUse), do: alert(inventory.DrainNow)}, s)
	case inventory.Quarantined: // with a claim on it, wishes are refused
		w := usual(t, s)
		w.turns(50, "unclaimed", func() bool { return unclaimed(w) })
		return w
	}
	if _, ok := ways[s]; ok || s == inventory.Discovered {
		return usual(t, s)
	}
	for _, e := range lifecycle.Edges {
		if e.To != s || e.From == s || e.On == lifecycle.Quarantine {
			continue
		}
		w := brought(t, e.From)
		_, err := w.led.Move(t.Context(), w.view(), e.On, ledger.Change{Actor: "test", Reason: "placed"})
		w.must(err)
		w.sync()
		return w
	}
	t.Fatalf("nothing leads to %s", s)
	return nil
}

// waits says that a node in a state without a step waits, with a reason, and that it has a way out: an edge that
// somebody can take, or its deadline.
func (w *world) waits(s inventory.State) {
	w.t.Helper()
	row, _ := lifecycle.Get(s)
	acts := len(w.acts)
	for range 3 {
		w.turn()
	}
	if say := w.loop.Live(w.id).Say; say == "" {
		w.t.Errorf("nothing is said of a node that is %s", s)
	}
	if row.Step != "" {
		return
	}
	if w.view().State.V.State != s || len(w.acts) != acts {
		w.t.Errorf("a node that is %s is %s a moment later, acts %v", s, w.view().State.V.State, w.acts[acts:])
	}
	if len(lifecycle.Exits(s)) == 0 {
		w.t.Errorf("%s has no way out", s)
	}
	if row.Rest {
		return
	}
	out, err := lifecycle.Find(s, lifecycle.Timeout)
	w.must(err)
	w.step = 20 * time.Second
	w.turns(100, "over its deadline", func() bool { return w.entered(out.To) > 0 && w.view().State.V.State != s })
}

// orderKinds are the orders that steps give, as their sources say.
func orderKinds(t *testing.T) []string {
	consts := constants(t, "inventory")
	kinds := []string{"enter"}
	sources(t, func(file string, f *ast.File) {
		if path.Dir(file) != "provisioner" {
			return
		}
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if name, ok := call.Fun.(*ast.Ident); ok && name.Name == "startOrder" {
				sel, ok := call.Args[1].(*ast.SelectorExpr)
				if !ok || consts[sel.Sel.Name] == "" {
					t.Fatalf("%s: startOrder with a kind that this test cannot read", file)
				}
				kinds = append(kinds, consts[sel.Sel.Name])
			}
			return true
		})
	})
	if len(kinds) < 6 {
		t.Fatalf("the search finds only %v", kinds)
	}
	slices.Sort(kinds)
	return slices.Compact(kinds)
}

// constants are the text constants of a package.
func constants(t *testing.T, folder string) map[string]string {
	out := map[string]string{}
	sources(t, func(file string, f *ast.File) {
		if path.Dir(file) != folder {
			return
		}
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.CONST {
				continue
			}
			for _, spec := range g.Specs {
				v := spec.(*ast.ValueSpec)
				for i, name := range v.Names {
					if i >= len(v.Values) {
						continue
					}
					if lit, ok := v.Values[i].(*ast.BasicLit); ok && lit.Kind == token.STRING {
						out[name.Name], _ = strconv.Unquote(lit.Value)
					}
				}
			}
		}
	})
	return out
}

// sources parses every Go file of the repository that is no test.
func sources(t *testing.T, each func(file string, f *ast.File)) {
	t.Helper()
	root := os.DirFS("..")
	err := fs.WalkDir(root, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(p) != ".go" || strings.HasSuffix(p, "_test.go") {
			return err
		}
		b, err := fs.ReadFile(root, p)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), p, b, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		each(p, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
