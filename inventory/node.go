package inventory

import (
	"slices"
	"time"
)

// A State is one of the places of the lifecycle table (inventory/lifecycle has meaning, deadlines and edges).
type State string

// The states, in the order a healthy node meets them. Stored and shown: never renumbered, never iota.
const (
	Discovered   State = "discovered"
	Inspecting   State = "inspecting"
	Firmware     State = "firmware"
	Sanitizing   State = "sanitizing"
	BurnIn       State = "burn-in"
	Verifying    State = "verifying"
	Ready        State = "ready"
	Reserved     State = "reserved"
	Provisioning State = "provisioning"
	InUse        State = "in-use"
	Servicing    State = "servicing"
	Draining     State = "draining"
	Fencing      State = "fencing"
	Quarantined  State = "quarantined"
	Repair       State = "repair"
	Maintenance  State = "maintenance"
	Retiring     State = "retiring"
	Retired      State = "retired"
)

// A Spec is what people want of a node and what they say about it. Only the API writes it (the daemon for nodes that it
// discovers).
type Spec struct {
	Schema   int       `json:"schema"`
	Name     string    `json:"name"`
	Serial   string    `json:"serial,omitempty"` // product serial, as SMBIOS and FRU tell it
	UUID     string    `json:"uuid,omitempty"`   // SMBIOS UUID, DHCP option 97
	MACs     []string  `json:"macs,omitempty"`   // network boot interfaces, lower case, colons
	IP       string    `json:"ip,omitempty"`     // its fixed address on the segment
	Segment  string    `json:"segment,omitempty"`
	SKU      string    `json:"sku,omitempty"`
	Rack     string    `json:"rack,omitempty"`
	Slot     string    `json:"slot,omitempty"`
	BMC      BMCSpec   `json:"bmc,omitzero"`
	Approve  string    `json:"approve,omitempty"`  // "auto": start as soon as the BMC says the chassis is off
	Firmware string    `json:"firmware,omitempty"` // how it asked to be booted: bios, uefi, uefi-http
	Holds    []Hold    `json:"holds,omitempty"`
	Added    time.Time `json:"added,omitzero"`
	Source   string    `json:"source,omitempty"` // dhcp or manifest
}

// A BMCSpec says how to reach a node's controller. Credential names a sealed credential, never holds one.
type BMCSpec struct {
	Addr       string `json:"addr,omitempty"`
	Protocol   string `json:"protocol,omitempty"` // ipmi; package bmc speaks no other
	Credential string `json:"credential,omitempty"`
}

// A Hold keeps a node from being rented, whatever its state.
type Hold struct {
	Kind   string    `json:"kind"` // cordon, maintenance, lock, retire-requested
	Reason string    `json:"reason"`
	Actor  string    `json:"actor"`
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until,omitzero"`
}

// Taint says that a medium of the node may hold somebody's data.
const Taint = "tainted"

// A NodeState is where a node stands. The reconciler writes it, and the three transactions claim, confirm and release.
type NodeState struct {
	Schema  int       `json:"schema"`
	State   State     `json:"state"`
	From    State     `json:"from,omitempty"`
	Since   time.Time `json:"since"`
	Reason  string    `json:"reason"`
	Seq     int64     `json:"seq"`               // number of the newest history entry
	Attempt int       `json:"attempt,omitempty"` // tries of the whole state (provisioning → provisioning)

	// Allowed is the deadline of this state as a length of time, Spent how much of it has counted: only time in which an
	// owner reconciled, so a daemon that is down costs no node its deadline. Zero Allowed: may stay for ever.
	Allowed Duration `json:"allowed,omitempty"`
	Spent   Duration `json:"spent,omitempty"`

	Generation int64  `json:"generation"` // rises with each claim and quarantine; every order names it
	Wipe       int64  `json:"wipe"`       // rises when taint is set and when sanitizing begins; a certificate is for one wipe
	Taint      string `json:"taint,omitempty"`
	Instance   string `json:"last_instance,omitempty"` // whose data the media may hold: the last claim that ended; the certificate names it
	BurnInDue  bool   `json:"burnin_due,omitempty"`    // new or repaired: sanitizing leads to burn-in, not verifying
	Cause      string `json:"cause,omitempty"`         // what set it going: the event that began this round of its life

	Remedies []Remedy `json:"remedies,omitempty"` // what was done for its health by itself; a bounded list
	Unwell   Unwell   `json:"unwell,omitzero"`    // since when something is wrong with it, for the breaker

	Work   Work      `json:"work,omitzero"`
	Alive  string    `json:"alive,omitempty"` // alive, silent or unknown; written only when it changes
	BootID string    `json:"boot_id,omitempty"`
	Tested time.Time `json:"tested,omitzero"` // when the last test run was found passed, by the clock of the daemon that did
}

// A Remedy is one thing that was done for a node's health without anybody asking.
type Remedy struct {
	At   time.Time `json:"at"`
	What string    `json:"what"`
}

// Work is how far the step of the present state has come: the intent written before each act, so that a daemon that
// starts again knows what may have been done.
type Work struct {
	Phase string    `json:"phase,omitempty"`
	Since time.Time `json:"since,omitzero"`
	Try   int       `json:"try,omitempty"`
	Note  string    `json:"note,omitempty"`
	Order string    `json:"order,omitempty"` // id of the order that the agent holds
}

// A Duration is stored as text ("1m30s") so that people can read it in etcdctl.
type Duration time.Duration

// MarshalText and UnmarshalText make it text in JSON and YAML.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads what time.ParseDuration reads.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}

// Facts are what was measured of a node: by the agent in band, through the BMC out of band.
type Facts struct {
	Schema    int       `json:"schema"`
	Hardware  Hardware  `json:"hardware"`
	BMC       BMCFacts  `json:"bmc,omitzero"`
	Inspected time.Time `json:"inspected,omitzero"`
	// MediaEver are all media seen since the last certificate: what sanitizing must erase, not what happens to be there.
	MediaEver []Medium `json:"media_ever,omitempty"`
	// Round says whether the chassis round trip was seen: written by the agent in band, read from the BMC out of band.
	Round bool `json:"round,omitempty"`
}

// Hardware is what the agent finds.
type Hardware struct {
	Manufacturer string   `json:"manufacturer,omitempty"`
	Product      string   `json:"product,omitempty"`
	Serial       string   `json:"serial,omitempty"`
	UUID         string   `json:"uuid,omitempty"`
	Firmware     string   `json:"firmware"` // bios or uefi
	BIOSVersion  string   `json:"bios_version,omitempty"`
	SecureBoot   bool     `json:"secure_boot"`
	Kernel       string   `json:"kernel"`
	Arch         string   `json:"arch"`
	CPUModel     string   `json:"cpu_model"`
	CPUs         int      `json:"cpus"`
	MemoryBytes  int64    `json:"memory_bytes"` // usable by the kernel
	Media        []Medium `json:"media"`
	NICs         []NIC    `json:"nics"`
	GPUs         []GPU    `json:"gpus,omitempty"`
	BMCInBand    bool     `json:"bmc_in_band"` // /dev/ipmi0 is there
}

// A NIC is one network interface with a wire.
type NIC struct {
	Name   string `json:"name"`
	MAC    string `json:"mac"`
	Driver string `json:"driver,omitempty"`
	PCI    string `json:"pci,omitempty"`
	Up     bool   `json:"up"`
}

// A GPU as the PCI bus shows it.
type GPU struct {
	PCI    string `json:"pci"`
	Vendor string `json:"vendor"`
	Device string `json:"device"`
	UUID   string `json:"uuid,omitempty"`
	Serial string `json:"serial,omitempty"`
}

// BMCFacts are what the controller says of the machine.
type BMCFacts struct {
	Serial       string    `json:"serial,omitempty"`
	Manufacturer string    `json:"manufacturer,omitempty"`
	Product      string    `json:"product,omitempty"`
	Power        string    `json:"power,omitempty"`
	Read         time.Time `json:"read,omitzero"`
}

// A SKU says what a node of that type must have; anything less is a mismatch with slot, expected, found.
type SKU struct {
	Schema        int         `json:"schema" yaml:"-"`
	Name          string      `json:"name" yaml:"name"`
	MinCPUs       int         `json:"min_cpus" yaml:"min_cpus"`
	MinMemory     int64       `json:"min_memory_bytes" yaml:"min_memory_bytes"`
	Media         []MediaSpec `json:"media" yaml:"media"`
	MinNICs       int         `json:"min_nics,omitempty" yaml:"min_nics"`
	GPUs          int         `json:"gpus,omitempty" yaml:"gpus"`
	GPUModel      string      `json:"gpu_model,omitempty" yaml:"gpu_model"`
	BurnInProfile string      `json:"burnin_profile,omitempty" yaml:"burnin_profile"`
	VerifyProfile string      `json:"verify_profile,omitempty" yaml:"verify_profile"`
	Trust         string      `json:"trust,omitempty" yaml:"trust"`         // network: secrets may leave without the chassis round trip
	Boot          Duration    `json:"boot,omitempty" yaml:"boot"`           // p99 of a boot into the service OS
	Handoff       string      `json:"handoff,omitempty" yaml:"handoff"`     // kexec (default) or reboot
	Qualified     []string    `json:"qualified,omitempty" yaml:"qualified"` // image digests or names proven on this SKU; empty: all
	TestMaxAge    Duration    `json:"test_max_age,omitempty" yaml:"test_max_age"`
}

// A MediaSpec is one medium that the SKU calls for.
type MediaSpec struct {
	Slot     string `json:"slot" yaml:"slot"` // what inspection calls it, e.g. nvme0
	Kind     string `json:"kind" yaml:"kind"` // nvme or disk
	MinBytes int64  `json:"min_bytes" yaml:"min_bytes"`
	Boot     bool   `json:"boot,omitempty" yaml:"boot"` // images are written here
}

// HasMAC says whether the spec names that interface.
func (s Spec) HasMAC(mac string) bool { return slices.Contains(s.MACs, mac) }
