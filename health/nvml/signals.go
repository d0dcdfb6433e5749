package nvml

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hostler-project/hostler/health"
)

// Reader is the name in the signals of this package.
const Reader = "nvml"

// A view is what one row looks at.
type view struct {
	sample    *Sample
	prev, now GPU
	known     bool // the GPU was in the sample before
	link      int
	apart     time.Duration // between the two samples
	e         Expect
	memory    *Memory
}

// Signals turns two samples that follow each other into signals. It fills now.Memory from previous.Memory, and changes
// nothing else; give each sample that comes to it once, and keep the last one (across a restart too, if it can be kept:
// then errors that were counted in between are not missed). Counters need a sample before: of a first one only states
// are told.
func Signals(previous Sample, now *Sample, e Expect) []health.Signal {
	now.Memory = previous.Memory.clone()
	w := walk{now: now, e: e}
	for _, r := range machineRows {
		w.row(r, health.Part{Kind: health.Node}, "", view{sample: now, e: e})
	}
	// A change of status alone carries the values of the sample before.
	if now.Status.State == Answering && now.At.After(previous.At) {
		for _, g := range now.GPUs {
			w.gpu(previous, g)
		}
	} else {
		for _, g := range now.GPUs {
			w.states(previous, g)
		}
	}
	for _, ev := range now.Events {
		w.event(ev)
	}
	return w.out
}

// walk collects signals.
type walk struct {
	now *Sample
	e   Expect
	out []health.Signal
}

func part(g GPU) health.Part {
	return health.Part{Kind: health.GPU, BDF: g.Bus, UUID: g.UUID, Serial: g.Serial}
}

func (w *walk) view(previous Sample, g GPU) view {
	v := view{sample: w.now, now: g, apart: w.now.At.Sub(previous.At), e: w.e, memory: &w.now.Memory}
	if i := slices.IndexFunc(previous.GPUs, g.Same); i >= 0 && previous.GPUs[i].State == Present {
		v.prev, v.known = previous.GPUs[i], true
	}
	return v
}

// states tells what a GPU is that may not answer.
func (w *walk) states(previous Sample, g GPU) {
	for _, r := range stateRows {
		w.row(r, part(g), "", w.view(previous, g))
	}
}

func (w *walk) gpu(previous Sample, g GPU) {
	w.states(previous, g)
	if g.State != Present {
		return
	}
	v := w.view(previous, g)
	for _, r := range gpuRows {
		w.row(r, part(g), "", v)
	}
	for i := range g.Links["link.state"] {
		v.link = i
		for _, r := range linkRows {
			w.row(r, part(g), "link "+strconv.Itoa(i), v)
		}
	}
}

// row looks once and tells what came of it.
func (w *walk) row(r row, p health.Part, unit string, v view) {
	v.memory = &w.now.Memory
	f := r.look(v)
	if !f.known {
		return
	}
	s := health.Signal{Check: r.check, Code: r.code, Part: p, Unit: unit, Mark: health.Holds, At: w.now.At, Value: f.value, Reader: Reader}
	if s.At.IsZero() || s.At.Before(w.now.Status.Since) {
		s.At = w.now.Status.Since
	}
	if r.event {
		if s.Mark = health.Event; f.bad {
			w.out = append(w.out, s)
		}
		return
	}
	id := s.Incident()
	since, was := v.memory.Since[id]
	switch {
	case f.bad && !was:
		since = s.At
		v.memory.Since[id] = since
		fallthrough
	case f.bad:
		if s.At.Sub(since) < r.hold {
			return
		}
		if r.check == "G3" {
			s.Line = w.evidence()
		}
		w.out = append(w.out, s)
		v.memory.Told[id] = true
	case was:
		delete(v.memory.Since, id)
		if v.memory.Told[id] {
			delete(v.memory.Told, id)
			s.Mark, s.Value = health.Ended, ""
			w.out = append(w.out, s)
		}
	}
}

// evidence is what the kernel showed of the processes that blocked.
func (w *walk) evidence() string {
	var lines []string
	for _, e := range w.now.Status.Evidence {
		lines = append(lines, e.String())
	}
	return strings.Join(lines, "; ")
}

func (w *walk) event(ev Event) {
	p := health.Part{Kind: health.GPU, BDF: ev.Bus}
	for _, g := range w.now.GPUs {
		if g.Bus == ev.Bus {
			p = part(g)
		}
	}
	for _, r := range eventRows {
		if ev.Type != r.bit {
			continue
		}
		s := health.Signal{Check: r.check, Code: r.code, Part: p, Mark: health.Event, At: ev.At, Reader: Reader}
		if r.check == health.CheckXID {
			s.Code = strconv.FormatUint(ev.Xid, 10)
		}
		if ev.GI != nil {
			s.Unit = fmt.Sprintf("MIG %d", *ev.GI)
		}
		w.out = append(w.out, s)
	}
}

// above is bad when a number is over a limit.
func (v view) above(key string, limit int64) found {
	n, ok := v.now.Values.Number(key)
	if !ok {
		return unknown
	}
	if r, _ := Find(key); r.Unit == "flag" {
		return whether(n > limit, "set")
	}
	r, _ := Find(key)
	return whether(n > limit, "%d %s", n, r.Unit)
}

// fresh is by how much a counter rose. One that fell was reset, and what it shows came since.
func (v view) fresh(key string) int64 {
	if !v.known {
		return 0
	}
	return rise(v.prev.Values[key], v.now.Values[key])
}

func rise(before, now Value) int64 {
	switch {
	case !before.OK() || !now.OK():
		return 0
	case now.N < before.N:
		return now.N
	}
	return now.N - before.N
}

// grew is bad when a counter rose; the others are told with it.
func (v view) grew(key string, details ...string) found {
	before, was := v.prev.Values[key]
	now, is := v.now.Values[key]
	if !v.known || !was || !is || !before.OK() || !now.OK() {
		return unknown
	}
	n := v.fresh(key)
	text := fmt.Sprintf("%d more, now %d", n, now.N)
	for _, d := range details {
		if x, ok := v.now.Values.Number(d); ok {
			text += fmt.Sprintf("; %s %d", d[strings.LastIndex(d, ".")+1:], x)
		}
	}
	return whether(n > 0, "%s", text)
}

func (v view) onLink(key string) (int64, bool) {
	l := v.now.Links[key]
	if v.link >= len(l) || !l[v.link].OK() {
		return 0, false
	}
	return l[v.link].N, true
}

func (v view) linksGrew(keys ...string) found {
	var text []string
	asked := false
	for _, k := range keys {
		now, before := v.now.Links[k], v.prev.Links[k]
		if !v.known || v.link >= len(now) || v.link >= len(before) || !now[v.link].OK() {
			continue
		}
		asked = true
		if n := rise(before[v.link], now[v.link]); n > 0 {
			text = append(text, fmt.Sprintf("%s %d more", strings.TrimPrefix(k, "link."), n))
		}
	}
	if !asked {
		return unknown
	}
	return whether(len(text) > 0, "%s", strings.Join(text, ", "))
}

// share is which part of the time in which the GPU was busy the counters of nanoseconds say.
func (v view) share(keys ...string) float64 {
	busy, ok := v.now.Values.Number("busy")
	if !ok || busy == 0 || !v.known || v.apart <= 0 {
		return 0
	}
	var ns int64
	for _, k := range keys {
		ns += v.fresh(k)
	}
	return float64(ns) / (float64(v.apart) * float64(busy) / 100)
}

func (v view) retired() (int64, bool) {
	single, ok1 := v.now.Values.Number("retired.single")
	double, ok2 := v.now.Values.Number("retired.double")
	return single + double, ok1 && ok2
}

func (v view) linkRate(key string) (float64, bool) {
	l := v.now.Links[key]
	if v.link >= len(l) {
		return 0, false
	}
	return v.rate(fmt.Sprintf("%s/%d", key, v.link), l[v.link])
}

// rate is how much a counter rises per minute, known once a minute: over less, one error is a high rate.
func (v view) rate(name string, now Value) (float64, bool) {
	if !now.OK() {
		return 0, false
	}
	id := name + "@" + v.now.Key()
	from, had := v.memory.From[id]
	apart := v.sample.At.Sub(from.At)
	if had && apart < time.Minute {
		return 0, false
	}
	v.memory.From[id] = Mark{v.sample.At, now.N}
	if !had || apart > 10*time.Minute { // nobody looked for long: that is no rate of now
		return 0, false
	}
	return float64(rise(Number(from.N), now)) / apart.Minutes(), true
}

// seen notes that something was seen, at most once in each step, and gives how often within the window.
func (v view) seen(name string, window, step time.Duration) int {
	id := name + "@" + v.now.Key()
	list := v.memory.Seen[id]
	if len(list) == 0 || v.sample.At.Sub(list[len(list)-1]) >= step {
		list = append(slices.Clone(list), v.sample.At)
	}
	v.memory.Seen[id] = list
	return v.count(name, window)
}

// count forgets what is older than the window and gives how much is left.
func (v view) count(name string, window time.Duration) int {
	id := name + "@" + v.now.Key()
	list := slices.DeleteFunc(slices.Clone(v.memory.Seen[id]), func(t time.Time) bool { return v.sample.At.Sub(t) > window })
	if len(list) == 0 {
		delete(v.memory.Seen, id)
		return 0
	}
	v.memory.Seen[id] = list
	return len(list)
}

func (m Memory) clone() Memory {
	fill := Memory{Since: map[string]time.Time{}, Told: map[string]bool{}, Seen: map[string][]time.Time{}, From: map[string]Mark{}}
	maps.Copy(fill.Since, m.Since)
	maps.Copy(fill.Told, m.Told)
	maps.Copy(fill.Seen, m.Seen)
	maps.Copy(fill.From, m.From)
	return fill
}

// A Check is one row of what is looked at, for people.
type Check struct {
	Check, Code string
	When        string
	Hold        time.Duration
	Event       bool
}

// Checks are all rows, in the order of the catalogue's numbers within each group.
func Checks() []Check {
	var all []Check
	for _, rows := range [][]row{machineRows, stateRows, gpuRows, linkRows} {
		for _, r := range rows {
			all = append(all, Check{r.check, r.code, r.when, r.hold, r.event})
		}
	}
	for _, r := range eventRows {
		for _, t := range EventTypes {
			if t.Bit == r.bit {
				all = append(all, Check{r.check, r.code, "event: " + t.Name, 0, true})
			}
		}
	}
	return all
}
