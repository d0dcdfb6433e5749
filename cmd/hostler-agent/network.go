package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/vishvananda/netlink"
)

// userClass tells the DHCP server that it is the service OS that asks, not the firmware (RFC 3004's option 77).
const userClass = "hostler-agent"

// How long to look for an address before the machine starts again, and how long one interface may take.
const (
	addressIn = 5 * time.Minute
	carrierIn = 5 * time.Second
)

// A network brings up the interface that this machine was booted by, and keeps its address.
type network struct {
	mac  string // "": any interface that gets an answer
	log  *slog.Logger
	more func() // loads drivers for devices that appeared meanwhile
}

// Up gets an address and returns it. The lease is renewed until ctx ends.
func (n *network) Up(ctx context.Context) (string, error) {
	ctx2, cancel := context.WithTimeout(ctx, addressIn)
	defer cancel()
	if lo, err := netlink.LinkByName("lo"); err == nil {
		_ = netlink.LinkSetUp(lo)
	}
	var last error
	for tries := 0; ctx2.Err() == nil; tries++ {
		links, err := netlink.LinkList()
		if err != nil {
			last = fmt.Errorf("list interfaces: %w", err)
		}
		ours := choose(links, n.mac)
		if len(ours) == 0 {
			last = errors.New("there is no interface with that address (is its driver in the service OS?)")
			n.more()
		}
		for _, l := range ours {
			lease, err := n.ask(ctx2, l)
			if err == nil {
				err = apply(l, nil, lease)
			}
			if err != nil {
				last = fmt.Errorf("%s: %w", l.Attrs().Name, err)
				n.log.Info("no address yet", "err", last)
				continue
			}
			go n.renew(ctx, l, lease)
			return lease.ACK.YourIPAddr.String(), nil
		}
		sleep(ctx2, min(100*time.Millisecond<<min(tries, 5), 2*time.Second))
	}
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	return "", fatal(fmt.Sprintf("no address for interface %s in %v: %v", n.mac, addressIn, last), "look at the cable and at hostlerd's segment in site.yaml")
}

// choose picks the interfaces to try: the one with the MAC, or all that have a device behind them.
func choose(links []netlink.Link, mac string) []netlink.Link {
	var ours []netlink.Link
	for _, l := range links {
		a := l.Attrs()
		if a.Flags&net.FlagLoopback != 0 || len(a.HardwareAddr) != 6 || l.Type() != "device" {
			continue
		}
		if mac == "" || a.HardwareAddr.String() == mac {
			ours = append(ours, l)
		}
	}
	return ours
}

// ask brings one interface up and gets a lease on it.
func (n *network) ask(ctx context.Context, l netlink.Link) (*nclient4.Lease, error) {
	if err := netlink.LinkSetUp(l); err != nil {
		return nil, fmt.Errorf("switch it on: %w", err)
	}
	carrier := "/sys/class/net/" + l.Attrs().Name + "/carrier"
	for begin := time.Now(); ; sleep(ctx, 20*time.Millisecond) {
		b, err := os.ReadFile(carrier)
		if err == nil && strings.TrimSpace(string(b)) == "1" {
			break
		}
		if time.Since(begin) > carrierIn || ctx.Err() != nil {
			return nil, errors.New("no link: is the cable in?")
		}
	}
	c, err := nclient4.New(l.Attrs().Name, nclient4.WithTimeout(2*time.Second), nclient4.WithRetry(2))
	if err != nil {
		return nil, fmt.Errorf("open a DHCP client: %w", err)
	}
	defer c.Close()
	lease, err := c.Request(ctx, dhcpv4.WithUserClass(userClass, false))
	if err != nil {
		return nil, fmt.Errorf("ask for an address by DHCP: %w", err)
	}
	return lease, nil
}

// apply puts the address and the route of a lease on the interface, and takes those of an old one away.
func apply(l netlink.Link, old, lease *nclient4.Lease) error {
	ip := &net.IPNet{IP: lease.ACK.YourIPAddr, Mask: lease.ACK.SubnetMask()}
	if ip.Mask == nil {
		ip.Mask = ip.IP.DefaultMask()
	}
	if err := netlink.AddrReplace(l, &netlink.Addr{IPNet: ip}); err != nil {
		return fmt.Errorf("set address %s: %w", ip, err)
	}
	if old != nil && !old.ACK.YourIPAddr.Equal(lease.ACK.YourIPAddr) {
		if err := netlink.AddrDel(l, &netlink.Addr{IPNet: &net.IPNet{IP: old.ACK.YourIPAddr, Mask: old.ACK.SubnetMask()}}); err != nil {
			return fmt.Errorf("remove address %s: %w", old.ACK.YourIPAddr, err)
		}
	}
	if routers := lease.ACK.Router(); len(routers) > 0 {
		if err := netlink.RouteReplace(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: routers[0]}); err != nil {
			return fmt.Errorf("set route by %s: %w", routers[0], err)
		}
	}
	return nil
}

// forever is the lease time that never ends (RFC 2131, section 3.3).
const forever = 0xffffffff * time.Second

// renew asks for the address again at half of its time, and more often after that. It keeps the address when nobody
// answers: on our segment it belongs to this machine, and a daemon that is down for an hour must not cut the node off.
func (n *network) renew(ctx context.Context, l netlink.Link, lease *nclient4.Lease) {
	for ctx.Err() == nil {
		whole := lease.ACK.IPAddressLeaseTime(time.Hour)
		if whole >= forever {
			return
		}
		left := time.Until(lease.CreationTime.Add(whole))
		sleep(ctx, max(left/2, 10*time.Second))
		fresh, err := n.again(ctx, l, lease)
		if err == nil {
			err = apply(l, lease, fresh)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			n.log.Warn("the address was not renewed, keeping it", "err", err)
			continue
		}
		lease = fresh
	}
}

// again renews a lease that runs, or asks anew for one that ended or was refused.
func (n *network) again(ctx context.Context, l netlink.Link, lease *nclient4.Lease) (*nclient4.Lease, error) {
	c, err := nclient4.New(l.Attrs().Name, nclient4.WithTimeout(2*time.Second), nclient4.WithRetry(2))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	fresh, err := c.Renew(ctx, lease, dhcpv4.WithUserClass(userClass, false))
	var nak *nclient4.ErrNak
	if err == nil || !errors.As(err, &nak) && time.Until(lease.CreationTime.Add(lease.ACK.IPAddressLeaseTime(time.Hour))) > 0 {
		return fresh, err
	}
	return c.Request(ctx, dhcpv4.WithUserClass(userClass, false))
}
