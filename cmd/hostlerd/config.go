package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/hostler-project/hostler/health/burnin"
	"github.com/hostler-project/hostler/imaging"
	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/lifecycle"
	"github.com/hostler-project/hostler/provisioner"
	"github.com/hostler-project/hostler/provisioner/dhcp"
)

// A Config is site.yaml. Every field has a default that works on one machine with nothing to boot; a misspelt key is an
// error.
type Config struct {
	Site string `yaml:"site"` // its name, on certificates
	Data string `yaml:"data"` // folder of everything that is kept
	Keys string `yaml:"keys"` // folder of keys; empty: <data>/keys

	Etcd struct {
		Endpoints []string `yaml:"endpoints"` // empty: an embedded etcd under <data>/etcd
		Listen    string   `yaml:"listen"`    // of the embedded one
		Peer      string   `yaml:"peer"`
		Quota     int64    `yaml:"quota"` // bytes of the embedded one; above, it refuses writes
	} `yaml:"etcd"`
	API struct {
		Listen string `yaml:"listen"`
	} `yaml:"api"`
	Replica struct {
		Lease   inventory.Duration `yaml:"lease"`   // how long others wait for this one when it vanishes
		Listen  string             `yaml:"listen"`  // for other replicas; empty: it is the only one
		Address string             `yaml:"address"` // where they reach it
	} `yaml:"replica"`
	Segments []Segment       `yaml:"segments"`
	SKUs     []inventory.SKU `yaml:"skus"`
	Images   struct {
		TrustedKeys []string `yaml:"trusted_keys"` // minisign public keys of image authors
	} `yaml:"images"`
	Boot struct {
		ServiceOS string `yaml:"service_os"` // folder with vmlinuz and initrd.cpio
		Loaders   string `yaml:"loaders"`    // folder of boot loaders
		Console   string `yaml:"console"`    // console= of the service OS
	} `yaml:"boot"`
	Fence struct {
		Driver  string   `yaml:"driver"` // none or exec
		Program []string `yaml:"program"`
	} `yaml:"fence"`
	Deadlines map[inventory.State]inventory.Duration `yaml:"deadlines"`
	Patience  struct {
		Boot      inventory.Duration `yaml:"boot"`      // for one boot into the service OS
		Silence   inventory.Duration `yaml:"silence"`   // after which an agent counts as silent
		Lost      inventory.Duration `yaml:"lost"`      // after which a silent ready node is inspected again
		Readiness inventory.Duration `yaml:"readiness"` // for a tenant's system to answer
	} `yaml:"patience"`
	Limits inventory.Limits `yaml:"limits"` // how much may happen at once
	Log    struct {
		Level string `yaml:"level"` // debug, info, warn, error
	} `yaml:"log"`

	File string `yaml:"-"` // where it was read from, for the commands that doctor tells
}

// A Segment is one network that machines boot from.
type Segment struct {
	Name      string   `yaml:"name"`
	Interface string   `yaml:"interface"`
	Relays    []string `yaml:"relay"` // giaddr values that are answered
	Subnet    string   `yaml:"subnet"`
	Address   string   `yaml:"address"` // ours
	Mode      string   `yaml:"mode"`    // authoritative, enrol or observe
}

// defaults is the configuration of a daemon that was told nothing.
func defaults() Config {
	var c Config
	c.Site, c.Data = "site", "/var/lib/hostler"
	c.Etcd.Listen, c.Etcd.Peer = "127.0.0.1:2379", "127.0.0.1:2380"
	c.Etcd.Quota = 512 << 20
	c.API.Listen = "127.0.0.1:8080"
	c.Replica.Lease = inventory.Duration(provisioner.DefaultTTL)
	c.Boot.Console = "ttyS0,115200"
	c.Fence.Driver = "none"
	c.Limits = inventory.DefaultLimits()
	c.Log.Level = "info"
	return c
}

// loadConfig reads a file over the defaults; path "" gives the defaults. All faults come at once.
func loadConfig(path string) (Config, error) {
	c := defaults()
	if path != "" {
		b, err := os.ReadFile(path)
		if err != nil {
			return c, fmt.Errorf("config: %v", err)
		}
		if err := parseConfig(path, b, &c); err != nil {
			return c, err
		}
	}
	if c.Keys == "" {
		c.Keys = filepath.Join(c.Data, "keys")
	}
	if err := c.Check(); err != nil {
		return c, fmt.Errorf("config %s:\n%w", path, err)
	}
	return c, nil
}

// parseConfig decodes strictly. The decoder stops at the first misspelt key, so the keys are looked at one by one: each
// fault is shown with line, column and the line itself.
func parseConfig(path string, b []byte, c *Config) error {
	if saysNothing(b) {
		return nil
	}
	d := yaml.NewDecoder(bytes.NewReader(b), yaml.Strict())
	err := d.Decode(c)
	if err == nil {
		return nil
	}
	return fmt.Errorf("config %s:\n%s", path, allFaults(b, err))
}

// Check returns everything that is wrong, not just the first thing.
func (c Config) Check() error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf("  "+format, a...)) }
	if c.Data == "" {
		bad("data: say where to keep things")
	}
	if c.Etcd.Quota < 2<<20 {
		bad("etcd.quota: %d bytes hold no site: at least %d (2 MiB)", c.Etcd.Quota, 2<<20)
	}
	if _, err := netip.ParseAddrPort(c.API.Listen); err != nil {
		bad("api.listen: %q is not ADDRESS:PORT", c.API.Listen)
	}
	if (c.Replica.Listen == "") != (c.Replica.Address == "") {
		bad("replica.listen and replica.address: say both where there are several replicas, or neither")
	}
	for key, text := range map[string]string{"listen": c.Replica.Listen, "address": c.Replica.Address} {
		if _, _, err := net.SplitHostPort(text); text != "" && err != nil {
			bad("replica.%s: %q is not HOST:PORT", key, text)
		}
	}
	if l := time.Duration(c.Replica.Lease); l < 2*time.Second || l > time.Minute || l%time.Second != 0 {
		bad("replica.lease: %v: whole seconds, from 2s to 1m", l)
	}
	if _, err := c.segments(); err != nil {
		bad("%v", err)
	}
	if len(c.Segments) > 0 && (c.Boot.ServiceOS == "" || c.Boot.Loaders == "") {
		bad("boot.service_os and boot.loaders: segments are declared, so say where the service OS and the loaders lie (make images builds them)")
	}
	for i, k := range c.Images.TrustedKeys {
		if _, err := imaging.ParsePublicKey(k); err != nil {
			bad("images.trusted_keys[%d]: %v", i, err)
		}
	}
	names := map[string]bool{}
	for i, s := range c.SKUs {
		for _, f := range checkSKU(s) {
			bad("skus[%d] %s: %s", i, s.Name, f)
		}
		if names[s.Name] {
			bad("skus[%d]: %s is declared twice", i, s.Name)
		}
		names[s.Name] = true
	}
	for s, d := range c.Deadlines {
		if row, ok := lifecycle.Get(s); !ok {
			bad("deadlines.%s: there is no such state (hostler lifecycle show)", s)
		} else if row.Rest || d <= 0 {
			bad("deadlines.%s: %v: only states that work have a deadline, and it is above 0", s, time.Duration(d))
		}
	}
	switch {
	case c.Fence.Driver == "exec" && len(c.Fence.Program) == 0:
		bad("fence.program: the exec driver needs one")
	case !slices.Contains([]string{"none", "exec"}, c.Fence.Driver):
		bad("fence.driver: %q is not one of none, exec", c.Fence.Driver)
	}
	for _, f := range checkLimits(c.Limits) {
		bad("limits.%s", f)
	}
	var level logLevel
	if err := level.UnmarshalText([]byte(c.Log.Level)); err != nil {
		bad("log.level: %q is not one of debug, info, warn, error", c.Log.Level)
	}
	return errors.Join(errs...)
}

func checkLimits(l inventory.Limits) []string {
	var out []string
	for _, a := range inventory.ActivityList {
		switch lim := l.For(a); {
		case lim.Site < 1:
			out = append(out, fmt.Sprintf("%s.site: %d: with no place at all nothing would ever be done", a, lim.Site))
		case lim.Rack < 0 || lim.RackPercent < 0 || lim.RackPercent > 100 || lim.Cause < 0:
			out = append(out, fmt.Sprintf("%s: rack %d, rack_percent %d, cause %d: 0 is no limit, a percentage is at most 100", a, lim.Rack, lim.RackPercent, lim.Cause))
		}
	}
	if b := l.Breaker; b.Percent < 0 || b.Percent > 100 || b.Nodes < 1 || b.Within <= 0 {
		out = append(out, fmt.Sprintf("breaker: percent %d, nodes %d, within %v: percent is 0 to 100, the others are above 0", b.Percent, b.Nodes, time.Duration(b.Within)))
	}
	return out
}

func checkSKU(s inventory.SKU) []string {
	var out []string
	if s.Name == "" {
		out = append(out, "name: give it one")
	}
	if len(s.Media) == 0 {
		out = append(out, "media: a node without a medium cannot be erased or written: name at least one")
	}
	for key, p := range map[string]string{"burnin_profile": cmp.Or(s.BurnInProfile, "full"), "verify_profile": cmp.Or(s.VerifyProfile, "smoke")} {
		if !slices.ContainsFunc(burnin.Profiles, func(r burnin.Profile) bool { return r.Name == p }) {
			out = append(out, fmt.Sprintf("%s: %s is not known to this version; say smoke", key, p))
		}
	}
	if s.Trust != "network" {
		out = append(out, fmt.Sprintf("trust: %q: this version cannot prove that an agent sits behind its BMC, so say network to let secrets leave without that proof", s.Trust))
	}
	if !slices.Contains([]string{"", "kexec", "reboot"}, s.Handoff) {
		out = append(out, fmt.Sprintf("handoff: %q is not kexec or reboot", s.Handoff))
	}
	return out
}

// segments are the declared segments as the DHCP server takes them.
func (c Config) segments() ([]dhcp.Segment, error) {
	var out []dhcp.Segment
	var errs []error
	for _, s := range c.Segments {
		subnet, err1 := netip.ParsePrefix(s.Subnet)
		addr, err2 := netip.ParseAddr(s.Address)
		if err1 != nil || err2 != nil {
			errs = append(errs, fmt.Errorf("segment %s: subnet %q or address %q cannot be read", s.Name, s.Subnet, s.Address))
			continue
		}
		seg := dhcp.Segment{Name: s.Name, Interface: s.Interface, Subnet: subnet, Address: addr, Mode: dhcp.Mode(s.Mode)}
		for _, r := range s.Relays {
			a, err := netip.ParseAddr(r)
			if err != nil {
				errs = append(errs, fmt.Errorf("segment %s: relay %q is not an address", s.Name, r))
				continue
			}
			seg.Relays = append(seg.Relays, a)
		}
		out = append(out, seg)
	}
	return out, errors.Join(append(errs, dhcp.Check(out))...)
}
