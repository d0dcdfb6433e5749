// Package metadata is the tenant system's first boot, seen from our side: the NoCloud seed that the agent writes to its
// disk, and the small HTTP service that it finds on the network.
//
// Render makes the four NoCloud files from the instance and its unsealed seed. Service answers GET /metadata to the
// address of an instance with what is no secret, and takes the phone-home under a path that only the seed names.
// User data and keys are never served here: they travel in the seed alone. The package decides nothing about nodes.
package metadata

import (
	"fmt"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hostler-project/hostler/inventory"
)

// A Network is what the tenant's system needs to reach its network with a fixed address.
type Network struct {
	MAC     string
	Address netip.Prefix
	Gateway netip.Addr // invalid: none
	DNS     []netip.Addr
}

// Render makes the NoCloud files of an instance (cloud-init's NoCloud data source; network config version 2).
// phoneHome is a URL; "" leaves it out. Host name and keys must be UTF-8; user data is the tenant's, and goes as it is.
func Render(in inventory.Instance, seed inventory.Seed, n Network, phoneHome string) (inventory.SeedFiles, error) {
	host := seed.Hostname
	if host == "" {
		host = strings.ToLower(in.ID)
	}
	if !utf8.ValidString(host) || !utf8.ValidString(strings.Join(seed.SSHKeys, "")) {
		return inventory.SeedFiles{}, fmt.Errorf("metadata: host name or SSH keys of %s are not UTF-8 text", in.ID)
	}
	files := inventory.SeedFiles{UserData: []byte(seed.UserData)}
	meta := "instance-id: " + quote(in.ID) + "\nlocal-hostname: " + quote(host) + "\n"
	for i, key := range seed.SSHKeys {
		if i == 0 {
			meta += "public-keys:\n"
		}
		meta += "- " + quote(key) + "\n"
	}
	files.MetaData = []byte(meta)
	if phoneHome != "" {
		files.VendorData = []byte("#cloud-config\nphone_home:\n  url: " + quote(phoneHome) + "\n  post: all\n  tries: 10\n")
	}
	if n.MAC == "" || !n.Address.IsValid() {
		return files, nil
	}
	net := "version: 2\nethernets:\n  tenant0:\n    match:\n      macaddress: " + quote(n.MAC) + "\n    addresses:\n    - " + quote(n.Address.String()) + "\n"
	if n.Gateway.IsValid() {
		net += "    routes:\n    - to: default\n      via: " + quote(n.Gateway.String()) + "\n"
	}
	for i, a := range n.DNS {
		if i == 0 {
			net += "    nameservers:\n      addresses:\n"
		}
		net += "      - " + quote(a.String()) + "\n"
	}
	files.NetworkConfig = []byte(net)
	return files, nil
}

// quote writes a value as YAML that reads as this text under every version of YAML. Plain, "yes" would be a boolean and
// 52:54:00:12:34:56 a number in base 60 to cloud-init's reader (YAML 1.1), and some text no YAML at all.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r >= 0x7f && r < 0xa0 || unicode.Is(unicode.Zl, r) || unicode.Is(unicode.Zp, r) || r == 0xfeff || r == 0xfffe || r == 0xffff:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
