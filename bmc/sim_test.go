package bmc

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bougou/go-ipmi/pkg/types"

	"github.com/hostler-project/hostler/bmc/bmctest"
)

const (
	simUser     = bmctest.User
	simPassword = bmctest.Password
)

// A sim is a real ipmi_sim process on loopback. Its "machine" is a folder: the
// file power says whether it runs, delay how many seconds each change takes.
type sim struct {
	t    *testing.T
	dir  string
	addr string
	cmd  *exec.Cmd
	tty  net.Listener // what ipmi_sim takes for the machine's serial port
}

// glue is what ipmi_sim runs to look at the machine and to change it.
const glue = `#!/bin/sh
cd %s
echo "$*" >> calls
op=$1; shift
[ $op = set ] && [ -s delay ] && sleep $(cat delay)
[ -s hang ] && sleep $(cat hang)
while [ $# -gt 0 ]; do
  case $op:$1 in
    get:power) echo power:$(cat power); shift;;
    get:boot) echo boot:$(cat boot); shift;;
    set:power) echo $2 > power; shift 2;;
    set:boot) echo $2 > boot; shift 2;;
    *) shift $#;;
  esac
done
`

const lanConf = `name "sim"
set_working_mc 0x20
  startlan 1
    addr 127.0.0.1 %[1]d
    priv_limit admin
    allowed_auths_callback none md2 md5 straight
    allowed_auths_user none md2 md5 straight
    allowed_auths_operator none md2 md5 straight
    allowed_auths_admin none md2 md5 straight
    guid a123456789abcdefa123456789abcdef
  endlan
  chassis_control "%[2]s/glue.sh"
  sol "tcp:%[3]s" 115200
  user 1 false "" "" user 10 none md2 md5 straight
  user 2 true "%[4]s" "%[5]s" admin 10 none md2 md5 straight
`

const emu = `mc_setbmc 0x20
mc_add 0x20 0x20 no-device-sdrs 0x01 2 10 0x9f 0x000137 0x0f02 persist_sdr
sel_enable 0x20 1000 0x0a
mc_add_fru_data 0x20 0 256 file 0 "%s/fru.bin"
mc_enable 0x20
`

// startSim starts a controller and its machine, which is off.
func startSim(t *testing.T) *sim {
	t.Helper()
	if _, err := exec.LookPath("ipmi_sim"); err != nil {
		const how = "ipmi_sim is not installed: apt-get install openipmi"
		if os.Getenv("CI") == "true" || os.Getenv("HOSTLER_RACK") == "1" {
			t.Fatal(how)
		}
		t.Skip(how)
	}
	t.Parallel()
	tty, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tty.Close() })
	s := &sim{t: t, dir: t.TempDir(), addr: fmt.Sprintf("127.0.0.1:%d", freePort(t)), tty: tty}
	_, port, _ := strings.Cut(s.addr, ":")
	var n int
	fmt.Sscan(port, &n)
	s.set("power", "0")
	s.set("boot", "default")
	s.set("emu", fmt.Sprintf(emu, s.dir))
	s.set("lan.conf", fmt.Sprintf(lanConf, n, s.dir, tty.Addr(), simUser, simPassword))
	s.set("fru.bin", fruImage(t))
	if err := os.WriteFile(filepath.Join(s.dir, "glue.sh"), fmt.Appendf(nil, glue, s.dir), 0o755); err != nil {
		t.Fatal(err)
	}
	s.start()
	t.Cleanup(s.kill)
	return s
}

func (s *sim) start() {
	s.t.Helper()
	log, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	s.cmd = exec.Command("ipmi_sim", "-c", s.dir+"/lan.conf", "-f", s.dir+"/emu", "-s", s.dir+"/state", "-n")
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // so that a sleeping glue goes with it
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	// Wait until it answers a presence ping (IPMI v2.0 section 13.13).
	ping := []byte{6, 0, 0xff, 6, 0, 0, 0x11, 0xbe, 0x80, 1, 0, 0}
	for range 200 {
		conn, err := net.Dial("udp", s.addr)
		if err != nil {
			s.t.Fatal(err)
		}
		_, _ = conn.Write(ping)
		_ = conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		n, _ := conn.Read(make([]byte, 64))
		conn.Close()
		if n > 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	out, _ := os.ReadFile(filepath.Join(s.dir, "log"))
	s.t.Fatalf("ipmi_sim does not answer; it said: %s", out)
}

func (s *sim) kill() {
	_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
	_ = s.cmd.Wait()
}

func (s *sim) set(file, text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, file), []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

func (s *sim) get(file string) string {
	b, _ := os.ReadFile(filepath.Join(s.dir, file))
	return strings.TrimSpace(string(b))
}

// calls counts the calls of the glue that begin with prefix.
func (s *sim) calls(prefix string) (n int) {
	for line := range strings.Lines(s.get("calls")) {
		if strings.HasPrefix(line, prefix) {
			n++
		}
	}
	return n
}

func (s *sim) target() Target {
	return Target{Addr: s.addr, User: simUser, Password: simPassword, LegacyBoot: true}
}

// open opens a controller that is closed with the test.
func (s *sim) open(p pace) *Controller {
	s.t.Helper()
	c, err := open(s.t.Context(), s.target(), nil, p, &logins{now: time.Now})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

// quick is the pace of tests: less waiting where all is well, and patience
// enough for a machine that is busy with other tests.
func quick() pace {
	return pace{
		call: 10 * time.Second, exchange: 250 * time.Millisecond, resends: 5,
		space: 30 * time.Millisecond, agree: 3, again: 2 * time.Second, acts: 3, settle: 20 * time.Second, idle: time.Minute,
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).Port
}

// fruImage is what the factory wrote into the machine.
func fruImage(t *testing.T) string {
	t.Helper()
	raw, err := types.PackFRUInventory(&types.FRU{
		ChassisInfoArea: &types.FRUChassisInfoArea{ChassisType: 0x17, PartNumber: []byte("LAB-CH"), SerialNumber: []byte("CH-0001")},
		BoardInfoArea: &types.FRUBoardInfoArea{
			Manufacturer: []byte("LabWorks"), ProductName: []byte("Virtual GPU node"), SerialNumber: []byte("BD-0001"), PartNumber: []byte("BP-1"),
		},
		ProductInfoArea: &types.FRUProductInfoArea{
			Manufacturer: []byte("LabWorks"), Name: []byte("VRACK-8G"), PartModel: []byte("P-1"), Version: []byte("v1"), SerialNumber: []byte("LAB-0001"), AssetTag: []byte("TAG"),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(raw) + strings.Repeat("\x00", 256-len(raw))
}
