package sanitize

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/hostler-project/hostler/imaging/disk"
	"github.com/hostler-project/hostler/inventory"
)

// A Drive is one medium: an NVMe controller with its namespaces, or another disk, which answers no admin command.
type Drive interface {
	// Medium is what the system says about it; for NVMe, capabilities and namespaces are asked of the drive itself.
	Medium() inventory.Medium
	// Admin sends an NVMe admin command. A *Status is the drive's refusal, any other error means that it was not asked.
	Admin(c *Command) error
	// Open opens a namespace (of another disk: 1) for reading and writing.
	Open(nsid uint32) (Namespace, error)
	// Visible lists the namespaces that the system has block devices for.
	Visible() ([]uint32, error)
}

// A Namespace is a disk that is closed after use.
type Namespace interface {
	disk.Device
	Close() error
}

// A Command is an NVMe admin command.
type Command struct {
	Opcode  uint8
	NSID    uint32
	CDW10   uint32
	CDW11   uint32
	CDW12   uint32
	Data    []byte        // read from the drive; nil for none
	Timeout time.Duration // 0 means the kernel's 60 s
	Result  uint32        // completion dword 0
}

// The admin opcodes in use (base specification 2.0, figure 138).
const (
	opGetLog   = 0x02
	opIdentify = 0x06
	opFormat   = 0x80
	opSanitize = 0x84
)

const allNamespaces = 0xffffffff

// A Status is a completion status other than success: status code type and code, as Linux reports it.
type Status uint16

// statusWords are the statuses that change what we do or say (figures 101 to 103).
var statusWords = map[Status]string{
	0x01: "invalid opcode", 0x02: "invalid field", 0x04: "data transfer error", 0x06: "internal error", 0x0b: "invalid namespace",
	0x1c: "sanitize failed", 0x1d: "sanitize in progress", 0x20: "namespace is write protected",
	0x109: "invalid log page", 0x10a: "invalid format", 0x10b: "firmware activation requires a conventional reset",
	0x1b0: "sanitize prohibited while persistent memory is on", 0x280: "write fault", 0x281: "unrecovered read error", 0x286: "access denied",
}

// Error names the status; the retry and more bits are dropped.
func (s Status) Error() string {
	s &= 0x7ff
	if w := statusWords[s]; w != "" {
		return fmt.Sprintf("%s (NVMe status 0x%x)", w, uint16(s))
	}
	return fmt.Sprintf("NVMe status 0x%x", uint16(s))
}

// caps is Identify Controller as far as we use it (figure 275).
type caps struct {
	inventory.MediumCaps
	model, serial, firmware string
	rpmb                    uint32
}

func (c caps) formats() bool   { return c.OACS&(1<<1) != 0 }
func (c caps) manages() bool   { return c.OACS&(1<<3) != 0 }
func (c caps) cryptoSES() bool { return c.FNA&(1<<2) != 0 }

const (
	canCrypto = 1 << 0 // SANICAP
	canBlock  = 1 << 1
)

func identifyController(d Drive) (caps, error) {
	b := make([]byte, 4096)
	if err := d.Admin(&Command{Opcode: opIdentify, CDW10: 1, Data: b}); err != nil {
		return caps{}, fmt.Errorf("identify controller: %w", err)
	}
	le := binary.LittleEndian
	return caps{
		serial: text(b[4:24]), model: text(b[24:64]), firmware: text(b[64:72]), rpmb: le.Uint32(b[312:]) & 7,
		MediumCaps: inventory.MediumCaps{OACS: le.Uint16(b[256:]), SANICAP: le.Uint32(b[328:]), ONCS: le.Uint16(b[520:]), FNA: b[524]},
	}, nil
}

func text(b []byte) string { return strings.TrimSpace(strings.TrimRight(string(b), "\x00")) }

// namespace is Identify Namespace as far as we use it (figure 245).
type namespace struct {
	inventory.Namespace
	lbaf      uint32 // CDW10 bits of Format NVM that keep the present format: LBAF, metadata, protection
	protected bool
	reads     byte // DLFEAT bits 2:0: what deallocated blocks read as: 1 zeros, 2 ones, 0 not said
}

func identifyNamespace(d Drive, nsid uint32) (namespace, error) {
	b := make([]byte, 4096)
	if err := d.Admin(&Command{Opcode: opIdentify, NSID: nsid, Data: b}); err != nil {
		return namespace{}, fmt.Errorf("identify namespace %d: %w", nsid, err)
	}
	flbas, dps := uint32(b[26]), uint32(b[29])
	index := flbas&0xf | flbas>>5&3<<4
	lba := 1 << b[128+4*index+2]
	n := namespace{Namespace: inventory.Namespace{ID: nsid, LBA: lba, Size: int64(binary.LittleEndian.Uint64(b)) * int64(lba)},
		protected: b[99]&1 != 0, reads: b[33] & 7,
		lbaf: flbas&0xf | flbas>>4&1<<4 | dps&7<<5 | dps>>3&1<<8 | flbas>>5&3<<12}
	if !disk.IsZero(b[104:120]) {
		n.NGUID = hex.EncodeToString(b[104:120])
	}
	if !disk.IsZero(b[120:128]) {
		n.EUI64 = hex.EncodeToString(b[120:128])
	}
	return n, nil
}

// listNamespaces reads a namespace list: CNS 0x02 active, 0x10 allocated (attached or not).
func listNamespaces(d Drive, cns uint32) ([]uint32, error) {
	var all []uint32
	for after := uint32(0); ; {
		b := make([]byte, 4096)
		if err := d.Admin(&Command{Opcode: opIdentify, NSID: after, CDW10: cns, Data: b}); err != nil {
			return nil, fmt.Errorf("list namespaces (CNS 0x%02x): %w", cns, err)
		}
		for i := 0; i < len(b); i += 4 {
			id := binary.LittleEndian.Uint32(b[i:])
			if id == 0 {
				return all, nil
			}
			if id <= after {
				return nil, fmt.Errorf("list namespaces (CNS 0x%02x): %d after %d", cns, id, after)
			}
			all, after = append(all, id), id
		}
	}
}

// SSTAT bits 2:0 of the sanitize log (figure 291).
const (
	sanNever     = 0
	sanDone      = 1
	sanRunning   = 2
	sanFailed    = 3
	sanDoneForce = 4 // completed, deallocated although asked not to
)

var sanWords = map[uint16]string{sanNever: "never sanitized", sanDone: "last sanitize completed", sanRunning: "sanitize is running",
	sanFailed: "last sanitize failed", sanDoneForce: "last sanitize completed, blocks deallocated"}

func sanitizeLog(d Drive) (*inventory.SanitizeLog, error) {
	b := make([]byte, 512)
	// NUMDL (dwords, from 0) in bits 31:16, page 0x81.
	if err := d.Admin(&Command{Opcode: opGetLog, NSID: allNamespaces, CDW10: uint32(len(b)/4-1)<<16 | 0x81, Data: b}); err != nil {
		return nil, fmt.Errorf("read sanitize log: %w", err)
	}
	le := binary.LittleEndian
	l := &inventory.SanitizeLog{Progress: le.Uint16(b), Status: le.Uint16(b[2:]), Command: le.Uint32(b[4:])}
	if l.Means = sanWords[l.Status&7]; l.Means == "" {
		return l, fmt.Errorf("read sanitize log: unknown status 0x%x", l.Status)
	}
	return l, nil
}

// waitSanitize polls the log until no sanitize runs.
func waitSanitize(ctx context.Context, d Drive, every time.Duration) (*inventory.SanitizeLog, error) {
	for {
		l, err := sanitizeLog(d)
		if err != nil || l.Status&7 != sanRunning {
			return l, err
		}
		select {
		case <-ctx.Done():
			return l, fmt.Errorf("sanitize still runs (%d of 65536): %w", l.Progress, context.Cause(ctx))
		case <-time.After(every):
		}
	}
}
