package dhcp

import (
	"container/list"
	"sync"
	"time"
)

// Limits bound what a network can make us do. Zero fields mean the defaults.
// Strangers have a budget of their own, so a storm of unknown machines takes
// nothing from the known ones.
type Limits struct {
	PerMAC    float64 // answers a second to one machine, burst twice that; default 5
	Segment   float64 // answers a second on one segment; default 500
	Global    float64 // answers a second altogether; default 2000
	Strangers float64 // unknown machines looked at a second; default 100
	MACs      int     // machines whose rate is remembered; default 65536
}

func (l Limits) withDefaults() Limits {
	for _, f := range []struct {
		v *float64
		d float64
	}{{&l.PerMAC, 5}, {&l.Segment, 500}, {&l.Global, 2000}, {&l.Strangers, 100}} {
		if *f.v == 0 {
			*f.v = f.d
		}
	}
	if l.MACs == 0 {
		l.MACs = 65536
	}
	return l
}

// limiter holds the token buckets. Its zero value is ready.
type limiter struct {
	mu        sync.Mutex
	set       Limits
	global    bucket
	strangers bucket
	segments  map[string]*bucket
	machines  map[[6]byte]*list.Element // of *machine
	recent    list.List                 // machines, most recent first
}

type machine struct {
	mac    [6]byte
	bucket bucket
}

// A bucket holds up to two seconds' worth of tokens.
type bucket struct {
	tokens float64
	last   time.Time
}

func (b *bucket) take(perSecond float64, now time.Time) bool {
	full := max(1, 2*perSecond)
	if b.last.IsZero() {
		b.tokens = full
	} else if passed := now.Sub(b.last); passed > 0 {
		b.tokens = min(full, b.tokens+perSecond*passed.Seconds())
	}
	b.last = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

func (l *limiter) init(set Limits) {
	if l.machines == nil {
		l.set = set.withDefaults()
		l.segments = map[string]*bucket{}
		l.machines = map[[6]byte]*list.Element{}
	}
}

// stranger says whether one more unknown machine may be looked at.
func (l *limiter) stranger(set Limits, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.init(set)
	return l.strangers.take(l.set.Strangers, now)
}

// machine says whether this machine may be answered once more. The narrow
// bucket is asked first: one loud machine must not use up the wide ones.
func (l *limiter) machine(set Limits, segment string, mac [6]byte, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.init(set)
	e := l.machines[mac]
	if e == nil {
		if l.recent.Len() >= l.set.MACs {
			old := l.recent.Back()
			delete(l.machines, old.Value.(*machine).mac)
			l.recent.Remove(old)
		}
		e = l.recent.PushFront(&machine{mac: mac})
		l.machines[mac] = e
	} else {
		l.recent.MoveToFront(e)
	}
	seg := l.segments[segment]
	if seg == nil {
		seg = new(bucket)
		l.segments[segment] = seg
	}
	return e.Value.(*machine).bucket.take(l.set.PerMAC, now) &&
		seg.take(l.set.Segment, now) && l.global.take(l.set.Global, now)
}
