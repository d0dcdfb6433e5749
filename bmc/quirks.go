package bmc

import "github.com/bougou/go-ipmi/pkg/command/app"

// A Quirk is one oddity of one kind of controller: who it is, what is odd, what
// we do about it, where that is written down. The fields at the end are what
// the code asks for.
type Quirk struct {
	Maker    uint32   // IANA enterprise number in the device id (IPMI v2.0 section 20.1)
	Product  uint16   // product id in the device id; 0 means all of the maker's
	Firmware [2]uint8 // major revisions, from and to; {} means all
	Name     string   // for people
	Odd      string   // what is odd
	Do       string   // what we do
	Source   string   // where it is documented

	NoValidBit bool // boot flags are in force though they do not read back as valid
	NoBootType bool // the choice of BIOS or UEFI boot is not kept, and has no meaning there
}

// Quirks are the oddities known, most particular first: the first that matches holds.
var Quirks = []Quirk{
	{
		Maker: 0x000137, Product: 0x0f02, Name: "OpenIPMI ipmi_sim 2.0.33, virtual rack",
		Odd:    "boot flags are reduced to the device: persistent, UEFI and the valid bit read back as 0",
		Do:     "take the device as set, do not ask for UEFI, report the lost persistence",
		Source: "rack.md section 5; TestBootDeviceOnTheRacksController",

		NoValidBit: true, NoBootType: true,
	},
}

// quirkOf returns the row for a controller, or the zero Quirk.
func quirkOf(id *app.GetDeviceIDResponse) Quirk {
	if id == nil {
		return Quirk{}
	}
	for _, q := range Quirks {
		all := q.Firmware == [2]uint8{}
		in := q.Firmware[0] <= id.MajorFirmwareRevision && id.MajorFirmwareRevision <= q.Firmware[1]
		if q.Maker == id.ManufacturerID && (q.Product == 0 || q.Product == id.ProductID) && (all || in) {
			return q
		}
	}
	return Quirk{}
}
