package nvml

import (
	"strings"
	"time"
)

// Expect is what a machine's GPUs should be like: its SKU, the site's policy, and the moment. Zero values expect nothing,
// so that nothing is called a fault that nobody promised.
type Expect struct {
	GPUs       int
	Links      int   // NVLinks of each GPU; 0: a card without, on which none can be missing
	LinkSpeed  int64 // MB/s of one direction
	PCIeGen    int64
	PCIeWidth  int64
	PowerLimit int64 // mW; 0: the GPU's own default
	Fabric     bool  // it has NVSwitches, so a fabric manager
	Peers      bool  // every pair reaches each other over NVLink

	Drivers, VBIOS, GSP []string          // allowed versions; empty: any
	Serials             map[string]string // of the last inventory, by bus address

	// Policy that must hold when the machine is handed over; nil: anything.
	ECC, MIG, Persistence, Compute, Confidential *int64

	HandOver bool          // the machine is being handed over: nothing of a tenant may be left
	BurnIn   bool          // every GPU is given the same work
	Up       time.Duration // since boot
}

// models are what is known of GPUs by their name, for a machine without a SKU. Links and speeds are those of
// health-checks.md G25 and G26.
var models = []struct {
	name string // how the driver's name begins
	e    Expect
}{
	{"NVIDIA A100-SXM4", Expect{Links: 12, LinkSpeed: 25000, PCIeGen: 4, PCIeWidth: 16, Peers: true}},
	{"NVIDIA H100 80GB HBM3", Expect{Links: 18, LinkSpeed: 26562, PCIeGen: 5, PCIeWidth: 16, Fabric: true, Peers: true}},
	{"NVIDIA H200 NVL", Expect{PCIeGen: 5, PCIeWidth: 16}},
	{"NVIDIA H200", Expect{Links: 18, LinkSpeed: 26562, PCIeGen: 5, PCIeWidth: 16, Fabric: true, Peers: true}},
	{"NVIDIA B200", Expect{Links: 18, LinkSpeed: 53125, PCIeGen: 5, PCIeWidth: 16, Fabric: true, Peers: true}},
	{"NVIDIA A100", Expect{PCIeGen: 4, PCIeWidth: 16}},
	{"NVIDIA H100", Expect{PCIeGen: 5, PCIeWidth: 16}},
}

// ExpectOf is what can be expected of the GPUs of a sample by their model alone: how many there should be, only a SKU can
// say. GPUs in a virtual machine, or single ones of an NVLink board, have fewer links than their model: name a SKU there.
func ExpectOf(s Sample) Expect {
	for _, m := range models {
		for _, g := range s.GPUs {
			if strings.HasPrefix(g.Values.Text("name"), m.name) {
				return m.e
			}
		}
	}
	return Expect{}
}
