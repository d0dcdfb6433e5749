package health

import (
	"slices"
	"strings"
	"time"
)

// An incident is one fault as the Judge keeps it: everything with the same rule, part and unit in one boot.
type incident struct {
	V            Verdict   `json:"v"`
	S            Signal    `json:"s"` // the worst of its signals; it decides
	Seq          uint64    `json:"seq,omitempty"`
	Wait         time.Time `json:"wait,omitzero"`     // others may decide it until then
	Ask          time.Time `json:"ask,omitzero"`      // it is old: the present state is asked until then
	Denied       bool      `json:"denied,omitempty"`  // it is old, and the present state is good
	Doubted      bool      `json:"doubted,omitempty"` // it is old, and nobody could say
	Ended        time.Time `json:"ended,omitzero"`    // seen good
	Good         time.Time `json:"good,omitzero"`     // seen good, the last time
	Told         time.Time `json:"told,omitzero"`
	ToldSeverity Severity  `json:"told_severity,omitempty"`
	ToldActions  []Action  `json:"told_actions,omitempty"`
	Floor        *Rule     `json:"floor,omitempty"` // the worst that was folded into it
	untold       bool
}

func newIncident(id string, s Signal) *incident {
	inc := &incident{S: s, V: Verdict{ID: id, Check: s.Check, Code: s.Code, Part: s.Part, Unit: s.Unit, Boot: s.Boot, Since: s.At}}
	inc.count(s)
	return inc
}

// count adds a signal to an incident.
func (inc *incident) count(s Signal) {
	inc.V.Count += 1 + s.More
	if s.Mark == Holds && inc.V.Holds {
		inc.V.Count -= 1 + s.More // the same state, seen again
	}
	inc.untold = inc.untold || s.Mark != Holds || !inc.V.Holds
	inc.V.Holds = s.Mark == Holds
	inc.Ended, inc.Good, inc.V.Until = time.Time{}, time.Time{}, time.Time{}
	if s.At.After(inc.V.Last) {
		inc.V.Last = s.At
	}
	inc.Seq = max(inc.Seq, s.Seq)
	inc.add(s)
}

// add keeps the first lines of an incident, and the last.
func (inc *incident) add(s Signal) {
	line := s.Line
	if line == "" && s.Value != "" {
		line = s.Reader + ": " + s.Value
	}
	e := inc.V.Evidence
	if line == "" || slices.Contains(e, line) {
		return
	}
	if len(e) < maxEvidence {
		inc.V.Evidence = append(slices.Clip(e), line)
		return
	}
	e = slices.Clone(e)
	e[maxEvidence-1] = line
	inc.V.Evidence = e
}

func (inc *incident) floor(r Rule) {
	if inc.Floor == nil || worse(r.Severity, r.Actions, inc.Floor.Severity, inc.Floor.Actions) {
		inc.Floor = &r
	}
}

// due says whether a time has come that changes the outcome.
func (inc *incident) due(now time.Time) bool {
	return !inc.Wait.IsZero() && !now.Before(inc.Wait) || !inc.Ask.IsZero() && !now.Before(inc.Ask)
}

// told is the verdict as it goes out.
func (inc *incident) told() Verdict {
	v := inc.V
	v.Evidence, v.Actions = slices.Clone(v.Evidence), slices.Clone(v.Actions)
	return v
}

// evaluate works out an incident anew from what is known. The order is NVIDIA's recovery action, the table, how signals go
// together, how often they come; the site's own word comes last, over all.
func (j *Judge) evaluate(inc *incident) {
	now := j.now()
	r, v := j.row(inc.S), &inc.V
	name, source := inc.S.Rule(), r.Source
	v.Severity, v.Actions, v.Next, v.Hardware, v.NoReboot, v.What = r.Severity, r.Actions, r.Next, r.Hardware, r.NoReboot, what(inc.S, r)
	v.Check, v.Code = inc.S.Check, inc.S.Code
	if a, n := j.past.again(inc.S, r, v.Part, now, j.alone); a != nil {
		v.Severity, v.Actions, v.Next = a.Severity, a.Actions, orElse(a.Next, v.Next)
		name += " " + n
	}
	if r.Follow != "" {
		if !inc.Wait.IsZero() && !now.Before(inc.Wait) {
			inc.Wait = time.Time{}
		}
		if by := j.followed(inc, r); by != nil {
			o := j.row(by.S)
			v.Severity, v.Actions, v.Next = o.Severity, o.Actions, orElse(o.Next, v.Next)
			name += " with " + by.S.Rule()
		} else if !inc.Wait.IsZero() {
			v.Severity, v.Actions = Degraded, []Action{DrainIdle}
			name += ", waiting for " + strings.ReplaceAll(r.Follow, " ", ", ")
		}
	}
	if rec := j.recovery(inc); rec != nil {
		v.Severity, v.Actions, v.Next, source = rec.Severity, rec.Actions, orElse(rec.Next, v.Next), rec.Source
		name += " as " + rec.Check + "/" + rec.Code
	}
	if f := inc.Floor; f != nil && worse(f.Severity, f.Actions, v.Severity, v.Actions) {
		v.Severity, v.Actions = f.Severity, f.Actions
	}
	name += j.present(inc, now)
	if v.Next == "" {
		v.Next = nextAct(Strongest(v.Actions))
	}
	v.Rule, v.Source, v.Shadow, v.Override = name, source, false, ""
	for _, o := range j.overrides {
		if o.Rule == inc.S.Rule() && now.Before(o.Expires) {
			v.Override = o.Actor + " until " + o.Expires.UTC().Format(time.RFC3339) + ": " + o.Reason
			v.Shadow = o.Shadow
			if o.Severity != "" {
				v.Severity, v.Actions = o.Severity, o.Actions
			}
		}
	}
}

// present weighs an incident that is older than the reader: it counts as far as the present state agrees.
func (j *Judge) present(inc *incident, now time.Time) string {
	v := &inc.V
	if inc.Ask.IsZero() && !inc.Denied && !inc.Doubted {
		return ""
	}
	if !inc.Ask.IsZero() {
		switch {
		case j.confirmed(inc):
			inc.Ask = time.Time{}
			return ", old and still so"
		case j.denied(inc):
			inc.Ask, inc.Denied = time.Time{}, true
		case !now.Before(inc.Ask):
			inc.Ask, inc.Doubted = time.Time{}, true
		}
	}
	if inc.Doubted { // nobody can say how it is now
		if v.Severity.Rank() > Degraded.Rank() || v.Action().Rank() > DrainIdle.Rank() {
			v.Severity, v.Actions = Degraded, []Action{DrainIdle}
		}
		return ", old; how it is now is not known"
	}
	v.Severity, v.Actions = Info, nil
	if inc.Denied {
		return ", old; it is good now"
	}
	return ", old; how it is now is being asked"
}

func what(s Signal, r Rule) string {
	out := r.Means
	switch s.Check {
	case CheckXID:
		out = "XID " + s.Code + ": " + out
	case CheckSXid:
		out = "SXid " + s.Code + ": " + out
	}
	if s.Value != "" && s.Value != LineFatal && s.Value != LineNonfatal && s.Value != LineCorrectable {
		out += ": " + s.Value
	}
	return out
}

// nextAct is what a technician does where the row says nothing of its own.
func nextAct(a Action) string {
	switch a {
	case None, TellTenant:
		return ""
	case DrainIdle, DrainNow:
		return "wait until the machine is free, then run the burn-in"
	case ResetGPU:
		return "nothing by hand: the GPU is reset, then tested"
	case Reboot, PowerCycle:
		return "nothing by hand: the machine is restarted, then tested"
	case Firmware:
		return "install the version that the SKU allows, then run the burn-in"
	}
	return rma
}

func orElse(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
