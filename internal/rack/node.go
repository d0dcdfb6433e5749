package rack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"
)

// A Node is one server of the rack with its power, its BMC and its cable.
type Node struct {
	Facts
	dir string // drives, firmware variables, logs
	run string // sockets
	log *slog.Logger

	children *children
	console  *console
	sol      net.Listener

	mu      sync.Mutex
	closed  bool     // taken out of the rack
	bmc     *Process // nil before startBMC
	machine *Process // nil when off
	monitor *monitor // with machine
	boot    Boot
	powerOn int // how often it was switched on in this run
}

// newNode lays out a server that was just delivered: empty drives, factory
// firmware settings, power off.
func newNode(f Facts, dir, run string, c *children, log *slog.Logger) (*Node, error) {
	n := &Node{Facts: f, dir: dir, run: run, children: c, log: log.With("node", f.Name), boot: BootNone}
	for _, d := range []string{dir, run} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("rack: %w", err)
		}
	}
	if err := makeDrives(f.Drives); err != nil {
		return nil, err
	}
	if f.Firmware == UEFI {
		vars, err := os.ReadFile(ovmfVars)
		if err != nil {
			return nil, fmt.Errorf("rack: firmware settings: %w", err)
		}
		if err := os.WriteFile(filepath.Join(dir, "vars.fd"), vars, 0o600); err != nil {
			return nil, fmt.Errorf("rack: firmware settings: %w", err)
		}
	}
	var err error
	n.console, err = newConsole(n.ConsoleLog())
	return n, err
}

// ConsoleLog is the path of the server's console log.
func (n *Node) ConsoleLog() string { return filepath.Join(n.dir, "console.log") }

// Power says whether the server is on.
func (n *Node) Power() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.on()
}

func (n *Node) on() bool {
	if n.machine == nil {
		return false
	}
	select {
	case <-n.machine.Done():
		return false
	default:
		return true
	}
}

// On switches the server on. Switching on a server that is on changes nothing:
// clients resend after a second, so every act here can come twice.
func (n *Node) On() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.on() {
		return nil
	}
	if n.closed {
		return fmt.Errorf("rack: %s is taken out of the rack", n.Name)
	}
	qmp := filepath.Join(n.run, "qmp.sock")
	os.Remove(qmp) // a dead QEMU leaves its socket, which would refuse us
	var stderr bytes.Buffer
	cmd := exec.Command(qemuBin, qemuArgs(n.Facts, n.dir, qmp, n.boot)...)
	cmd.Dir, cmd.Env = n.dir, []string{"PATH=" + os.Getenv("PATH")}
	cmd.Stdout, cmd.Stderr = n.console, &stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("rack: start qemu for %s: %w", n.Name, err)
	}
	n.console.note("power on, boot device %s", n.boot)
	p, err := n.children.start("qemu "+n.Name, cmd)
	if err != nil {
		return err
	}
	m, err := openMonitor(qmp, n.log, p.Done())
	if err != nil {
		p.Kill()
		return fmt.Errorf("rack: start qemu for %s: %v: %s", n.Name, err, bytes.TrimSpace(stderr.Bytes()))
	}
	n.console.plug(in)
	n.machine, n.monitor = p, m
	n.powerOn++
	n.log.Info("power on", "boot", n.boot, "pid", p.PID())
	go n.watch(p, m, &stderr)
	return nil
}

// watch tells when a server goes off, by whatever hand.
func (n *Node) watch(p *Process, m *monitor, stderr *bytes.Buffer) {
	<-p.Done()
	m.conn.Close()
	n.console.note("power off")
	n.log.Info("power off")
	if stderr.Len() > 0 {
		n.log.Warn("qemu complained", "stderr", stderr.String())
	}
}

// Off cuts the power: nothing in the server gets a say.
func (n *Node) Off() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.on() {
		n.machine.Kill()
	}
	return nil
}

// Reset restarts the server without cutting its power. One that is off stays
// off.
func (n *Node) Reset() error { return n.ask("system_reset") }

// Button presses the power button: on if the server is off; if it is on, the
// operating system is told (ACPI) and may do as it likes.
func (n *Node) Button() error {
	if !n.Power() {
		return n.On()
	}
	return n.Shutdown()
}

// Shutdown asks the operating system to switch off, by ACPI.
func (n *Node) Shutdown() error { return n.ask("system_powerdown") }

func (n *Node) ask(command string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.on() {
		return nil
	}
	return n.monitor.do(command, nil)
}

// SetBoot sets the first boot device for all further boots, those of a running
// server too, until the next SetBoot.
func (n *Node) SetBoot(b Boot) error {
	switch b {
	case BootNone, BootPXE, BootDisk, BootCDROM, BootBIOS:
	default:
		return fmt.Errorf("rack: boot device %q: have none, pxe, default (disk), cdrom, bios", b)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.boot = b
	if !n.on() {
		return nil
	}
	return n.monitor.setBootOrder(bootOrder(b))
}

// Boot is the first boot device that was last set.
func (n *Node) Boot() Boot {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.boot
}

// ConsoleContains says when the server printed text, at since or later; ok is
// false when it has not.
func (n *Node) ConsoleContains(text string, since time.Time) (at time.Time, ok bool, err error) {
	return findLine(n.ConsoleLog(), text, since)
}

// WaitConsole waits until the server prints text and returns when it did.
func (n *Node) WaitConsole(ctx context.Context, text string, since time.Time) (time.Time, error) {
	for {
		at, ok, err := n.ConsoleContains(text, since)
		if ok || err != nil {
			return at, err
		}
		select {
		case <-ctx.Done():
			return at, fmt.Errorf("rack: %s does not print %q on its console (%s): %w", n.Name, text, n.ConsoleLog(), ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// DiskContains looks from the host for a pattern in all drives of the server and
// names the drives that have it.
func (n *Node) DiskContains(pattern []byte) ([]string, error) {
	var in []string
	for _, d := range n.Drives {
		ok, err := contains(d.Path, pattern)
		if err != nil {
			return nil, err
		}
		if ok {
			in = append(in, d.Serial)
		}
	}
	return in, nil
}

// Port reads where the server's cable is plugged in.
func (n *Node) Port() (PortState, error) {
	var s PortState
	err := n.children.ns.visit(func() (err error) {
		s, err = readPort(n.Facts)
		return err
	})
	return s, err
}

// Plug moves the server's cable and reads back where it is.
func (n *Node) Plug(to PortState) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.children.ns.visit(func() error { return movePort(n.Facts, to) })
}

func (n *Node) status() (NodeStatus, error) {
	cable, err := n.Port()
	n.mu.Lock()
	defer n.mu.Unlock()
	s := NodeStatus{Facts: n.Facts, Power: n.on(), PowerOns: n.powerOn, Boot: n.boot, Cable: cable, Console: n.ConsoleLog()}
	if n.bmc != nil {
		select {
		case <-n.bmc.Done():
		default:
			s.BMCAlive = true
		}
	}
	return s, err
}

// close takes the server out of the rack.
func (n *Node) close() error {
	n.mu.Lock()
	n.closed = true // from here on nobody switches it on, nor its controller
	bmc := n.bmc
	n.mu.Unlock()
	errs := []error{n.Off()}
	if bmc != nil {
		bmc.Kill()
	}
	if n.sol != nil {
		errs = append(errs, n.sol.Close())
	}
	return errors.Join(append(errs, n.console.close())...)
}
