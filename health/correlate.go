package health

import (
	"slices"
	"strings"
	"time"
)

// near says whether an incident was seen within d of a time.
func (inc *incident) near(t time.Time, d time.Duration) bool {
	return !inc.V.Since.After(t.Add(d)) && !inc.V.Last.Before(t.Add(-d))
}

// on are the other incidents on the part of one.
func (j *Judge) on(p Part, not string, want func(*incident) bool) []*incident {
	var out []*incident
	for _, inc := range j.list {
		if inc.V.ID != not && inc.V.Part.Key() == p.Key() && want(inc) {
			out = append(out, inc)
		}
	}
	return out
}

// worst of some incidents by their own rows; nil for none.
func (j *Judge) worst(list []*incident) *incident {
	var best *incident
	for _, inc := range list {
		if best == nil {
			best = inc
			continue
		}
		a, b := j.row(inc.S), j.row(best.S)
		if worse(a.Severity, a.Actions, b.Severity, b.Actions) || !worse(b.Severity, b.Actions, a.Severity, a.Actions) && inc.V.ID < best.V.ID {
			best = inc
		}
	}
	return best
}

// followed is the incident that decides another: one of those that its rule waits for, on the same part, near enough.
func (j *Judge) followed(inc *incident, r Rule) *incident {
	back := r.Back
	if back == 0 {
		back = FollowFor
	}
	rules := strings.Fields(r.Follow)
	return j.worst(j.on(inc.V.Part, inc.V.ID, func(o *incident) bool {
		return slices.Contains(rules, o.S.Rule()) && !o.V.Since.After(inc.V.Since.Add(FollowFor)) && !o.V.Last.Before(inc.V.Since.Add(-back))
	}))
}

// neighbour is the incident that a line of details belongs to.
func (j *Judge) neighbour(s Signal, r Rule) *incident {
	var best *incident
	for _, inc := range j.on(s.Part, "", func(o *incident) bool {
		rule := o.S.Rule()
		wanted := rule == s.Rule() // registers and data of the line before
		if s.Value != LineDetail {
			wanted = rule != s.Rule() && (rule == r.Attach || r.Attach == anyXID && o.S.Check == CheckXID)
		}
		return wanted && o.near(s.At, nearby)
	}) {
		if best == nil || inc.V.Last.After(best.V.Last) {
			best = inc
		}
	}
	return best
}

// twin says whether a signal is an event that another reader has told already: NVML and the log both tell of XIDs, and
// only the log knows the unit. The log's word replaces NVML's.
func (j *Judge) twin(s Signal) bool {
	if s.Check != CheckXID {
		return false
	}
	for _, o := range j.on(s.Part, "", func(o *incident) bool {
		return o.S.Rule() == s.Rule() && o.S.Reader != s.Reader && o.near(s.At, sameEvent)
	}) {
		switch {
		case s.Unit == "" || o.V.ID == s.Incident():
			o.add(s)
			return true
		case o.V.Unit == "" && o.V.Count == 1:
			j.forget(o)
		}
	}
	return false
}

// recovery is NVIDIA's own verdict on the part of an XID incident whose remedy it is to choose.
func (j *Judge) recovery(inc *incident) *Rule {
	if inc.S.Check != CheckXID {
		return nil
	}
	switch inc.V.Action() {
	case ResetGPU, Reboot, PowerCycle:
	default:
		return nil
	}
	for _, o := range j.on(inc.V.Part, inc.V.ID, func(o *incident) bool { return o.S.Check == CheckRecovery && o.V.Holds }) {
		r := j.row(o.S)
		return &r
	}
	return nil
}

// others ends what the driver asked for before, when it asks for something else.
func (j *Judge) others(s Signal, now time.Time) []Verdict {
	var out []Verdict
	for _, o := range j.on(s.Part, s.Incident(), func(o *incident) bool { return o.S.Check == CheckRecovery && o.V.Holds }) {
		out = append(out, j.good(o, s.At, now)...)
	}
	return out
}

// around works the neighbours of an incident out anew, whose outcome it may have changed.
func (j *Judge) around(inc *incident, now time.Time) []Verdict {
	var out []Verdict
	for _, o := range j.sorted() {
		near := o.V.Part.Key() == inc.V.Part.Key() || !o.Ask.IsZero() || o.S.Check == CheckSXid && (inc.S.Check == "G29" || inc.S.Check == "G25")
		if o == inc || !near {
			continue
		}
		before := o.V
		j.evaluate(o)
		if before.Severity != o.V.Severity || !slices.Equal(before.Actions, o.V.Actions) || before.Rule != o.V.Rule {
			o.untold = true
			out = append(out, j.settle(o, now)...)
		}
	}
	return out
}

// fabricIll says whether a GPU finds its NVLink fabric ill: the word of a switch that may be fatal then is.
func (j *Judge) fabricIll() bool {
	for _, inc := range j.list {
		if inc.V.Holds && (inc.S.Check == "G29" || inc.S.Check == "G25") {
			return true
		}
	}
	return false
}

// alone says whether no other XID is on a part around a time.
func (j *Judge) alone(p Part, rule string, at time.Time) bool {
	return len(j.on(p, "", func(o *incident) bool { return o.S.Check == CheckXID && o.S.Rule() != rule && o.near(at, nearby) })) == 0
}

// confirmed says whether something that holds now agrees with an old incident: on its part, or that a GPU is missing or the
// driver stuck.
func (j *Judge) confirmed(inc *incident) bool {
	for _, o := range j.list {
		here := o.V.Part.Key() == inc.V.Part.Key() || o.S.Check == "G1" || o.S.Check == "G3" && o.S.Code != "blind"
		if o != inc && o.V.Holds && here && o.V.Severity != Info {
			return true
		}
	}
	return false
}

// denied says whether the part was looked at since the incident, and is good.
func (j *Judge) denied(inc *incident) bool {
	at, ok := j.looked(inc.V.Part)
	return ok && at.After(inc.V.Last) && !j.confirmed(inc)
}

// manyFatal takes five fatal XIDs within a day on one GPU for what it is. Lines of one incident count once in ten minutes.
func (j *Judge) manyFatal(inc *incident, s Signal, now time.Time) []Verdict {
	if s.Check != CheckXID || inc.V.Severity != Fatal || s.Old {
		return nil
	}
	m := Signal{Check: "K", Code: "many-fatal", Part: inc.V.Part, Mark: Event, At: s.At, Boot: s.Boot, Reader: "judge", Line: s.Line}
	key, o := pastKey(m.Rule(), "", m.Part, ""), occurrence{s.At, inc.V.ID}
	if !j.past.add(key, o, tenMinutes, true) {
		return nil
	}
	j.journal.past(key, o)
	n := 0
	for _, o := range j.past[key].at {
		if now.Sub(o.At) < day {
			n++
		}
	}
	if n < 5 {
		return nil
	}
	many, _ := j.find(m, j.row(m))
	j.evaluate(many)
	return j.settle(many, now)
}
