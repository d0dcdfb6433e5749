package dhcp

// An Arch is a client architecture, option 93 (RFC 4578, IANA "Processor
// Architecture Types").
type Arch uint16

// A Firmware says how machines of one architecture are started.
type Firmware struct {
	Arch   Arch
	Means  string // for people
	Loader string // name of the iPXE build that it can run
	HTTP   bool   // true: loader by HTTP, option 67 is a URL; false: by TFTP
}

// Firmwares is every kind of firmware that we can start. Machines of another
// kind get an address and no boot file. 7 and 9 are both x86-64: RFC 4578 and
// the registry exchanged them, and vendors ship either.
var Firmwares = []Firmware{
	{0, "BIOS", "undionly.kpxe", false},
	{7, "UEFI x86-64", "snponly-x86_64.efi", false},
	{9, "UEFI x86-64", "snponly-x86_64.efi", false},
	{11, "UEFI arm64", "snponly-arm64.efi", false},
	{16, "UEFI HTTP x86-64", "snponly-x86_64.efi", true},
	{19, "UEFI HTTP arm64", "snponly-arm64.efi", true},
}

// firmware is the row of an architecture.
func firmware(a Arch) (Firmware, bool) {
	for _, f := range Firmwares {
		if f.Arch == a {
			return f, true
		}
	}
	return Firmware{}, false
}

// A boot is the part of a reply that says where to boot from.
type boot struct {
	file string // option 67 and, if it fits, the file field
	http bool   // option 60 must say HTTPClient, or UEFI ignores the offer
	ipxe bool   // tell iPXE not to wait for a ProxyDHCP server
}

// bootFor says what the client of q boots, if a says that it may.
func (g *Segment) bootFor(q Query, a Answer) boot {
	if !a.Boot {
		return boot{ipxe: q.IPXE}
	}
	if q.IPXE {
		return boot{file: or(a.Script, g.ScriptURL(q.MAC.String())), ipxe: true}
	}
	f, known := firmware(q.Arch)
	switch {
	case !q.PXE && !q.HTTP, !known, f.HTTP != q.HTTP:
		return boot{} // an operating system, or firmware that has no loader here
	case f.HTTP:
		return boot{file: g.LoaderURL(f.Loader), http: true}
	}
	return boot{file: f.Loader}
}
