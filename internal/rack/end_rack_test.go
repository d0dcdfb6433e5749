//go:build rack

package rack

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A daemon can be killed and started again with the same words, each time inside
// the namespace.
func TestDaemonIsKilledAndStartedAgain(t *testing.T) {
	r := startRack(t)
	d := &Daemon{Program: "/bin/sh", Args: []string{"-c", "echo started with $WORD; exec sleep 600"}, Env: []string{"WORD=this"}, Log: filepath.Join(r.Dir, "daemon.log")}
	for times := 1; times <= 3; times++ {
		if err := r.StartDaemon(d); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			b, err := os.ReadFile(d.Log)
			if err == nil && strings.Count(string(b), "started with this\n") == times {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("start %d: the log is %q, %v", times, b, err)
			}
		}
		inside := slices.ContainsFunc(inNamespace(netnsName(r.Name)), func(p procID) bool { return p.PID == d.Process().PID() })
		if !inside {
			t.Errorf("start %d: not in the rack's namespace", times)
		}
		if times < 3 {
			d.Process().Kill()
			continue
		}
		if err := r.Down(); err != nil { // stops it, in order
			t.Error(err)
		}
		if err := d.Process().Err(); err == nil || !strings.Contains(err.Error(), "terminated") {
			t.Errorf("Down: ended with %v, want SIGTERM", err)
		}
	}
}

// Ctrl-C, kill -9 and a second start, as a person meets them.
func TestNothingIsLeftHoweverItEnds(t *testing.T) {
	name, dir := randomName(), t.TempDir()+"/rack"
	t.Cleanup(func() { exec.Command(program, "--name", name, "down").Run() })
	up := func() *exec.Cmd {
		t.Helper()
		c := exec.Command(program, "--name", name, "up", "--dir", dir)
		c.Stderr = t.Output()
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 4096)
		for said := ""; !strings.Contains(said, "is up"); {
			n, err := out.Read(buf)
			if said += string(buf[:n]); err != nil {
				t.Fatalf("up ended early: %v\n%s", err, said)
			}
		}
		go io.Copy(io.Discard, out)
		if _, err := Ask(ControlSocket(name), Request{Op: "press", Node: "b"}); err != nil {
			t.Fatal(err)
		}
		return c
	}

	c := up()
	if out, err := exec.Command(program, "--name", name, "up").CombinedOutput(); err == nil || !strings.Contains(string(out), "already running") {
		t.Errorf("a second up: %v, %s", err, out)
	}
	children := recorded(t, name)
	c.Process.Kill()
	c.Wait()
	for _, p := range children {
		if !p.gone(5 * time.Second) {
			t.Errorf("%s outlives its killed supervisor", p.What)
		}
	}

	c = up() // at once, over the remains
	c.Process.Signal(os.Interrupt)
	if err := c.Wait(); err != nil {
		t.Errorf("Ctrl-C: %v", err)
	}
	nothingLeft(t, name)

	// Killed so that not even its children noticed: the sweep finds them.
	c = up()
	stray := exec.Command("ip", "netns", "exec", netnsName(name), "sleep", "600")
	if err := stray.Start(); err != nil {
		t.Fatal(err)
	}
	go stray.Wait()
	time.Sleep(200 * time.Millisecond) // until ip has entered the namespace
	c.Process.Signal(unix.SIGKILL)
	c.Wait()
	if out, err := exec.Command(program, "--name", name, "sweep").CombinedOutput(); err != nil {
		t.Errorf("sweep: %v: %s", err, out)
	}
	if p, err := identify("stray", stray.Process.Pid); err == nil && p.alive() {
		t.Error("a process in the namespace is left, though nothing recorded it")
	}
	nothingLeft(t, name)
}

func recorded(t *testing.T, name string) []procID {
	t.Helper()
	r, err := loadRun(name)
	if err != nil || len(r.Children) != 3 {
		t.Fatalf("run file: %+v, %v: want two BMCs and one server", r, err)
	}
	return r.Children
}
