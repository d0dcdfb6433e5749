package bmc

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// asError returns err's *Error, or fails.
func asError(t *testing.T, err error) *Error {
	t.Helper()
	e, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("got %v (%T), want an *Error", err, err)
	}
	if strings.Contains(err.Error(), simPassword) {
		t.Fatalf("the password is in the error: %v", err)
	}
	return e
}

func TestPowerFollowsOnARealController(t *testing.T) {
	s := startSim(t)
	c := s.open(quick())
	for _, step := range []struct {
		want Power
		file string
	}{{On, "1"}, {On, "1"}, {Off, "0"}, {Off, "0"}, {On, "1"}} {
		if err := c.SetPower(t.Context(), step.want); err != nil {
			t.Fatalf("SetPower(%s): %v", step.want, err)
		}
		if got := s.get("power"); got != step.file {
			t.Fatalf("after SetPower(%s) the machine's power is %s", step.want, got)
		}
		if got, err := c.Power(t.Context()); got != step.want || err != nil {
			t.Fatalf("Power() = %s, %v; want %s", got, err, step.want)
		}
	}
	if n := s.calls("set power 1"); n != 2 {
		t.Errorf("a machine that was on was switched on again: %d orders for 2 changes", n)
	}
	for _, nonsense := range []Power{Unknown, "cycle", ""} {
		if err := c.SetPower(t.Context(), nonsense); err == nil {
			t.Errorf("SetPower(%q) did not complain", nonsense)
		}
	}
}

// A client that sends again when the answer is late makes ipmi_sim act again
// (rack.md fact 7). The machine is told once, and ends where it was told to be.
func TestSlowControllerIsToldOnce(t *testing.T) {
	for _, row := range []struct {
		name, seconds string
	}{
		{"answers when a read would have been repeated", "0.4"},
		{"answers when we stopped waiting", "1.2"},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := startSim(t)
			p := quick()
			p.again = 10 * time.Second
			c := s.open(p)
			c.drv.pace.exchange, c.drv.pace.resends = 250*time.Millisecond, 2
			s.set("delay", row.seconds)
			for _, step := range []struct {
				want Power
				file string
			}{{On, "1"}, {Off, "0"}} {
				if err := c.SetPower(t.Context(), step.want); err != nil {
					t.Fatalf("SetPower(%s): %v", step.want, err)
				}
				if got := s.get("power"); got != step.file {
					t.Fatalf("after SetPower(%s) the machine's power is %s", step.want, got)
				}
				if n := s.calls("set power " + step.file); n != 1 {
					t.Errorf("it was told %s %d times", step.want, n)
				}
			}
		})
	}
}

func TestHungControllerIsReportedWithinTheDeadline(t *testing.T) {
	s := startSim(t)
	c := s.open(quick())
	c.drv.pace.call = time.Second
	s.set("hang", "60")
	begin := time.Now()
	err := c.SetPower(t.Context(), On)
	e := asError(t, err)
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("it took %v, the deadline of a call is one second", took)
	}
	if !e.Temporary || e.Credentials || e.Unconfirmed {
		t.Errorf("got %+v: want a temporary failure, and nothing sent", e)
	}
}

func TestHangAfterTheOrderIsUnconfirmed(t *testing.T) {
	s := startSim(t)
	p := quick()
	p.settle = 1500 * time.Millisecond
	c := s.open(p)
	s.set("delay", "60") // looks are answered, the order never is
	e := asError(t, c.SetPower(t.Context(), On))
	if !e.Unconfirmed {
		t.Errorf("got %+v, want unconfirmed: the order went out", e)
	}
}

func TestCallersDeadlineHolds(t *testing.T) {
	s := startSim(t)
	c := s.open(quick())
	s.set("hang", "60")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	begin := time.Now()
	_, err := c.Power(ctx)
	if e := asError(t, err); !errors.Is(err, context.DeadlineExceeded) || !e.Temporary {
		t.Errorf("got %v, want the caller's deadline", err)
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestSessionIsReopenedAfterTheControllerRestarted(t *testing.T) {
	s := startSim(t)
	c := s.open(quick())
	if err := c.SetPower(t.Context(), On); err != nil {
		t.Fatal(err)
	}
	s.kill()
	_, err := c.Power(t.Context())
	if e := asError(t, err); !e.Temporary {
		t.Errorf("with nothing listening: got %+v, want temporary", e)
	}
	s.start()
	// The port listens again, but this process knows no session of ours.
	if got, err := c.Power(t.Context()); got != On || err != nil {
		t.Fatalf("after the restart: Power() = %s, %v", got, err)
	}

	// And without a failed call in between: the old session is still in use.
	s.kill()
	s.start()
	if err := c.SetPower(t.Context(), Off); err != nil {
		t.Fatalf("after the second restart: %v", err)
	}
}

func TestWrongCredentialsAreToldAtOnce(t *testing.T) {
	s := startSim(t)
	for _, row := range []struct {
		name, user string
		password   Secret
	}{
		{"wrong password", simUser, "guess"},
		{"unknown user", "nobody", simPassword},
	} {
		t.Run(row.name, func(t *testing.T) {
			target := s.target()
			target.User, target.Password = row.user, row.password
			begin := time.Now()
			_, err := open(t.Context(), target, nil, quick(), &logins{now: time.Now})
			e := asError(t, err)
			if !e.Credentials || e.Temporary {
				t.Errorf("got %+v, want Credentials", e)
			}
			if e.Hint == "" {
				t.Error("no hint what to do")
			}
			if took := time.Since(begin); took > 3*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

func TestPasswordIsInNoLog(t *testing.T) {
	s := startSim(t)
	var log lockedBuffer
	debug := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	pool := &Pool{Log: debug, patience: quick()}
	do := func(c *Controller) error {
		_, err := c.Identity(t.Context())
		return errors.Join(err, c.SetPower(t.Context(), On), c.SetBootDevice(t.Context(), PXE, false))
	}
	if err := pool.With(t.Context(), s.target(), do); err != nil {
		t.Fatal(err)
	}
	s.kill()
	s.start()
	if err := pool.With(t.Context(), s.target(), do); err != nil {
		t.Fatal(err)
	}
	other := s.target()
	other.Password = "another-s3cret"
	_ = asError(t, pool.With(t.Context(), other, do))
	if err := pool.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "session lost") || !strings.Contains(log.String(), s.addr) {
		t.Fatalf("the log lacks what it should have: %s", log.String())
	}
	if strings.Contains(log.String(), "s3cret") {
		t.Errorf("a password is in the log: %s", log.String())
	}
}

// A lockedBuffer may be written by several goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestCipherSuites(t *testing.T) {
	s := startSim(t)
	target := s.target()
	target.CipherSuite = 17
	_, err := open(t.Context(), target, nil, quick(), &logins{now: time.Now})
	// ipmi_sim knows no SHA-256. It says so, and says no more than that.
	if e := asError(t, err); e.Hint != otherSuite.hint || e.Credentials || e.Temporary {
		t.Errorf("got %+v", e)
	}
	target.CipherSuite = 0 // auto-detection does not exist
	c, err := open(t.Context(), target, nil, quick(), &logins{now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	if c.target.CipherSuite != 3 {
		t.Errorf("the default suite is %d, want 3", c.target.CipherSuite)
	}
}

func TestBootDeviceOnTheRacksController(t *testing.T) {
	s := startSim(t)
	c := s.open(quick())
	for _, dev := range []Device{PXE, Disk, None, PXE} {
		if err := c.SetBootDevice(t.Context(), dev, false); err != nil {
			t.Fatalf("SetBootDevice(%s): %v", dev, err)
		}
		if got, err := c.BootDevice(t.Context()); got.Device != dev || got.Persistent || err != nil {
			t.Fatalf("BootDevice() = %v, %v; want %s", got, err, dev)
		}
	}
	if got := s.get("boot"); got != "pxe" {
		t.Errorf("the machine was told to boot %q", got)
	}
	// It cannot persist: the device is set and the loss is told.
	err := c.SetBootDevice(t.Context(), Disk, true)
	lost, ok := errors.AsType[*Dropped](err)
	if !ok {
		t.Fatalf("got %v, want *Dropped", err)
	}
	want := &Dropped{Addr: s.addr, Asked: BootDevice{Device: Disk, Persistent: true}, Kept: BootDevice{Device: Disk}, Quirk: Quirks[0].Odd}
	if d := cmp.Diff(want, lost); d != "" {
		t.Error(d)
	}
	if err := c.SetBootDevice(t.Context(), "floppy", false); err == nil {
		t.Error("an unknown device was accepted")
	}
}

func TestIdentityIsWhatTheFactoryWrote(t *testing.T) {
	s := startSim(t)
	got, err := s.open(quick()).Identity(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := Identity{
		Manufacturer: "LabWorks", Product: "VRACK-8G",
		ProductSerial: "LAB-0001", ChassisSerial: "CH-0001", BoardSerial: "BD-0001",
		GUID: "674523a1-ab89-efcd-a123-456789abcdef", Firmware: "2.0a",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// Two addresses were swapped: no act may reach the wrong machine.
func TestActsAreRefusedOnAnotherMachine(t *testing.T) {
	s := startSim(t)
	s.set("power", "1")
	for _, row := range []struct {
		serial  string
		foreign bool
	}{{"LAB-0001", false}, {"CH-0001", false}, {"BD-0001", false}, {"LAB-0002", true}, {"LAB", true}} {
		target := s.target()
		target.Serial = row.serial
		c, err := open(t.Context(), target, nil, quick(), &logins{now: time.Now})
		if err != nil {
			t.Fatal(err)
		}
		before := s.calls("set ")
		for op, err := range map[string]error{
			"SetPower":      c.SetPower(t.Context(), On),
			"SetBootDevice": c.SetBootDevice(t.Context(), PXE, false),
		} {
			if !row.foreign {
				if err != nil {
					t.Errorf("%s with serial %s: %v", op, row.serial, err)
				}
			} else if e := asError(t, err); !e.Foreign || e.Temporary {
				t.Errorf("%s with serial %s: got %+v, want Foreign", op, row.serial, e)
			}
		}
		if n := s.calls("set "); row.foreign && n != before {
			t.Errorf("the wrong machine got %d orders", n-before)
		}
		_ = c.Close(t.Context())
	}
}

func TestConsoleCarriesBothWays(t *testing.T) {
	s := startSim(t)
	go func() { // the machine: greets, then repeats what is typed in capitals
		tty, err := s.tty.Accept()
		if err != nil {
			return
		}
		defer tty.Close()
		fmt.Fprint(tty, "Debian GNU/Linux 12 ttyS0\r\n")
		in := bufio.NewReader(tty)
		for {
			line, err := in.ReadString('\r')
			if err != nil {
				return
			}
			fmt.Fprint(tty, strings.ToUpper(line), "\n")
		}
	}()
	c := s.open(quick())
	con, err := c.Console(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := bufio.NewReader(con)
	if _, err := io.WriteString(con, "login\r"); err != nil {
		t.Fatal(err)
	}
	var seen strings.Builder
	for !strings.Contains(seen.String(), "LOGIN") {
		b, err := out.ReadByte()
		if err != nil {
			t.Fatalf("after %q: %v", seen.String(), err)
		}
		seen.WriteByte(b)
	}
	// Only one can have it, and it is not taken away from whoever does.
	_, err = c.Console(t.Context())
	if e := asError(t, err); !e.Temporary || e.Credentials {
		t.Errorf("a second console: got %+v, want temporary", e)
	}
	// Power can be ordered while the console is open.
	if err := c.SetPower(t.Context(), On); err != nil {
		t.Errorf("with an open console: %v", err)
	}
	if err := con.Close(); err != nil {
		t.Error(err)
	}
	if _, err := con.Read(make([]byte, 1)); err == nil {
		t.Error("Read works after Close")
	}
	// It was given back properly: it opens again at once.
	again, err := c.Console(t.Context())
	if err != nil {
		t.Fatalf("second time: %v", err)
	}
	again.Close()
}
