package rack

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"strings"
)

// The rack's own addresses. They are the same in every rack: each one has a
// network namespace to itself.
const (
	// ServerIP is the provisioning segment's address, where hostlerd listens.
	ServerIP = "192.168.77.1"
	// Subnet is the provisioning segment. A server keeps its address when the
	// fence moves it to the tenant bridge (see network.go).
	Subnet = "192.168.77.0/24"
	// BMCSubnet is the management network; BMC number n is at .100+n.
	BMCSubnet = "192.168.78.0/24"
	bmcHostIP = "192.168.78.1"

	// BMCUser is the account on every BMC. Its password is new in each run,
	// see Rack.BMCPasswordFile.
	BMCUser = "admin"
)

// A Firmware is what a server's mainboard runs before any operating system.
type Firmware string

// The two firmware kinds, which between them take both ways to a boot loader.
const (
	// UEFI is OVMF. Its own PXE client fetches a loader by TFTP, because the
	// NIC has no option ROM.
	UEFI Firmware = "uefi"
	// BIOS is SeaBIOS. The NIC's option ROM is already iPXE.
	BIOS Firmware = "bios"
)

// A Drive is one NVMe drive of a server.
type Drive struct {
	Serial string `json:"serial"`
	Bytes  int64  `json:"bytes"`
	Path   string `json:"path"` // sparse raw file on the host
}

// Facts are what is printed on a server's case: they never change in a run and
// are derived from its number alone.
type Facts struct {
	Name     string     `json:"name"`
	Number   int        `json:"number"` // from 1
	Firmware Firmware   `json:"firmware"`
	Serial   string     `json:"serial"` // of product and chassis, in SMBIOS and in the BMC's FRU
	UUID     string     `json:"uuid"`   // SMBIOS and DHCP option 97
	MAC      string     `json:"mac"`
	IP       netip.Addr `json:"ip"`  // suggested fixed address; the rack does not enforce it
	BMC      netip.Addr `json:"bmc"` // IPMI on UDP 623, inside the namespace
	BMCMAC   string     `json:"bmc_mac"`
	CPUs     int        `json:"cpus"`
	MemoryMB int        `json:"memory_mb"`
	Drives   []Drive    `json:"drives"`
}

// What every server has. 2 GiB hold the sample tenant image several times; the
// second drive is small, because it is only there to be erased too.
const (
	cpus     = 2
	memoryMB = 1024
)

var driveBytes = []int64{2 << 30, 256 << 20}

// firmwares is the order in which servers get their firmware: a is UEFI, b is
// BIOS, and so on in turn.
var firmwares = []Firmware{UEFI, BIOS}

// maxNodes is what the name letters and address plan have room for; two at once
// are what two cores carry.
const maxNodes = 9

// facts makes the facts of server number n (from 1) with its drives under dir.
func facts(n int, dir string) Facts {
	name := string(rune('a' + n - 1))
	f := Facts{
		Name:     name,
		Number:   n,
		Firmware: firmwares[(n-1)%len(firmwares)],
		Serial:   "RACK-" + strings.ToUpper(name),
		MAC:      fmt.Sprintf("52:54:00:77:00:%02x", n),
		IP:       netip.AddrFrom4([4]byte{192, 168, 77, byte(10 + n)}),
		BMCMAC:   fmt.Sprintf("52:54:00:78:00:%02x", n),
		BMC:      netip.AddrFrom4([4]byte{192, 168, 78, byte(100 + n)}),
		CPUs:     cpus,
		MemoryMB: memoryMB,
	}
	f.UUID = uuidOf(f.Serial)
	for i, b := range driveBytes {
		serial := fmt.Sprintf("%s-NVME%d", f.Serial, i)
		f.Drives = append(f.Drives, Drive{Serial: serial, Bytes: b, Path: fmt.Sprintf("%s/nvme%d.raw", dir, i)})
	}
	return f
}

// uuidOf derives a random-looking RFC 4122 UUID, so that a server keeps its
// identity from run to run as real ones do.
func uuidOf(serial string) string {
	h := sha256.Sum256([]byte("hostler rack " + serial))
	h[6] = h[6]&0x0f | 0x40
	h[8] = h[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", h[0:4], h[4:6], h[6:8], h[8:10], h[10:16])
}

// smbiosUUID is a UUID's 16 bytes in hex as SMBIOS (section 7.2.1), DHCP option 97
// and controllers write it: the first three fields little-endian.
func smbiosUUID(uuid string) string {
	h := strings.ReplaceAll(uuid, "-", "")
	swap := func(s string) (out string) {
		for ; s != ""; s = s[2:] {
			out = s[:2] + out
		}
		return out
	}
	return swap(h[:8]) + swap(h[8:12]) + swap(h[12:16]) + h[16:]
}

// is says whether a word that a person or hostlerd used means this server.
func (f Facts) is(word string) bool {
	return word == f.Name || strings.EqualFold(word, f.Serial) || strings.EqualFold(word, f.MAC) || strings.EqualFold(word, f.UUID)
}

// The places of one server's things. Ports are on the namespace's loopback.
func (f Facts) tap() string  { return "tap-" + f.Name }
func (f Facts) kcsPort() int { return 9100 + f.Number }
func (f Facts) solPort() int { return 9200 + f.Number }
