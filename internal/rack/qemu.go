package rack

import "fmt"

// Files of Debian's ovmf and ipxe-qemu packages.
const (
	ovmfCode = "/usr/share/OVMF/OVMF_CODE_4M.fd"
	ovmfVars = "/usr/share/OVMF/OVMF_VARS_4M.fd"
	qemuBin  = "qemu-system-x86_64"
)

// A Boot is the first boot device that a server's BMC asks for, in ipmi_sim's
// words. Empty means the machine's own order.
type Boot string

// The words that ipmi_sim has for boot devices. It hands on neither "once" nor
// "persistent" and keeps no flags itself, so here a setting holds until the next
// one: like a controller whose overrides are all persistent.
const (
	BootNone  Boot = "none"
	BootPXE   Boot = "pxe"
	BootDisk  Boot = "default" // ipmi_sim's name for "force boot from the default hard drive"
	BootCDROM Boot = "cdrom"   // accepted, there is no such drive: own order
	BootBIOS  Boot = "bios"    // accepted, set-up is not emulated: own order
)

// bootDevices are QEMU's ids of what a server can boot from.
const nicDevice, diskDevice = "nic0", "nvme0"

// bootOrder is the order in which the firmware tries devices, first first. The
// network comes before the disk unless the BMC says disk: a server that nobody
// gave a tenant to must never start what lies on its drive.
func bootOrder(b Boot) []string {
	if b == BootDisk {
		return []string{diskDevice, nicDevice}
	}
	return []string{nicDevice, diskDevice}
}

// firmwareArgs is what differs between the two kinds of mainboard.
var firmwareArgs = map[Firmware]struct {
	nic  string // added to the NIC's device
	args func(dir string) []string
}{
	UEFI: {
		// No option ROM: otherwise iPXE's EFI driver takes over from the firmware's PXE.
		nic: ",romfile=",
		args: func(dir string) []string {
			return []string{
				"-drive", "if=pflash,format=raw,readonly=on,file=" + ovmfCode,
				"-drive", "if=pflash,format=raw,file=" + dir + "/vars.fd",
				// An attempt without an answer costs OVMF about 70 s.
				"-fw_cfg", "name=opt/org.tianocore/IPv6PXESupport,string=n",
			}
		},
	},
	BIOS: {
		args: func(string) []string { return nil },
	},
}

// qemuArgs is the command line of a server: what is soldered in, and the boot
// order at power-on. dir holds its firmware variables, qmp is a socket's path.
func qemuArgs(f Facts, dir, qmp string, boot Boot) []string {
	index := map[string]int{}
	for i, d := range bootOrder(boot) {
		index[d] = i
	}
	fw := firmwareArgs[f.Firmware]
	a := []string{
		"-name", f.Name,
		"-nodefaults", "-no-user-config", "-display", "none",
		// graphics=off lets SeaBIOS and iPXE print on the serial port.
		"-machine", "q35,graphics=off",
		// No KVM where this runs, and QEMU would find out too late to fall back.
		// A small cache of translated code: one of 1 GiB, the default, made a boot after a warm reset take twice the CPU.
		"-accel", "tcg,thread=multi,tb-size=64",
		// RDRAND, without which a guest without virtio_rng blocks in getrandom.
		"-cpu", "max",
		"-smp", fmt.Sprint(f.CPUs),
		"-m", fmt.Sprint(f.MemoryMB),
		"-uuid", f.UUID,
		"-smbios", "type=1,manufacturer=Hostler,product=Virtual Rack Server,serial=" + f.Serial,
		"-smbios", "type=2,manufacturer=Hostler,product=Virtual Board,serial=" + f.Serial + "-BOARD",
		"-smbios", "type=3,manufacturer=Hostler,serial=" + f.Serial,
		"-chardev", "stdio,id=console,signal=off",
		"-serial", "chardev:console",
		"-qmp", "unix:" + qmp + ",server=on,wait=off",
		// The BMC as the guest sees it: ipmi_sim behind a KCS interface.
		"-chardev", fmt.Sprintf("socket,id=kcs,host=127.0.0.1,port=%d,reconnect=2", f.kcsPort()),
		"-device", "ipmi-bmc-extern,id=bmc0,chardev=kcs",
		"-device", "isa-ipmi-kcs,bmc=bmc0",
		"-device", "virtio-rng-pci",
		"-netdev", "tap,id=net0,ifname=" + f.tap() + ",script=no,downscript=no",
		"-device", fmt.Sprintf("virtio-net-pci,id=%s,netdev=net0,mac=%s,bootindex=%d%s", nicDevice, f.MAC, index[nicDevice], fw.nic),
	}
	for i, d := range f.Drives {
		id := fmt.Sprintf("nvme%d", i)
		dev := fmt.Sprintf("nvme,id=%s,drive=disk%d,serial=%s", id, i, d.Serial)
		if id == diskDevice {
			dev += fmt.Sprintf(",bootindex=%d", index[diskDevice])
		}
		a = append(a,
			// unmap: erased blocks become holes, so that the host can look into the
			// file fast. unsafe: the host's own power cut is not what is tested.
			"-drive", fmt.Sprintf("if=none,id=disk%d,format=raw,file=%s,discard=unmap,detect-zeroes=unmap,cache=unsafe", i, d.Path),
			"-device", dev)
	}
	return append(a, fw.args(dir)...)
}
