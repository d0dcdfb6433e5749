package rack

import (
	"fmt"
	"net"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A Port is the network that a server's cable is plugged into.
type Port string

// The three networks.
//
// They form a private VLAN, which is how a site builds it with one switch: the
// tenant bridge hangs on the provisioning bridge by a patch cable (a veth pair),
// and all ports but the bridge's own are "isolated", so a server can talk to
// hostlerd's address and to no other server, in whichever of the two it is. That
// keeps one subnet: a server's fixed address, DHCP without a boot file and the
// metadata service work on the tenant side without a second address plan.
// The third bridge is down, so no frame passes: not to hostlerd, nor between two
// isolated servers.
const (
	Provisioning Port = "provisioning"
	Tenant       Port = "tenant"
	Isolated     Port = "isolated"
)

// bridges says which bridge is which port. Only br0 has an address and speaks
// IPv6 (router advertisements come from its link-local address).
var bridges = []bridge{
	{port: Provisioning, name: "br0", mac: "02:00:00:77:00:f0", up: true, ipv6: true},
	{port: Tenant, name: "tenant0", mac: "02:00:00:77:00:f1", up: true},
	{port: Isolated, name: "iso0", mac: "02:00:00:77:00:f2"},
}

// bmcBridge carries the BMCs' addresses. No server is ever plugged into it.
var bmcBridge = bridge{name: "bmc0", mac: "02:00:00:77:00:f3", up: true}

type bridge struct {
	port     Port
	name     string
	mac      string // fixed: a bridge takes its ports' lowest else, and changes with them
	up, ipv6 bool
}

// The patch cable's ends, in br0 and in tenant0.
const patchProvisioning, patchTenant = "patch0", "patch1"

// PortState is where a server is plugged in, read back from the kernel.
type PortState struct {
	Port     Port   `json:"port"`
	Instance string `json:"instance,omitempty"` // set with Tenant
}

// buildNetwork makes bridges and taps. It runs on a thread of the namespace.
func buildNetwork(nodes []Facts) error {
	if err := linkUp("lo"); err != nil {
		return err
	}
	for _, b := range bridges {
		if err := b.add(); err != nil {
			return err
		}
	}
	if err := bmcBridge.add(); err != nil {
		return err
	}
	if err := addPatch(); err != nil {
		return err
	}
	addrs := map[string][]string{"br0": {ServerIP + "/24"}, bmcBridge.name: {bmcHostIP + "/24"}}
	for _, n := range nodes {
		addrs[bmcBridge.name] = append(addrs[bmcBridge.name], n.BMC.String()+"/24")
	}
	for link, list := range addrs {
		for _, a := range list {
			if err := addAddr(link, a); err != nil {
				return err
			}
		}
	}
	if err := guardBMCs(); err != nil {
		return err
	}
	for _, n := range nodes {
		if err := addTap(n); err != nil {
			return err
		}
	}
	return nil
}

// guardBMCs keeps servers from the controllers. The namespace has both networks'
// addresses, and Linux takes a packet for any of its addresses on any interface:
// the local table, which says so, is put behind a rule that refuses.
func guardBMCs() error {
	refuse, local := netlink.NewRule(), netlink.NewRule()
	_, bmcs, err := net.ParseCIDR(BMCSubnet)
	if err != nil {
		return err
	}
	refuse.Family, local.Family = unix.AF_INET, unix.AF_INET
	refuse.Priority, refuse.IifName, refuse.Dst, refuse.Type = 1, "br0", bmcs, unix.RTN_PROHIBIT
	local.Priority, local.Table = 2, unix.RT_TABLE_LOCAL
	for _, r := range []*netlink.Rule{refuse, local} {
		if err := netlink.RuleAdd(r); err != nil {
			return fmt.Errorf("rack: add routing rule: %w", err)
		}
	}
	first := *local
	first.Priority = 0
	if err := netlink.RuleDel(&first); err != nil {
		return fmt.Errorf("rack: delete the first routing rule: %w", err)
	}
	return nil
}

func (b bridge) add() error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = b.name
	mac, err := net.ParseMAC(b.mac)
	if err != nil {
		return err
	}
	attrs.HardwareAddr = mac
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return fmt.Errorf("rack: add bridge %s: %w", b.name, err)
	}
	if b.ipv6 {
		// Duplicate address detection would keep router advertisements waiting.
		err = sysctl(b.name, "accept_dad", "0")
	} else {
		err = sysctl(b.name, "disable_ipv6", "1")
	}
	if err != nil || !b.up {
		return err
	}
	return linkUp(b.name)
}

func addPatch() error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = patchProvisioning
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: patchTenant}); err != nil {
		return fmt.Errorf("rack: add veth %s: %w", patchProvisioning, err)
	}
	// Isolated towards the servers in br0; not isolated in tenant0, where it is
	// the way out for all of them.
	for _, p := range []struct {
		link, bridge string
		isolated     bool
	}{{patchProvisioning, "br0", true}, {patchTenant, "tenant0", false}} {
		if err := sysctl(p.link, "disable_ipv6", "1"); err != nil {
			return err
		}
		if err := plug(p.link, p.bridge, p.isolated); err != nil {
			return err
		}
		if err := linkUp(p.link); err != nil {
			return err
		}
	}
	return nil
}

func addTap(n Facts) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = n.tap()
	tap := &netlink.Tuntap{LinkAttrs: attrs, Mode: netlink.TUNTAP_MODE_TAP, Flags: netlink.TUNTAP_NO_PI | netlink.TUNTAP_VNET_HDR}
	if err := netlink.LinkAdd(tap); err != nil {
		return fmt.Errorf("rack: add tap %s: %w", n.tap(), err)
	}
	if err := sysctl(n.tap(), "disable_ipv6", "1"); err != nil {
		return err
	}
	if err := movePort(n, PortState{Port: Provisioning}); err != nil {
		return err
	}
	return linkUp(n.tap())
}

// movePort plugs a server's cable into another network and reads that back. The
// instance is kept with the tap in the kernel (its alias), not beside it, so what
// readPort says is what is.
func movePort(n Facts, to PortState) error {
	if (to.Port == Tenant) != (to.Instance != "") {
		return fmt.Errorf("rack: plug %s into %s with instance %q: a tenant's port, and only that, has an instance", n.Name, to.Port, to.Instance)
	}
	name := ""
	for _, b := range bridges {
		if b.port == to.Port {
			name = b.name
		}
	}
	if name == "" {
		return fmt.Errorf("rack: plug %s into %q: no such port", n.Name, to.Port)
	}
	link, err := netlink.LinkByName(n.tap())
	if err != nil {
		return fmt.Errorf("rack: find %s: %w", n.tap(), err)
	}
	// Out of the old network first: for no moment may the new instance's name
	// stand on a port that is still in another's network.
	if err := netlink.LinkSetNoMaster(link); err != nil {
		return fmt.Errorf("rack: unplug %s: %w", n.tap(), err)
	}
	if err := netlink.LinkSetAlias(link, to.Instance); err != nil {
		return fmt.Errorf("rack: label %s: %w", n.tap(), err)
	}
	if err := plug(n.tap(), name, true); err != nil {
		return err
	}
	is, err := readPort(n)
	if err != nil {
		return err
	}
	if is != to {
		return fmt.Errorf("rack: plug %s: wanted %+v, the kernel says %+v", n.Name, to, is)
	}
	return nil
}

// readPort asks the kernel where a server is plugged in.
func readPort(n Facts) (PortState, error) {
	link, err := netlink.LinkByName(n.tap())
	if err != nil {
		return PortState{}, fmt.Errorf("rack: find %s: %w", n.tap(), err)
	}
	at := link.Attrs()
	for _, b := range bridges {
		master, err := netlink.LinkByName(b.name)
		if err != nil {
			return PortState{}, fmt.Errorf("rack: find %s: %w", b.name, err)
		}
		if master.Attrs().Index == at.MasterIndex {
			return PortState{Port: b.port, Instance: at.Alias}, nil
		}
	}
	return PortState{}, fmt.Errorf("rack: %s is plugged into no known bridge", n.tap())
}

// plug makes a link a port of a bridge.
func plug(link, bridge string, isolated bool) error {
	l, err := netlink.LinkByName(link)
	if err != nil {
		return fmt.Errorf("rack: find %s: %w", link, err)
	}
	b, err := netlink.LinkByName(bridge)
	if err != nil {
		return fmt.Errorf("rack: find %s: %w", bridge, err)
	}
	if err := netlink.LinkSetMaster(l, b); err != nil {
		return fmt.Errorf("rack: plug %s into %s: %w", link, bridge, err)
	}
	if err := netlink.LinkSetIsolated(l, isolated); err != nil {
		return fmt.Errorf("rack: isolate port %s of %s: %w", link, bridge, err)
	}
	return nil
}

func linkUp(name string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("rack: find %s: %w", name, err)
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return fmt.Errorf("rack: bring up %s: %w", name, err)
	}
	return nil
}

func addAddr(link, cidr string) error {
	l, err := netlink.LinkByName(link)
	if err != nil {
		return fmt.Errorf("rack: find %s: %w", link, err)
	}
	a, err := netlink.ParseAddr(cidr)
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(l, a); err != nil {
		return fmt.Errorf("rack: add %s to %s: %w", cidr, link, err)
	}
	return nil
}

// sysctl sets an IPv6 setting of a link; a kernel without IPv6 has none.
func sysctl(link, name, value string) error {
	p := "/proc/sys/net/ipv6/conf/" + link + "/" + name
	err := os.WriteFile(p, []byte(value), 0o644)
	if err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("rack: set %s: %w", p, err)
	}
	return nil
}
