package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostler-project/hostler/health/hardware"
	"github.com/hostler-project/hostler/imaging/handoff"
)

// sessionFile is in the second initrd, which is made for this boot alone.
const sessionFile = "/hostler/session.json"

// rebootAfter is how long the reason of a fatal fault stays on the screen.
const rebootAfter = time.Minute

// live is the life of PID 1. It never returns: the kernel panics when its first process ends.
func live() {
	early := mountAll(false)
	// Should the program itself crash, the kernel panics: then it starts again too, with the reason on the screen.
	_ = os.WriteFile("/proc/sys/kernel/panic", []byte("60"), 0)
	out := openConsole("/sys/class/tty/console/active", "/dev")
	page := newPage(out, uptime)
	log := slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{ReplaceAttr: withoutTime}))
	page.Banner("Hostler service OS, agent " + version())
	if early != nil {
		log.Warn("some file systems are missing", "err", early)
	}
	go reap()
	m := kernel{log: log}
	ctx, stop := context.WithCancel(context.Background())
	off := make(chan struct{})
	ended := make(chan error, 1)
	go func() { ended <- boot(ctx, page, log, m, off) }()

	switchOff := func() error {
		page.Doing("the power button was pressed: switching off")
		stop()
		select { // a test puts a drive's scratch region back before it ends
		case <-ended:
		case <-time.After(5 * time.Second):
		}
		return m.PowerOff()
	}
	var err error
	select {
	case <-off:
		err = switchOff()
	case err = <-ended:
		close(ended)
		page.Fatal(err, rebootAfter)
		select {
		case <-off:
			err = switchOff()
		case <-time.After(rebootAfter):
		}
	}
	for {
		page.Doing(fmt.Sprintf("restarting (%v): %v", err, m.Restart()))
		time.Sleep(rebootAfter)
	}
}

// boot goes from mounted file systems to the loop that does orders. It returns only what it cannot get over.
func boot(ctx context.Context, page *page, log *slog.Logger, m kernel, off chan<- struct{}) error {
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return fatal("read the kernel command line: "+err.Error(), "this initrd is not whole: build the service OS again")
	}
	words := parseCommandLine(string(line))
	s, err := readSession(sessionFile, words.ca)
	if err != nil {
		return err
	}
	page.Who(s.Name, s.Node, "")

	page.Doing("loading drivers")
	mods, err := readModules("/lib/modules/"+release(), insertModule)
	if err != nil {
		log.Warn("no modules: only built-in drivers work", "err", err)
	}
	mods.LoadAll(log, "/sys")
	if _, err := os.Stat("/sys/firmware/efi"); err == nil {
		if err := mods.Load("efivarfs"); err != nil {
			log.Warn("the firmware's variables cannot be seen", "err", err)
		}
	}
	if err := mountAll(true); err != nil {
		log.Warn("a file system is missing", "err", err)
	}
	watchPowerButton("/dev/input", log, off)

	page.Doing("asking for an address")
	net := &network{mac: words.mac, log: log, more: func() { mods.LoadAll(log, "/sys") }}
	addr, err := net.Up(ctx)
	if err != nil {
		return err
	}
	hw, err := hardware.Read("/")
	if err != nil {
		log.Warn("not all of this machine could be read yet", "err", err)
	}
	page.Who(s.Name, s.Node, hw.Serial, "address "+addr, "server  "+s.Server)
	page.Doing("asking the server for this machine's certificate")

	bootID, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return fatal("read the boot id: "+err.Error(), "tell the makers of Hostler")
	}
	c := newClock(ctx, s, m.SetClock, log)
	a := &agent{
		session: s, page: page, log: log, machine: m, clock: c,
		self: self{bootID: strings.TrimSpace(string(bootID)), hardware: hw},
	}
	tenant := &images{open: openMedium, there: present, host: handoff.Machine{}, kernel: handoff.Linux{}}
	if hw.Firmware == "uefi" {
		tenant.vars = handoff.Machine{}.Vars()
	}
	if hw.BMCInBand {
		tenant.watchdog = func(ctx context.Context) error { return disarm(inBand(ctx, "/dev/ipmi0")) }
	}
	a.orders = a.table(tenant)
	a.digest = sync.OnceValues(ownDigest)
	if err := a.redeem(ctx); err != nil {
		return err
	}
	err = a.work(ctx)
	var over *revoked
	if errors.As(err, &over) {
		a.identity.wipe()
		page.Doing(over.Error() + "; waiting to be power-cycled")
		<-ctx.Done()
	}
	return err
}

// ownDigest is the SHA-256 of this program, for the certificates that it makes evidence for.
func ownDigest() (string, error) {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return "", fmt.Errorf("read this program for its digest: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("read this program for its digest: %w", err)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}

// A fault is one that PID 1 cannot get over, with what a person can do.
type fault struct{ what, todo string }

func (f *fault) Error() string { return f.what + "; " + f.todo }

func fatal(what, todo string) error { return &fault{what, todo} }

// kernel is the machine as its kernel lets us act on it.
type kernel struct{ log *slog.Logger }

func (k kernel) SetClock(t time.Time) error {
	tv := unix.NsecToTimeval(t.UnixNano())
	return os.NewSyscallError("settimeofday", unix.Settimeofday(&tv))
}

func (k kernel) Restart() error { return k.end(unix.LINUX_REBOOT_CMD_RESTART) }

func (k kernel) PowerOff() error { return k.end(unix.LINUX_REBOOT_CMD_POWER_OFF) }

// end flushes and stops the machine; it returns only when the kernel refuses.
func (k kernel) end(how int) error {
	unix.Sync()
	return os.NewSyscallError("reboot", unix.Reboot(how))
}

// reap collects orphans, which become children of PID 1. We start no program ourselves, so none is taken from anybody.
func reap() {
	died := make(chan os.Signal, 1)
	signal.Notify(died, syscall.SIGCHLD)
	for range died {
		for {
			pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
			if pid <= 0 || err != nil {
				break
			}
		}
	}
}

func uptime() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

func release() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return runtime.GOOS
	}
	return unix.ByteSliceToString(u.Release[:])
}

// withoutTime leaves the time out of log lines: before the server was heard it means nothing.
func withoutTime(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}
