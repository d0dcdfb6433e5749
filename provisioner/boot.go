package provisioner

import (
	"cmp"
	"slices"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/lifecycle"
)

// An actRow is one phase that performs a verified act; when it is done, the next phase is written and begins.
type actRow struct {
	Phase string
	Act   Act
	Next  string
	Doing string // what is being done, for people
	Done  string // what is certain then
}

// The phases that get our agent onto a node, in order; phaseBoot waits for it.
const (
	phaseOff     = "power-off"
	phaseOn      = "power-on"
	phaseBoot    = "boot"
	phaseProvide = "fenced-off" // off, then onto the provisioning network: for a machine that may be elsewhere
)

// actRows are all phases with an act, of every step. Fencing comes first, and runs into the boot.
var actRows = []actRow{
	{"isolate", FenceIsolate, phaseProvide, "cutting it off from the network", "cut off from every network"},
	{phaseProvide, PowerOff, "provisioning-network", "switching it off through its BMC", "power is off, confirmed: the tenant's system is gone"},
	{"provisioning-network", FenceProvide, "boot-device", "putting it on the provisioning network", "on the provisioning network only"},

	{phaseOff, PowerOff, "boot-device", "switching it off through its BMC", "power is off, confirmed"},
	{"boot-device", BootNetwork, phaseOn, "setting the next boot to network", "next boot is from the network"},
	{phaseOn, PowerOn, phaseBoot, "switching it on through its BMC", "power is on, confirmed"},

	{"boot-disk", BootDisk, "", "making the disk the first boot device", "the disk is the first boot device"},
	{"attach", FenceAttach, "running", "putting it on its tenant's network", "on its tenant's network"},
}

func actPhase(name string) (actRow, bool) {
	for _, r := range actRows {
		if r.Phase == name {
			return r, true
		}
	}
	return actRow{}, false
}

// maxTries is how often an act is tried before the step fails; waits double from one second to a minute, about 3 minutes
// in all beside the acts themselves.
const maxTries = 8

// walk performs the act of the present phase, and gives the decision that follows: done(row) once it is certain.
func walk(in Input, row actRow, done func(actRow) Decision) Decision {
	r, have := in.Seen.Results[row.Act]
	switch {
	case in.Seen.Busy != "":
		return wait(0, "%s", row.Doing)
	case !have:
		return act(row.Act, "%s", row.Doing)
	case r.Err == nil:
		return done(row)
	case r.Fatal || r.Tries >= maxTries:
		return move(lifecycle.Failed, "%s: %v", row.Doing, r.Err)
	}
	pause := min(time.Second<<min(r.Tries, 6), time.Minute)
	if left := pause - in.Now.Sub(r.At); left > 0 {
		return wait(left, "%s: try %d of %d failed: %v", row.Doing, r.Tries, maxTries, r.Err)
	}
	return act(row.Act, "%s, try %d of %d", row.Doing, r.Tries+1, maxTries)
}

// advance is the usual end of a walk: the next phase.
func advance(in Input) func(actRow) Decision {
	return func(row actRow) Decision {
		say := row.Done
		if n := in.Seen.Results[row.Act].Note; n != "" {
			say += " (" + n + ")"
		}
		return phase(in, row.Next, "%s", say)
	}
}

// withAgent gets our agent onto the node (a boot session, then power off, boot device, power on, wait) and keeps it
// there: an agent that falls silent, or a machine that boots again, gets a new session, a bounded number of times.
// When the agent is there, work decides.
func withAgent(in Input, work func(Input) Decision) Decision {
	st, s := in.View.State.V, in.View.Session
	if !s.Exists() || s.V.Generation != st.Generation || s.V.Phase == inventory.SessionClosed || s.V.Phase == inventory.SessionBurnt {
		first := phaseOff
		if st.State == inventory.Inspecting { // wherever it comes from: it may have been cut off, and could not boot
			first = phaseProvide
		}
		return newSession(in, first, 0, "it needs the service OS")
	}
	if row, ok := actPhase(st.Work.Phase); ok && row.Next != "" && row.Phase != "attach" {
		return walk(in, row, advance(in))
	}
	if s.V.Phase == inventory.SessionArmed {
		return waitBoot(in)
	}
	heard := lastHeard(in)
	quiet := in.Now.Sub(heard)
	switch lost := orElse(in.Rules.Silence, time.Minute); {
	case in.Seen.AskedBoot.After(s.V.Redeemed.Add(time.Second)) && in.Seen.AskedBoot.After(in.Seen.Heard):
		return newSession(in, phaseOff, 2, "it booted again in the middle of its work")
	case quiet >= lost && st.Alive != inventory.Silent:
		return alive(in, inventory.Silent)
	case quiet >= lost: // written down first, acted on later: when many fall silent together, it is not the nodes
		if left := lost*3/2 - in.Now.Sub(later(in.Now, heard, in.Awake)); left > 0 {
			return wait(left, "its agent has been silent for %v; booted again after %v", quiet.Round(time.Second), lost*3/2)
		}
		return newSession(in, phaseOff, 2, "its agent has been silent for %v", quiet.Round(time.Second))
	case in.Seen.Heard.IsZero() || in.Seen.Session != s.V.ID:
		return wait(lost-quiet, "waiting for its agent to speak again")
	case st.Alive == inventory.Silent:
		return alive(in, inventory.Alive)
	default:
		d := work(in)
		if d.Again == 0 || d.Again > lost-quiet {
			d.Again = lost - quiet // nothing happens when an agent falls silent: somebody has to look
		}
		return d
	}
}

// lastHeard is when the node's agent was heard, or could first have been.
func lastHeard(in Input) time.Time {
	t := later(in.Now, past(in, in.View.Session.V.Redeemed), in.Started)
	if in.Seen.Session == in.View.Session.V.ID {
		t = later(in.Now, t, in.Seen.Heard)
	}
	return t
}

// waitBoot waits for the agent of an armed session.
func waitBoot(in Input) Decision {
	st := in.View.State.V
	if st.Work.Phase != phaseBoot {
		return phase(in, phaseOff, "its boot session is armed, power must be cycled for it")
	}
	patience := orElse(in.Rules.Patience, max(lifecycle.MinBoot, time.Duration(in.View.SKU.V.Boot)*3/2))
	waited := in.Now.Sub(later(in.Now, past(in, st.Work.Since), in.Started, in.Awake))
	how := "nothing heard from it yet: no DHCP request"
	switch {
	case in.Seen.AskedBoot.After(st.Work.Since):
		how = "it fetched its boot script"
	case in.Seen.AskedDHCP.After(st.Work.Since):
		how = "it asked for an address, not yet for its boot script"
	}
	if waited >= patience {
		return newSession(in, phaseOff, 1, "no agent after %v (%s)", patience, how)
	}
	return wait(min(patience-waited, 10*time.Second), "booting into the service OS; %s", how)
}

// ofThisStay says whether the node's boot session was made since it entered its state. Two records are compared, and no
// clocks: where one was set back between them, an order of times would have a new session made for ever.
func ofThisStay(in Input) bool {
	s, st := in.View.Session, in.View.State.V
	return s.Exists() && s.V.Purpose == string(st.State) && s.V.Generation == st.Generation && s.V.Since.Equal(st.Since)
}

// newSession writes a boot session, and the phase that begins it, in one transaction, before any power act. retries is
// how many sessions of the same purpose may follow the first; 0 is for a first one.
func newSession(in Input, first string, retries int, format string, a ...any) Decision {
	st, old := in.View.State.V, in.View.Session.V
	boots := 1
	if ofThisStay(in) {
		boots = old.Boots + 1
	}
	d := phase(in, first, format, a...)
	if boots > 1 && boots > 1+max(retries, 1) {
		return move(lifecycle.Failed, "%s; that was boot %d of %d", d.Say, boots-1, boots-1)
	}
	if boots > 1 {
		if remedies(in, "", remedyDay) >= maxADay {
			return move(lifecycle.Failed, "%s; it was helped %d times in 24 hours: a technician has to look", d.Say, maxADay)
		}
		d = remedied(in, d, remedyBoot)
	}
	d.Change.Session = &inventory.Session{
		Schema: inventory.Schema, ID: "s-" + in.ID, Node: in.View.ID, Generation: st.Generation, Purpose: string(st.State), Since: st.Since,
		Nonce: in.Nonce, TokenHash: in.Rules.Token("s-"+in.ID, in.Nonce), Phase: inventory.SessionArmed, Boots: boots,
		Created: in.Now, Expires: in.Now.Add(2 * max(lifecycle.MinBoot, time.Duration(in.View.SKU.V.Boot)*3/2)),
	}
	return d
}

// report is the agent's finished report of the order that the node's record names; nil while it works.
func report(in Input) *inventory.Report {
	r := in.Seen.Report
	if r == nil || r.Order == "" || r.Order != in.View.State.V.Work.Order || r.Session != in.View.Session.V.ID {
		return nil
	}
	return r
}

// working says how far the agent is with its order.
func working(in Input, doing string) Decision {
	p := in.Seen.Progress
	if p == nil || p.Total <= 0 {
		return wait(0, "%s", doing)
	}
	return wait(0, "%s: %s, %d of %d %s", doing, p.What, p.Done, p.Total, p.Unit)
}

// past is a time that a record tells, unless it is still to come: then a clock was wrong, and it says nothing.
func past(in Input, t time.Time) time.Time {
	if t.After(in.Now) {
		return time.Time{}
	}
	return t
}

// later is the one of several times that is least long ago. How long ago, and not which says the greater hour: what this
// daemon remembers was read from a clock that may have been set since, but what has passed since then is still known.
func later(now time.Time, times ...time.Time) time.Time {
	return slices.MinFunc(times, func(a, b time.Time) int { return cmp.Compare(now.Sub(a), now.Sub(b)) })
}

func orElse(d, other time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return other
}
