package sanitize

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hostler-project/hostler/inventory"
)

const mib = 1 << 20

var quick = Options{Poll: time.Millisecond}

// Every personality a drive was seen or feared to have, and what its proof says.
func TestPersonalities(t *testing.T) {
	for _, c := range []struct {
		name      string
		odd       func(d *fakeDrive)
		technique string
		fault     string // "" means that it passes
		notDone   string
	}{
		{"format only, as QEMU", func(d *fakeDrive) {}, inventory.TechniqueFormatUserData, "", "sanitize: not offered by the drive (SANICAP 0)"},
		{"format with crypto erase", func(d *fakeDrive) { d.caps.FNA = 4 }, inventory.TechniqueFormatCrypto, "", "SANICAP 0"},
		{"crypto erase unsupported", func(d *fakeDrive) {}, inventory.TechniqueFormatUserData, "", "FNA bit 2 is 0"},
		{"sanitize crypto", func(d *fakeDrive) { d.caps.SANICAP = 3; d.noise = true }, inventory.TechniqueSanitizeCrypto, "", ""},
		{"sanitize block", func(d *fakeDrive) { d.caps.SANICAP = 2 }, inventory.TechniqueSanitizeBlock, "", "with crypto erase: not offered"},
		{"erased blocks read as ones", func(d *fakeDrive) { d.leave = 0xff; d.spaces[1].dlfeat = 2; d.spaces[2].dlfeat = 0 }, inventory.TechniqueFormatUserData, "", ""},
		{"no erase command at all", func(d *fakeDrive) { d.caps.OACS = 0 }, inventory.TechniqueOverwrite, "", "format: not offered by the drive (OACS 0x0)"},
		{"sanitize running at boot", func(d *fakeDrive) { d.caps.SANICAP = 2; d.sstat = sanRunning; d.polls = 5 }, inventory.TechniqueSanitizeBlock, "", "was running already"},
		{"sanitize failed before", func(d *fakeDrive) { d.caps.SANICAP = 2; d.sstat = sanFailed }, inventory.TechniqueSanitizeBlock, "", "had failed: repeated"},
		{"hidden namespace, sanitize reaches it", func(d *fakeDrive) { d.caps.SANICAP = 2; d.detached = []uint32{7} }, inventory.TechniqueSanitizeBlock, "", "namespace 7: not read back"},

		{"format ok but SES ignored", func(d *fakeDrive) { d.lies = "nothing" }, inventory.TechniqueFormatUserData, "markers are still there", ""},
		{"sanitize does nothing", func(d *fakeDrive) { d.caps.SANICAP = 1; d.lies = "nothing" }, inventory.TechniqueSanitizeCrypto, "markers are still there", ""},
		{"erases only the markers", func(d *fakeDrive) { d.caps.SANICAP = 1; d.lies = "markers" }, inventory.TechniqueSanitizeCrypto, "still hold what they held", ""},
		{"overwrite does nothing", func(d *fakeDrive) { d.caps.OACS = 0; d.lies = "nothing" }, inventory.TechniqueOverwrite, "markers are still there", ""},
		{"noise where zeros were promised", func(d *fakeDrive) { d.noise = true }, inventory.TechniqueFormatUserData, "neither zeros nor ones", ""},
		{"ones where zeros were promised", func(d *fakeDrive) { d.leave = 0xff }, inventory.TechniqueFormatUserData, "read as ones", ""},
		{"hidden namespace, format does not reach it", func(d *fakeDrive) { d.detached = []uint32{7} }, "", "namespace 7 is allocated but not attached", ""},
		{"namespace without block device", func(d *fakeDrive) { d.invisible[2] = true }, "", "namespace 2 is attached, but the system has no block device", ""},
		{"namespace attached meanwhile", func(d *fakeDrive) {
			d.onErase = func(d *fakeDrive) { d.spaces[9] = &fakeSpace{d: d, b: make([]byte, mib), lba: 512} }
		}, inventory.TechniqueFormatUserData, "it had 2 attached and 0 other namespaces and now has 3", ""},
		{"namespace shrunk by the tenant", func(d *fakeDrive) { d.spaces[2].b = d.spaces[2].b[:mib] }, "", "part of it is hidden", ""},
		{"write-protected", func(d *fakeDrive) { d.spaces[1].protected = true }, "", "namespace 1 is write-protected", ""},
		{"swallows writes", func(d *fakeDrive) { d.spaces[1].deaf = true }, inventory.TechniqueFormatUserData, "keeps no writes", ""},
		{"dies at the format", func(d *fakeDrive) { d.diesAt = opFormat }, inventory.TechniqueFormatUserData, "format nsid=1 ses=1: input/output error", ""},
		{"dies before", func(d *fakeDrive) { d.dead = true }, "", "identify controller: input/output error", ""},
		{"refuses the format", func(d *fakeDrive) { d.refuse = map[uint8]Status{opFormat: 0x410a} }, inventory.TechniqueFormatUserData, "invalid format (NVMe status 0x10a)", ""},
		{"refuses the sanitize, no downgrade", func(d *fakeDrive) { d.caps.SANICAP = 2; d.refuse = map[uint8]Status{opSanitize: 0x4002} }, inventory.TechniqueSanitizeBlock, "invalid field", ""},
		{"sanitize fails at the end", func(d *fakeDrive) { d.caps.SANICAP = 2; d.fails = 9 }, inventory.TechniqueSanitizeBlock, "last sanitize failed", ""},
		{"cannot be read back somewhere", func(d *fakeDrive) { d.onErase = func(d *fakeDrive) { d.spaces[2].badRead[3*mib] = true } }, inventory.TechniqueFormatUserData, "bytes cannot be read", ""},
		{"cannot be read where a marker was", func(d *fakeDrive) { d.onErase = func(d *fakeDrive) { d.spaces[1].badRead[0] = true } }, inventory.TechniqueFormatUserData, "1 of 64 places of markers cannot be read", ""},
		{"no namespaces", func(d *fakeDrive) { clear(d.spaces) }, "", "no attached namespace", ""},
		{"was exchanged", func(d *fakeDrive) { d.m.Serial = "OTHER" }, "", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDrive("S1", 4*mib, 8*mib)
			recorded := d.m
			recorded.Size = 12 * mib
			c.odd(d)
			if d.m.Serial != "S1" { // the last case: its recorded twin is gone
				_, err := Erase(t.Context(), []Drive{d}, []inventory.Medium{recorded}, quick)
				if !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), "serial S1") || !strings.Contains(err.Error(), "0000:00:04.0") {
					t.Errorf("got %v", err)
				}
				if len(d.asked) > 0 {
					t.Errorf("commands %v were sent", d.asked)
				}
				return
			}
			proofs, err := Erase(t.Context(), []Drive{d}, []inventory.Medium{recorded}, quick)
			if len(proofs) != 1 {
				t.Fatalf("%d proofs, %v", len(proofs), err)
			}
			p := proofs[0]
			if p.Passed != (c.fault == "") || (err == nil) != p.Passed {
				t.Fatalf("passed %v, error %v", p.Passed, err)
			}
			if c.fault != "" && (!strings.Contains(strings.Join(p.Faults, "\n"), c.fault) || !strings.Contains(err.Error(), "serial S1")) {
				t.Errorf("faults %q, want %q", p.Faults, c.fault)
			}
			if c.technique != "" && p.Technique != c.technique {
				t.Errorf("technique %s, want %s", p.Technique, c.technique)
			}
			if !strings.Contains(strings.Join(p.NotDone, "\n"), c.notDone) {
				t.Errorf("not done %q, want %q", p.NotDone, c.notDone)
			}
			if p.Passed {
				checkPassed(t, d, p)
			}
		})
	}
}

func checkPassed(t *testing.T, d *fakeDrive, p inventory.MediumProof) {
	t.Helper()
	if (p.Technique == inventory.TechniqueOverwrite) != (p.Method == inventory.MethodClear) {
		t.Errorf("%s is called %s", p.Technique, p.Method)
	}
	if len(p.Reads) != 2 || len(p.Commands) == 0 || p.End.Before(p.Start) {
		t.Fatalf("evidence %+v", p)
	}
	for _, r := range p.Reads {
		if r.Planted != 64 || r.Looked != 64 || r.Found != 0 || r.Bytes != int64(len(d.spaces[r.Namespace].b)) || r.Bytes != r.Zero+r.Ones+r.Other {
			t.Errorf("read back %+v", r)
		}
		if r.Printed < 240 && p.Before == nil {
			t.Errorf("only %d fingerprints of a full drive", r.Printed)
		}
	}
	if (d.caps.SANICAP != 0) != (p.Before != nil && p.After != nil) {
		t.Errorf("sanitize logs %v %v", p.Before, p.After)
	}
}

func TestAbsenceIsNeverPermission(t *testing.T) {
	if _, err := Erase(t.Context(), nil, nil, quick); err == nil || !strings.Contains(err.Error(), "proves nothing") {
		t.Errorf("no media at all: %v", err)
	}
	gone := inventory.Medium{Slot: "0000:81:00.0", Device: "nvme3", Kind: inventory.MediumNVMe, Serial: "GONE-1"}
	here := newDrive("S1", mib)
	proofs, err := Erase(t.Context(), []Drive{here}, []inventory.Medium{here.m, gone}, quick)
	if !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), "GONE-1") || !strings.Contains(err.Error(), "0000:81:00.0") || proofs != nil {
		t.Errorf("got %v, %v", proofs, err)
	}
	if len(here.asked) != 0 {
		t.Error("the other drive was erased although the node goes to quarantine")
	}
	if _, err := Erase(t.Context(), []Drive{here}, []inventory.Medium{here.m, here.m}, quick); !errors.Is(err, ErrMissing) {
		t.Errorf("one drive counted for two: %v", err)
	}
}

// A bad drive stops no other, and its neighbour's proof does not help it. A drive nobody recorded is erased too.
func TestDrivesAreJudgedOneByOne(t *testing.T) {
	good, bad, extra := newDrive("GOOD", 2*mib), newDrive("BAD", 2*mib), newDrive("NEW", 2*mib)
	bad.lies = "nothing"
	proofs, err := Erase(t.Context(), []Drive{good, bad, extra}, []inventory.Medium{good.m, bad.m}, quick)
	if err == nil || !strings.Contains(err.Error(), "BAD") || strings.Contains(err.Error(), "GOOD") {
		t.Errorf("error %v", err)
	}
	for i, want := range []bool{true, false, true} {
		if proofs[i].Passed != want {
			t.Errorf("drive %d: passed %v: %v", i, proofs[i].Passed, proofs[i].Faults)
		}
	}
}

func TestACancelledEraseIsNoProof(t *testing.T) {
	d := newDrive("S1", 2*mib)
	d.caps.SANICAP, d.sstat, d.polls = 2, sanRunning, 1<<30
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	proofs, err := Erase(ctx, []Drive{d}, nil, quick)
	if err == nil || proofs[0].Passed || !strings.Contains(proofs[0].Faults[0], "still runs") {
		t.Errorf("got %v %v", proofs, err)
	}
}

func TestSamplePlan(t *testing.T) {
	for _, c := range []struct {
		name      string
		size      int64
		full      bool
		low, high float64
	}{{"2 GiB", 2 << 30, false, 1, 1}, {"64 GiB", 64 << 30, false, 1, 1}, {"1 TiB", 1 << 40, false, 0.10, 0.11},
		{"1 TiB overwritten", 1 << 40, true, 1, 1}, {"odd size", 64<<30 + 512*13, false, 0.12, 0.14}} {
		t.Run(c.name, func(t *testing.T) {
			spans, words := plan(c.size, c.full, rand.Int64N)
			var sum, at int64
			for _, s := range spans {
				if s.off < at || s.n <= 0 || s.off+s.n > c.size {
					t.Fatalf("span %+v after %d", s, at)
				}
				at, sum = s.off+s.n, sum+s.n
			}
			got := float64(sum) / float64(c.size)
			if got < c.low || got > c.high || at != c.size || spans[0].off != 0 {
				t.Errorf("reads %.3f of it, ends at %d (%s)", got, at, words)
			}
		})
	}
	at := places(8*mib, 512, markers, rand.Int64N)
	if len(at) != 64 || at[0] != 0 || at[63] != 8*mib-512 || !slices.IsSorted(at) || len(slices.Compact(at)) != 64 {
		t.Errorf("places %v", at)
	}
}

// Format keeps the LBA format, metadata and protection that the namespace has.
func TestFormatKeepsTheLayout(t *testing.T) {
	d := newDrive("S1", mib)
	var got uint32
	spy := &spyDrive{fakeDrive: d, format: &got}
	if _, err := Erase(t.Context(), []Drive{spy}, nil, quick); err != nil {
		t.Fatal(err)
	}
	if got != 1<<9|3<<5|1<<8 {
		t.Errorf("format CDW10 0x%x", got)
	}
}

type spyDrive struct {
	*fakeDrive
	format *uint32
}

func (d *spyDrive) Admin(c *Command) error {
	if c.Opcode == opFormat {
		*d.format = c.CDW10
	}
	err := d.fakeDrive.Admin(c)
	if c.Opcode == opIdentify && c.CDW10 == 0 {
		c.Data[29] = 3 | 1<<3 // protection type 3, first bytes of metadata
	}
	return err
}

func TestDiscoverReadsSysfs(t *testing.T) {
	sys, dev := t.TempDir(), t.TempDir()
	put := func(path, text string) {
		t.Helper()
		p := filepath.Join(sys, path)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	link := func(to, at string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(sys, at)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join(sys, to), filepath.Join(sys, at)); err != nil {
			t.Fatal(err)
		}
	}
	put("devices/pci0000:00/0000:00:04.0/nvme/nvme0/serial", "S1   \n")
	put("devices/pci0000:00/0000:00:04.0/nvme/nvme0/model", "QEMU NVMe Ctrl\n")
	put("devices/pci0000:00/0000:00:04.0/nvme/nvme0/nvme0n1/size", "8192\n")
	put("devices/pci0000:00/0000:00:04.0/nvme/nvme0/nvme0c0n2/size", "8192\n")
	link("devices/pci0000:00/0000:00:04.0/nvme/nvme0", "class/nvme/nvme0")
	put("block/nvme0n1/nsid", "1\n")
	put("block/nvme0n2/nsid", "2\n")
	put("devices/pci0000:00/0000:00:05.0/virtio1/block/vda/size", "2048\n")
	put("devices/pci0000:00/0000:00:05.0/virtio1/block/vda/serial", "disk-b")
	put("devices/pci0000:00/0000:00:05.0/virtio1/block/vda/queue/logical_block_size", "512\n")
	link("devices/pci0000:00/0000:00:05.0/virtio1/block/vda", "block/vda")
	put("devices/pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sda/size", "4096\n")
	put("devices/pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sda/queue/logical_block_size", "4096\n")
	put("devices/pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sda/device/vpd_pg80", "\x00\x80\x00\x04WD42")
	link("devices/pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sda", "block/sda")
	put("block/sr0/size", "2097151\n")
	put("block/loop0/size", "10\n")
	put("block/sdb/size", "0\n") // a card reader, empty

	fake := newDrive("S1", 4*mib, 2*mib)
	s := System{Sys: sys, Dev: dev, Send: func(path string, c *Command) error {
		if path != filepath.Join(dev, "nvme0") {
			t.Errorf("command to %s", path)
		}
		return fake.Admin(c)
	}}
	all, err := s.Discover()
	if err != nil || len(all) != 3 {
		t.Fatalf("%+v %v", all, err)
	}
	n, sd, vd := all[0], all[1], all[2]
	if n.Key() != "nvme serial S1" || n.Slot != "0000:00:04.0" || n.Size != 6*mib || len(n.Namespaces) != 2 || n.Seen == nil || n.Seen.OACS != 10 {
		t.Errorf("nvme %+v", n)
	}
	if vd.Key() != "disk serial disk-b" || vd.Slot != "0000:00:05.0" || vd.Size != mib {
		t.Errorf("virtio %+v", vd)
	}
	if sd.Serial != "WD42" || sd.Namespaces[0].LBA != 4096 || !strings.HasPrefix(sd.Slot, "0000:00:1f.2/") {
		t.Errorf("sata %+v", sd)
	}
	drives, err := s.Drives()
	if err != nil {
		t.Fatal(err)
	}
	ids, err := drives[0].Visible()
	slices.Sort(ids)
	if err != nil || !slices.Equal(ids, []uint32{1, 2}) {
		t.Errorf("visible %v %v", ids, err)
	}
	fake.dead = true
	if all, err := s.Discover(); err == nil || len(all) != 3 {
		t.Errorf("a silent drive: %d media, %v", len(all), err)
	}
	if _, err := (System{Sys: filepath.Join(sys, "nowhere")}).Discover(); err == nil {
		t.Error("a system without sysfs has no disks")
	}
}

// A disk that is no NVMe drive is overwritten, all of it is read back, and that is called clear.
func TestOtherDisksAreOverwrittenAndNamedSo(t *testing.T) {
	sys, dev := t.TempDir(), t.TempDir()
	dir := filepath.Join(sys, "block/vda/queue")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 8*mib)
	rand.NewChaCha8([32]byte{}).Read(b)
	for path, text := range map[string]string{filepath.Join(sys, "block/vda/size"): "16384", filepath.Join(dir, "logical_block_size"): "512",
		filepath.Join(sys, "block/vda/serial"): "v1", filepath.Join(dev, "vda"): string(b)} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	drives, err := (System{Sys: sys, Dev: dev}).Drives()
	if err != nil || len(drives) != 1 {
		t.Fatal(drives, err)
	}
	proofs, err := Erase(t.Context(), drives, []inventory.Medium{drives[0].Medium()}, quick)
	if err != nil {
		t.Fatal(err)
	}
	p := proofs[0]
	if p.Method != inventory.MethodClear || p.Technique != inventory.TechniqueOverwrite || p.Reads[0].Zero != 8*mib || p.Reads[0].Printed != prints {
		t.Errorf("proof %+v", p)
	}
	if !strings.Contains(strings.Join(p.NotDone, "\n"), "purge: no erase command") {
		t.Errorf("not done %q", p.NotDone)
	}
	after, err := os.ReadFile(filepath.Join(dev, "vda"))
	if err != nil || strings.Trim(string(after), "\x00") != "" {
		t.Error("data is left")
	}
}
