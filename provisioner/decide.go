package provisioner

import (
	"fmt"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/ledger"
	"github.com/hostler-project/hostler/inventory/lifecycle"
)

// An Act is something done to the outside world. Each can be repeated, and reports what was observed after it.
type Act string

// The acts.
const (
	ReadPower    Act = "read-power"    // observe only
	PowerOff     Act = "power-off"     // off, confirmed
	PowerOn      Act = "power-on"      // on, confirmed
	PowerCycle   Act = "power-cycle"   // off, confirmed, then on, confirmed
	BootNetwork  Act = "boot-network"  // next boot from the network, read back
	BootDisk     Act = "boot-disk"     // every boot from disk, read back
	FenceIsolate Act = "fence-isolate" // cut off from every network, observed
	FenceProvide Act = "fence-provide" // on the provisioning network only, observed
	FenceAttach  Act = "fence-attach"  // on its tenant's network, observed
)

// A Result is what an act led to.
type Result struct {
	At    time.Time
	Tries int
	Power string // on, off, unknown; where the act looked
	Note  string // what the controller did not keep, in words
	Err   error
	Fatal bool // trying again cannot help: wrong credentials, another machine's serial
}

// Seen is what this daemon saw of a node since it started; nothing in it must survive a restart.
type Seen struct {
	Session   string // the session that the agent spoke for
	Heard     time.Time
	BootID    string
	Progress  *inventory.Progress
	Report    *inventory.Report // the finished order's report
	Told      time.Time         // the agent was told to enter
	AskedDHCP time.Time
	AskedBoot time.Time // it asked for its boot script
	PhoneHome *PhoneHome
	Counted   time.Duration  // of the state's deadline, since the record was last written
	Held      time.Duration  // of the reservation's hold, since it was last granted
	Results   map[Act]Result // of acts of the present history number
	Busy      Act            // the act that is being performed
}

// PhoneHome is the tenant's system saying that it is up.
type PhoneHome struct {
	Instance string
	Address  string
	HostKeys []string
	At       time.Time
}

// Input is all that a decision depends on.
type Input struct {
	Now     time.Time
	Started time.Time // of this daemon: silence before it is nobody's fault
	Awake   time.Time // since when time has counted without a break: what would have been late before is not
	View    inventory.NodeView
	Rev     int64 // the copy's revision
	Seen    Seen
	Holder  func(kind, value string) string      // the node that an identity belongs to
	Found   func(kind, value string) []string    // the nodes that were found to have an identity; nil: nobody counted
	Other   func(node string) inventory.NodeView // another node as it stands; nil: nobody can look
	ID      string                               // a fresh ULID, should the decision need one
	Nonce   string                               // fresh randomness, likewise
	Rules   *Rules
	Breaker inventory.Breaker
	Turn    func(activity string) string // why the node must wait before it begins an activity; nil: it need not
}

// Rules are what the site's configuration and keys decide.
type Rules struct {
	Patience   time.Duration // for one boot into the service OS; 0: max(30 min, 1.5 × the SKU's p99)
	Silence    time.Duration // after which an agent counts as silent; 0: 60 s
	Lost       time.Duration // after which a silent ready node is inspected again; 0: 5 min
	Readiness  time.Duration // after which a tenant system that did not answer is told so; 0: 30 min
	Fence      string        // driver's name; none where there is none
	Site       string
	ChunkBase  func(v inventory.NodeView, image string) string                // where the agent fetches an image
	TrustedKey func(image string) string                                      // the key that signed it
	Token      func(session, nonce string) (hash string)                      // hash of a session's token
	Sign       func(inventory.CertificateBody) (inventory.Certificate, error) // certificates
	Compare    func(inventory.SKU, inventory.Hardware) []string               // mismatches, in words
	Address    func(inventory.Spec) string                                    // a node's address on the tenant network
}

// A Decision is one thing. Say is always filled: what the node waits for, or why the rest is done.
type Decision struct {
	Say   string
	Again time.Duration // look again after this long at the latest; 0: when something changes

	Act      Act             // perform this
	Event    lifecycle.Event // move along this edge
	Note     bool            // write progress (Change.Edit and what belongs to it)
	Offer    bool
	Withdraw bool
	EndClaim bool
	Raise    *Raise
	Change   ledger.Change // of Event, Note, EndClaim

	Liveness string // this writes that the node's agent is so
	Starts   bool   // it starts what an open breaker would hold up
	Held     bool   // the open breaker holds it up
	Enters   string // the budgeted activity that this begins
	For      string // the one that it waits for
	Still    string // why the deadline stands still meanwhile
}

const actor = "hostlerd"

// Constructors, so that steps read as sentences.

func wait(again time.Duration, format string, a ...any) Decision {
	return Decision{Say: words(format, a...), Again: again}
}

func act(a Act, format string, args ...any) Decision {
	return Decision{Act: a, Say: words(format, args...)}
}

// words are what is said and kept: what agents and controllers said is part of it, and must neither outgrow the record,
// which could then not be written at all, nor do anything to a terminal.
func words(format string, a ...any) string { return inventory.Plain(fmt.Sprintf(format, a...), 2000) }

func move(ev lifecycle.Event, format string, a ...any) Decision {
	say := words(format, a...)
	return Decision{Event: ev, Say: say, Change: ledger.Change{Actor: actor, Reason: say}}
}

// phase writes that the step enters a phase, before the act that the phase stands for.
func phase(in Input, name, format string, a ...any) Decision {
	say := words(format, a...)
	return Decision{Note: true, Say: say, Change: ledger.Change{Actor: actor, Reason: say, Edit: func(st *inventory.NodeState) {
		st.Work = inventory.Work{Phase: name, Since: in.Now, Note: say}
	}}}
}

// startOrder writes that the agent has an order to do; its id is made from the history number, so it is never reused.
func startOrder(in Input, kind string, try int, format string, a ...any) Decision {
	d := phase(in, kind, format, a...)
	d.Change.Edit = func(st *inventory.NodeState) {
		st.Work = inventory.Work{Phase: kind, Since: in.Now, Try: try, Note: d.Say, Order: fmt.Sprintf("%s.%d", kind, st.Seq+1)}
	}
	return d
}

// waits says whether a decision is to do nothing now.
func (d Decision) waits() bool {
	return d.Act == "" && d.Event == "" && !d.Note && !d.Offer && !d.Withdraw && !d.EndClaim
}

// then adds an edit after the one that a decision has.
func (d Decision) then(edit func(*inventory.NodeState)) Decision {
	before := d.Change.Edit
	d.Change.Edit = func(st *inventory.NodeState) {
		if before != nil {
			before(st)
		}
		edit(st)
	}
	return d
}

// steps says which function does which step of the lifecycle table.
var steps = map[string]func(Input) Decision{
	"discovered": stepDiscovered,
	"inspect":    stepInspect,
	"sanitize":   stepSanitize,
	"test":       stepTest,
	"ready":      stepReady,
	"reserved":   stepReserved,
	"provision":  stepProvision,
	"in-use":     stepInUse,
	"drain":      stepDrain,
	"fence":      stepFence,
	"quarantine": stepQuarantine,
}

// Decide says the one thing to do about a node now. It is pure: the same input gives the same decision.
func Decide(in Input) Decision {
	v := in.View
	if v.Broken != nil {
		return wait(0, "read-only: %v", v.Broken)
	}
	row, known := lifecycle.Get(v.State.V.State)
	if !known {
		return wait(0, "read-only: state %q is not known to this version; upgrade hostlerd", v.State.V.State)
	}
	d := decide(in, row)
	d.Change.Unwell = unwell(in, d)
	if d = held(in, d); d.Held {
		return d
	}
	return limited(in, d)
}

func decide(in Input, row lifecycle.State) Decision {
	v := in.View
	if d, ok := decideWish(in); ok {
		return d
	}
	if s := v.Session; s.Exists() && s.V.Phase == inventory.SessionBurnt && !row.Owned {
		if _, err := lifecycle.Find(row.Name, lifecycle.Quarantine); err == nil && s.V.Generation == v.State.V.Generation {
			return move(lifecycle.Quarantine, "its boot session was burnt: %s", s.V.Reason)
		}
	}
	if a := v.Alerts(inventory.PreventTransition); len(a) > 0 {
		if _, err := lifecycle.Find(row.Name, lifecycle.Quarantine); err == nil {
			return move(lifecycle.Quarantine, "alert %s: %s", a[0].ID, a[0].What)
		}
	}
	d := wait(0, "%s", row.Means)
	if f := steps[row.Step]; f != nil {
		d = f(in)
	}
	if left, timed := Left(in); timed && left <= 0 && d.Event == "" {
		d = move(lifecycle.Timeout, "deadline of %v passed; last: %s", time.Duration(v.State.V.Allowed), d.Say)
	} else if look := min(left, lookAgain); timed && (d.Again == 0 || d.Again > look) {
		d.Again = look
	}
	return tellTenant(in, d)
}

// lookAgain is how often at least a node with a deadline is looked at: time that nobody looked at does not count.
const lookAgain = time.Minute

// Left is how much of the state's deadline is left; timed is false where the node may stay for ever.
func Left(in Input) (left time.Duration, timed bool) {
	st := in.View.State.V
	if st.Allowed == 0 {
		return 0, false
	}
	return time.Duration(st.Allowed) - time.Duration(st.Spent) - in.Seen.Counted, true
}
