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

	"github.com/goccy/go-yaml"

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
// phoneHome is a URL; "" leaves it out.
func Render(in inventory.Instance, seed inventory.Seed, n Network, phoneHome string) (inventory.SeedFiles, error) {
	host := seed.Hostname
	if host == "" {
		host = strings.ToLower(in.ID)
	}
	files := inventory.SeedFiles{UserData: []byte(seed.UserData)}
	meta := yaml.MapSlice{{Key: "instance-id", Value: in.ID}, {Key: "local-hostname", Value: host}}
	if len(seed.SSHKeys) > 0 {
		meta = append(meta, yaml.MapItem{Key: "public-keys", Value: seed.SSHKeys})
	}
	var err error
	if files.MetaData, err = yaml.Marshal(meta); err != nil {
		return files, fmt.Errorf("metadata: meta-data of %s: %v", in.ID, err)
	}
	if phoneHome != "" {
		v, err := yaml.Marshal(map[string]any{"phone_home": yaml.MapSlice{{Key: "url", Value: phoneHome}, {Key: "post", Value: "all"}, {Key: "tries", Value: 10}}})
		if err != nil {
			return files, fmt.Errorf("metadata: vendor-data of %s: %v", in.ID, err)
		}
		files.VendorData = append([]byte("#cloud-config\n"), v...)
	}
	if n.MAC == "" || !n.Address.IsValid() {
		return files, nil
	}
	eth := yaml.MapSlice{
		{Key: "match", Value: map[string]string{"macaddress": n.MAC}},
		{Key: "addresses", Value: []string{n.Address.String()}},
	}
	if n.Gateway.IsValid() {
		eth = append(eth, yaml.MapItem{Key: "routes", Value: []map[string]string{{"to": "default", "via": n.Gateway.String()}}})
	}
	if len(n.DNS) > 0 {
		dns := make([]string, len(n.DNS))
		for i, a := range n.DNS {
			dns[i] = a.String()
		}
		eth = append(eth, yaml.MapItem{Key: "nameservers", Value: map[string][]string{"addresses": dns}})
	}
	files.NetworkConfig, err = yaml.Marshal(yaml.MapSlice{{Key: "version", Value: 2}, {Key: "ethernets", Value: map[string]any{"tenant0": eth}}})
	if err != nil {
		return files, fmt.Errorf("metadata: network-config of %s: %v", in.ID, err)
	}
	return files, nil
}
