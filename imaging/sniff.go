package imaging

import (
	"bytes"
	"fmt"
)

// SniffLen is how many of an image's first bytes Sniff wants to see.
const SniffLen = 64 << 10

// A magic says which bytes, where, betray a container. From the end of the file where at is negative.
type magic struct {
	format string
	at     int
	bytes  string
}

// magics are the formats that a file called raw must not be: another reader may believe the magic and look inside,
// with another result than what was verified here (the qcow2 backing-file attacks on OpenStack were of this kind).
// Sources: the format's own specification, and QEMU's block/*.c probe functions.
var magics = []magic{
	{"qcow2", 0, "QFI\xfb"},
	{"qed", 0, "QED\x00"},
	{"vmdk", 0, "KDMV"},
	{"vmdk", 0, "COWD"},
	{"vmdk descriptor", 0, "# Disk DescriptorFile"},
	{"vhd", 0, "conectix"},
	{"vhd", -512, "conectix"},
	{"vhdx", 0, "vhdxfile"},
	{"vdi", 64, "\x7f\x10\xda\xbe"},
	{"parallels", 0, "WithoutFreeSpace"},
	{"parallels", 0, "WithouFreSpacExt"},
	{"bochs", 0, "Bochs Virtual HD Image"},
	{"cloop", 0, "#!/bin/sh\n#V2.0 Format\n"},
	{"dmg", -512, "koly"},
	{"luks", 0, "LUKS\xba\xbe"},
	{"luks", 0, "SKUL\xba\xbe"},
	{"iso9660", 32769, "CD001"},
	{"udf", 32769, "NSR0"},
	{"squashfs", 0, "hsqs"},
	{"gzip", 0, "\x1f\x8b"},
	{"xz", 0, "\xfd7zXZ\x00"},
	{"zstd", 0, "\x28\xb5\x2f\xfd"},
	{"bzip2", 0, "BZh"},
	{"lz4", 0, "\x04\x22\x4d\x18"},
	{"lzip", 0, "LZIP"},
	{"zip", 0, "PK\x03\x04"},
	{"zip", 0, "PK\x05\x06"},
	{"7z", 0, "7z\xbc\xaf\x27\x1c"},
	{"rar", 0, "Rar!\x1a\x07"},
	{"tar", 257, "ustar"},
	{"cpio", 0, "070701"},
	{"cpio", 0, "070702"},
	{"cpio", 0, "\xc7\x71"},
	{"wim", 0, "MSWIM\x00\x00\x00"},
	{"elf", 0, "\x7fELF"},
}

// Sniff names the container format that the bytes look like, "" for none. head is the beginning of the file, tail its
// last bytes (at least 512, or nil where they are not known).
func Sniff(head, tail []byte) string {
	for _, m := range magics {
		b, at := head, m.at
		if at < 0 {
			b, at = tail, len(tail)+m.at
		}
		if at >= 0 && at <= len(b) && bytes.HasPrefix(b[at:], []byte(m.bytes)) {
			return m.format
		}
	}
	return ""
}

// A FormatError says that something called a raw image is none.
type FormatError struct {
	Name   string // file or image
	Format string // what it looks like
}

// Error says what can be done about it.
func (e *FormatError) Error() string {
	how := "unpack it first"
	switch e.Format {
	case "qcow2", "qed", "vmdk", "vmdk descriptor", "vhd", "vhdx", "vdi", "parallels", "bochs", "cloop", "dmg":
		how = "convert with qemu-img convert -O raw"
	case "luks", "iso9660", "udf", "squashfs", "elf":
		how = "give the disk that boots from it"
	}
	return fmt.Sprintf("imaging: %s starts or ends like %s: raw images only; %s", e.Name, e.Format, how)
}

// checkRaw refuses bytes that look like a container.
func checkRaw(name string, head, tail []byte) error {
	if f := Sniff(head, tail); f != "" {
		return &FormatError{Name: name, Format: f}
	}
	return nil
}
