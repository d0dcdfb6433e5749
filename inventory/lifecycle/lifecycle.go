// Package lifecycle is the table of a node's states: what each means, which step works in it, how long it may take, and
// every edge as a row of its own with who may trigger it and what else changes with it.
//
// The reconciler, the API, the CLI, the dashboard, the docs' picture and the crash tests walk this table or are
// generated from it. To change the lifecycle, change table.go and nothing else. The package does not move nodes: ledger
// does, and it refuses whatever is not a row here.
package lifecycle

import (
	"fmt"
	"slices"
	"time"

	"github.com/hostler-project/hostler/inventory"
)

// An Event is what makes a node take an edge.
type Event string

// The events. Done, Failed and Timeout are a step's; the others are named for who or what asks.
const (
	Appear       Event = "appear"        // seen by DHCP, in a BMC lease, or imported
	Approve      Event = "approve"       // operator, or a manifest row with approve: auto whose chassis is off
	Adopt        Event = "adopt"         // a running machine enters with an existing claim
	Drift        Event = "drift"         // the step is done, but firmware is not at baseline
	Done         Event = "done"          // the step's work is done and proven
	DoneBurnIn   Event = "done-burn-in"  // done, and the node is new or back from repair
	Failed       Event = "failed"        // the step gave up
	Again        Event = "again"         // failed before hand-off: one retry
	Timeout      Event = "timeout"       // the state's deadline passed
	Recheck      Event = "recheck"       // test age near its limit, other image to stage, outdated service OS
	Lost         Event = "lost"          // silent, or another boot id
	Rollout      Event = "rollout"       // new firmware baseline
	Claim        Event = "claim"         // API transaction
	Confirm      Event = "confirm"       // API transaction
	Release      Event = "release"       // API transaction, end of term, reclaim
	Expire       Event = "expire"        // the reservation ran out before confirm
	DrainNow     Event = "drain-now"     // alert or operator
	Cancel       Event = "cancel"        // drain cancelled before its notice ended
	Service      Event = "service"       // holder's consent
	Reinstall    Event = "reinstall"     // holder's wish
	Emergency    Event = "emergency"     // leak, over-temperature
	ForceReclaim Event = "force-reclaim" // operator, with reason
	Quarantine   Event = "quarantine"    // alert, identity conflict, operator
	Abort        Event = "abort"         // operator
	Return       Event = "return"        // operator, or a "reboot solves it" rule
	ToRepair     Event = "to-repair"     // triage: hardware
	Repaired     Event = "repaired"      // technician: parts, serials, dispositions
	Maintain     Event = "maintain"      // operator, with reason
	Retire       Event = "retire"        // operator
	SeenAgain    Event = "seen-again"    // a retired serial appears and is approved
	Restored     Event = "restored"      // the record came back from a backup: what happened since is not known
)

// begins are the events that begin a round of a node's life. The others (a step's end, a claim) go on with what one of
// these set going.
var begins = []Event{Approve, Adopt, Recheck, Lost, Rollout, Confirm, Release, DrainNow, Service, Reinstall, Emergency, ForceReclaim, Return,
	Repaired, Retire, SeenAgain, Restored}

// Begins says whether an event is itself the cause of what follows.
func Begins(ev Event) bool { return slices.Contains(begins, ev) }

// starts are the events that lead to a power or destructive act: with the breaker open no node takes them. The others
// record what is (a step's end, a reservation that expired, a node put aside).
var starts = []Event{Approve, Recheck, Lost, Rollout, DrainNow, Service, Reinstall, Return, Repaired, Retire, SeenAgain, Timeout}

// Starts says whether an event is one of those that an open breaker holds up.
func Starts(ev Event) bool { return slices.Contains(starts, ev) }

// Urgent says whether what a cause set going waits for no breaker: an emergency.
func Urgent(cause string) bool { return cause == string(Emergency) }

// Who may make a node take an edge.
type Who string

// The reconciler moves nodes; claim, confirm and release are the API's three transactions. A restore moves every node once.
const (
	Reconciler Who = "reconciler"
	API        Who = "api"
	Restorer   Who = "hostlerd restore" // on a store that nobody else uses yet
)

// Effects of taking an edge, besides the state itself.
type Effects struct {
	Generation bool // generation rises: every order and session of before is void
	Taint      bool // media may hold somebody's data from now on
	Wipe       bool // wipe number rises: certificates of before are void
	EndClaim   bool // a claim on the node is closed in the same transaction
	Clean      bool // the taint goes: only out of sanitizing
	Jump       bool // generation and wipe rise by far (Jump): nobody knows how far they had come
}

// Jump is how far a restore raises generation and wipe: beyond all that the lost part of the record can have had.
const Jump = 1000

// A State row says what a state is.
type State struct {
	Name     inventory.State
	Means    string        // one sentence, for the CLI and the docs
	Step     string        // the step that works here; "" means nothing works here (yet): the node waits for somebody
	Deadline time.Duration // 0: a resting place
	Posts    int           // boots contained, each allowed max(30 min, 1.5 × p99) on top of Deadline
	Alarm    time.Duration // age at which a person is told; 0: never
	Rest     bool          // a resting place: stays until somebody wants something
	Owned    bool          // the tenant's: no power, boot or firmware act but by servicing, emergency, force-reclaim
	Destroys bool          // destructive orders may be given here, for the present generation
}

// An Edge is one way from a state to another.
type Edge struct {
	From inventory.State // "": the node did not exist
	On   Event
	To   inventory.State
	By   Who
	Why  string // what triggers it, in words
	Effects
}

// Find returns the edge that leaves from on ev.
func Find(from inventory.State, ev Event) (Edge, error) {
	for _, e := range Edges {
		if e.From == from && e.On == ev {
			return e, nil
		}
	}
	return Edge{}, fmt.Errorf("lifecycle: a node that is %s cannot take %q (possible: %v)", name(from), ev, Events(from))
}

// Get returns the row of a state; ok is false for one that this version does not know.
func Get(s inventory.State) (row State, ok bool) {
	i := slices.IndexFunc(States, func(r State) bool { return r.Name == s })
	if i < 0 {
		return State{}, false
	}
	return States[i], true
}

// Events lists what can happen to a node in a state.
func Events(from inventory.State) []Event {
	var out []Event
	for _, e := range Edges {
		if e.From == from {
			out = append(out, e.On)
		}
	}
	return out
}

// Exits lists the edges that leave a state.
func Exits(from inventory.State) []Edge {
	var out []Edge
	for _, e := range Edges {
		if e.From == from {
			out = append(out, e)
		}
	}
	return out
}

// MinBoot is the least that a boot is allowed, whatever the SKU says.
const MinBoot = 30 * time.Minute

// Allowed is how long a node may spend in a state: its deadline and a boot allowance for each POST in it. p99 is the
// SKU's boot time; override, when not 0, comes from the site's configuration and replaces the deadline part. 0 means for ever.
func Allowed(s inventory.State, p99, override time.Duration) time.Duration {
	row, ok := Get(s)
	if !ok {
		return 0
	}
	d := row.Deadline
	if override > 0 {
		return override
	}
	if d == 0 && row.Posts == 0 {
		return 0
	}
	return d + time.Duration(row.Posts)*max(MinBoot, p99*3/2)
}

func name(s inventory.State) string {
	if s == "" {
		return "new"
	}
	return string(s)
}
