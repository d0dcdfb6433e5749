package health

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hostler-project/hostler/inventory"
)

// Options are what a Judge begins with.
type Options struct {
	Boot      string           // id of the present boot
	Journal   string           // file that keeps incidents over a restart; empty: memory only
	Now       func() time.Time // nil: time.Now
	Overrides []Override
	Log       *slog.Logger // nil: silent
}

// A Machine is what the Judge is told of the machine it judges.
type Machine struct {
	Parts    []Part // with bus address or UUID, and what is printed beside them
	NoNVLink bool   // its SKU has none: an NVLink error is a notice
}

// A Judge makes verdicts of signals. All its methods may be called from any goroutine; those that return verdicts return
// what is to be reported now: an incident when it is first seen, when it gets worse and when it is over at once, else at
// most once a minute.
type Judge struct {
	mu        sync.Mutex
	boot      string
	now       func() time.Time
	log       *slog.Logger
	rules     map[string]Rule
	overrides []Override
	parts     map[string]Part
	noNVLink  bool
	list      map[string]*incident
	past      past
	seen      map[string]time.Time // reader and part: when the part was last looked at
	seq       uint64               // of the kernel's log, in this boot
	journal   *journal
	stats     JudgeStats
}

// JudgeStats are counts since the start.
type JudgeStats struct {
	Signals   int64 // taken, with those that were only counted
	Repeated  int64 // told before, and dropped
	Reports   int64
	Incidents int   // that stand now
	Folded    int64 // signals of faults beyond what can be told apart
	Shadow    int64 // reports of rules in shadow
}

// Limits of what is remembered.
const (
	maxIncidents = 1024
	maxEvidence  = 4
	maxLine      = 300 // bytes of an evidence line
	reportEvery  = time.Minute
	askFor       = time.Minute // how long the present state is waited for before an old line counts a little
	nearby       = time.Minute // how near another incident has to be for a line to belong to it
	sameEvent    = 5 * time.Second
)

// NewJudge makes a Judge, with the incidents that its journal kept.
func NewJudge(o Options) (*Judge, error) {
	j := &Judge{boot: o.Boot, now: o.Now, log: o.Log, rules: Rules(), overrides: o.Overrides, parts: map[string]Part{},
		list: map[string]*incident{}, past: newPast(), seen: map[string]time.Time{}}
	if j.now == nil {
		j.now = time.Now
	}
	if j.log == nil {
		j.log = slog.New(slog.DiscardHandler)
	}
	if err := CheckOverrides(j.overrides, j.rules); err != nil {
		return nil, err
	}
	var err error
	if j.journal, err = openJournal(o.Journal, j, j.log); err != nil {
		return nil, err
	}
	j.resume()
	return j, nil
}

// resume puts what the journal kept in order. An incident that waited for others when the program ended is not decided by
// what happened then: the present state is asked.
func (j *Judge) resume() {
	for _, inc := range j.list {
		if inc.V.Boot == j.boot {
			j.seq = max(j.seq, inc.Seq)
		}
		if !inc.Wait.IsZero() {
			inc.Wait, inc.Ask = time.Time{}, j.now().Add(askFor)
		}
		j.evaluate(inc)
	}
}

// Close writes what is not written, and closes the journal.
func (j *Judge) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, inc := range j.list {
		if inc.untold {
			j.journal.incident(inc, false)
		}
	}
	return j.journal.close()
}

// Know tells the Judge of the machine: slots, serials, and whether it has NVLinks.
func (j *Judge) Know(m Machine) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.parts, j.noNVLink = map[string]Part{}, m.NoNVLink
	for _, p := range m.Parts {
		for _, k := range []string{p.BDF, p.UUID} {
			if k != "" {
				j.parts[k] = p
			}
		}
	}
	for _, inc := range j.list {
		inc.V.Part = j.know(inc.V.Part)
		j.evaluate(inc)
	}
}

func (j *Judge) know(p Part) Part {
	k, ok := j.parts[p.BDF]
	if !ok || p.BDF == "" {
		if k, ok = j.parts[p.UUID]; !ok || p.UUID == "" {
			return p
		}
	}
	if p.Kind == PCI || p.Kind == "" {
		p.Kind = k.Kind
	}
	fill := func(to *string, from string) {
		if *to == "" {
			*to = from
		}
	}
	fill(&p.BDF, k.BDF)
	fill(&p.UUID, k.UUID)
	fill(&p.Serial, k.Serial)
	if k.Slot != "" {
		p.Slot = k.Slot
	}
	return p
}

// Take judges one signal.
func (j *Judge) Take(s Signal) []Verdict {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.take(s)
}

func (j *Judge) take(s Signal) []Verdict {
	now := j.now()
	if s.Boot == "" {
		s.Boot = j.boot
	}
	if s.At.IsZero() {
		s.At = now
	}
	s.At = saved(s.At)
	s.Old = s.Old || s.Boot != j.boot
	s.Line = inventory.Plain(s.Line, maxLine)
	s.Part = j.know(s.Part)
	if s.Check == "H7" && s.Part.Kind == GPU {
		s.Check = "G24"
	}
	if s.Seq > 0 && s.Boot == j.boot {
		if s.Seq <= j.seq {
			j.stats.Repeated++
			return nil
		}
		j.seq = s.Seq
	}
	j.stats.Signals += 1 + s.More
	if s.Mark == Ended {
		return j.ended(s, now)
	}
	r := j.row(s)
	if s.Value == LineDetail || r.Attach != "" {
		if inc := j.neighbour(s, r); inc != nil {
			inc.add(s)
			return nil
		}
		if s.Value == LineDetail {
			return nil
		}
	}
	var out []Verdict
	if s.Check == CheckRecovery {
		out = j.others(s, now)
	}
	if j.twin(s) {
		return out
	}
	if r.Undoes != "" {
		out = append(out, j.over(r.Undoes, s.Part)...)
	}
	inc, changed := j.find(s, r)
	for _, k := range j.past.note(s, r, inc.V.Part) {
		j.journal.past(k, occurrence{s.At, s.Who})
		changed = true
	}
	if !changed { // one more of the same
		return append(out, j.settle(inc, now)...)
	}
	j.evaluate(inc)
	out = append(out, j.settle(inc, now)...)
	out = append(out, j.around(inc, now)...)
	return append(out, j.manyFatal(inc, s, now)...)
}

// row is the table's row for a signal, its registers decoded.
func (j *Judge) row(s Signal) Rule {
	r, ok := j.rules[s.Rule()]
	if !ok {
		return unknownRule(s)
	}
	r = decode(s, r, r.Decode == decodeLine && j.fabricIll())
	if s.Check == CheckXID && s.Code == "74" && j.noNVLink {
		r.Severity, r.Actions, r.Hardware, r.Next, r.Again = Info, nil, false, "the SKU has no NVLink", nil
	}
	return r
}

// find gives the incident of a signal, a new one if need be, with the signal counted in. It says whether the outcome may
// be another than before.
func (j *Judge) find(s Signal, r Rule) (inc *incident, changed bool) {
	id := s.Incident()
	inc = j.list[id]
	if inc == nil && len(j.list) >= maxIncidents && !j.makeRoom() {
		j.stats.Folded += 1 + s.More
		id, s.Check, s.Code, s.Part, s.Unit = "K/overflow@node", "K", "overflow", Part{Kind: Node}, ""
		if inc = j.list[id]; inc == nil {
			inc = newIncident(id, s)
			j.list[id] = inc
		} else {
			inc.count(s)
		}
		inc.floor(r)
		return inc, true
	}
	if inc == nil || inc.V.Boot != s.Boot && !s.Old {
		inc = newIncident(id, s)
		j.list[id] = inc
		switch {
		case s.Old && Strongest(r.Actions).Rank() >= DrainIdle.Rank():
			inc.Ask = j.now().Add(askFor)
		case r.Follow != "":
			inc.Wait = j.now().Add(FollowFor)
		}
		return inc, true
	}
	if s.Value != inc.S.Value || !slices.Equal(s.Words, inc.S.Words) {
		if was := j.row(inc.S); worse(r.Severity, r.Actions, was.Severity, was.Actions) {
			inc.S, changed = s, true
		}
	}
	if !s.Old && (!inc.Ask.IsZero() || inc.Denied || inc.Doubted) { // it happens now: nobody needs to be asked
		inc.Ask, inc.Denied, inc.Doubted, changed = time.Time{}, false, false, true
	}
	changed = changed || s.Mark == Holds && !inc.V.Holds || s.At.Sub(inc.V.Last) >= tenMinutes
	inc.count(s)
	return inc, changed
}

// makeRoom forgets the notice that was seen longest ago.
func (j *Judge) makeRoom() bool {
	var oldest *incident
	for _, inc := range j.list {
		if inc.V.Severity == Info && !inc.untold && (oldest == nil || inc.V.Last.Before(oldest.V.Last)) {
			oldest = inc
		}
	}
	if oldest == nil {
		return false
	}
	j.forget(oldest)
	return true
}

func (j *Judge) forget(inc *incident) {
	delete(j.list, inc.V.ID)
	j.journal.gone(inc.V.ID)
}

// settle reports an incident if it is time.
func (j *Judge) settle(inc *incident, now time.Time) []Verdict {
	v := inc.V
	first := inc.Told.IsZero()
	grown := !first && worse(v.Severity, v.Actions, inc.ToldSeverity, inc.ToldActions)
	if !first && !grown && (!inc.untold || now.Sub(inc.Told) < reportEvery) {
		return nil
	}
	inc.Told, inc.ToldSeverity, inc.ToldActions, inc.untold = now, v.Severity, v.Actions, false
	j.journal.incident(inc, first || grown)
	j.stats.Reports++
	if v.Shadow {
		j.stats.Shadow++
	}
	return []Verdict{inc.told()}
}

// worse compares outcomes: severity first, then the strongest action.
func worse(s Severity, a []Action, than Severity, thanActions []Action) bool {
	if s.Rank() != than.Rank() {
		return s.Rank() > than.Rank()
	}
	return Strongest(a).Rank() > Strongest(thanActions).Rank()
}

// Tick decides what waited, reports what was counted, and lets go of what is over. It is to be called every second, and
// more often if 48 is to be decided exactly two seconds after it came.
func (j *Judge) Tick() []Verdict {
	j.mu.Lock()
	defer j.mu.Unlock()
	now := j.now()
	var out []Verdict
	for _, inc := range j.sorted() {
		if gone, v := j.clear(inc, now); gone {
			out = append(out, v)
			continue
		}
		if inc.due(now) {
			j.evaluate(inc)
			inc.untold = true
		}
		if inc.untold {
			out = append(out, j.settle(inc, now)...)
		}
	}
	j.past.prune(now)
	j.journal.tidy(j)
	return out
}

// Verdicts are all incidents that stand, worst first.
func (j *Judge) Verdicts() []Verdict {
	j.mu.Lock()
	defer j.mu.Unlock()
	var out []Verdict
	for _, inc := range j.sorted() {
		out = append(out, inc.told())
	}
	return out
}

// sorted are the incidents, worst first, then by name.
func (j *Judge) sorted() []*incident {
	out := make([]*incident, 0, len(j.list))
	for _, inc := range j.list {
		out = append(out, inc)
	}
	slices.SortFunc(out, func(a, b *incident) int {
		switch x, y := a.V, b.V; {
		case worse(x.Severity, x.Actions, y.Severity, y.Actions):
			return -1
		case worse(y.Severity, y.Actions, x.Severity, x.Actions):
			return 1
		}
		return strings.Compare(a.V.ID, b.V.ID)
	})
	return out
}

// Stats tells the counts as they are now.
func (j *Judge) Stats() JudgeStats {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := j.stats
	s.Incidents = len(j.list)
	return s
}

// An Override is a site's own outcome for a rule, for a time and with a reason.
type Override struct {
	Rule     string    `json:"rule"` // as Verdict.Rule begins: "xid/109", "G9/outlier"
	Severity Severity  `json:"severity,omitempty"`
	Actions  []Action  `json:"actions,omitempty"`
	Shadow   bool      `json:"shadow,omitempty"` // say what it would have done, and do nothing
	Reason   string    `json:"reason"`
	Actor    string    `json:"actor"`
	Expires  time.Time `json:"expires"`
}

// CheckOverrides says everything that is wrong with overrides.
func CheckOverrides(list []Override, rules map[string]Rule) error {
	var wrong []string
	for _, o := range list {
		say := func(format string, a ...any) {
			wrong = append(wrong, "override of "+o.Rule+": "+fmt.Sprintf(format, a...))
		}
		if _, ok := rules[o.Rule]; !ok {
			say("there is no such rule")
		}
		if o.Reason == "" || o.Actor == "" || o.Expires.IsZero() {
			say("say who, why and until when")
		}
		if !o.Shadow && o.Severity == "" {
			say("give a severity, or shadow")
		}
		if o.Severity != "" && o.Severity.Rank() > Fatal.Rank() {
			say("%q is no severity", o.Severity)
		}
		for _, a := range o.Actions {
			if a.Rank() > QuarantineRMA.Rank() {
				say("%q is no action", a)
			}
		}
	}
	if wrong != nil {
		return fmt.Errorf("health: %s", strings.Join(wrong, "; "))
	}
	return nil
}
