package nvml

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A prober has a fresh process look at the driver when a call of the worker takes suspiciously long. The process is
// started once, and only then.
type prober struct {
	s      *Supervisor
	ctx    context.Context
	cancel context.CancelFunc
	buses  []string
	result chan finding // nil: not started
}

// everyGPU makes each a suspect.
const everyGPU = "*"

// A finding is what a fresh process met.
type finding struct {
	driver   string           // Answering, DriverStuck, or what else the greeting said
	stuck    []string         // GPUs on which it blocked
	evidence []Evidence       // of its own blocking
	child    *child           // killed
	gpus     map[string]error // what touching each said; nil is fine
}

func (s *Supervisor) prober(ctx context.Context) *prober {
	var buses []string
	for _, g := range s.Sample().GPUs {
		if g.State != Stuck {
			buses = append(buses, g.Bus)
		}
	}
	p := &prober{s: s, buses: buses}
	p.ctx, p.cancel = context.WithCancel(ctx)
	return p
}

// suspect starts the fresh process. The GPU of the late call is asked last, so that all others are known to answer.
func (p *prober) suspect(c Call) {
	p.s.Log.Warn("an NVML call is late, a fresh process looks at the driver", "call", c.Name, "gpu", c.Bus, "after", c.For)
	order := slices.DeleteFunc(slices.Clone(p.buses), func(b string) bool { return b == c.Bus })
	if c.Bus != "" {
		order = append(order, c.Bus)
	}
	p.result = make(chan finding, 1)
	go func() { p.result <- p.s.look(p.ctx, order, c.Bus) }()
}

// stop gives the fresh process up: the call came back.
func (p *prober) stop() {
	p.cancel()
	if p.result == nil {
		return
	}
	if f := <-p.result; f.child != nil {
		p.s.killed = append(p.s.killed, f.child)
	}
}

// look asks the driver, then each GPU, from a fresh process; everything of the suspect, because it may have been any call.
// It ends with the first that blocks: that process is lost.
func (s *Supervisor) look(ctx context.Context, buses []string, suspect string) finding {
	c, err := s.start()
	if err != nil {
		return finding{driver: Broken}
	}
	f := finding{child: c, gpus: map[string]error{}}
	var b blocked
	switch err := c.greet(ctx, s.Deadlines, s.Call, nil); {
	case errors.As(err, &b):
		f.driver, f.evidence = DriverStuck, []Evidence{c.abandon(b.Call)}
		return f
	case err != nil:
		f.driver = Broken
		c.kill()
		return f
	}
	f.driver = c.hello.State
	for _, bus := range buses {
		_, err := c.ask(ctx, Request{Op: OpTouch, Bus: bus, Slow: suspect == bus || suspect == everyGPU}, s.Deadlines, nil)
		if errors.As(err, &b) {
			f.stuck, f.evidence = append(f.stuck, bus), []Evidence{c.abandon(b.Call)}
			return f
		}
		if ctx.Err() != nil {
			break
		}
		f.gpus[bus] = err
	}
	c.kill()
	return f
}

// blockedOr deals with a blocked call and passes every other error on.
func (s *Supervisor) blockedOr(ctx context.Context, err error, p *prober) error {
	var b blocked
	if !errors.As(err, &b) {
		p.stop()
		return err
	}
	s.judge(b.Call, p)
	return err
}

// stuckOrFailed is the same for a worker that did not even greet.
func (s *Supervisor) stuckOrFailed(ctx context.Context, err error, p *prober) time.Duration {
	return s.failed(ctx, s.blockedOr(ctx, err, p))
}

// judge gives up on the worker and decides what is stuck: one GPU, or the driver.
func (s *Supervisor) judge(call Call, p *prober) {
	begun := time.Now().Add(-call.For)
	evidence := []Evidence{s.worker.abandon(call)}
	s.killed = append(s.killed, s.worker)
	s.worker = nil
	if p.result == nil { // it blocked outside of any call: nobody had a suspicion
		p.suspect(call)
	}
	// Looking at GPUs that are merely slow may take long; the verdict may not.
	left := time.NewTimer(max(s.Verdict-time.Since(begun), s.Call/2))
	defer left.Stop()
	f := finding{driver: DriverStuck}
	select {
	case f = <-p.result:
		p.cancel()
	case <-left.C:
		p.cancel()
		if f = <-p.result; len(f.stuck) == 0 {
			f.driver = DriverStuck // one after the other is late: it hangs as a whole
		}
	}
	if f.child != nil {
		s.killed = append(s.killed, f.child)
	}
	evidence = append(evidence, f.evidence...)
	s.grace()
	switch {
	case f.driver == DriverStuck:
		s.status(DriverStuck, fmt.Sprintf("%s blocked, and so did a fresh process: the driver hangs", call.Name), evidence...)
	case f.driver != Answering:
		s.status(f.driver, call.Name+" blocked, and a fresh process could not begin", evidence...)
	case len(f.stuck) > 0:
		stuck := f.stuck
		if call.Bus != "" && !slices.Contains(stuck, call.Bus) {
			stuck = append(stuck, call.Bus) // asked last, so never reached; it blocked the worker
		}
		s.skipGPUs(stuck)
		s.tries = 0
		s.answering(evidence...)
	default:
		s.status(Broken, fmt.Sprintf("%s blocked, a fresh process did not: a new worker goes on", call.Name), evidence...)
		s.tries = 0
	}
}

// answering notes that the driver answers, be it without the GPUs that hang.
func (s *Supervisor) answering(evidence ...Evidence) {
	text := ""
	if len(s.skip) > 0 {
		text = "GPU " + strings.Join(s.skip, ", ") + " hangs; the others answer"
	}
	s.status(Answering, text, evidence...)
}

// grace gives SIGKILL a moment to work, so that a process that merely slept is not counted as one that hangs.
func (s *Supervisor) grace() {
	for range 20 {
		if !slices.ContainsFunc(s.killed, (*child).held) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// skipGPUs leaves GPUs alone from now on. The status, told next, carries the word.
func (s *Supervisor) skipGPUs(buses []string) {
	for _, b := range buses {
		if !slices.Contains(s.skip, b) {
			s.skip = append(s.skip, b)
		}
	}
	s.retryAt = time.Now().Add(s.Longest)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current.GPUs = slices.Clone(s.current.GPUs) // the old list was given away
	for i, g := range s.current.GPUs {
		if slices.Contains(s.skip, g.Bus) {
			g.State, g.Err, g.Values, g.Links = Stuck, "a call on this GPU blocked, and no call on the others: it is left alone", nil, nil
			s.current.GPUs[i] = g
		}
	}
}

// retry asks the GPUs that hung again, after a while, from a fresh process; none while one still hangs in the driver,
// because the next might too.
func (s *Supervisor) retry(ctx context.Context, now time.Time) {
	if len(s.skip) == 0 || now.Before(s.retryAt) || s.held() > 0 {
		return
	}
	s.retryAt = now.Add(s.Longest)
	f := s.look(ctx, s.skip, everyGPU)
	if f.child != nil {
		s.killed = append(s.killed, f.child)
	}
	s.grace()
	if f.driver != Answering || len(f.stuck) > 0 {
		return
	}
	s.Log.Info("GPUs that hung answer again", "gpu", s.skip)
	s.skip = nil
	s.tell(func(cur *Sample) { cur.At = time.Time{} }) // a sample is due
}
