package faults

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// A Process is a program of the run. It is ended by its own pid; should the run die, the namespace ends it.
type Process struct {
	Name    string
	Started time.Time
	cmd     *exec.Cmd
	done    chan struct{}
}

// start runs a program; what it says is appended to a file.
func start(name, log, program string, env []string, args ...string) (*Process, error) {
	f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p := &Process{Name: name, Started: time.Now(), cmd: exec.Command(program, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.Env = f, f, append(os.Environ(), env...)
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("faults: start %s: %w", name, err)
	}
	go func() { _ = p.cmd.Wait(); close(p.done) }() // how it ended is in its log
	return p, nil
}

// PID of the program.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Alive says whether it runs, stopped or not.
func (p *Process) Alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Kill is SIGKILL, then wait.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // gone already is as good
	<-p.done
}

// Stop and Continue freeze it and let it go on.
func (p *Process) Stop() error { return p.cmd.Process.Signal(syscall.SIGSTOP) }

// Continue ends a Stop.
func (p *Process) Continue() error { return p.cmd.Process.Signal(syscall.SIGCONT) }

// End asks it to end, and kills it after the grace time.
func (p *Process) End(grace time.Duration) {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(grace):
		p.Kill()
	}
}
