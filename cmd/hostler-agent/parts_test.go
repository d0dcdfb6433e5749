package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/hostler-project/hostler/inventory"
)

func put(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestModulesAreLoadedAfterWhatTheyNeed(t *testing.T) {
	root := t.TempDir()
	put(t, root, map[string]string{
		"modules.dep": "kernel/net/virtio_net.ko: kernel/net/net_failover.ko kernel/net/failover.ko\nkernel/net/net_failover.ko: kernel/net/failover.ko\n" +
			"kernel/net/failover.ko:\nkernel/char/virtio-rng.ko:\nkernel/mlx.ko.zst:\nkernel/bad.ko:\n",
		"modules.alias": "# comment\nalias virtio:d00000001v* virtio_net\nalias pci:v000015B3d*sv* mlx\nalias dmi*:svnX/Y:* bad\nalias acpi*:BAD0:* bad\n",
		"sys/bus/virtio/devices/virtio0/modalias": "virtio:d00000001v00001AF4\n",
		"sys/bus/acpi/devices/a/modalias":         "acpi:NONE:\n",
		"sys/bus/platform/devices/p/modalias":     "acpi:BAD0:\n",
		"sys/bus/pci/devices/x/modalias":          "pci:v000015B3d00001017sv000015B3\n",
	})
	var got []string
	m, err := readModules(root, func(file string) error {
		rel, _ := filepath.Rel(root, file)
		got = append(got, rel)
		switch filepath.Base(file) {
		case "failover.ko":
			return unix.EEXIST
		case "bad.ko":
			return unix.ENODEV
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	m.LoadAll(slog.New(slog.NewTextHandler(&log, nil)), filepath.Join(root, "sys"))
	want := []string{"kernel/char/virtio-rng.ko", "kernel/mlx.ko.zst", "kernel/net/failover.ko", "kernel/net/net_failover.ko", "kernel/net/virtio_net.ko"}
	slices.Sort(got[1:])
	if i := slices.Index(got, "kernel/bad.ko"); i > 0 {
		got = slices.Delete(got, i, i+1)
	}
	if !slices.Equal(got, want) {
		t.Errorf("loaded %v\nwant   %v", got, want)
	}
	if err := m.Load("built-in"); err != nil {
		t.Error(err)
	}
	if got := m.Match("dmi:bvn:svnX/Y:pn"); !slices.Equal(got, []string(nil)) {
		t.Errorf("dmi* is another prefix than dmi: %v", got)
	}
}

func TestModuleFaultsAreSaid(t *testing.T) {
	root := t.TempDir()
	put(t, root, map[string]string{"modules.dep": "kernel/bad.ko:\n", "modules.alias": ""})
	m, err := readModules(root, func(string) error { return unix.ENOEXEC })
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Load("bad"); !errors.Is(err, unix.ENOEXEC) || !strings.Contains(err.Error(), "load module bad") {
		t.Errorf("got %v", err)
	}
	m, err = readModules(filepath.Join(root, "none"), nil)
	if err == nil {
		t.Error("a missing index is no error")
	}
	m.LoadAll(slog.New(slog.DiscardHandler), root) // and still usable
}

func TestTheInterfaceOfTheBootIsChosen(t *testing.T) {
	device := func(name, mac string, flags net.Flags) netlink.Link {
		hw, err := net.ParseMAC(mac)
		if err != nil {
			t.Fatal(err)
		}
		return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: name, HardwareAddr: hw, Flags: flags}}
	}
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0", HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1}}}
	links := []netlink.Link{device("lo", "00:00:00:00:00:00", net.FlagLoopback), bridge, device("eth0", "02:00:00:00:00:01", 0), device("eth1", "02:00:00:00:00:02", 0)}
	for mac, want := range map[string]string{"": "eth0 eth1", "02:00:00:00:00:02": "eth1", "02:00:00:00:00:09": ""} {
		var names []string
		for _, l := range choose(links, mac) {
			names = append(names, l.Attrs().Name)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%q: got %q, want %q", mac, got, want)
		}
	}
}

func TestCommandLine(t *testing.T) {
	got := parseCommandLine("BOOT_IMAGE=x quiet hostler.mac=52-54-00-AA-00-01 hostler.ca=sha256:00ff console=ttyS0\n")
	if got != (commandLine{mac: "52:54:00:aa:00:01", ca: "sha256:00ff"}) {
		t.Errorf("got %+v", got)
	}
}

func TestPowerButton(t *testing.T) {
	event := func(kind, code uint16, value uint32) []byte {
		e := make([]byte, 24)
		binary.LittleEndian.PutUint16(e[16:], kind)
		binary.LittleEndian.PutUint16(e[18:], code)
		binary.LittleEndian.PutUint32(e[20:], value)
		return e
	}
	for name, c := range map[string]struct {
		events [][]byte
		want   bool
	}{
		"pressed":     {[][]byte{event(0, 0, 0), event(1, 116, 1), event(1, 116, 0)}, true},
		"another key": {[][]byte{event(1, 30, 1), event(1, 30, 0)}, false},
		"let go":      {[][]byte{event(1, 116, 0)}, false},
		"cut short":   {[][]byte{event(1, 116, 1)[:20]}, false},
		"a switch":    {[][]byte{event(5, 116, 1)}, false},
	} {
		if got := pressed(bytes.NewReader(bytes.Join(c.events, nil))); got != c.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
	dir := t.TempDir()
	put(t, dir, map[string]string{"event0": string(event(1, 116, 1))})
	off := make(chan struct{})
	watchPowerButton(dir, slog.New(slog.DiscardHandler), off)
	select {
	case <-off:
	case <-time.After(5 * time.Second):
		t.Error("a press does nothing")
	}
}

func TestPage(t *testing.T) {
	var out bytes.Buffer
	now := 12300 * time.Millisecond
	p := newPage(&out, func() time.Duration { return now })
	p.Who("gpu-1", "n-1", "SN", "address 10.0.0.2")
	p.Doing("sanitize")
	p.Doing("sanitize")
	p.Progress(inventory.Progress{What: "erase", LeftS: -1})
	p.Progress(inventory.Progress{What: "read back", Done: 1, Total: 4, Unit: "MiB", LeftS: 2.6})
	p.Progress(inventory.Progress{What: "erase", LeftS: -1}) // no flicker between two media
	p.Progress(inventory.Progress{What: "read back", Done: 2, Total: 4, Unit: "MiB"})
	now += lineEvery
	p.Progress(inventory.Progress{What: "read back", Done: 3, Total: 4, Unit: "MiB"})
	p.Doing("x\x1b[2Jy\nz")
	p.Fatal(fatal("the cable is out", "put it in"), time.Minute)
	want := "\n" + rule + "\n  This is node gpu-1 (n-1)\n  serial  SN\n  address 10.0.0.2\n  Hostler works on this machine: please do not switch it off.\n" + rule + "\n" +
		"[   12.3s] sanitize\n[   12.3s] sanitize: erase\n[   12.3s] sanitize: read back, 25 % (1 of 4 MiB), about 3s left\n" +
		"[   17.3s] sanitize: read back, 75 % (3 of 4 MiB)\n[   17.3s] x [2Jy z\n" +
		"\n" + rule + "\n  STOPPED: the cable is out\n  What to do: put it in\n  This machine starts again in 1m0s.\n" + rule + "\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

// What a person sees is written to every terminal that the kernel names.
func TestConsole(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, map[string]string{"active": "tty0 ttyS0 gone\n", "tty0": "", "ttyS0": "", "console": ""})
	c := openConsole(filepath.Join(dir, "active"), dir)
	if _, err := c.Write([]byte("hello\n")); err != nil || len(c.outs) != 2 {
		t.Fatalf("%v, %d terminals", err, len(c.outs))
	}
	for name, want := range map[string]string{"tty0": "hello\n", "ttyS0": "hello\n", "console": ""} {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != want {
			t.Errorf("%s: %q %v", name, b, err)
		}
	}
	if c := openConsole(filepath.Join(dir, "none"), dir); len(c.outs) != 1 {
		t.Errorf("without a list: %d terminals", len(c.outs))
	}
}

func TestVersionNeedsNoPID1(t *testing.T) {
	var out bytes.Buffer
	c := command()
	c.SetOut(&out)
	c.SetArgs([]string{"version"})
	if err := c.Execute(); err != nil || !strings.HasPrefix(out.String(), "hostler-agent ") {
		t.Errorf("%q %v", out.String(), err)
	}
	c.SetArgs(nil)
	if err := c.Execute(); err == nil || !strings.Contains(err.Error(), "PID 1") {
		t.Errorf("got %v", err)
	}
}

func TestDrivesThatStartSlowlyAreWaitedFor(t *testing.T) {
	root := t.TempDir()
	put(t, root, map[string]string{
		"bus/pci/devices/0000:00:04.0/class":            "0x010802\n",
		"bus/pci/devices/0000:00:04.0/nvme/nvme0/state": "live\n",
		"bus/pci/devices/0000:00:05.0/class":            "0x010802\n",
		"bus/pci/devices/0000:00:06.0/class":            "0x020000\n",
	})
	if got := settled(t.Context(), root, 100*time.Millisecond, 0); !slices.Equal(got, []string{"0000:00:05.0"}) {
		t.Errorf("got %v", got)
	}
	go func() {
		time.Sleep(100 * time.Millisecond)
		put(t, root, map[string]string{"bus/pci/devices/0000:00:05.0/nvme/nvme1/state": "connecting\n"})
		time.Sleep(100 * time.Millisecond)
		put(t, root, map[string]string{"bus/pci/devices/0000:00:05.0/nvme/nvme1/state": "live\n"})
	}()
	begin := time.Now()
	if got := settled(t.Context(), root, 10*time.Second, 0); len(got) != 0 || time.Since(begin) < 150*time.Millisecond {
		t.Errorf("got %v after %v", got, time.Since(begin))
	}
	put(t, root, map[string]string{"class/scsi_host/host0/x": "", "block/sda": ""})
	begin = time.Now()
	if settled(t.Context(), root, 10*time.Second, 200*time.Millisecond); time.Since(begin) < 200*time.Millisecond {
		t.Error("a SCSI host was not given time to look for its disks")
	}
}

func TestTheWatchdogIsStoppedAndReadBack(t *testing.T) {
	running, stopped := []byte{0x44, 0, 0, 0, 1, 0, 1, 0}, []byte{0x04, 0, 0, 0, 0, 0, 0, 0}
	for name, c := range map[string]struct {
		answers [][]byte // to one get after the other; nil: an error
		sets    int
		want    string
	}{
		"stands":         {[][]byte{stopped}, 0, ""},
		"stopped":        {[][]byte{running, stopped}, 1, ""},
		"runs on":        {[][]byte{running, running}, 1, "runs on"},
		"no answer":      {[][]byte{nil}, 0, "ask the BMC"},
		"a short answer": {[][]byte{{0}}, 0, "1 bytes"},
	} {
		sets, gets := 0, 0
		err := disarm(func(netfn, cmd byte, data ...byte) ([]byte, error) {
			if netfn != 6 || cmd == setWatchdog && (len(data) != 6 || data[1] != 0) {
				t.Errorf("%s: sent %x %x %x", name, netfn, cmd, data)
			}
			if cmd == setWatchdog {
				sets++
				return nil, nil
			}
			if gets++; c.answers[gets-1] == nil {
				return nil, unix.EIO
			}
			return c.answers[gets-1], nil
		})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) || sets != c.sets {
			t.Errorf("%s: got %v after %d sets", name, err, sets)
		}
	}
}
