// Package disk is bytes on block devices: a Device that reads and writes the medium itself (direct I/O, aligned), the
// GUID partition table at both its ends (UEFI 2.10, section 5.3), and a small FAT volume built in memory.
//
// A caller opens a device by path or takes a sparse file in its place, reads a Table, changes it, and writes it back:
// backup first, then primary. It mounts nothing, and it knows no images and no drives' erase commands.
package disk
