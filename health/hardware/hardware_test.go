package hardware

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostler-project/hostler/inventory"
)

// plant writes a tree: a value that begins with "->" is a link, one that ends a name with "/" a folder.
func plant(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if to, link := strings.CutPrefix(content, "->"); link {
			err = os.Symlink(to, p)
		} else if strings.HasSuffix(name, "/") {
			err = os.MkdirAll(p, 0o755)
		} else {
			err = os.WriteFile(p, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

const cpuinfo = "processor\t: 0\nmodel name\t: Fast 9000\n\nprocessor\t: 1\nmodel name\t: Fast 9000\n"

// server is a UEFI machine with a virtio interface, a bridge, one GPU with its audio function and a BMC.
func server() map[string]string {
	const nic = "sys/devices/pci0000:00/0000:00:03.0/virtio1/net/eth0/"
	return map[string]string{
		"proc/cpuinfo":                    cpuinfo,
		"proc/meminfo":                    "MemTotal:         755436 kB\nMemFree:          1 kB\n",
		"proc/sys/kernel/osrelease":       "6.1.0-cloud\n",
		"sys/class/dmi/id/sys_vendor":     "ACME\n",
		"sys/class/dmi/id/product_name":   "Rack 1\n",
		"sys/class/dmi/id/product_serial": "SN-7 \n",
		"sys/class/dmi/id/product_uuid":   "4C4C4544-0000-1000-8000-00000000000A\n",
		"sys/class/dmi/id/bios_version":   "1.2\n",
		secureBoot:                        "\x06\x00\x00\x00\x01",
		"dev/ipmi0":                       "",
		"sys/class/net/eth0":              "->../../devices/pci0000:00/0000:00:03.0/virtio1/net/eth0",
		nic + "device":                    "->../..",
		nic + "address":                   "52:54:00:AA:BB:01\n",
		nic + "type":                      "1\n",
		nic + "operstate":                 "up\n",
		"sys/devices/pci0000:00/0000:00:03.0/virtio1/driver": "->../../../../bus/virtio/drivers/virtio_net",
		"sys/bus/virtio/drivers/virtio_net/":                 "",
		"sys/class/net/lo/type":                              "772\n",
		"sys/class/net/br0/type":                             "1\n", // no device behind it
		"sys/bus/pci/devices/0000:41:00.0/vendor":            "0x10de\n",
		"sys/bus/pci/devices/0000:41:00.0/class":             "0x030200\n",
		"sys/bus/pci/devices/0000:41:00.0/device":            "0x2330\n",
		"sys/bus/pci/devices/0000:41:00.1/vendor":            "0x10de\n",
		"sys/bus/pci/devices/0000:41:00.1/class":             "0x040300\n", // audio
		"sys/bus/pci/devices/0000:00:02.0/vendor":            "0x1234\n",
		"sys/bus/pci/devices/0000:00:02.0/class":             "0x030000\n", // another maker's
	}
}

func TestReadTellsWhatIsThere(t *testing.T) {
	got, err := Read(plant(t, server()))
	if err != nil {
		t.Fatal(err)
	}
	want := inventory.Hardware{
		Manufacturer: "ACME", Product: "Rack 1", Serial: "SN-7", UUID: "4c4c4544-0000-1000-8000-00000000000a",
		Firmware: "uefi", BIOSVersion: "1.2", SecureBoot: true, Kernel: "6.1.0-cloud", Arch: runtime.GOARCH,
		CPUModel: "Fast 9000", CPUs: 2, MemoryBytes: 755436 << 10, BMCInBand: true,
		NICs: []inventory.NIC{{Name: "eth0", MAC: "52:54:00:aa:bb:01", Driver: "virtio_net", PCI: "0000:00:03.0", Up: true}},
		GPUs: []inventory.GPU{{PCI: "0000:41:00.0", Vendor: "10de", Device: "2330"}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestReadSaysWhatItCannotKnow(t *testing.T) {
	without := func(names ...string) func(map[string]string) {
		return func(m map[string]string) {
			for _, n := range names {
				delete(m, n)
			}
		}
	}
	for name, c := range map[string]struct {
		change func(map[string]string)
		want   string // part of the error; "" means none
	}{
		"no cpuinfo":          {without("proc/cpuinfo"), "count processors"},
		"empty cpuinfo":       {func(m map[string]string) { m["proc/cpuinfo"] = "flags : x\n" }, "names no processor"},
		"no meminfo":          {without("proc/meminfo"), "measure memory"},
		"memory no number":    {func(m map[string]string) { m["proc/meminfo"] = "MemTotal: much kB\n" }, "no number"},
		"memory other unit":   {func(m map[string]string) { m["proc/meminfo"] = "MemTotal: 1 MB\n" }, "no MemTotal in kB"},
		"efivars not mounted": {func(m map[string]string) { delete(m, secureBoot); m["sys/firmware/efi/efivars/"] = "" }, "efivarfs"},
		"no secure boot at all": {func(m map[string]string) {
			delete(m, secureBoot)
			m["sys/firmware/efi/efivars/BootOrder-8be4df61-93ca-11d2-aa0d-00e098032b8c"] = "x"
		}, ""},
		"secure boot cut short": {func(m map[string]string) { m[secureBoot] = "\x06\x00" }, "2 bytes"},
		"no SMBIOS":             {without("sys/class/dmi/id/product_serial", "sys/class/dmi/id/sys_vendor"), ""},
		"bios":                  {without(secureBoot), ""},
	} {
		t.Run(name, func(t *testing.T) {
			files := server()
			c.change(files)
			hw, err := Read(plant(t, files))
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got error %v, want %q", err, c.want)
			}
			if name == "bios" && hw.Firmware != "bios" {
				t.Errorf("firmware %q", hw.Firmware)
			}
			if len(hw.GPUs) != 1 {
				t.Errorf("one fault hid the rest: %+v", hw)
			}
		})
	}
}
