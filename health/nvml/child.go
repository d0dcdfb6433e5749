package nvml

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A child is one worker process.
type child struct {
	pid     int
	process *os.Process
	in, out *os.File
	page    *Page
	proc    string
	hello   Hello
	next    uint64
	answers chan Answer
	gone    chan struct{} // closed when the process ended and was reaped
	readErr error         // set before answers is closed
}

// blocked is the error of a call that did not come back in its time.
type blocked struct{ Call }

func (b blocked) Error() string {
	at := ""
	if b.Bus != "" {
		at = " on GPU " + b.Bus
	}
	return fmt.Sprintf("%s%s has blocked for %s", b.Name, at, b.For.Round(100*time.Millisecond))
}

// start runs a worker. What it says first is not waited for: see greet. The process is started through os, not os/exec,
// whose Wait and copying goroutines would hang on a process that cannot end.
func (s *Supervisor) start() (*child, error) {
	page, pageFile, err := NewPage()
	if err != nil {
		return nil, err
	}
	defer pageFile.Close()
	reqR, reqW, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, page.Close())
	}
	defer reqR.Close()
	ansR, ansW, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, page.Close(), reqW.Close())
	}
	defer ansW.Close()
	argv := append([]string{s.Program, "serve"}, s.Args...)
	p, err := os.StartProcess(s.Program, argv, &os.ProcAttr{
		Env:   append(os.Environ(), s.Env...),
		Files: []*os.File{reqR, ansW, os.Stderr, pageFile},
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("nvml: start the worker: %w", err), page.Close(), reqW.Close(), ansR.Close())
	}
	c := &child{pid: p.Pid, process: p, in: reqW, out: ansR, page: page, proc: s.Proc, answers: make(chan Answer, 1), gone: make(chan struct{})}
	go func() {
		defer close(c.answers)
		for {
			var a Answer
			if c.readErr = ReadFrame(ansR, &a); c.readErr != nil {
				return
			}
			c.answers <- a
		}
	}()
	go func() {
		// The only one who waits: for ever, if the process hangs in the driver.
		_, _ = p.Wait()
		close(c.gone)
	}()
	return c, nil
}

// greet waits for the worker's first message: by then Init is done.
func (c *child) greet(ctx context.Context, d Deadlines, init time.Duration, suspect func(Call)) error {
	a, err := c.wait(ctx, 0, d, init, suspect)
	if err != nil {
		return err
	}
	if a.Hello == nil || a.Hello.Protocol != Protocol {
		return errors.New("nvml: the worker is of another version: install agent and hostler-nvml of one release")
	}
	c.hello = *a.Hello
	return nil
}

// ask sends a request and waits for its answer, as long as no single call in it takes longer than d.Call.
func (c *child) ask(ctx context.Context, r Request, d Deadlines, suspect func(Call)) (Answer, error) {
	c.next++
	r.ID = c.next
	if err := c.in.SetWriteDeadline(time.Now().Add(d.Call)); err != nil {
		return Answer{}, fmt.Errorf("nvml: send %s: %w", r.Op, err)
	}
	if err := WriteFrame(c.in, r); err != nil {
		return Answer{}, fmt.Errorf("nvml: send %s: %w", r.Op, err)
	}
	a, err := c.wait(ctx, r.ID, d, d.Call, suspect)
	if err == nil && a.Err != "" {
		err = errors.New("nvml: " + r.Op + ": " + a.Err)
	}
	return a, err
}

// wait waits for the answer with an id. The page decides: a call that is under way for longer than limit is a blocked
// error, and suspect is told once when it is late. A worker that is in no call and says nothing is blocked
// as well.
func (c *child) wait(ctx context.Context, id uint64, d Deadlines, limit time.Duration, suspect func(Call)) (Answer, error) {
	begin := time.Now()
	lastSeq, lastMove := c.page.Now().Seq, begin
	told := false
	tick := time.NewTimer(d.Tick)
	defer tick.Stop()
	for {
		select {
		case a, ok := <-c.answers:
			if !ok {
				return Answer{}, fmt.Errorf("nvml: the worker ended: %w", c.readErr)
			}
			if a.ID != id {
				continue // of a request that was given up
			}
			return a, nil
		case <-ctx.Done():
			return Answer{}, ctx.Err()
		case <-tick.C:
			tick.Reset(d.Tick)
			now := c.page.Now()
			if now.Seq != lastSeq {
				lastSeq, lastMove = now.Seq, time.Now()
			}
			if !now.Under {
				now.For, now.Name, now.Bus = time.Since(lastMove), "the worker, outside of any call", ""
			}
			if now.For > limit {
				return Answer{}, blocked{now}
			}
			if suspect != nil && !told && now.Under && now.For > max(d.Suspect, limit-d.Call) {
				told = true
				suspect(now)
			}
		}
	}
}

// abandon kills the worker and does not wait for it: SIGKILL does nothing to a process that hangs in the driver. What
// the kernel shows of it is read before.
func (c *child) abandon(call Call) Evidence {
	e := c.evidence(call)
	c.kill()
	return e
}

// kill is called by the goroutine that owns the child, as its last act: the page is gone after it.
func (c *child) kill() {
	_ = c.process.Signal(syscall.SIGKILL)
	_ = c.in.Close() // our ends: this frees the reading goroutine
	_ = c.out.Close()
	_ = c.page.Close()
}

// close asks the worker to let go of the devices and waits a little for its end.
func (c *child) close(ctx context.Context, d Deadlines) error {
	_, err := c.ask(ctx, Request{Op: OpClose}, d, nil)
	if err == nil {
		select {
		case <-c.gone:
		case <-time.After(d.Call):
			err = errors.New("nvml: the worker said that it ends, and did not")
		}
	}
	c.kill()
	return err
}

// held says whether the process is still there.
func (c *child) held() bool {
	select {
	case <-c.gone:
		return false
	default:
		return true
	}
}

// evidence reads what /proc says of the thread that calls. Nothing here blocks on a process that hangs (cmdline and
// maps would).
func (c *child) evidence(call Call) Evidence {
	e := Evidence{At: time.Now(), PID: c.pid, Call: call.Name, Bus: call.Bus, Blocked: call.For}
	dir := filepath.Join(c.proc, strconv.Itoa(c.pid))
	if call.TID != 0 {
		dir = filepath.Join(dir, "task", strconv.Itoa(call.TID))
	}
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(b))
	}
	for line := range strings.SplitSeq(read("status"), "\n") {
		if v, ok := strings.CutPrefix(line, "State:"); ok {
			e.State = strings.TrimSpace(v)
		}
	}
	e.Wchan, e.Stack = read("wchan"), read("stack")
	return e
}
