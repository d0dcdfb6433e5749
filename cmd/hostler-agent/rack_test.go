//go:build rack

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cavaliergopher/cpio"

	"github.com/hostler-project/hostler/inventory"
)

// TestRealMachine boots the agent as PID 1 of the real service OS on an emulated machine with two NVMe drives, and has
// it inspect, sanitize, test, write, and hand over by kexec; then presses the power button of the system it handed over to.
func TestRealMachine(t *testing.T) {
	dir := t.TempDir()
	run := func(env []string, name string, args ...string) string {
		t.Helper()
		c := exec.Command(name, args...)
		c.Env, c.Stderr = append(os.Environ(), env...), os.Stderr
		out, err := c.Output()
		if err != nil {
			t.Fatalf("%s %v: %v", name, args, err)
		}
		return strings.TrimSpace(string(out))
	}
	base := run(nil, "../../images/build.sh", "service-os")
	run([]string{"CGO_ENABLED=0"}, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", dir+"/agent", ".")
	run(nil, "../../images/service-os/assemble.sh", base, dir+"/agent", dir+"/initrd")

	d := newDaemon(t, nil)
	initrd, err := os.ReadFile(dir + "/initrd")
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, b []byte) string {
		t.Helper()
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	initrd = append(initrd, make([]byte, -len(initrd)&3)...) // Linux looks for the next archive at a multiple of 4
	write("initrd", append(initrd, sessionArchive(t, d.session("10.0.2.2"))...))

	qmp := dir + "/qmp"
	args := []string{"-accel", "tcg", "-cpu", "max", "-M", "q35", "-m", "768", "-nographic", "-no-reboot", "-serial", "file:" + dir + "/serial", "-monitor", "none",
		"-qmp", "unix:" + qmp + ",server=on,wait=off", "-smbios", "type=1,manufacturer=Hostler,product=Rack,serial=SER-A",
		"-kernel", base + "/vmlinuz", "-initrd", dir + "/initrd",
		"-append", "console=ttyS0,115200 quiet hostler.mac=52:54:00:00:00:0a hostler.ca=" + d.pin(),
		"-netdev", "user,id=n,restrict=off", "-device", "virtio-net-pci,netdev=n,mac=52:54:00:00:00:0a,romfile=", "-device", "virtio-rng-pci"}
	for i := range 2 {
		disk := write(fmt.Sprintf("nvme%d", i), nil)
		if err := os.Truncate(disk, 256<<20); err != nil {
			t.Fatal(err)
		}
		args = append(args, "-drive", fmt.Sprintf("if=none,id=d%d,format=raw,file=%s", i, disk), "-device", fmt.Sprintf("nvme,drive=d%d,serial=DRIVE-%d", i, i))
	}
	secret := []byte("the last tenant's secret")
	f, err := os.OpenFile(dir+"/nvme1", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for off := int64(0); off < 256<<20; off += 16 << 20 {
		if _, err := f.WriteAt(secret, off+4096); err != nil {
			t.Fatal(err)
		}
	}
	f.Close()

	d.orders = []inventory.Order{{ID: "o1", Kind: inventory.OrderInspect}}
	begin := time.Now()
	vm := exec.Command("qemu-system-x86_64", args...)
	vm.Stderr = os.Stderr
	if err := vm.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- vm.Wait() }()
	t.Cleanup(func() {
		_ = vm.Process.Kill()
		if serial, err := os.ReadFile(dir + "/serial"); err == nil && (t.Failed() || testing.Verbose()) {
			t.Logf("its console:\n%s", serial)
		}
	})
	stage := func(n int, what string) inventory.Report {
		t.Helper()
		d.until(what, time.Minute, func() bool { return len(d.done) >= n })
		r := d.done[n-1]
		t.Logf("%-9s %5.1f s after power-on, took %.1f s, boot clock %.1f s %s", what, time.Since(begin).Seconds(), r.Finished.Sub(r.Started).Seconds(), r.Uptime, r.Error)
		if r.Error != "" {
			t.Fatal(r.Error)
		}
		return r
	}

	hw := stage(1, "inspect").Hardware
	if hw.Serial != "SER-A" || hw.CPUs != 1 || len(hw.Media) != 2 || hw.Media[1].Serial != "DRIVE-1" || hw.Media[1].Size != 256<<20 ||
		len(hw.NICs) != 1 || hw.NICs[0].MAC != "52:54:00:00:00:0a" || hw.NICs[0].Driver != "virtio_net" || hw.NICs[0].PCI == "" || hw.Firmware != "bios" || hw.MemoryBytes < 600<<20 {
		b, _ := json.MarshalIndent(hw, "", " ")
		t.Errorf("hardware %s", b)
	}
	d.change(func() {
		d.orders = append(d.orders, inventory.Order{ID: "o2", Kind: inventory.OrderSanitize, Media: hw.Media})
	})
	r := stage(2, "sanitize")
	if len(r.Proofs) != 2 || !r.Proofs[0].Passed || !r.Proofs[1].Passed || !strings.HasPrefix(r.Agent, "sha256:") {
		t.Errorf("proofs %+v agent %s", r.Proofs, r.Agent)
	}
	d.change(func() {
		d.orders = append(d.orders, inventory.Order{ID: "o3", Kind: inventory.OrderTest, Profile: "smoke", Media: hw.Media})
	})
	test := stage(3, "test").Test
	b, _ := json.MarshalIndent(test, "", " ")
	t.Logf("%s", b)
	if test.Verdict != inventory.Pass || len(test.Results) != 6 {
		t.Errorf("verdict %s", test.Verdict)
	}
	if took := test.Finished.Sub(test.Started); took > 8*time.Second {
		t.Errorf("smoke took %v", took)
	}
	for i := range 2 {
		raw, err := os.ReadFile(fmt.Sprintf("%s/nvme%d", dir, i))
		if err != nil || len(bytes.Trim(raw, "\x00")) > 0 {
			t.Errorf("drive %d holds something: %v", i, err)
		}
	}

	// The tenant's system is the service OS once more: it comes back to redeem, and has another key.
	s := newStore(t, base+"/vmlinuz", dir+"/initrd", "console=ttyS0,115200 quiet hostler.mac=52:54:00:00:00:0a hostler.ca="+d.pin())
	chunks := strings.Replace(s.base, "127.0.0.1", "10.0.2.2", 1)
	d.seed = inventory.SeedFiles{MetaData: []byte("instance-id: i-1\n")}
	d.change(func() {
		d.orders = append(d.orders, inventory.Order{ID: "o4", Kind: inventory.OrderWrite,
			Write: &inventory.WriteOrder{Image: s.digest, ChunkBase: chunks, Medium: hw.Media[0], TrustedKey: s.public}})
	})
	if w := stage(4, "write").Written; w.Serial != "DRIVE-0" || len(w.Fallbacks) != 0 {
		t.Errorf("written %+v", w)
	}
	d.change(func() {
		d.orders = append(d.orders, inventory.Order{ID: "o5", Kind: inventory.OrderHandoff,
			Handoff: &inventory.HandoffOrder{Image: s.digest, ChunkBase: chunks, Medium: hw.Media[0], Method: "kexec", Qualified: true, TrustedKey: s.public}})
	})
	if h := stage(5, "hand-off").Handoff; h.Method != "kexec" {
		t.Errorf("hand-off %+v", h)
	}
	d.change(func() { d.mayEnter = true })
	entered := time.Now()
	d.until("a boot by kexec", time.Minute, func() bool { return d.redeems == 2 })
	t.Logf("kexec: %.1f s from the word to the next system's first message", time.Since(entered).Seconds())
	time.Sleep(time.Second) // its redemption was refused: it stays for a minute and listens to the button

	press(t, qmp)
	select {
	case err := <-ended:
		t.Logf("off %.1f s after power-on: %v", time.Since(begin).Seconds(), err)
	case <-time.After(30 * time.Second):
		t.Error("the power button does nothing")
	}
	if serial, _ := os.ReadFile(dir + "/serial"); bytes.Contains(serial, []byte(testToken)) || !bytes.Contains(serial, []byte("This is node node-a")) {
		t.Error("the console shows the token, or does not show the node")
	}
}

// sessionArchive is the second initrd: one file, ready to be appended (sizes are multiples of 4).
func sessionArchive(t *testing.T, session []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := cpio.NewWriter(&b)
	for _, err := range []error{
		w.WriteHeader(&cpio.Header{Name: "hostler", Mode: cpio.TypeDir | 0o700}),
		w.WriteHeader(&cpio.Header{Name: "hostler/session.json", Mode: cpio.TypeReg | 0o600, Size: int64(len(session))}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Write(session); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// press sends the ACPI power button through QMP.
func press(t *testing.T, socket string) {
	t.Helper()
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, cmd := range []string{"qmp_capabilities", "system_powerdown"} {
		if _, err := fmt.Fprintf(c, "{\"execute\":%q}\n", cmd); err != nil {
			t.Fatal(err)
		}
		time.Sleep(200 * time.Millisecond)
	}
}
