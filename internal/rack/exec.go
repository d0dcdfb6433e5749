package rack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

// An Output is what a command said and how it ended.
type Output struct {
	Stdout, Stderr string
	Code           int // exit status
}

// Exec runs a command inside the namespace, where BMCs and servers are reached,
// to its end. A command that ran and failed is no error: see Code.
func (r *Rack) Exec(ctx context.Context, stdin []byte, name string, args ...string) (Output, error) {
	cmd := exec.Command(name, args...)
	var out, errOut bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &errOut
	err := r.children.run(ctx, name, cmd)
	return output(&out, &errOut, name, err)
}

// Dial connects from inside the namespace; addr is an IP literal with a port.
func (r *Rack) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	return r.ns.dial(ctx, network, addr)
}

// A Daemon is a program that serves the rack from inside its namespace: hostlerd.
// It can be killed and started again with the same words.
type Daemon struct {
	Program string
	Args    []string
	Env     []string // added to PATH and HOME, which is all it gets besides
	Log     string   // standard output and error are appended here

	process *Process
}

// StartDaemon starts a daemon, or one that ended again. Down stops it.
func (r *Rack) StartDaemon(d *Daemon) error {
	log, err := os.OpenFile(d.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("rack: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(d.Program, d.Args...)
	cmd.Dir = r.Dir
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + r.Dir}, d.Env...)
	cmd.Stdout, cmd.Stderr = log, log
	p, err := r.children.start(filepath.Base(d.Program), cmd)
	if err != nil {
		return err
	}
	d.process = p
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Contains(r.daemons, d) {
		r.daemons = append(r.daemons, d)
	}
	r.log.Info("daemon started", "program", d.Program, "pid", p.PID())
	return nil
}

// Process is the running (or last) process of the daemon.
func (d *Daemon) Process() *Process { return d.process }

// WaitAPI waits until the API's port inside the namespace accepts connections,
// or the daemon ends.
func (r *Rack) WaitAPI(ctx context.Context, d *Daemon) error {
	for {
		c, err := r.Dial(ctx, "tcp", insideAPI)
		if err == nil {
			return c.Close()
		}
		select {
		case <-d.process.Done():
			return fmt.Errorf("%s ended (%v), see %s", filepath.Base(d.Program), d.process.Err(), d.Log)
		case <-ctx.Done():
			return fmt.Errorf("%s does not open its API, see %s: %w", filepath.Base(d.Program), d.Log, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// A CLI is the hostler program as a user outside the rack runs it.
type CLI struct {
	Program   string
	TokenFile string
	Ports     Ports
}

// Run runs hostler with these words to its end. A refused command is no error:
// see Code.
func (c CLI) Run(ctx context.Context, stdin []byte, args ...string) (Output, error) {
	cmd := exec.CommandContext(ctx, c.Program, args...)
	cmd.Env = append(os.Environ(), fmt.Sprintf("HOSTLER_URL=http://127.0.0.1:%d", c.Ports.API), "HOSTLER_TOKEN_FILE="+c.TokenFile)
	var out, errOut bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &errOut
	err := cmd.Run()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return output(&out, &errOut, c.Program, err)
}

func output(out, errOut *bytes.Buffer, name string, err error) (Output, error) {
	o := Output{Stdout: out.String(), Stderr: errOut.String()}
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() >= 0 {
		o.Code, err = exit.ExitCode(), nil
	}
	if err != nil {
		return o, fmt.Errorf("rack: run %s: %w", name, err)
	}
	return o, nil
}
