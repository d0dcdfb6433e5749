package provisioner

import "time"

// A Pulse tells that the loop runs, and how fast it comes round.
type Pulse struct {
	Last    time.Time     // end of the last round
	Longest time.Duration // round of the last ten minutes or so
	when    time.Time     // of the longest
}

// Pulse tells it; the zero value before the first round ended.
func (l *Loop) Pulse() Pulse {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pulse
}

// beat notes the end of a round that began at t.
func (l *Loop) beat(t time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.Now()
	p := &l.pulse
	if took := now.Sub(t); took >= p.Longest || now.Sub(p.when) > 10*time.Minute {
		p.Longest, p.when = took, now
	}
	p.Last = now
}
