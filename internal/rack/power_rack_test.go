//go:build rack

package rack

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
)

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
