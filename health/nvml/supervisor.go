package nvml

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Deadlines are how long things may take. Tests shorten them; the rest is health-checks.md, section 6.
type Deadlines struct {
	Call    time.Duration // one call into the driver; 2 s misfires on busy GPUs
	Init    time.Duration // the first call of the worker
	Suspect time.Duration // a call that takes longer has a fresh process look at the driver meanwhile
	Verdict time.Duration // from the start of a blocked call until it is decided what is stuck
	Beat    time.Duration // between two cheap calls: a hang goes unseen for no longer
	Poll    time.Duration // between two samples
	Slow    time.Duration // between two samples with the slow readings
	Tick    time.Duration // how often a call that is late is looked at
	Again   time.Duration // before the second try to start the worker; doubles up to Longest
	Longest time.Duration
}

// Standard are the deadlines of a real machine. Suspect is why the verdict comes within ten seconds of the hang itself,
// not only of the first call that it blocks: 2 s until the beat, 2.5 s of suspicion, 5 s of the fresh process.
func Standard() Deadlines {
	return Deadlines{
		Call: 5 * time.Second, Init: 20 * time.Second, Suspect: 2500 * time.Millisecond, Verdict: 10 * time.Second,
		Beat: 2 * time.Second, Poll: 10 * time.Second, Slow: 5 * time.Minute, Tick: 100 * time.Millisecond,
		Again: time.Second, Longest: time.Minute,
	}
}

// maxHeld is how many processes may hang in the driver of one boot.
const maxHeld = 2

// A Supervisor keeps one worker in conversation with the driver. Fields are set before Run.
type Supervisor struct {
	Program string   // the file of hostler-nvml
	Args    []string // for it, behind "serve"
	Env     []string // beside ours
	// Where the machine shows itself; empty is /proc, /sys and /proc/driver/nvidia/version.
	Proc, Sys, VersionFile string
	Deadlines
	Log *slog.Logger
	// Tell is called after each sample, each change of the status and each event, by one goroutine. It must not block.
	Tell func(Sample)
	// Held says how many killed workers are still there; nil: the kernel is asked. For tests.
	Held func() int

	mu      sync.Mutex
	current Sample
	lease   chan lease
	once    sync.Once

	worker  *child
	killed  []*child // not yet seen to have ended
	old     []int    // processes of an earlier agent that hang in the driver
	skip    []string // bus addresses of stuck GPUs
	blind   bool
	tries   int // starts in a row that came to nothing
	loaded  loaded
	slowAt  time.Time
	retryAt time.Time // when stuck GPUs are tried again
}

// A lease asks the worker to let go.
type lease struct {
	reason string
	until  time.Time
	done   chan error
}

// Sample is the last one.
func (s *Supervisor) Sample() Sample {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

// Release makes the worker close the devices and end, so that a GPU can be reset or the driver changed, and returns when
// it has. After ttl, or Reopen, the conversation begins again.
func (s *Supervisor) Release(ctx context.Context, reason string, ttl time.Duration) error {
	l := lease{reason: reason, until: time.Now().Add(ttl), done: make(chan error, 1)}
	select {
	case s.leases() <- l:
	case <-ctx.Done():
		return fmt.Errorf("nvml: release for %s: %w", reason, ctx.Err())
	}
	select {
	case err := <-l.done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("nvml: release for %s: %w", reason, ctx.Err())
	}
}

// Reopen ends a release early.
func (s *Supervisor) Reopen(ctx context.Context) error { return s.Release(ctx, "", 0) }

func (s *Supervisor) leases() chan lease {
	s.once.Do(func() { s.lease = make(chan lease) })
	return s.lease
}

// Run speaks with the driver until ctx ends.
func (s *Supervisor) Run(ctx context.Context) error {
	defer func() {
		if s.worker != nil {
			_ = s.worker.close(context.WithoutCancel(ctx), s.Deadlines)
			s.worker = nil
		}
	}()
	s.Proc, s.Sys = cmp.Or(s.Proc, "/proc"), cmp.Or(s.Sys, "/sys")
	s.VersionFile = cmp.Or(s.VersionFile, filepath.Join(s.Proc, "driver/nvidia/version"))
	s.old = s.leftOver()
	for ctx.Err() == nil {
		wait := s.round(ctx)
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		case l := <-s.leases():
			s.release(ctx, l)
		}
	}
	return ctx.Err()
}

// round does what is due and says how long to rest.
func (s *Supervisor) round(ctx context.Context) time.Duration {
	switch {
	case s.blind || s.held() >= maxHeld:
		s.blind = true // the kernel log and sysfs go on; only a reboot brings the driver back
		s.status(Blind, fmt.Sprintf("%d processes hang in the driver: NVML is left alone until this machine boots again", s.held()))
		return time.Hour
	case s.worker == nil:
		return s.open(ctx)
	}
	now := time.Now()
	s.retry(ctx, now)
	if s.worker == nil {
		return 0
	}
	if text, changed := s.driverChanged(); changed {
		s.Log.Info("the driver changed, starting a new worker", "change", text)
		s.shut(ctx)
		return 0
	}
	last := s.Sample().At
	var err error
	if now.Sub(last) >= s.Poll {
		err = s.sample(ctx, now)
	} else {
		err = s.beat(ctx, now)
	}
	if err != nil {
		return s.failed(ctx, err)
	}
	return min(s.Beat, max(0, s.Poll-time.Since(s.Sample().At)))
}

// open starts a worker.
func (s *Supervisor) open(ctx context.Context) time.Duration {
	if s.tries == 0 && s.Sample().Status.State == "" {
		s.status(Starting, "")
	}
	c, err := s.start()
	if err != nil {
		s.status(Broken, err.Error())
		return s.backoff()
	}
	probe := s.prober(ctx)
	if err := c.greet(ctx, s.Deadlines, s.Init, probe.suspect); err != nil {
		s.worker = c
		return s.stuckOrFailed(ctx, err, probe)
	}
	probe.stop()
	if c.hello.State != Answering {
		c.kill()
		s.status(c.hello.State, c.hello.Text)
		return s.backoff()
	}
	s.worker, s.tries = c, 0
	s.loaded = s.loadedNow(c.hello.Driver.Library)
	s.slowAt = time.Time{}
	if err := s.sample(ctx, time.Now()); err != nil {
		return s.failed(ctx, err)
	}
	return min(s.Beat, s.Poll)
}

// backoff is how long to wait before the worker is started again: 1, 2, 4 … 60 s.
func (s *Supervisor) backoff() time.Duration {
	d := s.Again << min(s.tries, 16)
	s.tries++
	return min(d, s.Longest)
}

func (s *Supervisor) sample(ctx context.Context, now time.Time) error {
	slow := now.Sub(s.slowAt) >= s.Slow
	pci := PCI(s.Sys)
	probe := s.prober(ctx)
	a, err := s.worker.ask(ctx, Request{Op: OpSample, PCI: pci, Skip: s.skip, Slow: slow}, s.Deadlines, probe.suspect)
	if err != nil {
		return s.blockedOr(ctx, err, probe)
	}
	probe.stop()
	if a.Sample == nil {
		return errors.New("nvml: the worker answered without a sample")
	}
	if slow {
		s.slowAt = now
	}
	n := *a.Sample
	n.At, n.Took, n.PCI, n.Driver = now, time.Since(now), pci, s.worker.hello.Driver
	n.Driver.Kernel = s.loaded.kernel
	s.tell(func(cur *Sample) {
		n.Status = cur.Status
		if !slow { // they change as seldom as the slow readings
			n.System, n.Peers = cur.System, cur.Peers
		}
		n.GPUs = keepMissing(n.GPUs, cur.GPUs, s.skip)
		*cur = n
	})
	s.answering()
	return nil
}

// keepMissing adds the GPUs of the last sample that this one lacks: a GPU that nobody lists any more is lost, and its
// serial is what a technician needs.
func keepMissing(now, before []GPU, stuck []string) []GPU {
	for _, g := range before {
		if slices.ContainsFunc(now, g.Same) {
			continue
		}
		switch {
		case slices.Contains(stuck, g.Bus):
			g.State, g.Err = Stuck, "a call on this GPU blocked, and no call on the others: it is left alone"
		case g.State != Lost:
			g.State, g.Err = Lost, "the driver does not list it any more"
		}
		g.Values, g.Links = nil, nil
		now = append(now, g)
	}
	return now
}

func (s *Supervisor) beat(ctx context.Context, now time.Time) error {
	probe := s.prober(ctx)
	a, err := s.worker.ask(ctx, Request{Op: OpBeat}, s.Deadlines, probe.suspect)
	if err != nil {
		return s.blockedOr(ctx, err, probe)
	}
	probe.stop()
	if len(a.Events) > 0 {
		s.tell(func(cur *Sample) { cur.Events = a.Events })
		// What an event is about is read at once, not at the next poll.
		return s.sample(ctx, now)
	}
	return nil
}

// failed ends a worker that answered with an error or ended by itself.
func (s *Supervisor) failed(ctx context.Context, err error) time.Duration {
	if s.worker == nil { // it blocked, and that is dealt with
		return s.backoff()
	}
	if ctx.Err() != nil {
		return 0
	}
	s.Log.Warn("the NVML worker is started again", "err", err)
	s.worker.kill()
	s.killed = append(s.killed, s.worker)
	s.worker = nil
	s.status(Broken, err.Error())
	return s.backoff()
}

// driverChanged says whether another driver is loaded than when the worker started.
func (s *Supervisor) driverChanged() (string, bool) {
	now := s.loadedNow(s.worker.hello.Driver.Library)
	switch {
	case now.kernel != s.loaded.kernel:
		return fmt.Sprintf("kernel module %q became %q", s.loaded.kernel, now.kernel), true
	case now.inode != s.loaded.inode:
		return s.worker.hello.Driver.Library + " is another file now", true
	}
	return "", false
}

// shut ends the worker in order.
func (s *Supervisor) shut(ctx context.Context) {
	if err := s.worker.close(ctx, s.Deadlines); err != nil {
		s.Log.Warn("the NVML worker did not end in order", "err", err)
	}
	s.killed = append(s.killed, s.worker)
	s.worker = nil
}

// release lets go until the lease ends.
func (s *Supervisor) release(ctx context.Context, l lease) {
	if l.reason == "" {
		l.done <- nil // nothing to reopen
		return
	}
	if s.worker != nil {
		s.shut(ctx)
	}
	s.status(Released, "released for "+l.reason+" until "+l.until.UTC().Format(time.RFC3339))
	var err error
	if n := s.held(); n > 0 {
		err = fmt.Errorf("nvml: %d processes still hang in the driver and hold its devices", n)
	}
	l.done <- err
	timer := time.NewTimer(time.Until(l.until))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			s.tries = 0
			return
		case next := <-s.leases():
			if next.reason == "" {
				next.done <- nil
				s.tries = 0
				return
			}
			next.done <- err
			timer.Reset(time.Until(next.until))
			s.status(Released, "released for "+next.reason+" until "+next.until.UTC().Format(time.RFC3339))
		}
	}
}

// held is how many killed workers still exist.
func (s *Supervisor) held() int {
	if s.Held != nil {
		return s.Held()
	}
	s.killed = slices.DeleteFunc(s.killed, func(c *child) bool { return !c.held() })
	s.old = slices.DeleteFunc(s.old, func(pid int) bool { return !s.hangs(pid) })
	return len(s.killed) + len(s.old)
}

// status notes how the conversation stands and tells it, if it changed.
func (s *Supervisor) status(state, text string, evidence ...Evidence) {
	cur := s.Sample().Status
	if cur.State == state && cur.Text == text && len(evidence) == 0 {
		return
	}
	st := Status{State: state, Text: text, Since: time.Now(), Evidence: evidence}
	if cur.State == state {
		st.Since = cur.Since
	}
	if state != Answering && len(evidence) == 0 {
		st.Evidence = cur.Evidence // what led here
	}
	if state != Answering && state != Starting {
		st.Held = s.held()
		s.Log.Warn("NVML", "state", state, "text", text)
	}
	pci := PCI(s.Sys)
	s.tell(func(c *Sample) { c.Status, c.PCI = st, pci })
}

// tell changes the current sample and gives it on.
func (s *Supervisor) tell(change func(*Sample)) {
	s.mu.Lock()
	change(&s.current)
	n := s.current
	s.mu.Unlock()
	if s.Tell != nil {
		s.Tell(n)
	}
	s.mu.Lock()
	s.current.Events = nil // told
	s.mu.Unlock()
}
