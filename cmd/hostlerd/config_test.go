package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hostler-project/hostler/imaging"
	"github.com/hostler-project/hostler/inventory"
)

// file writes a configuration.
func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "site.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDefaults(t *testing.T) {
	for name, path := range map[string]string{"no file": "", "an empty file": file(t, ""), "comments": file(t, "# nothing\n---\n")} {
		c, err := loadConfig(path)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if c.Data != "/var/lib/hostler" || c.Keys != "/var/lib/hostler/keys" || c.API.Listen != "127.0.0.1:8080" || c.Etcd.Listen != "127.0.0.1:2379" || len(c.Segments) != 0 || c.Fence.Driver != "none" {
			t.Errorf("%s: got %+v", name, c)
		}
	}
	c, err := loadConfig(file(t, "data: /srv/h\napi: {listen: '127.0.0.1:9'}\n"))
	if l, err := loadConfig(file(t, "limits: {boot: {site: 7}, breaker: {within: 1m}}\n")); err != nil || l.Limits.Boot != (inventory.Limit{Site: 7, Rack: 2, RackPercent: 5, Cause: 10}) || l.Limits.Destroy.Site != 40 || l.Limits.Breaker.Nodes != 5 {
		t.Errorf("limits that are not said keep their defaults: %+v, %v", l.Limits, err)
	}
	if err != nil || c.Keys != "/srv/h/keys" || c.API.Listen != "127.0.0.1:9" || c.Etcd.Peer != "127.0.0.1:2380" {
		t.Errorf("what is not said keeps its default: %+v, %v", c, err)
	}
}

const whole = `
site: north
data: /srv/hostler
keys: /srv/keys
api: {listen: "127.0.0.1:8080"}
segments:
  - {name: rack, interface: lo, subnet: 10.0.0.0/24, address: 10.0.0.1, mode: enrol}
  - {name: far, relay: [10.1.0.254], subnet: 10.1.0.0/24, address: 10.0.0.1, mode: authoritative}
boot: {service_os: /srv/os, loaders: /srv/loaders, console: ttyS0}
skus:
  - name: small
    min_cpus: 2
    min_memory_bytes: 1000000000
    media: [{slot: nvme0, kind: nvme, min_bytes: 1000, boot: true}]
    burnin_profile: smoke
    verify_profile: smoke
    trust: network
    boot: 3m
    test_max_age: 720h
fence: {driver: exec, program: [/usr/bin/fence, --rack]}
deadlines: {sanitizing: 45m}
patience: {boot: 5m, silence: 30s}
log: {level: debug}
`

func TestWholeConfig(t *testing.T) {
	c, err := loadConfig(file(t, whole))
	if err != nil {
		t.Fatal(err)
	}
	if c.SKUs[0].Boot != inventory.Duration(3*time.Minute) || c.SKUs[0].MinMemory != 1e9 || !c.SKUs[0].Media[0].Boot || c.Deadlines[inventory.Sanitizing] != inventory.Duration(45*time.Minute) ||
		c.Patience.Silence != inventory.Duration(30*time.Second) || c.Segments[1].Relays[0] != "10.1.0.254" || len(c.Fence.Program) != 2 {
		t.Errorf("got %+v", c)
	}
	if segs, err := c.segments(); err != nil || len(segs) != 2 || segs[0].Subnet.String() != "10.0.0.0/24" {
		t.Errorf("segments %+v, %v", segs, err)
	}

	// What print writes is a configuration that says the same.
	path := file(t, whole)
	var out bytes.Buffer
	cmd := command()
	cmd.SetArgs([]string{"config", "print", "--config", path})
	cmd.SetOut(&out)
	if err := cmd.Execute(); err != nil {
		t.Fatal(err)
	}
	again, err := loadConfig(file(t, out.String()))
	if d := cmp.Diff(c, again, cmp.Comparer(func(a, b []string) bool { return strings.Join(a, "|") == strings.Join(b, "|") })); d != "" || err != nil {
		t.Errorf("printed and read again: %v\n%s", err, d)
	}
}

// Every misspelt key of a file at once, each with line and column and the keys that are there; other faults with where
// they are.
func TestFaultsOfTheFile(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"three misspelt keys", "site: x\ndatta: /srv\napi:\n  lissten: 127.0.0.1:80\nskus:\n  - name: a\n    min_memry: 3\n    media: []\n",
			[]string{"line 2, column 1: datta is not a key; the keys here are site, data", "line 4, column 3: api.lissten is not a key; the keys here are listen", "line 7, column 5: skus[].min_memry is not a key"}},
		{"in a list in a list", "skus:\n  - name: a\n    media:\n      - {slot: nvme0, sise: 1}\n", []string{"line 4, column 23: skus[].media[].sise is not a key; the keys here are slot, kind, min_bytes, boot"}},
		{"a list where a word belongs", "data: [a, b]\n", []string{"[1:7]", "data: [a, b]"}},
		{"a word where a list belongs", "segments: rack\n", []string{"[1:11]"}},
		{"a word where a number belongs", "skus:\n  - name: a\n    min_cpus: many\n", []string{"[3:15]", "many"}},
		{"a length of time in words", "patience:\n  boot: soon\n", []string{"soon"}},
		{"the same key twice", "data: /a\ndata: /b\n", []string{"data", "already"}},
		{"not YAML", "data: [\n", []string{"[1:"}},
		{"a tab", "api:\n\tlisten: x\n", []string{"[2:1]"}},
		{"not a mapping", "- a\n- b\n", []string{"[1:1]"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := file(t, c.text)
			_, err := loadConfig(path)
			if err == nil {
				t.Fatal("it was taken")
			}
			for _, word := range append(c.want, path) {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("no %q in:\n%v", word, err)
				}
			}
		})
	}
	if _, err := loadConfig("/does/not/exist.yaml"); err == nil || !strings.Contains(err.Error(), "/does/not/exist.yaml") {
		t.Errorf("no file: %v", err)
	}
}

// What is spelt right and wrong in itself; all of it at once.
func TestFaultsOfTheConfig(t *testing.T) {
	boot := "boot: {service_os: /a, loaders: /b}\n"
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"limits", "limits: {boot: {site: 0}, destroy: {rack_percent: 120}, breaker: {nodes: 0}}\n", []string{"limits.boot.site: 0: with no place", "limits.destroy: rack 4, rack_percent 120", "limits.breaker: percent 3, nodes 0"}},
		{"no data", "data: ''\n", []string{"data: say where"}},
		{"API address", "api: {listen: nine}\n", []string{`api.listen: "nine" is not ADDRESS:PORT`}},
		{"segment without boot files", "segments: [{name: a, interface: lo, subnet: 10.0.0.0/24, address: 10.0.0.1, mode: enrol}]\n", []string{"boot.service_os and boot.loaders"}},
		{"subnet", boot + "segments: [{name: a, interface: lo, subnet: ten, address: 10.0.0.1, mode: enrol}]\n", []string{`segment a: subnet "ten"`}},
		{"address outside", boot + "segments: [{name: a, interface: lo, subnet: 10.0.0.0/24, address: 10.9.0.1, mode: enrol}]\n", []string{"segment a", "10.9.0.1"}},
		{"mode", boot + "segments: [{name: a, interface: lo, subnet: 10.0.0.0/24, address: 10.0.0.1, mode: open}]\n", []string{"segment a", "open"}},
		{"relay", boot + "segments: [{name: a, relay: [x], subnet: 10.0.0.0/24, address: 10.0.0.1, mode: enrol}]\n", []string{`segment a: relay "x" is not an address`}},
		{"two segments of one name", boot + "segments:\n  - {name: a, interface: lo, subnet: 10.0.0.0/24, address: 10.0.0.1, mode: enrol}\n  - {name: a, interface: eth0, subnet: 10.1.0.0/24, address: 10.1.0.1, mode: enrol}\n", []string{"segment a: name: another segment has it too"}},
		{"image key", "images: {trusted_keys: [RWabc]}\n", []string{"images.trusted_keys[0]"}},
		{"SKU", "skus: [{min_cpus: 1}]\n", []string{"skus[0] : name: give it one", "media: a node without a medium"}},
		{"SKU twice", "skus: [{name: a, media: [{slot: nvme0}]}, {name: a, media: [{slot: nvme0}]}]\n", []string{"skus[1]: a is declared twice"}},
		{"SKU's words", "skus: [{name: a, media: [{slot: nvme0}], burnin_profile: full, trust: blind, handoff: jump}]\n", []string{"burnin_profile: full is not known to this version", `trust: "blind"`, `handoff: "jump"`}},
		{"deadlines", "deadlines: {ready: 5m, orbiting: 5m, sanitizing: 0s}\n", []string{"deadlines.ready", "deadlines.orbiting: there is no such state", "deadlines.sanitizing: 0s"}},
		{"fence without a program", "fence: {driver: exec}\n", []string{"fence.program"}},
		{"fence of another kind", "fence: {driver: netconf}\n", []string{`fence.driver: "netconf" is not one of none, exec`}},
		{"log level", "log: {level: loud}\n", []string{`log.level: "loud"`}},
		{"several", "data: ''\nlog: {level: loud}\nfence: {driver: x}\napi: {listen: y}\n", []string{"data:", "log.level", "fence.driver", "api.listen"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := command()
			cmd.SetArgs([]string{"config", "check", "--config", file(t, c.text)})
			cmd.SetOut(&bytes.Buffer{})
			err := cmd.Execute()
			if err == nil {
				t.Fatal("it was taken")
			}
			for _, word := range c.want {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("no %q in:\n%v", word, err)
				}
			}
		})
	}
	key, err := imaging.GenerateKey(filepath.Join(t.TempDir(), "image.key"))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := command()
	cmd.SetArgs([]string{"config", "check", "--config", file(t, "images: {trusted_keys: ['"+key.String()+"']}\n")})
	cmd.SetOut(&out)
	if err := cmd.Execute(); err != nil || out.String() != "the configuration is good\n" {
		t.Errorf("got %q, %v", out.String(), err)
	}
}
