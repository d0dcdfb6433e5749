package health

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hostler-project/hostler/inventory"
)

// A Verdict is what the Judge says about one incident.
type Verdict struct {
	ID       string    `json:"id"` // the incident: rule, part and unit
	Check    string    `json:"check"`
	Code     string    `json:"code,omitempty"`
	Part     Part      `json:"part"`
	Unit     string    `json:"unit,omitempty"`
	Severity Severity  `json:"severity"`
	Actions  []Action  `json:"actions"` // in the order of the ladder; empty is none
	What     string    `json:"what"`    // one plain sentence
	Next     string    `json:"next,omitempty"`
	Rule     string    `json:"rule"`   // row of the tables, and what changed its outcome: "xid/48+63"
	Source   string    `json:"source"` // where the row comes from, with its date
	Hardware bool      `json:"hardware,omitempty"`
	NoReboot bool      `json:"no_reboot,omitempty"` // power acts would destroy evidence, or hurt
	Boot     string    `json:"boot,omitempty"`
	Since    time.Time `json:"since"`
	Last     time.Time `json:"last"`
	Count    int64     `json:"count"`
	Evidence []string  `json:"evidence"`         // lines word for word: the first ones and the last
	Shadow   bool      `json:"shadow,omitempty"` // says what it would have done; leads to nothing
	Override string    `json:"override,omitempty"`
	Holds    bool      `json:"holds,omitempty"`   // a state that is still so, as the last poll saw it
	Until    time.Time `json:"until,omitzero"`    // it stands until then at least, unless it comes back
	Cleared  string    `json:"cleared,omitempty"` // it stands no more, and why
}

// Action is the strongest of the verdict's actions.
func (v Verdict) Action() Action { return Strongest(v.Actions) }

// Has says whether the verdict asks for an action.
func (v Verdict) Has(a Action) bool { return slices.Contains(v.Actions, a) }

// Alerts tells the inventory what verdicts mean, worst first. Those in shadow, and notices that ask for nothing, are left out.
func Alerts(verdicts []Verdict) []inventory.Alert {
	list := slices.Clone(verdicts)
	slices.SortStableFunc(list, func(a, b Verdict) int {
		if d := b.Severity.Rank() - a.Severity.Rank(); d != 0 {
			return d
		}
		if d := b.Action().Rank() - a.Action().Rank(); d != 0 {
			return d
		}
		return strings.Compare(a.ID, b.ID)
	})
	var out []inventory.Alert
	for _, v := range list {
		classes := v.Classes()
		if !v.Shadow && v.Cleared == "" && (len(classes) > 0 || v.Severity != Info) {
			out = append(out, inventory.Alert{ID: v.ID, Since: v.Since, Classes: classes, What: v.what(), Where: where(v), Next: v.Next,
				Severity: string(v.Severity), Actions: words(v.Actions), Rule: v.Rule + ", " + v.Source, Count: v.Count, Evidence: v.Evidence})
		}
	}
	return out
}

// Classes are the alert classes of a verdict.
func (v Verdict) Classes() []string {
	if v.Shadow || v.Cleared != "" {
		return nil
	}
	var out []string
	add := func(when bool, class string) {
		if when {
			out = append(out, class)
		}
	}
	a := v.Action()
	add(v.Severity == Fatal || a.Rank() >= DrainIdle.Rank(), inventory.PreventAllocation)
	add(!v.drainsNow() && a.Rank() >= DrainIdle.Rank(), inventory.DrainWhenIdle)
	add(v.drainsNow(), inventory.DrainNow)
	add(a == QuarantineRMA, inventory.PreventTransition)
	add(v.NoReboot, inventory.NoAutoReboot)
	add(v.Has(TellTenant) || v.drainsNow(), inventory.TenantVisible)
	if len(out) > 0 {
		add(v.Hardware, inventory.HardwareAlert)
	}
	return out
}

// drainsNow says whether the lease has to end. Work on the machine does not wait for the tenant where the fault is fatal,
// unless the row says that it does.
func (v Verdict) drainsNow() bool {
	return v.Has(DrainNow) || v.Severity == Fatal && !v.Has(DrainIdle) && v.Action().Rank() > DrainNow.Rank()
}

func (v Verdict) what() string {
	if v.Count > 1 {
		return fmt.Sprintf("%s (%d times)", v.What, v.Count)
	}
	return v.What
}

func where(v Verdict) string {
	if v.Unit != "" {
		return v.Part.Where() + ", " + v.Unit
	}
	return v.Part.Where()
}

func words(actions []Action) []string {
	var out []string
	for _, a := range actions {
		out = append(out, string(a))
	}
	return out
}
