package inventory

import (
	"fmt"
	"time"
)

// The budgeted activities: what a node does that must not happen to too many nodes at once.
const (
	Booting    = "boot"    // its power is switched, and a boot is waited for
	Destroying = "destroy" // its media are erased or written
)

// ActivityList are the budgeted activities, in the order in which they are shown.
var ActivityList = []string{Booting, Destroying}

// activities says which phases of a step are a budgeted activity. A phase is written before the act that it announces,
// so a node counts from before its first act until it is past the last.
var activities = map[string]string{
	"isolate": Booting, "fenced-off": Booting, "provisioning-network": Booting,
	"power-off": Booting, "boot-device": Booting, "power-on": Booting, "boot": Booting,
	"power":       Booting, // a person's wish
	OrderSanitize: Destroying,
	OrderWrite:    Destroying,
}

// Activity is the budgeted activity of a node: "" for none. It follows from the state record alone.
func Activity(st NodeState) string { return activities[st.Work.Phase] }

// Limits say how much may happen at once, and when too much has gone wrong (KeyLimits; declared from site.yaml).
type Limits struct {
	Schema  int          `json:"schema" yaml:"-"`
	Boot    Limit        `json:"boot" yaml:"boot"`
	Destroy Limit        `json:"destroy" yaml:"destroy"`
	Breaker BreakerLimit `json:"breaker" yaml:"breaker"`
}

// A Limit is how many nodes may be in one activity at once. In a rack it is the larger of Rack and RackPercent of its
// nodes; both 0 is no limit of its own, and so is Cause 0.
type Limit struct {
	Site        int `json:"site" yaml:"site"`
	Rack        int `json:"rack" yaml:"rack"`
	RackPercent int `json:"rack_percent" yaml:"rack_percent"`
	Cause       int `json:"cause" yaml:"cause"` // sent there by the same cause; tenants' own wishes are no such cause
}

// A BreakerLimit says when the breaker opens: more than the larger of Nodes and Percent of all nodes became unhealthy
// within Within.
type BreakerLimit struct {
	Percent int      `json:"percent" yaml:"percent"`
	Nodes   int      `json:"nodes" yaml:"nodes"`
	Within  Duration `json:"within" yaml:"within"`
}

// DefaultLimits hold where nobody declared any.
func DefaultLimits() Limits {
	return Limits{Schema: Schema,
		Boot:    Limit{Site: 20, Rack: 2, RackPercent: 5, Cause: 10},
		Destroy: Limit{Site: 40, Rack: 4, RackPercent: 25, Cause: 20},
		Breaker: BreakerLimit{Percent: 3, Nodes: 5, Within: Duration(10 * time.Minute)},
	}
}

// LimitsIn reads the limits in force: a record that is not there or not readable is no permission, the defaults hold.
func LimitsIn(kv KV) Limits {
	d, err := Decode[Limits](kv)
	if err != nil || !d.Exists() {
		return DefaultLimits()
	}
	return d.V
}

// For gives the limit of an activity.
func (l Limits) For(activity string) Limit {
	if activity == Destroying {
		return l.Destroy
	}
	return l.Boot
}

// InRack is how many nodes of a rack with so many may be in the activity at once; 0 is no limit.
func (l Limit) InRack(nodes int) int { return max(l.Rack, nodes*l.RackPercent/100) }

// Threshold is how many nodes may become unhealthy without opening the breaker, in a fleet of so many.
func (b BreakerLimit) Threshold(nodes int) int { return max(b.Nodes, nodes*b.Percent/100) }

// A Budget is what KeyBudget holds: the last node that entered an activity. Every transaction that lets a node enter one
// compares and rewrites it, so whoever counted before somebody else's entry counts again, and the count at every
// revision is right with any number of replicas. Leaving an activity needs nothing.
type Budget struct {
	Schema   int    `json:"schema"`
	Node     string `json:"node"`
	Activity string `json:"activity"`
}

// A Usage counts the nodes in each activity: per site, rack and cause. It is told of every change of a node and answers
// in constant time. The reconciler counts with it, and so does whoever checks the reconciler.
type Usage struct {
	nodes  map[string]using
	racks  map[string]int // nodes in each rack, whatever they do
	counts map[using]int
}

// using is what one node takes; as a key of counts, fields that are "" stand for all.
type using struct{ activity, rack, cause string }

// NewUsage makes one that knows of no node.
func NewUsage() *Usage {
	return &Usage{nodes: map[string]using{}, racks: map[string]int{}, counts: map[using]int{}}
}

// SetRack tells in which rack a node is.
func (u *Usage) SetRack(id, rack string) {
	n := u.nodes[id]
	if n.rack != rack {
		if n.rack != "" {
			u.racks[n.rack]--
		}
		if rack != "" {
			u.racks[rack]++
		}
	}
	u.set(id, using{n.activity, rack, n.cause})
}

// SetState tells what a node does.
func (u *Usage) SetState(id string, st NodeState) {
	u.set(id, using{Activity(st), u.nodes[id].rack, st.Cause})
}

func (u *Usage) set(id string, now using) {
	u.Add(u.nodes[id].activity, u.nodes[id].rack, u.nodes[id].cause, -1)
	u.Add(now.activity, now.rack, now.cause, 1)
	u.nodes[id] = now
}

// Add counts n more places of an activity as taken, without saying by which node.
func (u *Usage) Add(activity, rack, cause string, n int) {
	if activity == "" {
		return
	}
	u.counts[using{activity: activity}] += n
	if rack != "" {
		u.counts[using{activity: activity, rack: rack}] += n
	}
	if budgetedCause(cause) {
		u.counts[using{activity: activity, cause: cause}] += n
	}
}

// Count is how many nodes are in an activity at the site.
func (u *Usage) Count(activity string) int { return u.counts[using{activity: activity}] }

// Full says, in words, which limit leaves no room for one more node; "" when there is room.
func (u *Usage) Full(l Limits, activity, rack, cause string) string {
	return u.beyond(l, using{activity, rack, cause}, 1)
}

// Over says, in words, which limit is exceeded where a node is; "" when none is. It is meant for the moment at which a
// node entered its activity: a limit that was lowered, or a rack that shrank, sends nobody out.
func (u *Usage) Over(l Limits, id string) string { return u.beyond(l, u.nodes[id], 0) }

// beyond says which limit would be exceeded by more nodes of a kind.
func (u *Usage) beyond(l Limits, n using, more int) string {
	if n.activity == "" {
		return ""
	}
	lim := l.For(n.activity)
	if c := u.Count(n.activity); c+more > lim.Site {
		return fmt.Sprintf("%d of %d %s at once are running at the site", c, lim.Site, doings[n.activity])
	}
	if most := lim.InRack(u.racks[n.rack]); n.rack != "" && most > 0 {
		if c := u.counts[using{activity: n.activity, rack: n.rack}]; c+more > most {
			return fmt.Sprintf("%d of %d %s at once are running in rack %s", c, most, doings[n.activity], n.rack)
		}
	}
	if lim.Cause > 0 && budgetedCause(n.cause) {
		if c := u.counts[using{activity: n.activity, cause: n.cause}]; c+more > lim.Cause {
			return fmt.Sprintf("%d of %d %s at once are running for the same cause, %s", c, lim.Cause, doings[n.activity], n.cause)
		}
	}
	return ""
}

var doings = map[string]string{Booting: "boots", Destroying: "erasures and writes"}

// budgetedCause says whether nodes sent on their way by a cause are limited by that. Tenants who confirm and release are
// the business of the site: they have its limit and their rack's.
func budgetedCause(cause string) bool { return cause != "" && cause != "confirm" && cause != "release" }
