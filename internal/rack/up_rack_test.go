//go:build rack

// These tests start a rack of their own (random name, namespace and ports) with
// servers that really boot. They need root and the packages of images/deps.sh.
package rack

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
	"golang.org/x/sys/unix"
)

// program is the hostler-rack program, built for these tests.
var program string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "rack-test-")
	if err == nil {
		program = filepath.Join(dir, "hostler-rack")
		build := exec.Command("go", "build", "-o", program, "../../cmd/hostler-rack")
		build.Stderr = os.Stderr
		err = build.Run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "build hostler-rack:", err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

func randomName() string { return fmt.Sprintf("t%08x", rand.Uint32()) }

func startRack(t *testing.T) *Rack {
	t.Helper()
	r, err := Up(t.Context(), Config{Name: randomName(), Dir: t.TempDir() + "/rack", Glue: program,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Down(); err != nil {
			t.Error(err)
		}
		nothingLeft(t, r.Name)
	})
	return r
}

// nothingLeft looks for everything that a rack makes.
func nothingLeft(t *testing.T, name string) {
	t.Helper()
	if b, err := os.ReadFile("/proc/self/mounts"); err != nil || strings.Contains(string(b), name) {
		t.Errorf("a mount is left (%v):\n%s", err, b)
	}
	for _, p := range []string{filepath.Join(netnsDir, netnsName(name)), runDir(name), runDir(name) + ".lock"} {
		if _, err := os.Lstat(p); !os.IsNotExist(err) {
			t.Errorf("%s is left", p)
		}
	}
	// Of the command lines of all processes, none has the rack's name: qemu,
	// ipmi_sim and glue all carry it in a path.
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lines {
		b, _ := os.ReadFile(l) // gone in the meantime is fine
		if strings.Contains(string(b), "/"+name) && !strings.Contains(l, fmt.Sprintf("/%d/", os.Getpid())) {
			t.Errorf("%s is left: %q", l, b)
		}
	}
}

// ears hears DHCP requests on the provisioning segment.
type ears struct{ conn net.PacketConn }

func listenDHCP(t *testing.T, r *Rack) ears {
	t.Helper()
	var e ears
	err := r.InNetns(func() (err error) {
		e.conn, err = net.ListenPacket("udp4", ":67")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.conn.Close() })
	return e
}

// discover waits for a DISCOVER of one server.
func (e ears) discover(n *Node, limit time.Duration) (*dhcpv4.DHCPv4, error) {
	buf := make([]byte, 2048)
	e.conn.SetReadDeadline(time.Now().Add(limit))
	for {
		size, _, err := e.conn.ReadFrom(buf)
		if err != nil {
			return nil, err
		}
		m, err := dhcpv4.FromBytes(buf[:size])
		if err == nil && m.MessageType() == dhcpv4.MessageTypeDiscover && m.ClientHWAddr.String() == n.MAC {
			return m, nil
		}
	}
}

// empty forgets what was heard so far.
func (e ears) empty() {
	buf := make([]byte, 2048)
	for {
		e.conn.SetReadDeadline(time.Now().Add(time.Millisecond))
		if _, _, err := e.conn.ReadFrom(buf); err != nil {
			return
		}
	}
}

func ipmi(t *testing.T, r *Rack, n *Node, words ...string) string {
	t.Helper()
	args := append([]string{"-I", "lanplus", "-C", "3", "-H", n.BMC.String(), "-U", BMCUser, "-f", r.BMCPasswordFile()}, words...)
	o, err := r.Exec(t.Context(), nil, "ipmitool", args...)
	if err != nil || o.Code != 0 {
		t.Fatalf("ipmitool %s: %v, exit %d\n%s%s", strings.Join(words, " "), err, o.Code, o.Stdout, o.Stderr)
	}
	return o.Stdout
}

func TestBothServersAskForTheNetworkAndShowTheirIdentity(t *testing.T) {
	r := startRack(t)
	a, b := r.Nodes[0], r.Nodes[1]
	e := listenDHCP(t, r)
	if out := ipmi(t, r, b, "power", "status"); !strings.Contains(out, "is off") {
		t.Errorf("before power-on: %s", out)
	}
	if _, err := Ask(ControlSocket(r.Name), Request{Op: "press", Node: "a"}); err != nil {
		t.Fatal(err)
	}
	asks(t, e, a, iana.EFI_X86_64)
	ipmi(t, r, b, "power", "on")
	asks(t, e, b, iana.INTEL_X86PC)
	if out := ipmi(t, r, b, "power", "status"); !strings.Contains(out, "is on") || !b.Power() {
		t.Errorf("after power-on: %s, the server says %v", out, b.Power())
	}
	ipmi(t, r, b, "power", "on") // what a client does that resends
	if s, err := b.status(); err != nil || s.PowerOns != 1 {
		t.Errorf("switched on twice: %+v, %v", s, err)
	}
	if out := ipmi(t, r, b, "fru", "print"); !strings.Contains(out, b.Serial) {
		t.Errorf("FRU without the serial:\n%s", out)
	}
	if out := ipmi(t, r, b, "lan", "print", "1"); !strings.Contains(out, b.BMCMAC) || !strings.Contains(out, b.BMC.String()) {
		t.Errorf("the controller tells another address than its own:\n%s", out)
	}
	ipmi(t, r, b, "power", "off")
	if out := ipmi(t, r, b, "power", "status"); !strings.Contains(out, "is off") || b.Power() {
		t.Errorf("after power-off: %s, the server says %v", out, b.Power())
	}
	if !a.Power() {
		t.Error("a went off with b")
	}
	noSecret(t, r)
}

func asks(t *testing.T, e ears, n *Node, arch iana.Arch) {
	t.Helper()
	m, err := e.discover(n, time.Minute)
	if err != nil {
		t.Fatalf("%s sends no DISCOVER: %v", n.Name, err)
	}
	if got := m.ClientArch(); len(got) != 1 || got[0] != arch {
		t.Errorf("%s: option 93 is %v, want %v", n.Name, got, arch)
	}
	if got := fmt.Sprintf("%x", m.Options.Get(dhcpv4.OptionClientMachineIdentifier)); got != "00"+smbiosUUID(n.UUID) {
		t.Errorf("%s: option 97 is %s, want 00 and the SMBIOS form of %s", n.Name, got, n.UUID)
	}
}

// noSecret looks for the BMC password in every process's words and surroundings.
func noSecret(t *testing.T, r *Rack) {
	t.Helper()
	password, err := os.ReadFile(r.BMCPasswordFile())
	if err != nil || len(password) != 16 {
		t.Fatalf("password file: %q, %v", password, err)
	}
	for _, what := range []string{"cmdline", "environ"} {
		files, err := filepath.Glob("/proc/[0-9]*/" + what)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if b, _ := os.ReadFile(f); strings.Contains(string(b), string(password)) {
				t.Errorf("the BMC password is in %s", f)
			}
		}
	}
}

// sector is a boot sector that prints a line and halts: set up SS, DS, ES, call
// INT 10h AH=0Eh for each character.
func sector(text string) []byte {
	code := []byte{
		0x31, 0xc0, 0x8e, 0xd8, // xor ax,ax; mov ds,ax
		0xbe, 0x00, 0x7d, // mov si,0x7d00
		0xac, 0x08, 0xc0, 0x74, 0x06, // lodsb; or al,al; jz halt
		0xb4, 0x0e, 0xcd, 0x10, 0xeb, 0xf5, // mov ah,0x0e; int 10h; jmp lodsb
		0xf4, 0xeb, 0xfd, // hlt; jmp hlt
	}
	b := make([]byte, 512)
	copy(b, code)
	copy(b[0x100:], text+"\r\n\x00")
	b[510], b[511] = 0x55, 0xaa
	return b
}

func TestTheBMCsBootDeviceDecidesAtEveryReset(t *testing.T) {
	r := startRack(t)
	b := r.Nodes[1]
	const said = "STARTED FROM DISK"
	if err := writeAt(b.Drives[0].Path, sector(said)); err != nil {
		t.Fatal(err)
	}
	if in, err := b.DiskContains([]byte(said)); err != nil || len(in) != 1 || in[0] != b.Drives[0].Serial {
		t.Errorf("the host looks into the drives: %v, %v", in, err)
	}
	e := listenDHCP(t, r)
	fromDisk := func(what string) {
		t.Helper()
		e.empty()
		since := time.Now()
		ipmi(t, r, b, "power", what)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if _, err := b.WaitConsole(ctx, said, since); err != nil {
			t.Fatal(err)
		}
		if m, err := e.discover(b, 10*time.Millisecond); err == nil {
			t.Errorf("power %s with the disk first: asked the network all the same: %v", what, m)
		}
	}
	ipmi(t, r, b, "chassis", "bootdev", "disk", "options=persistent")
	fromDisk("on")
	fromDisk("reset") // a tenant's reboot takes the same way through the firmware
	fromDisk("reset")

	ipmi(t, r, b, "chassis", "bootdev", "pxe")
	e.empty()
	ipmi(t, r, b, "power", "reset")
	if _, err := e.discover(b, time.Minute); err != nil {
		t.Fatalf("with the network first: no DISCOVER: %v", err)
	}
	ipmi(t, r, b, "chassis", "bootdev", "disk")
	fromDisk("reset") // changed while it ran
}

func writeAt(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt(b, 0)
	return err
}

func TestTheFenceReallyCutsAndReconnects(t *testing.T) {
	r := startRack(t)
	b := r.Nodes[1]
	e := listenDHCP(t, r)
	fence := func(words ...string) PortState {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), program, append([]string{"--name", r.Name, "fence"}, words...)...).Output()
		if err != nil {
			t.Fatalf("fence %v: %v", words, err)
		}
		var s PortState
		if err := json.Unmarshal(out, &s); err != nil {
			t.Fatalf("fence %v: %v in %q", words, err, out)
		}
		return s
	}
	if s := fence("observe", "b"); s != (PortState{Port: Provisioning}) {
		t.Errorf("new server: %+v", s)
	}
	if s := fence("isolate", "b"); s != (PortState{Port: Isolated}) {
		t.Errorf("isolated: %+v", s)
	}
	fence("isolate", "b") // again
	if err := b.On(); err != nil {
		t.Fatal(err)
	}
	if m, err := e.discover(b, 15*time.Second); err == nil {
		t.Errorf("isolated, and hostlerd hears %v", m)
	}
	if s := fence("attach", b.Serial, "i-1"); s != (PortState{Tenant, "i-1"}) || fence("observe", "b") != s {
		t.Errorf("attached to an instance: %+v, then %+v", s, fence("observe", "b"))
	}
	e.empty()
	ipmi(t, r, b, "power", "reset")
	if _, err := e.discover(b, time.Minute); err != nil {
		t.Errorf("on the tenant side hostlerd hears no DISCOVER: %v", err)
	}
	if s := fence("attach", "b"); s != (PortState{Port: Provisioning}) {
		t.Errorf("attached to provisioning: %+v", s)
	}
	e.empty()
	ipmi(t, r, b, "power", "reset")
	if _, err := e.discover(b, time.Minute); err != nil {
		t.Errorf("back on the provisioning side hostlerd hears no DISCOVER: %v", err)
	}
	if err := exec.Command(program, "--name", r.Name, "fence", "isolate", "nobody").Run(); err == nil {
		t.Error("fence isolate of an unknown server: exit 0")
	}
}

func TestDoorsLeadIntoTheNamespace(t *testing.T) {
	r := startRack(t)
	var inside net.Listener
	err := r.InNetns(func() (err error) {
		inside, err = net.Listen("tcp", insideAPI)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	go func() {
		c, err := inside.Accept()
		if err != nil {
			return
		}
		io.Copy(c, c)
		c.Close()
	}()
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", r.Ports.API))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	c.(*net.TCPConn).CloseWrite()
	if b, err := io.ReadAll(c); err != nil || string(b) != "hello" {
		t.Errorf("through the door: %q, %v", b, err)
	}
}

// A tenant must not reach the controllers, though its server's gateway has their
// addresses on another interface.
func TestServersDoNotReachControllers(t *testing.T) {
	r := startRack(t)
	for to, reachable := range map[string]bool{ServerIP: true, r.Nodes[0].BMC.String(): false, bmcHostIP: false} {
		o, err := r.Exec(t.Context(), nil, "ip", "route", "get", to, "from", r.Nodes[0].IP.String(), "iif", "br0")
		if err != nil || (o.Code == 0) != reachable {
			t.Errorf("a packet of a server to %s: %v, exit %d, %s%s", to, err, o.Code, o.Stdout, o.Stderr)
		}
	}
	if o, err := r.Exec(t.Context(), nil, "ip", "route", "get", r.Nodes[0].BMC.String()); err != nil || o.Code != 0 {
		t.Errorf("hostlerd's own way to a controller: %v, %+v", err, o)
	}
}

// A daemon in the namespace can be killed and started again, and sees the BMCs.
func TestDaemonIsKilledAndStartedAgain(t *testing.T) {
	r := startRack(t)
	d := &Daemon{Program: "/bin/sh", Args: []string{"-c", "echo started with $WORD; exec sleep 600"}, Env: []string{"WORD=this"}, Log: filepath.Join(r.Dir, "daemon.log")}
	for range 2 {
		if err := r.StartDaemon(d); err != nil {
			t.Fatal(err)
		}
		d.Process().Kill()
	}
	if b, err := os.ReadFile(d.Log); err != nil || strings.Count(string(b), "started with this") > 2 {
		t.Errorf("daemon's log: %q, %v", b, err)
	}
	if err := r.StartDaemon(d); err != nil {
		t.Fatal(err)
	}
	d.Process().Stop(5 * time.Second)
	if d.Process().id.alive() {
		t.Error("still alive after Stop")
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

func TestACrashedControllerComesBack(t *testing.T) {
	r := startRack(t)
	b := r.Nodes[1]
	if err := b.On(); err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	first := b.bmc
	b.mu.Unlock()
	first.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for !b.ping(ctx) {
		if ctx.Err() != nil {
			t.Fatal("the controller stays away")
		}
		time.Sleep(20 * time.Millisecond)
	}
	if out := ipmi(t, r, b, "power", "status"); !strings.Contains(out, "is on") {
		t.Errorf("after its crash: %s", out)
	}
}
