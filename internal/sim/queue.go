package sim

import (
	"container/heap"
	"context"
	"iter"
	"time"
)

var bg = context.Background()

// An event is something that happens at a moment of virtual time. Events of the same moment come in an order that the
// seed draws.
type event struct {
	at  time.Duration
	tie uint64
	n   uint64 // last resort, so that the order is total
	run func()
}

type queue []event

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	a, b := q[i], q[j]
	switch {
	case a.at != b.at:
		return a.at < b.at
	case a.tie != b.tie:
		return a.tie < b.tie
	}
	return a.n < b.n
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }

// Push implements heap.Interface.
func (q *queue) Push(x any) { *q = append(*q, x.(event)) }

// Pop implements heap.Interface.
func (q *queue) Pop() any {
	old := *q
	e := old[len(old)-1]
	*q = old[:len(old)-1]
	return e
}

// after has f happen after a length of virtual time.
func (s *Sim) after(d time.Duration, f func()) {
	s.drawn++
	heap.Push(&s.queue, event{at: s.mono + max(d, 0), tie: s.rng.Uint64(), n: s.drawn, run: f})
}

// step lets the next event happen.
func (s *Sim) step() bool {
	if len(s.queue) == 0 {
		return false
	}
	e := heap.Pop(&s.queue).(event)
	s.mono = e.at
	e.run()
	return true
}

// An actor is whose code runs: a replica, the API, the machines. It can be killed and paused.
type actor struct {
	name   string
	dead   bool
	paused time.Duration // until then
	procs  []*proc
}

// A proc is code that waits in the middle: a coroutine, resumed by the queue. It runs only while resume runs it.
type proc struct {
	who  *actor
	line *line
	dead bool // everything that it asks for fails from now on
	over bool
}

// A line is a coroutine that does one proc's code after another: most are over in no time, and a stack that has grown
// once need not grow again.
type line struct {
	next  func() (time.Duration, bool)
	stop  func()
	yield func(time.Duration) bool
	do    func()
}

// done is what a line yields when its code has ended.
const done = -1

func newLine() *line {
	l := &line{}
	l.next, l.stop = iter.Pull(func(yield func(time.Duration) bool) {
		l.yield = yield
		for {
			l.do()
			if !yield(done) {
				return
			}
		}
	})
	return l
}

// spawn has f run as a coroutine of an actor.
func (s *Sim) spawn(a *actor, after time.Duration, f func()) {
	p := &proc{who: a}
	a.procs = append(a.procs, p)
	s.after(after, func() {
		if p.over {
			return
		}
		if n := len(s.idle); n > 0 {
			p.line, s.idle = s.idle[n-1], s.idle[:n-1]
		} else {
			p.line = newLine()
		}
		p.line.do = f
		s.resume(p)
	})
}

func (s *Sim) resume(p *proc) {
	switch {
	case p.over:
		return
	case p.who.paused > s.mono:
		s.after(p.who.paused-s.mono, func() { s.resume(p) })
		return
	}
	before := s.cur
	s.cur = p
	d, _ := p.line.next()
	s.cur = before
	if d == done {
		s.idle = append(s.idle, p.line)
		s.forget(p)
		return
	}
	s.after(d, func() { s.resume(p) })
}

func (s *Sim) forget(p *proc) {
	p.over = true
	for i, q := range p.who.procs {
		if q == p {
			p.who.procs = append(p.who.procs[:i], p.who.procs[i+1:]...)
			return
		}
	}
}

// wait lets virtual time pass in the code that runs; false says that it was killed meanwhile.
func (s *Sim) wait(d time.Duration) bool {
	p := s.cur
	switch {
	case p == nil:
		return true
	case p.dead:
		return false
	}
	return p.line.yield(max(d, 0)) && !p.dead
}

// bury kills an actor: whatever its code asks for from now on fails. It must not be the one that runs.
func (s *Sim) bury(a *actor) {
	a.dead = true
	procs := a.procs
	a.procs = nil
	before := s.cur
	for _, p := range procs {
		if p.over {
			continue
		}
		p.dead, p.over = true, true
		if p.line != nil {
			s.cur = p
			p.line.stop()
		}
	}
	s.cur = before
}
