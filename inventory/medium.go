package inventory

import "time"

// A Medium is one thing in a node that keeps data without power, as inspection recorded it. It is told again by Serial;
// where a drive has none (some virtual ones), by Slot.
type Medium struct {
	Slot       string      `json:"slot"`             // where it sits: PCI address of its controller, such as "0000:00:04.0"
	Device     string      `json:"device"`           // the kernel's name at that time, such as "nvme0"; may change at any boot
	Kind       string      `json:"kind"`             // MediumNVMe or MediumDisk
	Model      string      `json:"model,omitempty"`  //
	Serial     string      `json:"serial,omitempty"` //
	Firmware   string      `json:"firmware,omitempty"`
	Size       int64       `json:"size"` // bytes, all namespaces together
	Namespaces []Namespace `json:"namespaces,omitempty"`
	Seen       *MediumCaps `json:"capabilities,omitempty"` // nil: the drive has no capability pages that we read
}

// The kinds of media, by how they can be erased.
const (
	MediumNVMe = "nvme" // NVMe controller: sanitize, format, overwrite
	MediumDisk = "disk" // any other block device (virtio, SATA, SAS): overwrite only
)

// A Namespace is one NVMe namespace, or the whole of another disk (ID 1).
type Namespace struct {
	ID    uint32 `json:"nsid"`
	Size  int64  `json:"size"`     // bytes
	LBA   int    `json:"lba_size"` // bytes of one logical block
	EUI64 string `json:"eui64,omitempty"`
	NGUID string `json:"nguid,omitempty"`
}

// MediumCaps are the capability fields of NVMe Identify Controller (base specification 2.0, figure 275), as read.
type MediumCaps struct {
	OACS    uint16 `json:"oacs"`    // optional admin commands: bit 1 format, bit 3 namespace management
	ONCS    uint16 `json:"oncs"`    // optional NVM commands
	FNA     uint8  `json:"fna"`     // format attributes: bit 2 cryptographic erase
	SANICAP uint32 `json:"sanicap"` // sanitize: bit 0 crypto, bit 1 block, bit 2 overwrite; 0: no sanitize at all
}

// Key is how the medium is told again after a reboot.
func (m Medium) Key() string {
	if m.Serial != "" {
		return m.Kind + " serial " + m.Serial
	}
	return m.Kind + " slot " + m.Slot
}

// String names the medium as a person at the rack would look for it.
func (m Medium) String() string {
	s := m.Device
	if s == "" {
		s = m.Kind + " drive"
	}
	if m.Model != "" {
		s += " (" + m.Model + ")"
	}
	if m.Serial != "" {
		s += " serial " + m.Serial
	}
	return s + " in slot " + m.Slot
}

// The methods of NIST SP 800-88 by which a medium can be erased.
const (
	MethodPurge = "purge" // by a command of the drive that reaches what hosts cannot address
	MethodClear = "clear" // all that a host can address is overwritten
)

// The techniques, strongest first.
const (
	TechniqueSanitizeCrypto = "sanitize-crypto"
	TechniqueSanitizeBlock  = "sanitize-block"
	TechniqueFormatCrypto   = "format-crypto"    // Format NVM, SES 2
	TechniqueFormatUserData = "format-user-data" // Format NVM, SES 1
	TechniqueOverwrite      = "overwrite"        // zeros over every block, all of it read back
)

// A MediumProof is the evidence of one medium's erasure, as the certificate prints it. It counts only where Passed.
type MediumProof struct {
	Medium    Medium         `json:"medium"`
	Method    string         `json:"method"`    // MethodPurge or MethodClear
	Technique string         `json:"technique"` //
	Passed    bool           `json:"passed"`
	Faults    []string       `json:"faults,omitempty"`   // why it did not pass
	NotDone   []string       `json:"not_done,omitempty"` // what could not be done, and why; also on a proof that passed
	Commands  []DriveCommand `json:"commands"`
	Before    *SanitizeLog   `json:"sanitize_log_before,omitempty"` // nil: the drive keeps none
	After     *SanitizeLog   `json:"sanitize_log_after,omitempty"`
	Reads     []ReadBack     `json:"reads,omitempty"` // one per namespace
	Start     time.Time      `json:"start"`
	End       time.Time      `json:"end"`
}

// A DriveCommand is one erasing command as sent, and what the drive said.
type DriveCommand struct {
	Name   string    `json:"name"`   // such as "format nsid=1 ses=1"
	Status string    `json:"status"` // "ok", or the drive's status in words and hex
	Start  time.Time `json:"start"`
	End    time.Time `json:"end"`
}

// A SanitizeLog is NVMe log page 0x81 as read.
type SanitizeLog struct {
	Status   uint16 `json:"sstat"`   // SSTAT, all bits
	Progress uint16 `json:"sprog"`   // of 65536
	Command  uint32 `json:"scdw10"`  // what was asked
	Means    string `json:"meaning"` // the status in words
}

// A ReadBack says what was planted in one namespace before, and what was read from it after.
type ReadBack struct {
	Namespace  uint32 `json:"nsid"`
	Planted    int    `json:"markers_planted"`
	Looked     int    `json:"markers_looked_for"`     // places of markers that could be read
	Found      int    `json:"markers_found"`          // anywhere in what was read
	Printed    int    `json:"fingerprints"`           // blocks with data whose keyed hash was taken before
	Unchanged  int    `json:"fingerprints_unchanged"` // of those, how many read the same after
	Plan       string `json:"plan"`                   // in words: full, or how it was sampled
	Bytes      int64  `json:"bytes_read"`
	Zero       int64  `json:"bytes_zero"` // of Bytes, in areas that were all 0x00
	Ones       int64  `json:"bytes_ones"` // all 0xff
	Other      int64  `json:"bytes_other"`
	Unreadable int64  `json:"bytes_unreadable"` // neither pass nor marker: fails the medium
}
