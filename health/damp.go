package health

import "time"

// How a fault is let go of (health-checks.md section 6, point 8). A notice after ten minutes without it. A degraded state,
// when its reader sees it good for ten minutes, and at their end still; a degraded event that asks for no more than a
// drain, when the part was looked at after ten minutes and is good. Whatever is fatal, or asks for work on the machine,
// only by a passed burn-in. Each time that it comes back within a week the ten minutes become an hour, then twelve.

// holds are the times that a fault stands after it was last seen, by how often it came back.
func holdFor(returns int) time.Duration {
	return []time.Duration{tenMinutes, time.Hour, 12 * time.Hour}[min(returns, 2)]
}

// ended takes a signal that something is good.
func (j *Judge) ended(s Signal, now time.Time) []Verdict {
	if s.Check == CheckRecovery { // the driver asks for nothing: none of its codes holds
		return j.others(Signal{Check: s.Check, Part: s.Part, At: s.At}, now)
	}
	inc := j.list[s.Incident()]
	if inc == nil {
		return nil
	}
	return j.good(inc, s.At, now)
}

// good notes that an incident was seen good.
func (j *Judge) good(inc *incident, at, now time.Time) []Verdict {
	inc.Good = at
	if !inc.V.Holds {
		return nil
	}
	inc.V.Holds, inc.Ended, inc.untold = false, at, true
	inc.V.Until = at.Add(holdFor(j.returns(inc, now)))
	j.evaluate(inc)
	return append(j.settle(inc, now), j.around(inc, now)...)
}

// returns is how often an incident came back within a week; it is called once when it ends, and counts that.
func (j *Judge) returns(inc *incident, now time.Time) int {
	key := "ended " + inc.V.ID
	n := 0
	if t := j.past[key]; t != nil {
		for _, o := range t.at {
			if now.Sub(o.At) < 7*day {
				n++
			}
		}
	}
	o := occurrence{At: now}
	j.past.add(key, o, 0, false)
	j.journal.past(key, o)
	return n
}

// clear lets go of an incident that is over.
func (j *Judge) clear(inc *incident, now time.Time) (bool, Verdict) {
	v := &inc.V
	if v.Holds || !inc.Wait.IsZero() || !inc.Ask.IsZero() {
		return false, Verdict{}
	}
	if v.Until.IsZero() {
		if quiet := now.Sub(v.Last); quiet < tenMinutes {
			return false, Verdict{}
		}
		v.Until = v.Last.Add(holdFor(j.returns(inc, now)))
	}
	if now.Before(v.Until) {
		return false, Verdict{}
	}
	switch {
	case v.Severity == Info && v.Action().Rank() <= TellTenant.Rank():
	case v.Severity == Fatal, v.Action().Rank() >= ResetGPU.Rank():
		return false, Verdict{} // by burn-in
	case !inc.Ended.IsZero() && !inc.Good.Before(v.Until):
	case !inc.Ended.IsZero() && !j.lookedBy(inc.S.Reader, v.Part).Before(v.Until):
	case inc.Ended.IsZero():
		if at, ok := j.looked(v.Part); !ok || at.Before(v.Until) || j.confirmed(inc) {
			return false, Verdict{}
		}
	default:
		return false, Verdict{}
	}
	return true, j.drop(inc, "it is good again")
}

// drop forgets an incident and says so.
func (j *Judge) drop(inc *incident, why string) Verdict {
	v := inc.told()
	v.Cleared = why
	j.forget(inc)
	j.stats.Reports++
	return v
}

// over drops the incidents of a rule on a part, because another line says that they are over.
func (j *Judge) over(rule string, p Part) []Verdict {
	var out []Verdict
	for _, o := range j.on(p, "", func(o *incident) bool { return o.S.Rule() == rule }) {
		out = append(out, j.drop(o, "the driver says that it is over"))
	}
	return out
}

// Seen tells that a reader has finished a round over parts; what was wrong with them it has said before.
func (j *Judge) Seen(reader string, at time.Time, parts ...Part) []Verdict {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, p := range parts {
		j.seen[reader+" "+j.know(p).Key()] = at
	}
	now := j.now()
	var out []Verdict
	for _, inc := range j.sorted() {
		if !inc.Ask.IsZero() {
			before := inc.V.Severity
			j.evaluate(inc)
			inc.untold = inc.untold || inc.V.Severity != before
			out = append(out, j.settle(inc, now)...)
		}
	}
	return out
}

// readers that look at parts; the log does not.
func polling() []string { return []string{"nvml", "sysfs", "bmc"} }

func (j *Judge) lookedBy(reader string, p Part) time.Time { return j.seen[reader+" "+p.Key()] }

func (j *Judge) looked(p Part) (time.Time, bool) {
	var last time.Time
	for _, r := range polling() {
		if t := j.lookedBy(r, p); t.After(last) {
			last = t
		}
	}
	return last, !last.IsZero()
}

// Passed tells that the machine passed a burn-in that began at a time. It ends every incident from before it, but those
// that hold even now.
func (j *Judge) Passed(began time.Time, what string) []Verdict {
	j.mu.Lock()
	defer j.mu.Unlock()
	var out []Verdict
	for _, inc := range j.sorted() {
		if !inc.V.Holds && inc.V.Last.Before(began) {
			if inc.V.Until.IsZero() {
				j.returns(inc, j.now())
			}
			out = append(out, j.drop(inc, "the machine passed "+what))
		}
	}
	return out
}
