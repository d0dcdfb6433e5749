package provisioner

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/lifecycle"
)

// The crash matrix (reliability.md P3, F-01, F-02): every edge of the lifecycle table, at every moment on the way from
// entering its state to the edge's own transaction, broken in every way. A route (crash_routes_test.go) says how a node
// comes to take the edge; one undisturbed run of it finds the moments, and what the world must look like in the end.

// A column is a kind of moment, relative to intent → act → observe → commit.
type column string

const (
	beforeIntent column = "before intent" // before a phase, or the edge itself, is committed
	afterIntent  column = "after intent"  // committed, the act not begun
	afterAct     column = "after act"     // the act took effect, its result is not noted
	afterObserve column = "after observe" // noted in memory, not committed
)

// A mode is a way to break.
type mode string

const (
	once  mode = "killed"
	again mode = "killed again"
	twice mode = "run twice"
	fails mode = "call fails"
)

var (
	columns = []column{beforeIntent, afterIntent, afterAct, afterObserve}
	modes   = []mode{once, again, twice, fails}
)

// A cell of the matrix, for one edge.
type cell struct {
	column column
	mode   mode
}

// result is what one route, or all routes of an edge, did for the matrix.
type result struct {
	required, passed map[cell]int    // runs
	seen             map[string]bool // orders, and acts by the phase that announced them
}

func newResult() result { return result{map[cell]int{}, map[cell]int{}, map[string]bool{}} }

func (r result) add(o result) {
	for c, n := range o.required {
		r.required[c] += n
	}
	for c, n := range o.passed {
		r.passed[c] += n
	}
	maps.Copy(r.seen, o.seen)
}

// covered says how many cells have a way to break, and in how many of them every way ended well.
func (r result) covered(of ...column) (covered, required, runs int) {
	for c, n := range r.required {
		if !slices.Contains(of, c.column) {
			continue
		}
		required, runs = required+1, runs+n
		if r.passed[c] == n {
			covered++
		}
	}
	return covered, required, runs
}

// TestCrashMatrix runs every route of every edge and prints the matrix. It fails where an edge of the table has neither
// a route nor a reason in idle, and where a step, an act or an order is on no route.
func TestCrashMatrix(t *testing.T) {
	done := map[string]result{}
	all := newResult()
	for _, r := range routes {
		name := edgeName(r.from, r.on)
		t.Run(strings.ReplaceAll(strings.TrimSuffix(name+", "+r.name, ", "), " ", "_"), func(t *testing.T) {
			res := cover(t, r)
			if done[name].required == nil {
				done[name] = newResult()
			}
			done[name].add(res)
			all.add(res)
		})
	}
	var b strings.Builder
	line := func(name string, r result) {
		fmt.Fprintf(&b, "%-30s", name)
		for _, c := range columns {
			if covered, required, _ := r.covered(c); required == 0 {
				fmt.Fprintf(&b, " %14s", "–")
			} else {
				fmt.Fprintf(&b, " %14s", fmt.Sprintf("%d/%d", covered, required))
			}
		}
		covered, required, runs := r.covered(columns...)
		fmt.Fprintf(&b, " %10s %6d\n", fmt.Sprintf("%d/%d", covered, required), runs)
	}
	fmt.Fprintf(&b, "%-30s", "edge")
	for _, c := range columns {
		fmt.Fprintf(&b, " %14s", c)
	}
	fmt.Fprintf(&b, " %10s %6s\n", "in all", "runs")
	cells := [2]int{}
	for _, e := range lifecycle.Edges {
		name := edgeName(e.From, e.On)
		r, ok := done[name]
		if !ok {
			why := idleReason(e)
			if why == "" {
				t.Errorf("%s: no route takes this edge, and nothing says why: add a row to routes, or to idle", name)
			}
			fmt.Fprintf(&b, "%-30s %s\n", name, "not alive: "+why)
			continue
		}
		line(name, r)
		covered, required, _ := r.covered(columns...)
		cells[0], cells[1] = cells[0]+covered, cells[1]+required
	}
	_, _, runs := all.covered(columns...)
	fmt.Fprintf(&b, "total: %d/%d cells of %d edges, %d runs of %d routes", cells[0], cells[1], len(done), runs, len(routes))
	t.Logf("covered/required of %q, at each kind of moment\n%s", modes, b.String())
	if cells[0] != cells[1] {
		t.Errorf("%d of %d cells are covered", cells[0], cells[1])
	}
	for _, s := range lifecycle.States {
		if s.Step != "" && !slices.ContainsFunc(routes, func(r route) bool { return r.from == s.Name }) {
			t.Errorf("%s: no route goes through its step", s.Name)
		}
	}
	for _, r := range actRows {
		if !all.seen[r.Phase+" "+string(r.Act)] {
			t.Errorf("no route goes through phase %s with its act %s", r.Phase, r.Act)
		}
	}
	for _, kind := range orderKinds(t) {
		if !all.seen["order "+kind] {
			t.Errorf("no route goes through order %s", kind)
		}
	}
}

// cover runs a route undisturbed, and then broken in every way.
func cover(t *testing.T, r route) result {
	res := newResult()
	start := usual(t, r.from)
	if r.start != nil {
		start = travel(t, *r.start, r.from)
	}
	name := edgeName(r.from, r.on)
	if r.name != "" {
		name += ", " + r.name
	}
	base := &crashRun{w: start.clone(label{t, name + " undisturbed"}), r: r, met: map[string]int{}, seen: map[string]bool{}}
	base.run()
	want, path := base.end(), base.path()
	ups := base.w.ups - base.ups
	if len(base.trace) == 0 {
		t.Fatal("an undisturbed run has no moments")
	}
	if st := base.w.view().State.V; st.State != r.end {
		t.Fatalf("an undisturbed run ends %s, not %s: %s", st.State, r.end, st.Reason)
	}
	res.seen = base.seen
	all := disturbances(base.trace, r.from)
	for _, d := range all {
		res.required[d.cell]++
	}
	for _, d := range all {
		says := fmt.Sprintf("%s: %s %s (%s), %s %s", name, d.at.when, d.at.kind, d.at.name, d.what, d.then)
		x := &crashRun{w: start.clone(label{t, says}), r: r, d: d, met: map[string]int{}, seen: map[string]bool{}}
		x.run()
		ok := true
		check := func(holds bool, format string, a ...any) {
			if !holds {
				ok = false
				x.w.t.Errorf(format, a...)
			}
		}
		expect := max(d.want, 1)
		// What somebody outside wants may come before the same moment comes again.
		check(x.broke == expect || d.then == "same" && r.take != nil && x.broke == 1, "%d things broke, %d were to", x.broke, expect)
		end, way := x.end(), x.path()
		check(end == want, "ended with\n%s\nundisturbed with\n%s", end, want)
		check(d.path || way == path, "the node went %s, undisturbed %s", way, path)
		check(x.w.ups-x.ups <= ups+expect, "%d power-ons, undisturbed %d", x.w.ups-x.ups, ups)
		check(sameTargets(x.w.images), "images were written: %v", x.w.images)
		x.w.whole()
		if ok {
			res.passed[d.cell]++
		}
	}
	return res
}

// sameTargets says that nothing was written twice to another target.
func sameTargets(images []string) bool {
	was := map[string]string{}
	for _, i := range images {
		wipe, what, _ := strings.Cut(i, ": ")
		if was[wipe] != "" && was[wipe] != what {
			return false
		}
		was[wipe] = what
	}
	return true
}

func edgeName(from inventory.State, on lifecycle.Event) string {
	if from == "" {
		from = "new"
	}
	return fmt.Sprintf("%s on %s", from, on)
}
