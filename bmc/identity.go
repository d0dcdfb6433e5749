package bmc

import (
	"context"
	"fmt"
	"strings"

	"github.com/bmc-toolbox/common"
	"github.com/bougou/go-ipmi/pkg/types"
)

// An Identity says which machine a controller sits in, by what is written into
// it at the factory. A field that the controller does not have is empty; an
// empty field proves nothing.
type Identity struct {
	Manufacturer  string // of the product
	Product       string // its name
	ProductSerial string // of the whole machine
	ChassisSerial string
	BoardSerial   string // of the main board
	GUID          string // of the system, as SMBIOS prints it (DSP0134 section 7.2.1)
	Firmware      string // version of the controller's own firmware
}

// Identity reads the machine's identity (FRU device 0 and the system GUID).
// Read it again before each destructive call: an address may have moved to
// another machine (reliability F-36).
func (c *Controller) Identity(ctx context.Context) (Identity, error) {
	var dev *common.Device
	err := c.ask(ctx, "read identity", func(ctx context.Context) (err error) {
		dev, err = c.lib.Inventory(ctx)
		return err
	})
	if err != nil {
		return Identity{}, err
	}
	return Identity{
		Manufacturer: dev.Vendor, Product: dev.Model, ProductSerial: dev.Serial,
		ChassisSerial: dev.Enclosures[0].Serial, BoardSerial: dev.Mainboard.Serial,
		GUID: dev.Metadata[guidKey], Firmware: dev.BMC.Firmware.Installed,
	}, nil
}

// guidKey is where Inventory puts the system GUID, for which bmclib's device has no field.
const guidKey = "guid"

// Inventory implements bmclib's bmc.InventoryGetter with the identity of the
// machine; the parts inside it are for its own agent to list.
func (d *driver) Inventory(ctx context.Context) (*common.Device, error) {
	var dev common.Device
	err := d.call(ctx, "read identity", func(ctx context.Context) error {
		dev = common.NewDevice()
		dev.Metadata = map[string]string{}
		dev.Enclosures = []*common.Enclosure{{}}
		id, err := d.identify(ctx)
		if err != nil {
			return err
		}
		dev.BMC.Firmware = &common.Firmware{Installed: fmt.Sprintf("%d.%02x", id.MajorFirmwareRevision, id.MinorFirmwareRevision)}
		if err := d.systemGUID(ctx, &dev); err != nil {
			return err
		}
		return d.fru(ctx, &dev)
	})
	return &dev, err
}

func (d *driver) systemGUID(ctx context.Context, dev *common.Device) error {
	res, err := d.client.GetSystemGUID(ctx)
	if err != nil {
		if unanswered(err) {
			return err
		}
		return nil // optional for a controller
	}
	guid, err := types.ParseGUID(res.GUID[:], types.GUIDModeSMBIOS)
	if err == nil {
		dev.Metadata[guidKey] = guid.String()
	}
	return err
}

// fru reads the areas that hold serials. go-ipmi's GetFRU reads more, and gives
// up altogether when a part of no interest is malformed.
func (d *driver) fru(ctx context.Context, dev *common.Device) error {
	const device = 0 // the machine itself (IPMI v2.0 section 38)
	res, err := d.client.ReadFRUData(ctx, device, 0, types.FRUCommonHeaderSize)
	if code, ok := types.IsResponseError(err); ok && code.CompletionCode() == types.CodeRequestedDataNotPresent {
		return nil
	} else if err != nil {
		return err
	}
	var head types.FRUCommonHeader
	if err := head.Unpack(res.Data); err != nil {
		return err
	}
	text := func(tl types.TypeLength, raw []byte) string {
		return strings.Trim(types.FRUFieldString(tl, raw), " \x00")
	}
	if head.ChassisOffset8B != 0 {
		a, err := d.client.GetFRUAreaChassis(ctx, device, uint16(head.ChassisOffset8B)*8)
		if err != nil {
			return err
		}
		dev.Enclosures[0].Serial = text(a.SerialNumberTypeLength, a.SerialNumber)
	}
	if head.BoardOffset8B != 0 {
		a, err := d.client.GetFRUAreaBoard(ctx, device, uint16(head.BoardOffset8B)*8)
		if err != nil {
			return err
		}
		dev.Mainboard.Serial = text(a.SerialNumberTypeLength, a.SerialNumber)
	}
	if head.ProductOffset8B != 0 {
		a, err := d.client.GetFRUAreaProduct(ctx, device, uint16(head.ProductOffset8B)*8)
		if err != nil {
			return err
		}
		dev.Vendor, dev.Model = text(a.ManufacturerTypeLength, a.Manufacturer), text(a.NameTypeLength, a.Name)
		dev.Serial = text(a.SerialNumberTypeLength, a.SerialNumber)
	}
	return nil
}
