package health

import (
	"fmt"
	"slices"
	"time"
)

// past is how often rules were met on parts, as far as it counts: rows with Again ask it. Parts are known by serial number
// or UUID where the Judge was told them, so a GPU takes its past along, and a new one in the same slot begins anew.
type past map[string]*times

type times struct {
	last time.Time // line of this kind, of any burst
	at   []occurrence
}

// An occurrence is one burst of lines.
type occurrence struct {
	At  time.Time `json:"at"`
	Who string    `json:"who,omitempty"`
}

const (
	maxPast  = 4096 // kinds that are remembered
	maxTimes = 64   // of each
)

func newPast() past { return past{} }

func pastKey(rule, kind string, p Part, unit string) string {
	key := rule + "@" + orElse(p.Serial, orElse(p.UUID, p.Key()))
	if kind != "" {
		key += "#" + kind
	}
	if unit != "" {
		key += "/" + unit
	}
	return key
}

// keys are those that a signal counts under.
func keys(s Signal, r Rule, p Part) []string {
	var out []string
	for _, a := range r.Again {
		k := pastKey(s.Rule(), r.Case, p, a.unit(s))
		if !slices.Contains(out, k) {
			out = append(out, k)
		}
	}
	return out
}

func (a Again) unit(s Signal) string {
	if a.Unit {
		return s.Unit
	}
	return ""
}

func burst(r Rule) time.Duration {
	if b := r.Again[0].Burst; b > 0 {
		return b
	}
	return tenMinutes
}

// note counts a signal; it returns under which keys it is a new burst.
func (p past) note(s Signal, r Rule, part Part) []string {
	var fresh []string
	for _, k := range keys(s, r, part) {
		if p.add(k, occurrence{s.At, s.Who}, burst(r), false) {
			fresh = append(fresh, k)
		}
	}
	return fresh
}

// add counts one occurrence, unless it belongs to the burst before; with each, bursts are told apart by who.
func (p past) add(key string, o occurrence, burst time.Duration, each bool) bool {
	t := p[key]
	if t == nil {
		if len(p) >= maxPast {
			p.forgetOldest()
		}
		t = &times{}
		p[key] = t
	}
	since := t.last
	if each {
		since = time.Time{}
		for _, x := range t.at {
			if x.Who == o.Who && x.At.After(since) {
				since = x.At
			}
		}
	}
	if o.At.After(t.last) {
		t.last = o.At
	}
	if !since.IsZero() && o.At.Sub(since) < burst {
		return false
	}
	t.at = append(t.at, o)
	if n := len(t.at) - maxTimes; n > 0 {
		t.at = slices.Delete(t.at, 0, n)
	}
	return true
}

func (p past) forgetOldest() {
	oldest := ""
	for k, t := range p {
		if oldest == "" || t.last.Before(p[oldest].last) {
			oldest = k
		}
	}
	delete(p, oldest)
}

// again is what a rule has become by repetition: the strongest of its Agains that is met, and its name in words.
func (p past) again(s Signal, r Rule, part Part, now time.Time, alone func(Part, string, time.Time) bool) (*Again, string) {
	var best *Again
	name := ""
	for i := range r.Again {
		a := &r.Again[i]
		t := p[pastKey(s.Rule(), r.Case, part, a.unit(s))]
		if t == nil {
			continue
		}
		n, who := 0, map[string]int{}
		for _, o := range t.at {
			if now.Sub(o.At) < a.Within && (!a.Alone || alone(part, s.Rule(), o.At)) {
				n++
				who[o.Who]++
			}
		}
		if a.SameWho {
			n = 0
			for _, c := range who {
				n = max(n, c)
			}
		}
		if n >= a.N && len(who) >= a.Who && (best == nil || worse(a.Severity, a.Actions, best.Severity, best.Actions)) {
			best, name = a, fmt.Sprintf("%d times within %s", a.N, inWords(a.Within))
		}
	}
	return best, name
}

func inWords(d time.Duration) string {
	if d >= 2*day {
		return fmt.Sprintf("%d days", d/day)
	}
	return fmt.Sprintf("%d hours", d/time.Hour)
}

// prune forgets what no row counts any more.
func (p past) prune(now time.Time) {
	for k, t := range p {
		if now.Sub(t.last) > month {
			delete(p, k)
		}
	}
}
