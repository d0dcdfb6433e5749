package sim

import (
	"time"
	"unsafe"
)

// clock is a daemon's clock: wall time, which is off by skew and may be set, and the monotonic reading that time.Now
// gives beside it, which is not.
func (s *Sim) clock(skew time.Duration) func() time.Time {
	return func() time.Time { return stamp(start.Add(s.mono+skew), s.mono) }
}

// apiClock is the clock of the daemon that people's and renters' requests reach.
func (s *Sim) apiClock() time.Time {
	if len(s.replicas) == 0 {
		return s.clock(0)()
	}
	return s.clock(s.replicas[0].skew)()
}

// stamp makes a time as time.Now does, with a wall time and a monotonic reading of our own. The standard library has no
// way to; the layout is that of time.Time since Go 1.9, and a test holds it.
func stamp(wall time.Time, mono time.Duration) time.Time {
	const (
		hasMonotonic = 1 << 63
		from1885     = 2682288000 // seconds from 1885-01-01 to 1970-01-01
	)
	var t time.Time
	raw := (*struct {
		wall uint64
		ext  int64
		loc  *time.Location
	})(unsafe.Pointer(&t))
	raw.wall = hasMonotonic | uint64(wall.Unix()+from1885)<<30 | uint64(wall.Nanosecond())
	raw.ext = int64(mono) + 1
	return t
}
