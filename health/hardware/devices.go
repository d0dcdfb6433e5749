package hardware

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/hostler-project/hostler/inventory"
)

// pciAddress is domain:bus:device.function, as sysfs names PCI devices.
var pciAddress = regexp.MustCompile(`[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]`)

// ethernet is ARPHRD_ETHER of linux/if_arp.h.
const ethernet = "1"

// nics are the Ethernet interfaces that have a device behind them: no loopback, bridges or tunnels.
func (t tree) nics() ([]inventory.NIC, error) {
	names, err := t.entries("sys/class/net")
	if err != nil {
		return nil, err
	}
	var nics []inventory.NIC
	for _, name := range names {
		dir := "sys/class/net/" + name
		if !t.has(dir+"/device") || t.text(dir+"/type") != ethernet {
			continue
		}
		device, err := filepath.EvalSymlinks(t.path(dir + "/device"))
		if err != nil {
			return nil, fmt.Errorf("hardware: find the device of interface %s: %w", name, err)
		}
		n := inventory.NIC{
			Name: name,
			MAC:  strings.ToLower(t.text(dir + "/address")),
			Up:   t.text(dir+"/operstate") == "up",
		}
		// A virtio interface sits one level below its PCI function, so the last PCI address of the path is the one.
		if all := pciAddress.FindAllString(device, -1); len(all) > 0 {
			n.PCI = all[len(all)-1]
		}
		if driver, err := filepath.EvalSymlinks(t.path(dir + "/device/driver")); err == nil {
			n.Driver = filepath.Base(driver)
		}
		nics = append(nics, n)
	}
	return nics, nil
}

const nvidia = "0x10de" // PCI vendor id

// gpus are NVIDIA's display controllers (PCI base class 3: VGA and 3D), with or without a driver.
func (t tree) gpus() ([]inventory.GPU, error) {
	slots, err := t.entries("sys/bus/pci/devices")
	if err != nil {
		return nil, err
	}
	var gpus []inventory.GPU
	for _, slot := range slots {
		dir := "sys/bus/pci/devices/" + slot
		if t.text(dir+"/vendor") != nvidia || !strings.HasPrefix(t.text(dir+"/class"), "0x03") {
			continue
		}
		gpus = append(gpus, inventory.GPU{
			PCI:    slot,
			Vendor: strings.TrimPrefix(t.text(dir+"/vendor"), "0x"),
			Device: strings.TrimPrefix(t.text(dir+"/device"), "0x"),
		})
	}
	return gpus, nil
}
