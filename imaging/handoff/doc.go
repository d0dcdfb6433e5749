// Package handoff leaves our service OS for the tenant's system: by kexec where a checklist allows it, by a reboot from
// disk otherwise; and sees to it that the firmware finds the disk first.
//
// Decide walks the checklist and says kexec, or reboot with the lines that failed. Load hands kernel and initrd to the
// running kernel, Enter goes. DiskFirst makes the written disk the first persistent boot option of a UEFI machine; a
// BIOS machine has nothing to set from inside (its order is set through the BMC).
//
// What touches the machine is behind Host, Kernel and Vars, so that all of it runs on fakes. This package does not
// fetch, verify or write images.
package handoff
