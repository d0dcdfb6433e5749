package rack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A procID names one process for ever: pids are used again, a pid with its
// start time (field 22 of /proc/PID/stat, in clock ticks since boot) is not.
type procID struct {
	What    string `json:"what"`
	PID     int    `json:"pid"`
	Started uint64 `json:"started"`
}

// identify reads the start time of a process.
func identify(what string, pid int) (procID, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return procID{}, err
	}
	started, err := startTime(string(b))
	if err != nil {
		return procID{}, fmt.Errorf("rack: /proc/%d/stat: %w", pid, err)
	}
	return procID{What: what, PID: pid, Started: started}, nil
}

// startTime takes field 22 out of a /proc/PID/stat line, see proc(5). The
// program's name, field 2, may itself contain spaces and brackets.
func startTime(stat string) (uint64, error) {
	_, rest, ok := strings.Cut(stat[strings.LastIndexByte(stat, ')')+1:], " ")
	f := strings.Fields(rest)
	if !ok || len(f) < 20 {
		return 0, errors.New("not a process status line")
	}
	return strconv.ParseUint(f[19], 10, 64)
}

// alive says whether that very process still runs. A zombie does not.
func (p procID) alive() bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID))
	if err != nil {
		return false
	}
	s := string(b)
	started, err := startTime(s)
	zombie := strings.HasPrefix(s[strings.LastIndexByte(s, ')')+1:], " Z")
	return err == nil && started == p.Started && !zombie
}

// signal sends a signal to that very process, by a descriptor of it, so that it
// cannot hit a newcomer with the same pid.
func (p procID) signal(sig unix.Signal) error {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("rack: open process %d (%s): %w", p.PID, p.What, err)
	}
	defer unix.Close(fd)
	if !p.alive() {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("rack: signal process %d (%s): %w", p.PID, p.What, err)
	}
	return nil
}

// gone waits until that process does not run any more.
func (p procID) gone(limit time.Duration) bool {
	for end := time.Now().Add(limit); p.alive(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// A Process is a running child in the rack's namespace.
type Process struct {
	id   procID
	cmd  *exec.Cmd
	done chan struct{}
	err  error // valid once done is closed
}

// PID of the child.
func (p *Process) PID() int { return p.id.PID }

// Done is closed when the child has ended and is no longer on record.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err is how the child ended; nil while it runs and after exit status 0.
func (p *Process) Err() error {
	select {
	case <-p.done:
		return p.err
	default:
		return nil
	}
}

// Kill is SIGKILL, then wait.
func (p *Process) Kill() {
	p.cmd.Process.Kill()
	<-p.done
}

// Stop asks with SIGTERM, and kills after the grace time.
func (p *Process) Stop(grace time.Duration) {
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(grace):
		p.Kill()
	}
}

// children starts processes in the namespace and keeps the run file telling
// which ones run, for a sweep.
type children struct {
	ns   *namespace
	save func([]procID) error

	mu      sync.Mutex
	running []*Process
}

// start runs cmd in the namespace. The child dies with the supervisor, and a
// Ctrl-C at the terminal reaches only the supervisor, which ends its children in
// order.
func (c *children) start(what string, cmd *exec.Cmd) (*Process, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := c.ns.call(cmd.Start); err != nil {
		return nil, fmt.Errorf("rack: start %s: %w", what, err)
	}
	id, err := identify(what, cmd.Process.Pid)
	if err != nil { // cannot be: even a zombie has a status line until Wait
		id = procID{What: what, PID: cmd.Process.Pid}
	}
	p := &Process{id: id, cmd: cmd, done: make(chan struct{})}
	saved := c.note(func() { c.running = append(c.running, p) })
	go func() {
		p.err = cmd.Wait()
		// Not worth a word: the file then names a process that is gone, which a
		// sweep finds out by its start time.
		_ = c.note(func() { c.running = slices.DeleteFunc(c.running, func(x *Process) bool { return x == p }) })
		close(p.done)
	}()
	if saved != nil {
		p.Kill()
		return nil, saved
	}
	return p, nil
}

// note changes the list of what runs and writes it down.
func (c *children) note(change func()) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
	var ids []procID
	for _, p := range c.running {
		ids = append(ids, p.id)
	}
	return c.save(ids)
}

// kill ends everything that still runs.
func (c *children) kill() {
	c.mu.Lock()
	all := slices.Clone(c.running)
	c.mu.Unlock()
	for _, p := range all {
		p.Kill()
	}
}

// run runs a short command in the namespace to its end.
func (c *children) run(ctx context.Context, what string, cmd *exec.Cmd) error {
	p, err := c.start(what, cmd)
	if err != nil {
		return err
	}
	select {
	case <-p.Done():
		return p.Err()
	case <-ctx.Done():
		p.Kill()
		return ctx.Err()
	}
}
