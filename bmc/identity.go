package bmc

import (
	"context"
	"errors"
	"fmt"
	"slices"
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

// expected reads the machine's serials again before an act and refuses if none
// is the target's: an address may have moved to another machine since, or two
// cables been swapped (reliability F-36).
func (c *Controller) expected(ctx context.Context, op string) error {
	want := c.target.Serial
	if want == "" {
		return nil
	}
	got, err := c.Identity(ctx)
	if err != nil {
		return err
	}
	if want == got.ProductSerial || want == got.ChassisSerial || want == got.BoardSerial {
		return nil
	}
	if got.ProductSerial+got.ChassisSerial+got.BoardSerial == "" {
		return &Error{
			Op: op, Addr: c.target.Addr, Err: errors.New("the controller tells no serial of its machine: nothing was done"),
			Hint: "write the serial into its FRU data",
		}
	}
	return &Error{
		Op: op, Addr: c.target.Addr, Foreign: true,
		Err:  fmt.Errorf("the machine has serials %q, %q and %q, not %q: nothing was done", got.ProductSerial, got.ChassisSerial, got.BoardSerial, want),
		Hint: "find out which machine this address leads to; cables may be swapped",
	}
}

// Identity reads the machine's identity (FRU device 0 and the system GUID).
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

// fru reads the areas that hold serials. One that is malformed, as some leave
// the factory, is left out; go-ipmi's GetFRU gives up on all then, in a way that
// looks like a controller that does not answer.
func (d *driver) fru(ctx context.Context, dev *common.Device) error {
	head, err := d.readFRU(ctx, 0, int(types.FRUCommonHeaderSize))
	if noFRU(err) {
		return nil
	} else if err != nil {
		return err
	}
	var offsets types.FRUCommonHeader
	if err := offsets.Unpack(head); err != nil || offsets.FormatVersion&0x0f != types.FRUFormatVersion {
		d.log.Info("FRU data is malformed", "err", err)
		return nil
	}
	var (
		chassis types.FRUChassisInfoArea
		board   types.FRUBoardInfoArea
		product types.FRUProductInfoArea
	)
	for _, area := range []struct {
		name   string
		offset uint8 // in units of 8 bytes; 0 means that there is none
		unpack func([]byte) error
	}{
		{"chassis", offsets.ChassisOffset8B, chassis.Unpack},
		{"board", offsets.BoardOffset8B, board.Unpack},
		{"product", offsets.ProductOffset8B, product.Unpack},
	} {
		if area.offset == 0 {
			continue
		}
		at := int(area.offset) * 8
		data, err := d.readFRU(ctx, at, 2) // version, length in units of 8 bytes
		if err == nil {
			data, err = d.readFRU(ctx, at, int(data[1])*8)
		}
		if err == nil {
			err = unpanicked(func() error { return area.unpack(data) })
		} else if !noFRU(err) {
			return err
		}
		if err != nil {
			d.log.Info("FRU area is malformed", "area", area.name, "err", err)
		}
	}
	dev.Enclosures[0].Serial = fruText(chassis.SerialNumberTypeLength, chassis.SerialNumber)
	dev.Mainboard.Serial = fruText(board.SerialNumberTypeLength, board.SerialNumber)
	dev.Vendor, dev.Model = fruText(product.ManufacturerTypeLength, product.Manufacturer), fruText(product.NameTypeLength, product.Name)
	dev.Serial = fruText(product.SerialNumberTypeLength, product.SerialNumber)
	return nil
}

// readFRU reads n bytes of FRU device 0, which is the machine itself (IPMI v2.0
// section 38), in pieces that every controller can send.
func (d *driver) readFRU(ctx context.Context, at, n int) ([]byte, error) {
	const device, piece = 0, 16
	data := make([]byte, 0, n)
	for len(data) < n {
		res, err := d.client.ReadFRUData(ctx, device, uint16(at+len(data)), uint8(min(piece, n-len(data))))
		if err != nil {
			return nil, err
		}
		if len(res.Data) == 0 {
			return nil, types.NewResponseError(types.CodeOK, "FRU data ends early")
		}
		data = append(data, res.Data...)
	}
	return data, nil
}

// noFRU tells whether err is a controller's way to say that there are no such
// data; any other failure must not pass for an empty field.
func noFRU(err error) bool {
	code, ok := types.IsResponseError(err)
	return ok && slices.Contains([]types.CompletionCode{
		types.CodeInvalidCommand, types.CodeRequestDataLengthInvalid, types.CodeRequestDataLengthLimitExceeded,
		types.CodeParameterOutOfRange, types.CodeCannotReturnRequestedDataBytes, types.CodeRequestedDataNotPresent,
	}, code.CompletionCode())
}

// fruText decodes a field without the padding that makers leave around it.
func fruText(tl types.TypeLength, raw []byte) string {
	return strings.Trim(types.FRUFieldString(tl, raw), " \x00")
}
