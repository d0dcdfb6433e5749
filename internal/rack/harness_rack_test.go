//go:build rack

// These tests start a rack of their own (random name, namespace and ports) with
// servers that really boot. They need root and the packages of images/deps.sh.

package rack

import (
	"fmt"
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
	err := r.ns.visit(func() (err error) {
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
