package sanitize

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/hostler-project/hostler/inventory"
)

// Options tune an Erase; the zero value is good.
type Options struct {
	Poll     time.Duration // how often a running sanitize is asked; 0 means 2 s
	Timeout  time.Duration // for one format command; 0 means 6 h
	Progress func(Progress)
}

// Progress is how far one medium is.
type Progress struct {
	Medium inventory.Medium
	Phase  string // "prepare", "erase", "read back"
	Done   int64  // bytes read back so far
	Total  int64
}

// Erase erases every drive and proves it. expected are the media recorded for the node: one that is not among the drives
// is an error before anything is done, as is a node without any medium; a drive that was not recorded is erased too.
// Proofs come back for every drive that was begun, also with an error; only those with Passed count, and the error is
// nil only when all of them passed. All drives are erased at once and one that fails stops no other.
func Erase(ctx context.Context, drives []Drive, expected []inventory.Medium, o Options) ([]inventory.MediumProof, error) {
	if err := complete(drives, expected); err != nil {
		return nil, err
	}
	if o.Poll <= 0 {
		o.Poll = 2 * time.Second
	}
	if o.Timeout <= 0 {
		o.Timeout = 6 * time.Hour
	}
	proofs := make([]inventory.MediumProof, len(drives))
	var say sync.Mutex
	var wg sync.WaitGroup
	for i, d := range drives {
		wg.Go(func() {
			e := &eraser{d: d, o: o, m: d.Medium(), tag: newTag()}
			e.tell = func(phase string, done, total int64) {
				if o.Progress != nil {
					say.Lock()
					defer say.Unlock()
					o.Progress(Progress{e.m, phase, done, total})
				}
			}
			for _, x := range expected {
				if x.Key() == e.m.Key() {
					e.recorded = x.Size
				}
			}
			proofs[i] = e.run(ctx)
		})
	}
	wg.Wait()
	var errs []error
	for _, p := range proofs {
		if !p.Passed {
			errs = append(errs, fmt.Errorf("sanitize: %s: %s", p.Medium, strings.Join(p.Faults, "; ")))
		}
	}
	return proofs, errors.Join(errs...)
}

// ErrMissing is in the chain of Erase's error when a recorded medium is not there.
var ErrMissing = errors.New("recorded for this node and not there now: put it back, or record what became of it")

// complete holds that absence is never permission.
func complete(drives []Drive, expected []inventory.Medium) error {
	left := map[string]int{}
	for _, d := range drives {
		left[d.Medium().Key()]++
	}
	var errs []error
	for _, m := range expected {
		if left[m.Key()] == 0 {
			errs = append(errs, fmt.Errorf("sanitize: medium %s (%s) is %w", m, m.Kind, ErrMissing))
			continue
		}
		left[m.Key()]--
	}
	if len(errs) == 0 && len(drives) == 0 {
		return errors.New("sanitize: no medium is recorded and none was found: that proves nothing; look for a drive or controller that is not seen")
	}
	return errors.Join(errs...)
}

// An eraser is the erasure of one drive.
type eraser struct {
	d        Drive
	o        Options
	m        inventory.Medium
	recorded int64 // size when it was recorded; 0: it was not
	tag      tag
	tell     func(phase string, done, total int64)
	p        inventory.MediumProof
	caps     caps
	spaces   []namespace
	hidden   []uint32 // allocated, not attached
	t        technique
}

// fault notes why the proof does not count.
func (e *eraser) fault(format string, args ...any) {
	e.p.Faults = append(e.p.Faults, fmt.Sprintf(format, args...))
}

func (e *eraser) run(ctx context.Context) inventory.MediumProof {
	e.p = inventory.MediumProof{Medium: e.m, Start: time.Now().UTC()}
	e.steps(ctx)
	e.p.Medium, e.p.End = e.m, time.Now().UTC()
	e.p.Passed = len(e.p.Faults) == 0
	return e.p
}

// steps does the work in order and stops at the first step that leaves a fault.
func (e *eraser) steps(ctx context.Context) {
	e.tell("prepare", 0, 0)
	var finds []find
	for _, step := range []func(){
		func() { e.capabilities(ctx) },
		func() { e.settle(ctx) },
		func() { finds = e.prepare(ctx) },
		func() { e.tell("erase", 0, 0); e.erase(ctx) },
		func() { e.lookAgain() },
		func() { e.readBack(ctx, finds) },
	} {
		step()
		if len(e.p.Faults) > 0 {
			break
		}
		if err := ctx.Err(); err != nil {
			e.fault("stopped: %v", context.Cause(ctx))
			break
		}
	}
	if len(e.p.Faults) == 0 && len(e.p.Reads) == 0 {
		e.fault("nothing was read back")
	}
}

// capabilities asks the drive what it is, has and can, and chooses the technique.
func (e *eraser) capabilities(ctx context.Context) {
	if e.m.Kind == inventory.MediumNVMe {
		c, spaces, hidden, err := describe(e.d)
		if err != nil {
			e.fault("%v", err)
			return
		}
		if c.serial != e.m.Serial {
			e.fault("the drive says serial %q, the system %q: they were exchanged just now", c.serial, e.m.Serial)
			return
		}
		e.caps, e.spaces, e.hidden = c, spaces, hidden
		fill(&e.m, c, spaces)
		e.p.NotDone = append(e.p.NotDone, "boot partitions: not read")
		if c.rpmb > 0 {
			e.p.NotDone = append(e.p.NotDone, fmt.Sprintf("replay protected memory: %d units not erased", c.rpmb))
		}
	} else {
		for _, n := range e.m.Namespaces {
			e.spaces = append(e.spaces, namespace{Namespace: n})
		}
		e.p.NotDone = append(e.p.NotDone, "purge: no erase command for this kind of medium")
	}
	var not []string
	e.t, not = choose(e.m.Kind == inventory.MediumNVMe, e.caps)
	e.p.Method, e.p.Technique, e.p.NotDone = e.t.method, e.t.name, append(e.p.NotDone, not...)
	if e.recorded > e.m.Size {
		e.fault("it has %d bytes and had %d when it was recorded: part of it is hidden; bring its namespaces back to the SKU's layout", e.m.Size, e.recorded)
	}
	for _, id := range e.hidden {
		if !e.t.whole {
			e.fault("namespace %d is allocated but not attached, and %s does not reach it: attach or delete it", id, e.t.name)
			continue
		}
		e.p.NotDone = append(e.p.NotDone, fmt.Sprintf("namespace %d: not read back, it is not attached", id))
	}
	seen, err := e.d.Visible()
	if err != nil {
		e.fault("%v", err)
	}
	for _, n := range e.spaces {
		found := false
		for _, id := range seen {
			found = found || id == n.ID
		}
		if !found {
			e.fault("namespace %d is attached, but the system has no block device for it", n.ID)
		}
		if n.protected {
			e.fault("namespace %d is write-protected", n.ID)
		}
	}
	if len(e.spaces) == 0 {
		e.fault("it has no attached namespace: nothing could be read back")
	}
}

// settle reads the sanitize log before any I/O: a sanitize that was running when the machine went down is waited for, a
// failed one is repeated until the drive can be used again. The erasure proper follows in any case.
func (e *eraser) settle(ctx context.Context) {
	if e.m.Kind != inventory.MediumNVMe || e.caps.SANICAP&7 == 0 {
		return
	}
	l, err := sanitizeLog(e.d)
	e.p.Before = l
	if err != nil {
		e.fault("%v", err)
		return
	}
	if l.Status&7 == sanRunning {
		e.p.NotDone = append(e.p.NotDone, "a sanitize was running already: waited for, then erased again")
		if l, err = waitSanitize(ctx, e.d, e.o.Poll); err != nil {
			e.fault("%v", err)
			return
		}
	}
	if l.Status&7 == sanFailed {
		e.p.NotDone = append(e.p.NotDone, "an earlier sanitize had failed: repeated, then erased again")
		if !e.t.whole {
			e.fault("an earlier sanitize failed and %s cannot repair that", e.t.name)
			return
		}
		e.command(ctx, namespace{})
	}
}

// erase sends the technique's commands.
func (e *eraser) erase(ctx context.Context) {
	for _, n := range e.spaces {
		if e.t.nvme {
			e.command(ctx, n)
		} else {
			e.overwrite(ctx, n)
		}
		if len(e.p.Faults) > 0 || e.t.whole {
			break
		}
	}
	if e.caps.SANICAP&7 != 0 {
		l, err := sanitizeLog(e.d)
		e.p.After = l
		if err != nil {
			e.fault("%v", err)
		}
	}
}

// command sends one erasing command, waits for its end, and records both.
func (e *eraser) command(ctx context.Context, n namespace) {
	c := e.t.issue(n)
	c.Timeout = e.o.Timeout
	rec := inventory.DriveCommand{Name: e.t.says(n), Start: time.Now().UTC(), Status: "ok"}
	err := e.d.Admin(c)
	var log *inventory.SanitizeLog
	if err == nil && c.Opcode == opSanitize {
		if log, err = waitSanitize(ctx, e.d, e.o.Poll); err == nil && log.Status&7 != sanDone && log.Status&7 != sanDoneForce {
			err = fmt.Errorf("the drive's log then says: %s", log.Means)
		} else if err == nil && log.Command&7 != c.CDW10&7 {
			err = fmt.Errorf("the drive's log is of another command: 0x%x", log.Command)
		}
	}
	rec.End = time.Now().UTC()
	if err != nil {
		rec.Status = err.Error()
		e.fault("%s: %v", rec.Name, err)
	}
	e.p.Commands = append(e.p.Commands, rec)
}

func (e *eraser) overwrite(ctx context.Context, n namespace) {
	rec := inventory.DriveCommand{Name: e.t.says(n), Start: time.Now().UTC(), Status: "ok"}
	err := func() error {
		f, err := e.d.Open(n.ID)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := f.Zero(ctx, 0, f.Size()); err != nil {
			return err
		}
		return f.Sync()
	}()
	rec.End = time.Now().UTC()
	if err != nil {
		rec.Status = err.Error()
		e.fault("%s: %v", rec.Name, err)
	}
	e.p.Commands = append(e.p.Commands, rec)
}

// lookAgain holds that no namespace came or went while the drive was erased.
func (e *eraser) lookAgain() {
	if e.m.Kind != inventory.MediumNVMe {
		return
	}
	_, spaces, hidden, err := describe(e.d)
	if err != nil {
		e.fault("after the erasure: %v", err)
		return
	}
	if len(hidden) != len(e.hidden) || len(spaces) != len(e.spaces) {
		e.fault("it had %d attached and %d other namespaces and now has %d and %d: start again", len(e.spaces), len(e.hidden), len(spaces), len(hidden))
		return
	}
	for i, n := range spaces {
		if was := e.spaces[i]; was.ID != n.ID || was.Size != n.Size || was.LBA != n.LBA {
			e.fault("namespace %d had %d bytes in blocks of %d, now namespace %d has %d in blocks of %d", was.ID, was.Size, was.LBA, n.ID, n.Size, n.LBA)
		}
	}
}

// describe reads an NVMe drive's capability pages and namespaces; hidden are those allocated and not attached.
func describe(d Drive) (c caps, spaces []namespace, hidden []uint32, err error) {
	if c, err = identifyController(d); err != nil {
		return c, nil, nil, err
	}
	active, err := listNamespaces(d, 0x02)
	if err != nil {
		return c, nil, nil, err
	}
	known := map[uint32]bool{}
	for _, id := range active {
		n, err := identifyNamespace(d, id)
		if err != nil {
			return c, nil, nil, err
		}
		spaces, known[id] = append(spaces, n), true
	}
	if c.manages() {
		allocated, err := listNamespaces(d, 0x10)
		if err != nil {
			return c, nil, nil, err
		}
		for _, id := range allocated {
			if !known[id] {
				hidden = append(hidden, id)
			}
		}
	}
	return c, spaces, hidden, nil
}

// fill puts what the drive said into its record.
func fill(m *inventory.Medium, c caps, spaces []namespace) {
	seen := c.MediumCaps
	m.Seen, m.Namespaces, m.Size = &seen, nil, 0
	for _, n := range spaces {
		m.Namespaces = append(m.Namespaces, n.Namespace)
		m.Size += n.Size
	}
}
