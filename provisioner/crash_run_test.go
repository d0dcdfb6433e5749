package provisioner

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/memstore"
)

// A moment is a point of an undisturbed run, and how often one of its kind was met before it.
type moment struct {
	point
	n int
}

// A disturbance is one way to break one moment.
type disturbance struct {
	cell
	at   moment
	what string
	do   func(*crashRun) error // when the moment comes: panics, or what the call returns
	want int                   // how often something must have broken in the end
	// For a second break: at the same moment in recovery, or at whatever comes next.
	then string // "", same, next
	path bool   // the node may take another way to the same end
}

// crashRun is one run of a route.
type crashRun struct {
	w     *world
	r     route
	d     disturbance
	met   map[string]int // points, by kind and when
	trace []moment       // undisturbed: all of them
	seen  map[string]bool
	taken bool // the edge was taken
	open  bool // between entering the state and taking the edge
	broke int
	armed bool     // after observe: the next commit fails
	twins []string // what the twin wrote
	base  int64    // the node's history before the run
	ups   int
}

// label makes a test's messages say which run they are about.
type label struct {
	testing.TB
	run string
}

func (l label) Errorf(format string, a ...any) {
	l.TB.Helper()
	l.TB.Errorf("%s: %s", l.run, fmt.Sprintf(format, a...))
}
func (l label) Error(a ...any) { l.TB.Helper(); l.TB.Errorf("%s: %s", l.run, fmt.Sprint(a...)) }
func (l label) Fatal(a ...any) { l.TB.Helper(); l.TB.Fatalf("%s: %s", l.run, fmt.Sprint(a...)) }
func (l label) Fatalf(format string, a ...any) {
	l.TB.Helper()
	l.TB.Fatalf("%s: %s", l.run, fmt.Sprintf(format, a...))
}

// probe is asked at every point of the run.
func (x *crashRun) probe(p point) error {
	key := p.kind + " " + p.when
	x.met[key]++
	m := moment{p, x.met[key]}
	if x.open && x.d.do == nil {
		x.trace = append(x.trace, m)
		switch p.kind {
		case "act":
			x.seen[x.w.view().State.V.Work.Phase+" "+p.name] = true
		case "order":
			x.seen["order "+p.name] = true
		}
	}
	if x.taken && p.kind == "commit" {
		x.open = false
	}
	switch {
	case x.d.do == nil:
	case x.broke == 0 && p.kind == x.d.at.kind && p.when == x.d.at.when && m.n == x.d.at.n:
		if p != x.d.at.point {
			x.w.t.Fatalf("met %+v where the undisturbed run had %+v", p, x.d.at.point)
		}
		if x.d.want == 0 { // what is to break comes after what was observed here
			x.armed = true
			return nil
		}
		x.broke++
		return x.d.do(x)
	case x.armed && x.broke == 0 && p.kind == "commit" && p.who == "loop" && (p.when == "after") == (x.d.then == "after"):
		x.armed = false
		x.broke++
		return x.d.do(x)
	case x.broke == 1 && !x.w.fated && (x.d.then == "same" && p == x.d.at.point || x.d.then == "next"):
		x.broke++
		panic(killed{})
	}
	return nil
}

// written sees the edge being taken.
func (x *crashRun) written(c memstore.Call) {
	if x.w.who == "twin" {
		x.twins = append(x.twins, commitName(c.Txn))
	}
	for _, op := range c.Txn.Then {
		if p := inventory.Parts(op.Key); p[0] != "history" {
			continue
		}
		h, err := inventory.Decode[inventory.History](inventory.KV{Key: op.Key, Value: op.Value, Mod: 1})
		x.w.must(err)
		if h.V.Kind == "transition" && h.V.From == x.r.from && h.V.Event == string(x.r.on) {
			x.taken = true
		}
	}
}

// run takes the edge and goes on until the node rests.
func (x *crashRun) run() {
	w := x.w
	w.probe, w.written = x.probe, x.written
	if w.id != "" {
		x.base = w.view().State.V.Seq
	}
	x.ups = w.ups
	if x.r.set != nil {
		x.r.set(w)
	}
	x.open = true
	asked, quiet := x.r.take == nil, 0
	for range 3000 {
		if x.taken && x.quietEnd() {
			return
		}
		points, broke, lived := w.points, x.broke, true
		if !asked && (x.r.when == nil || x.r.when(w)) {
			lived = w.as("api", func() {
				err := x.r.take(w)
				if err != nil && !errors.Is(err, inventory.ErrUnavailable) {
					w.t.Fatalf("refused: %v", err)
				}
				asked = err == nil
			})
		}
		if lived {
			w.turn()
		}
		if x.d.then == "next" && x.broke == 1 && broke == 1 { // nothing came up in a whole turn
			x.broke++
			w.restart()
		}
		// While nothing happens time may pass faster, but nobody may seem silent.
		if quiet++; w.points != points {
			quiet = 0
		}
		w.step = time.Second
		if quiet > 3 {
			w.step = 20 * time.Second
		}
	}
	v := w.view()
	w.t.Fatalf("edge taken: %v; the node does not come to rest: %s, phase %q, %q; says %q", x.taken, v.State.V.State, v.State.V.Work.Phase, v.State.V.Reason, w.loop.Live(w.id).Say)
}

// quietEnd says whether the node rests and all that was to break broke.
func (x *crashRun) quietEnd() bool {
	if x.d.then == "next" && x.broke < 2 {
		return false
	}
	switch st := x.w.view().State.V.State; st {
	case inventory.Quarantined:
		return !x.w.view().Claim.Exists()
	case inventory.Discovered, inventory.Maintenance:
		return true
	default:
		return (st == inventory.Ready || st == inventory.InUse) && x.w.settled(st)
	}
}

// end is everything that must be the same however the run was broken.
func (x *crashRun) end() string {
	w := x.w
	v := w.view()
	st := v.State.V
	reservation := ""
	if kv, err := w.store.Get(w.t.Context(), inventory.KeyReservation("acme", "r")); err == nil && kv.Exists() {
		r, err := inventory.Decode[inventory.Reservation](kv)
		w.must(err)
		reservation = r.V.Phase
	}
	instance := v.Instance.V.Phase
	return fmt.Sprintf("%s, nodes %d, generation %d, wipe %d, taint %q, burn-in due %v, returns %d, session %s, claim %v, reservation %q, instance %q, offered %v; power %s, place %s, boots %s, data %q, agent %v, tenant %v",
		st.State, len(w.copy.Nodes()), st.Generation, st.Wipe, st.Taint, st.BurnInDue, remedies(Input{Now: w.now, View: v}, remedyLost, remedyWeek), v.Session.V.Phase, v.Claim.Exists(), reservation, instance, v.Avail.Exists(),
		w.power, w.place, w.boots, w.data, w.agent, w.tenant)
}

// path is the way that the node took since the run began.
func (x *crashRun) path() string {
	var out []string
	for _, h := range x.w.history() {
		if h.Seq > x.base && h.Kind == "transition" {
			out = append(out, h.Event)
		}
	}
	return strings.Join(out, " ")
}

// How a moment breaks.

func kill(*crashRun) error { panic(killed{}) }

// lose has a call fail: nobody answers.
func lose(*crashRun) error { return inventory.ErrUnavailable }

func fail(err error) func(*crashRun) error {
	return func(*crashRun) error { return err }
}

// killSeen kills the daemon after it saw the reply, before anything else.
func killSeen(x *crashRun) error {
	x.w.fated = true
	return nil
}

// repeat has a twin, which believes what the daemon believes, do what the daemon is about to do, or has just done.
func repeat(x *crashRun) error {
	w, p, rev, acts := x.w, x.d.at.point, x.w.store.Rev(), len(x.w.acts)
	who, acting := w.who, w.acting
	w.who = "twin"
	defer func() { w.who, w.acting = who, acting }()
	x.twins = nil
	switch {
	case p.kind == "order" && p.name != "enter" && p.when != "noted":
		w.perform(OrderFor(w.view(), w.loop.Rules), &inventory.Report{})
		return nil
	case p.who == "api":
		if err := x.r.take(w); err != nil && (p.when == "before" || !errors.Is(err, inventory.ErrUnavailable)) {
			w.t.Errorf("the same request again: %v", err)
		}
	case p.who == "agent" && p.kind == "commit":
		w.redeem(w.view())
		w.agent = false
	default:
		w.twin().Round(w.t.Context())
	}
	switch {
	case p.kind == "commit" && p.when == "after" && w.store.Rev() != rev:
		w.t.Errorf("a second daemon with the old view could write: %v", x.twins)
	case p.kind == "commit" && p.when == "before" && !slices.Equal(x.twins, []string{p.name}):
		w.t.Errorf("a second daemon with the same view wrote %v, the first would have written %v", x.twins, p.name)
	case p.kind == "act" && p.when != "noted" && (len(w.acts) != acts+1 || w.store.Rev() != rev):
		w.t.Errorf("a second daemon with the same view did %v and wrote %v", w.acts[acts:], x.twins)
	}
	return nil
}

// stale has a daemon that slept since it began the act wake up when another has written what came of it: it must not act.
func stale(x *crashRun) error {
	w, acts, rev := x.w, len(x.w.acts), x.w.store.Rev()
	who, acting := w.who, w.acting
	w.who = "twin"
	defer func() { w.who, w.acting = who, acting }()
	l := w.twin()
	for _, n := range l.nodes {
		n.seen.Results = map[Act]Result{}
	}
	l.Round(w.t.Context())
	if len(w.acts) != acts || w.store.Rev() != rev {
		w.t.Errorf("a daemon whose view is old did %v, and wrote %d times", w.acts[acts:], w.store.Rev()-rev)
	}
	if d := l.nodes[w.id].decided; d.Act == "" && x.r.take == nil {
		w.t.Errorf("a daemon that noted nothing would not have acted anyway: %s", d.Say)
	}
	return nil
}

// disturbances are all ways to break the moments of an undisturbed run.
func disturbances(trace []moment, state inventory.State) []disturbance {
	var out []disturbance
	for _, m := range trace {
		add := func(c column, how mode, what string, do func(*crashRun) error) {
			out = append(out, disturbance{cell: cell{c, how}, at: m, what: what, do: do, want: 1})
		}
		deadly := func(c column, what string, do func(*crashRun) error) {
			add(c, once, what, do)
			for _, then := range []string{"same", "next"} {
				d := disturbance{cell: cell{c, again}, at: m, what: what, do: do, want: 2, then: then}
				if then == "same" && m.when == "after" && (m.kind == "commit" || m.name == "enter") {
					continue // it is done, and does not come again
				}
				out = append(out, d)
			}
		}
		switch m.kind + " " + m.when {
		case "read before":
			if m.who == "api" {
				add(beforeIntent, fails, "not answered", lose)
			} else {
				add(afterIntent, fails, "not answered", lose)
			}
		case "commit before":
			deadly(beforeIntent, "killed", kill)
			add(beforeIntent, twice, "another first", repeat)
			add(beforeIntent, fails, "not done", lose)
		case "commit after":
			deadly(afterIntent, "killed, reply lost", kill)
			deadly(afterIntent, "killed, reply seen", killSeen)
			add(afterIntent, twice, "another after it", repeat)
			add(afterIntent, fails, "done, reply lost", lose)
		case "act before", "order before":
			deadly(afterIntent, "killed", kill)
			add(afterIntent, twice, "another first", repeat)
			add(afterIntent, fails, "not done", lose)
		case "act after", "order after":
			deadly(afterAct, "killed", kill)
			add(afterAct, twice, "once more", repeat)
			if m.kind == "act" || m.name != "enter" {
				add(afterAct, fails, "done, reply lost", lose)
			}
			if m.kind == "order" && m.name != "enter" {
				add(afterAct, fails, "the machine resets", fail(errReset))
				if state != inventory.BurnIn { // there one failure is enough, and has an edge of its own
					add(afterAct, fails, "answers that it failed", fail(errAnswer))
					out[len(out)-1].path = state == inventory.Provisioning
				}
			}
		case "act noted", "order noted", "call noted":
			deadly(afterObserve, "killed", kill)
			add(afterObserve, twice, "noted by another too", repeat)
			if m.kind == "act" {
				out = append(out, disturbance{cell: cell{afterObserve, twice}, at: m, what: "a daemon that noted nothing acts when it is committed", do: stale, then: "after"})
			}
			for _, then := range []string{"before", "after"} {
				out = append(out, disturbance{cell: cell{afterObserve, fails}, at: m, what: "the commit of it fails " + then + " it is done", do: lose, then: then})
			}
		}
	}
	return out
}
