package hardware

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostler-project/hostler/inventory"
)

const gib = 1 << 30

func nvme(slot, device string, bytes int64) inventory.Medium {
	return inventory.Medium{Slot: slot, Device: device, Kind: inventory.MediumNVMe, Serial: "S-" + device, Size: bytes}
}

func TestCompare(t *testing.T) {
	sku := inventory.SKU{
		Name: "gpu-8", MinCPUs: 4, MinMemory: 16 * gib, MinNICs: 2, GPUs: 1, GPUModel: "10de:2330",
		Media: []inventory.MediaSpec{
			{Slot: "0000:00:04.0", Kind: inventory.MediumNVMe, MinBytes: 10 * gib, Boot: true},
			{Slot: "nvme1", Kind: inventory.MediumNVMe, MinBytes: 10 * gib},
		},
	}
	good := func() inventory.Hardware {
		return inventory.Hardware{
			CPUs: 4, MemoryBytes: 16 * gib,
			NICs:  []inventory.NIC{{Name: "eth0", MAC: "52:54:00:00:00:01"}, {Name: "eth1", MAC: "52:54:00:00:00:02"}},
			GPUs:  []inventory.GPU{{PCI: "0000:41:00.0", Vendor: "10de", Device: "2330"}},
			Media: []inventory.Medium{nvme("0000:00:04.0", "nvme0", 10*gib), nvme("0000:00:05.0", "nvme1", 11*gib)},
		}
	}
	for name, c := range map[string]struct {
		change func(*inventory.Hardware)
		want   []Mismatch
	}{
		"holds": {func(*inventory.Hardware) {}, nil},
		"more than asked": {func(h *inventory.Hardware) {
			h.CPUs, h.MemoryBytes = 64, 99*gib
			h.Media = append(h.Media, nvme("0000:00:06.0", "nvme2", gib))
		}, nil},
		"drive missing": {func(h *inventory.Hardware) { h.Media = h.Media[:1] },
			[]Mismatch{{"nvme1", "nvme of at least 10 GiB", "nothing"}}},
		"drive too small": {func(h *inventory.Hardware) { h.Media[0].Size = 5 << 20 },
			[]Mismatch{{"0000:00:04.0", "nvme of at least 10 GiB", "nvme of 5120 KiB: nvme0 serial S-nvme0 in slot 0000:00:04.0"}}},
		"drive of another kind": {func(h *inventory.Hardware) { h.Media[0].Kind = inventory.MediumDisk },
			[]Mismatch{{"0000:00:04.0", "nvme of at least 10 GiB", "disk of 10 GiB: nvme0 serial S-nvme0 in slot 0000:00:04.0"}}},
		"drive without a size": {func(h *inventory.Hardware) { h.Media[1].Size = 0 }, []Mismatch{
			{"0000:00:05.0", "a medium with a size", "no answer from nvme1 serial S-nvme1 in slot 0000:00:05.0"},
			{"nvme1", "nvme of at least 10 GiB", "no answer"}}},
		"too little memory": {func(h *inventory.Hardware) { h.MemoryBytes = 15 * gib },
			[]Mismatch{{"memory", "at least 16 GiB", "15 GiB"}}},
		"memory not read": {func(h *inventory.Hardware) { h.MemoryBytes = 0 },
			[]Mismatch{{"memory", "at least 16 GiB", "no answer"}}},
		"too few processors": {func(h *inventory.Hardware) { h.CPUs = 3 },
			[]Mismatch{{"cpu", "at least 4 processors", "3 processors"}}},
		"one interface": {func(h *inventory.Hardware) { h.NICs = h.NICs[:1] },
			[]Mismatch{{"nic", "at least 2 interfaces", "1 interface"}}},
		"interface without a MAC": {func(h *inventory.Hardware) { h.NICs[1].MAC = "" },
			[]Mismatch{{"nic eth1", "a MAC address", "no answer"}}},
		"no GPU": {func(h *inventory.Hardware) { h.GPUs = nil },
			[]Mismatch{{"gpu", "at least 1 GPU", "no GPU"}}},
		"other GPU": {func(h *inventory.Hardware) { h.GPUs[0].Device = "20b0" },
			[]Mismatch{{"gpu 0000:41:00.0", "model 10de:2330", "model 10de:20b0"}}},
		"nothing at all": {func(h *inventory.Hardware) { *h = inventory.Hardware{} }, []Mismatch{
			{"cpu", "at least 4 processors", "no processor"},
			{"memory", "at least 16 GiB", "no answer"},
			{"nic", "at least 2 interfaces", "no interface"},
			{"gpu", "at least 1 GPU", "no GPU"},
			{"0000:00:04.0", "nvme of at least 10 GiB", "nothing"},
			{"nvme1", "nvme of at least 10 GiB", "nothing"}}},
	} {
		t.Run(name, func(t *testing.T) {
			hw := good()
			c.change(&hw)
			if d := cmp.Diff(c.want, Compare(sku, hw)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestAnAbsentAnswerIsAMismatchForAnEmptySKU(t *testing.T) {
	if got := Compare(inventory.SKU{}, inventory.Hardware{}); len(got) != 3 {
		t.Errorf("want cpu, memory and nic, got %v", got)
	}
}

func TestMediaWithoutASlotAreMatchedBySize(t *testing.T) {
	specs := []inventory.MediaSpec{{Kind: inventory.MediumNVMe, MinBytes: 8 * gib}, {Kind: inventory.MediumNVMe, MinBytes: gib}, {MinBytes: gib}}
	two := []inventory.Medium{nvme("a", "nvme0", 8*gib), nvme("b", "nvme1", gib)}
	want := []Mismatch{{"medium 3", "medium of at least 1024 MiB", "nothing that fits"}}
	if d := cmp.Diff(want, compareMedia(specs, two)); d != "" {
		t.Error(d)
	}
}
