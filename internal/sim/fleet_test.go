package sim

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/lifecycle"
	"github.com/hostler-project/hostler/provisioner"
)

// A fleet is a history of 500 machines with a script: what goes wrong with many of them at once is not drawn, while all
// the small faults are. It watches the record and the fakes, and keeps its own account of what was allowed when.
type fleet struct {
	*Sim
	t       *testing.T
	usage   *inventory.Usage
	limits  inventory.Limits
	breaker inventory.Breaker
	opened  int64             // the revision at which it opened, the last time
	at      time.Duration     // the same as a time
	opens   int               // how often
	why     []string          // each time
	granted map[string]int64  // by node: the revision that let it start what it is at
	session map[string]string // by node: its last boot session
	offers  int               // nodes offered while the breaker was open
	heard   int               // nodes alive again while it was open
	lost    int               // nodes sent to inspecting because they were silent
	kept    int               // acts and orders that went on while it was open: begun before
	most    int               // boots at once
	power   map[*machine]int  // power acts
}

const (
	fleetNodes = 500
	fleetRack  = 50
)

// The script's own faults, and small ones that with 500 nodes are big: they open the breaker by themselves.
var notDrawn = []string{"all nodes vanish", "monitoring network cut", "BMC network cut", "alert prevents transition", "clock wrong", "clock set"}

// newFleet has 500 nodes made ready, with nothing failing and little that limits them; then the limits are the product's
// own, two tenants rent, an operator meddles, and the small faults begin.
func newFleet(t *testing.T, seed uint64) *fleet {
	f := &fleet{Sim: build(Params{Seed: seed, Nodes: fleetNodes, Rack: fleetRack, Calm: true}), t: t, usage: inventory.NewUsage(), limits: inventory.DefaultLimits(),
		granted: map[string]int64{}, session: map[string]string{}, power: map[*machine]int{}}
	f.nobody = true
	f.watch = watcher{revision: f.revision, act: f.begins, order: f.obeys}
	wide := inventory.DefaultLimits()
	wide.Boot, wide.Destroy = inventory.Limit{Site: fleetNodes}, inventory.Limit{Site: fleetNodes}
	f.declareLimits(wide)
	f.after(0, func() { f.startReplica("host 1") })
	f.after(time.Second, func() { f.startReplica("host 2") })
	for _, m := range f.machines {
		f.after(f.upTo(20*time.Second), m.arrive)
	}
	f.reach(2*time.Hour, "all are ready", func() bool { return f.count(inventory.Ready) == fleetNodes })
	f.declareLimits(inventory.DefaultLimits())
	f.most = 0
	f.p.Calm, f.faulty = false, true
	f.drawFaults()
	for _, name := range notDrawn {
		delete(f.on, name)
	}
	for _, r := range f.renters {
		r.most, r.pace = 12, 0 // what they give back must be booted, and boots are limited
		f.after(f.upTo(time.Minute), r.tick)
	}
	f.after(0, f.operator)
	f.after(0, f.chaos)
	f.pass(10 * time.Minute)
	return f
}

func (f *fleet) declareLimits(l inventory.Limits) {
	_, err := f.put(inventory.Encode(inventory.KeyLimits, l))
	f.must(err)
}

// reach lets time pass until something is so.
func (f *fleet) reach(limit time.Duration, what string, so func() bool) {
	f.t.Helper()
	for end, next := f.mono+limit, f.mono; f.err == nil; {
		if f.mono >= next {
			if next = f.mono + time.Second; so() {
				return
			}
			if f.mono > end {
				f.fail("after %v it is not so that %s; the breaker is open: %v; there are %v", limit, what, f.breaker.Open, f.census())
			}
		}
		if !f.step() {
			f.fail("nothing happens any more")
		}
	}
}

// pass lets so much time pass.
func (f *fleet) pass(d time.Duration) {
	for end := f.mono + d; f.err == nil && f.mono < end && f.step(); {
	}
}

// census counts the nodes by state and, where they do something, phase and what is said of them.
func (f *fleet) census() map[string]int {
	out := map[string]int{}
	for _, m := range f.machines {
		st := f.last[m.id].state
		out[strings.TrimSpace(string(st.State)+" "+st.Work.Phase)]++
	}
	return out
}

func (f *fleet) count(st inventory.State) int {
	n := 0
	for _, m := range f.machines {
		if m.id != "" && f.last[m.id].state.State == st {
			n++
		}
	}
	return n
}

// revision looks at every revision as it is written: f.last is what was before.
func (f *fleet) revision(b inventory.Batch) {
	fresh := map[string]bool{} // nodes with a new boot session
	for _, e := range b.Events {
		if p := inventory.Parts(e.KV.Key); p[0] == "sessions" && !e.Deleted {
			d, err := inventory.Decode[inventory.Session](e.KV)
			f.must(err)
			fresh[p[1]] = d.V.ID != f.session[p[1]]
			f.session[p[1]] = d.V.ID
		}
	}
	open := f.breaker.Open // before this revision: a transaction that starts something and opens it is none of ours
	for _, e := range b.Events {
		p := inventory.Parts(e.KV.Key)
		switch {
		case e.KV.Key == inventory.KeyLimits:
			f.limits = inventory.LimitsIn(e.KV)
		case e.KV.Key == inventory.KeyBreaker:
			f.breaker = inventory.BreakerIn(e.KV)
			if f.breaker.Open && !open {
				f.opened, f.at = b.Rev, f.mono
				f.opens++
				f.why = append(f.why, f.breaker.Cause)
			}
		case p[0] == "avail" && !e.Deleted && open:
			f.offers++
		case len(p) == 3 && p[0] == "nodes" && p[2] == "spec":
			d, err := inventory.Decode[inventory.Spec](e.KV)
			f.must(err)
			f.usage.SetRack(p[1], d.V.Rack)
		case len(p) == 3 && p[0] == "nodes" && p[2] == "state":
			d, err := inventory.Decode[inventory.NodeState](e.KV)
			f.must(err)
			f.moved(p[1], d.V, b.Rev, open, fresh[p[1]])
		}
	}
}

// moved looks at one change of a node's state.
func (f *fleet) moved(id string, st inventory.NodeState, rev int64, open, fresh bool) {
	was := f.last[id].state
	now, before := inventory.Activity(st), inventory.Activity(was)
	f.usage.SetState(id, st)
	if now != "" && now != before {
		if why := f.usage.Over(f.limits, id); why != "" {
			f.fail("%s begins to %s, and that is too many: %s", f.called(id), now, why)
		}
	}
	f.most = max(f.most, f.usage.Count(inventory.Booting))
	if now != "" && (now != before || fresh || st.Work.Order != "" && st.Work.Order != was.Work.Order) {
		f.granted[id] = rev
		if open {
			f.fail("%s was let start %s (%s) while the breaker was open since revision %d", f.called(id), st.Work.Phase, st.Reason, f.opened)
		}
	}
	silent := was.State == inventory.Ready && st.State == inventory.Inspecting && strings.Contains(st.Reason, "silent")
	if silent {
		f.lost++
	}
	switch {
	case !open:
	case was.State == inventory.Ready && st.State == inventory.Inspecting:
		f.fail("%s went from ready to inspecting while the breaker was open: %s", f.called(id), st.Reason)
	case was.State == inventory.InUse && st.State == inventory.Draining && st.Cause != string(lifecycle.Release):
		f.fail("%s was drained while the breaker was open: %s", f.called(id), st.Reason)
	case was.Alive == inventory.Silent && st.Alive == inventory.Alive:
		f.heard++
	}
}

// begins looks at an act as it begins: at the machine, whatever the daemon believes.
func (f *fleet) begins(r *replica, m *machine, a provisioner.Act) {
	switch a {
	case provisioner.PowerOff, provisioner.PowerOn, provisioner.PowerCycle:
	default:
		return
	}
	f.power[m]++
	f.allowed(m, string(a)+" of "+r.name)
}

func (f *fleet) obeys(m *machine, o inventory.Order) {
	if o.Kind == inventory.OrderSanitize || o.Kind == inventory.OrderWrite {
		f.allowed(m, o.ID)
	}
}

// allowed says that nothing begins with the breaker open but what was granted by a transaction before it opened. One act
// has no such transaction: a quarantined node is switched off after one look at the breaker, right before.
func (f *fleet) allowed(m *machine, what string) {
	st := f.last[m.id].state
	switch {
	case !f.breaker.Open, lifecycle.Urgent(st.Cause):
	case inventory.Activity(st) == "" && st.State == inventory.Quarantined && f.mono-f.at < 10*time.Millisecond:
	case inventory.Activity(st) != "" && f.granted[m.id] < f.opened:
		f.kept++
	default:
		f.fail("%s begins on %s, which is %s %s since revision %d, and the breaker is open since revision %d", what, m.name, st.State, st.Work.Phase, f.granted[m.id], f.opened)
	}
}

// well says whether a machine's agent runs and can be heard.
func (f *fleet) well(m *machine) bool {
	return m.power && m.agent != nil && m.agent.redeemed && m.agent.session == f.session[m.id] && m.mute <= f.mono && m.place == placeProvisioning
}

// opensWithin waits for the breaker.
func (f *fleet) opensWithin(d time.Duration) {
	f.reach(d, "the breaker is open", func() bool { return f.breaker.Open })
}

// close is a person who has looked.
func (f *fleet) close() {
	f.reach(10*time.Minute, "the breaker is closed by a person", func() bool {
		if f.breaker.Open {
			f.spawn(f.api, 0, func() { _, _ = f.led.CloseBreaker(bg, "kim", "looked at") }) // asked again where the store was away
		}
		return !f.breaker.Open
	})
}

// rest is the end of every script: all faults stop, and every node comes to rest and to ready.
func (f *fleet) rest() {
	f.nobody = false
	f.settle()
}

// darkness cuts the monitoring network: all 500 fall silent, and nothing is wrong with any.
func (f *fleet) darkness() {
	f.fire("monitoring network cut")
	ready := map[*machine]bool{}
	for _, m := range f.machines {
		ready[m] = f.last[m.id].state.State == inventory.Ready && f.well(m)
	}
	lost := f.lost
	f.dark = f.mono + 20*time.Minute
	f.opensWithin(5 * time.Minute)
	if f.err == nil && !strings.Contains(f.breaker.Cause, "monitoring lost") {
		f.fail("500 nodes fell silent at once, and the breaker says %q", f.breaker.Cause)
	}
	silent := 0
	f.reach(10*time.Minute, "most ready nodes are known to be silent", func() bool {
		silent = 0
		for _, m := range f.machines {
			if f.last[m.id].state.Alive == inventory.Silent {
				silent++
			}
		}
		return silent > fleetNodes*8/10
	})
	f.pass(f.dark - f.mono)
	if f.lost-lost > 5 { // those that were truly gone minutes before
		f.fail("%d nodes were inspected because the monitoring network was cut", f.lost-lost)
	}
	f.heard, f.offers = 0, 0
	f.pass(3 * time.Minute) // recording goes on, and so does un-drain: what speaks again is offered again
	if f.err == nil && (!f.breaker.Open || f.heard < silent*8/10 || f.offers == 0) {
		f.fail("with the breaker open (%v) %d of %d silent nodes were alive again, %d were offered", f.breaker.Open, f.heard, silent, f.offers)
	}
	well := map[*machine]int{}
	for m := range ready {
		if ready[m] && f.well(m) && f.last[m.id].state.State == inventory.Ready {
			well[m] = f.power[m]
		}
	}
	if f.err == nil && len(well) < fleetNodes/2 {
		f.fail("only %d nodes are well after the cut", len(well))
	}
	lost = f.lost
	f.close()
	f.pass(10 * time.Minute)
	acted := 0
	for m, n := range well {
		if f.power[m] != n && f.last[m.id].state.Cause == string(lifecycle.Lost) {
			acted++
		}
	}
	if acted > 5 || f.lost-lost > 5 {
		f.fail("after the closing %d nodes that were well were power-cycled as lost, %d sent off as silent", acted, f.lost-lost)
	}
}

// blackoutOf takes the power of machines within ten seconds; each has it again some time later.
func (f *fleet) blackoutOf(ms []*machine, from, to time.Duration) {
	hit := 0
	for _, m := range ms {
		f.after(f.upTo(10*time.Second), func() {
			was := m.power
			hit++
			m.powerDown()
			f.act("%s loses its power", m.name)
			f.after(f.between(from, to), func() {
				if was && !m.power {
					m.powerUp()
				}
			})
		})
	}
	f.pass(11 * time.Second)
	if f.err == nil && hit != len(ms) {
		f.fail("%d of %d machines lost their power", hit, len(ms))
	}
}

// goOn lets time pass under the small faults, and has the breaker closed by a person as often as it takes: what was
// unwell before a closing does not count again.
func (f *fleet) goOn(d time.Duration) {
	for end := f.mono + d; f.err == nil && f.mono < end; f.pass(time.Minute) {
		if f.breaker.Open && f.mono-f.at > 5*time.Minute {
			f.close()
		}
	}
}

// scripts are what happens to the fleets: each has the faults that are for certain in it.
var scripts = []struct {
	name string
	seed uint64
	do   func(*fleet)
}{
	{"all silent while the monitoring network is cut, then 40 of a rack lose power", 1, func(f *fleet) {
		f.darkness()
		f.goOn(15 * time.Minute)
		f.fire("node vanishes")
		f.blackoutOf(f.machines[2*fleetRack:2*fleetRack+40], 8*time.Minute, 15*time.Minute)
		f.opensWithin(6 * time.Minute)
		f.pass(16 * time.Minute)
		f.close()
		f.goOn(30 * time.Minute)
	}},
	{"one by one, then all lose power at once and come back over time", 2, func(f *fleet) {
		opens, hit, on := f.opens, []*machine{}, f.on
		if f.on = maps.Clone(on); f.on != nil { // what makes many fall silent, in the eyes of a daemon
			for _, name := range []string{"node vanishes", "agent silent", "hostlerd paused", "answer to agent lost"} {
				delete(f.on, name)
			}
		}
		for i := range 10 { // far below what opens the breaker: each is helped while the others go on
			m := f.machines[i*47]
			if f.last[m.id].state.State == inventory.Ready && f.well(m) {
				hit = append(hit, m)
				f.fire("node vanishes")
				f.power[m] = 0
				f.blackoutOf([]*machine{m}, time.Hour, time.Hour)
			}
			f.pass(2 * time.Minute)
		}
		f.pass(20 * time.Minute)
		helped := 0
		for _, m := range hit {
			if f.power[m] > 0 || f.last[m.id].state.State != inventory.Ready { // or its rack has no room yet
				helped++
			} else {
				f.note("not helped: %s", f.says(m))
			}
		}
		if f.err == nil && (f.opens != opens || len(hit) < 5 || helped != len(hit)) {
			f.fail("%d nodes vanished one by one: the breaker opened %d times, %d were judged", len(hit), f.opens-opens, helped)
		}
		f.on = on
		f.fire("all nodes vanish")
		f.blackoutOf(f.machines, 20*time.Second, 20*time.Minute)
		f.opensWithin(6 * time.Minute)
		f.pass(25 * time.Minute)
		f.close()
		f.goOn(40 * time.Minute)
	}},
}

// What happens to 500 nodes at once (F-42 to F-44; P14): no power and no destructive act begins while the breaker is
// open, boots and erasures stay within their limits at every revision, what is well again is left alone, and all come to
// rest in the end.
func TestFleet(t *testing.T) {
	t.Parallel()
	for _, c := range scripts {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			f := newFleet(t, uint64(number("SIM_FLEET", 500))+c.seed)
			ready := time.Since(began)
			if f.err == nil {
				c.do(f)
			}
			did := time.Since(began)
			if f.err == nil {
				f.rest()
			}
			if f.err != nil {
				t.Errorf("%v\n%s", f.err, strings.Join(f.trace, "\n"))
			}
			n := f.checker.Counts()
			t.Logf("%d transitions in %d revisions, %v of virtual time in %.1f s (ready after %.1f, script over after %.1f); the breaker opened %d times (%s); %d acts and orders went on that began before; %d boots at once at most\nfaults fired:\n%s",
				n.Transitions, n.Revisions, f.mono.Round(time.Minute), time.Since(began).Seconds(), ready.Seconds(), did.Seconds(), f.opens, strings.Join(f.why, "; "), f.kept, f.most, Table(f.fired))
			if f.err == nil && (f.opens == 0 || n.Transitions < 3000) {
				t.Errorf("the breaker opened %d times in %d transitions: nothing was tested", f.opens, n.Transitions)
			}
		})
	}
}
