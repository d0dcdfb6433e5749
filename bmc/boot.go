package bmc

import (
	"context"
	"fmt"

	libbmc "github.com/bmc-toolbox/bmclib/v2/bmc"
	"github.com/bougou/go-ipmi/pkg/types"
)

// Device is what a machine is told to boot from.
type Device string

const (
	None Device = "none" // no override: the firmware's own order
	PXE  Device = "pxe"  // the network, whatever the protocol
	Disk Device = "disk"
)

// A BootDevice is the boot override that a controller holds.
type BootDevice struct {
	Device     Device // a word of bmclib's for devices that we never set, such as "cdrom"
	Persistent bool   // for all boots, not just the next
	EFI        bool   // boot the UEFI way
}

// Dropped is the error of SetBootDevice when the device is set, but not as
// asked: the controller left out that it should persist, or how to boot. It is
// for the caller to say whether that will do; a set device that lasts for one
// boot is enough to netboot, and not enough to hand a machine over.
type Dropped struct {
	Addr        string
	Asked, Kept BootDevice
	Quirk       string // what is known of this controller, if anything is
}

// Error says what was asked and what was kept.
func (e *Dropped) Error() string {
	s := fmt.Sprintf("bmc %s: set boot device: asked for %v, it kept %v", e.Addr, e.Asked, e.Kept)
	if e.Quirk != "" {
		s += " (known: " + e.Quirk + ")"
	}
	return s
}

// String says it in words.
func (b BootDevice) String() string {
	s := string(b.Device)
	if b.Device == None {
		return s
	}
	if b.Persistent {
		s += ", persistent"
	} else {
		s += ", once"
	}
	if b.EFI {
		return s + ", UEFI"
	}
	return s + ", BIOS"
}

// BootDevice reads the boot override.
func (c *Controller) BootDevice(ctx context.Context) (BootDevice, error) {
	var got libbmc.BootDeviceOverride
	err := c.ask(ctx, "read boot device", func(ctx context.Context) (err error) {
		got, err = c.lib.GetBootDeviceOverride(ctx)
		return err
	})
	return BootDevice{Device(got.Device), got.IsPersistent, got.IsEFIBoot}, err
}

// SetBootDevice sets the boot override, or with None clears it, and reads it
// back. The error is *Dropped when only the device was kept.
func (c *Controller) SetBootDevice(ctx context.Context, dev Device, persistent bool) error {
	const op = "set boot device"
	asked := BootDevice{dev, persistent, !c.target.LegacyBoot}
	if _, ok := selectors[dev]; !ok {
		return &Error{Op: op, Addr: c.target.Addr, Err: fmt.Errorf("%q is none of none, pxe, disk", dev)}
	}
	if err := c.expected(ctx, op); err != nil {
		return err
	}
	err := c.ask(ctx, op, func(ctx context.Context) error {
		_, err := c.lib.SetBootDevice(ctx, string(dev), persistent, asked.EFI)
		return err
	})
	if err != nil {
		return err
	}
	kept, err := c.BootDevice(ctx)
	if err != nil {
		return err
	}
	quirk := c.drv.quirk()
	if quirk.NoBootType {
		kept.EFI = asked.EFI
	}
	switch {
	case kept == asked, dev == None && kept.Device == None:
		return nil
	case kept.Device != dev:
		return &Error{
			Op: op, Addr: c.target.Addr, Unconfirmed: true, Err: fmt.Errorf("asked for %v, it says %v", asked, kept),
			Hint: "set it in the machine's firmware, or update the controller's",
		}
	}
	return &Dropped{Addr: c.target.Addr, Asked: asked, Kept: kept, Quirk: quirk.Odd}
}

// selectors are IPMI's codes for what we set (IPMI v2.0 table 28-14, parameter 5).
var selectors = map[Device]types.BootDeviceSelector{
	None: types.BootDeviceSelectorNoOverride,
	PXE:  types.BootDeviceSelectorForcePXE,
	Disk: types.BootDeviceSelectorForceHardDrive,
}

// devices are bmclib's words for what others may have set.
var devices = map[types.BootDeviceSelector]libbmc.BootDeviceType{
	types.BootDeviceSelectorNoOverride:               libbmc.BootDeviceTypeNone,
	types.BootDeviceSelectorForcePXE:                 libbmc.BootDeviceTypePXE,
	types.BootDeviceSelectorForceHardDrive:           libbmc.BootDeviceTypeDisk,
	types.BootDeviceSelectorForceHardDriveSafe:       libbmc.BootDeviceTypeDisk,
	types.BootDeviceSelectorForceDiagnosticPartition: libbmc.BootDeviceTypeDiag,
	types.BootDeviceSelectorForceCDROM:               libbmc.BootDeviceTypeCDROM,
	types.BootDeviceSelectorForceRemoteCDROM:         libbmc.BootDeviceTypeCDROM,
	types.BootDeviceSelectorForceBIOSSetup:           libbmc.BootDeviceTypeBIOS,
	types.BootDeviceSelectorForceFloppy:              libbmc.BootDeviceTypeFloppy,
	types.BootDeviceSelectorForceRemoteFloppy:        libbmc.BootDeviceTypeFloppy,
	types.BootDeviceSelectorForceRemoteMedia:         libbmc.BootDeviceTypeRemoteDrive,
	types.BootDeviceSelectorForceRemoteHardDrive:     libbmc.BootDeviceTypeRemoteDrive,
}

// BootDeviceSet implements bmclib's bmc.BootDeviceSetter.
func (d *driver) BootDeviceSet(ctx context.Context, device string, persistent, efi bool) (ok bool, err error) {
	err = d.call(ctx, "set boot device", func(ctx context.Context) error {
		if _, err := d.identify(ctx); err != nil {
			return err
		}
		bootType := types.BIOSBootTypeLegacy
		if efi {
			bootType = types.BIOSBootTypeEFI
		}
		// Some firmware ignores flags whose last use it has not seen
		// acknowledged, so ipmitool clears the acknowledgement first; a
		// controller may lack that parameter.
		err := d.client.SetBootParamClearAck(ctx, types.BootInfoAcknowledgeByBIOSPOST)
		if err != nil && unanswered(err) {
			return err
		}
		return d.client.SetBootDevice(ctx, selectors[Device(device)], bootType, persistent)
	})
	return err == nil, err
}

// BootDeviceOverrideGet implements bmclib's bmc.BootDeviceOverrideGetter. Flags
// that are not marked valid are to be ignored by the firmware, so they count as
// no override.
func (d *driver) BootDeviceOverrideGet(ctx context.Context) (got libbmc.BootDeviceOverride, err error) {
	err = d.call(ctx, "read boot device", func(ctx context.Context) error {
		if _, err := d.identify(ctx); err != nil {
			return err
		}
		flags := &types.BootOptionParam_BootFlags{}
		if err := d.client.GetSystemBootOptionsParamFor(ctx, flags); err != nil {
			return err
		}
		got = libbmc.BootDeviceOverride{Device: libbmc.BootDeviceTypeNone}
		if !flags.BootFlagsValid && !quirkOf(d.device).NoValidBit {
			return nil
		}
		device, ok := devices[flags.BootDeviceSelector]
		if !ok {
			return &Error{Op: "read boot device", Addr: d.target.Addr, Err: fmt.Errorf("device code %#x is reserved", uint8(flags.BootDeviceSelector))}
		}
		got = libbmc.BootDeviceOverride{Device: device, IsPersistent: flags.Persist, IsEFIBoot: flags.BIOSBootType == types.BIOSBootTypeEFI}
		return nil
	})
	return got, err
}
