package hardware

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hostler-project/hostler/inventory"
)

// A Mismatch is one thing in which a machine falls short of its SKU, in the words that a technician needs.
type Mismatch struct {
	Slot     string // where to look: cpu, memory, nic, gpu, a PCI address or the name of a medium
	Expected string
	Found    string
}

// String is "slot: expected …, found …".
func (m Mismatch) String() string {
	return fmt.Sprintf("%s: expected %s, found %s", m.Slot, m.Expected, m.Found)
}

// Compare says everything in which hw is less than sku asks for; nil means that it holds. More than asked is no mismatch.
// An absent answer (no memory read, a medium without a size) is one, whether or not the SKU asks for it.
func Compare(sku inventory.SKU, hw inventory.Hardware) []Mismatch {
	var all []Mismatch
	less := func(slot, expected, found string) { all = append(all, Mismatch{slot, expected, found}) }

	if want := max(sku.MinCPUs, 1); hw.CPUs < want {
		less("cpu", atLeast(want, "processor"), count(hw.CPUs, "processor"))
	}
	switch want := max(sku.MinMemory, 1); {
	case hw.MemoryBytes <= 0:
		less("memory", "at least "+size(want), "no answer")
	case hw.MemoryBytes < want:
		less("memory", "at least "+size(want), size(hw.MemoryBytes))
	}
	if want := max(sku.MinNICs, 1); len(hw.NICs) < want {
		less("nic", atLeast(want, "interface"), count(len(hw.NICs), "interface"))
	}
	for _, n := range hw.NICs {
		if n.MAC == "" {
			less("nic "+n.Name, "a MAC address", "no answer")
		}
	}
	if len(hw.GPUs) < sku.GPUs {
		less("gpu", atLeast(sku.GPUs, "GPU"), count(len(hw.GPUs), "GPU"))
	}
	for _, g := range hw.GPUs {
		if sku.GPUModel != "" && !isModel(g, sku.GPUModel) {
			less("gpu "+g.PCI, "model "+sku.GPUModel, "model "+g.Vendor+":"+g.Device)
		}
	}
	return append(all, compareMedia(sku.Media, hw.Media)...)
}

// compareMedia gives each wanted medium one that is there: the one in its slot (by PCI address or by the kernel's name),
// or, for a wish without a slot, the smallest free one that will do.
func compareMedia(specs []inventory.MediaSpec, media []inventory.Medium) []Mismatch {
	var all []Mismatch
	taken := make([]bool, len(media))
	for _, m := range media {
		if m.Size <= 0 {
			all = append(all, Mismatch{m.Slot, "a medium with a size", "no answer from " + m.String()})
		}
	}
	for _, s := range specs {
		if s.Slot == "" {
			continue
		}
		found := slices.IndexFunc(media, func(m inventory.Medium) bool { return m.Slot == s.Slot || m.Device == s.Slot })
		if found < 0 || taken[found] {
			all = append(all, Mismatch{s.Slot, wanted(s), "nothing"})
			continue
		}
		taken[found] = true
		switch m := media[found]; {
		case m.Size <= 0:
			all = append(all, Mismatch{s.Slot, wanted(s), "no answer"})
		case !fits(s, m):
			all = append(all, Mismatch{s.Slot, wanted(s), fmt.Sprintf("%s of %s: %s", m.Kind, size(m.Size), m)})
		}
	}
	for i, s := range specs {
		if s.Slot != "" {
			continue
		}
		best := -1
		for j, m := range media {
			if !taken[j] && fits(s, m) && (best < 0 || m.Size < media[best].Size) {
				best = j
			}
		}
		if best < 0 {
			all = append(all, Mismatch{fmt.Sprintf("medium %d", i+1), wanted(s), "nothing that fits"})
			continue
		}
		taken[best] = true
	}
	return all
}

func fits(s inventory.MediaSpec, m inventory.Medium) bool {
	return m.Size > 0 && m.Size >= s.MinBytes && (s.Kind == "" || s.Kind == m.Kind)
}

func wanted(s inventory.MediaSpec) string {
	kind := s.Kind
	if kind == "" {
		kind = "medium"
	}
	if s.MinBytes <= 0 {
		return kind
	}
	return kind + " of at least " + size(s.MinBytes)
}

// isModel says whether a GPU is the model that a SKU names, by PCI device id with or without the vendor.
func isModel(g inventory.GPU, model string) bool {
	return strings.EqualFold(model, g.Device) || strings.EqualFold(model, g.Vendor+":"+g.Device)
}

func atLeast(n int, what string) string { return "at least " + count(n, what) }

func count(n int, what string) string {
	switch n {
	case 0:
		return "no " + what
	case 1:
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// size is a number of bytes as people write it, with four digits or more so that a small lack shows.
func size(n int64) string {
	const k = 1 << 10
	f, units := float64(n), []string{"bytes", "KiB", "MiB", "GiB", "TiB", "PiB"}
	i := 0
	for f >= 10*k && i < len(units)-1 {
		f /= k
		i++
	}
	if i == 0 {
		return fmt.Sprintf("%d bytes", n)
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", f), ".0") + " " + units[i]
}
