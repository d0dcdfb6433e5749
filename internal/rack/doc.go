// Package rack is the virtual rack: servers that really boot, in software
// emulation, on a network and behind BMCs of their own, so that the rest of
// Hostler can be shown and tested without hardware.
//
// It owns a network namespace with three bridges and one tap per server, the
// servers (QEMU with OVMF or SeaBIOS, two NVMe drives, a serial console), one
// OpenIPMI ipmi_sim per server that starts and stops it for real, and the
// bookkeeping that leaves nothing behind, even after kill -9 of everything.
//
//	hostlerd, in the namespace            hostler-rack (this package)
//	  │ IPMI, 192.168.78.10N:623            │ supervises all children
//	  ▼                                     ▼
//	ipmi_sim ── glue, a run of hostler-rack ── control socket ── Machine ── QEMU
//	                                                               │ tap
//	            iso0 (down) │ br0 (hostlerd's port) │ tenant0 ─────┘ moved by the fence
//
// Rack.Up builds everything with the servers powered off; a person presses a
// Node's button or hostlerd asks its BMC. The package runs hostlerd and hostler
// as child processes only and imports nothing of the product: what a server
// boots, and why, is decided elsewhere.
package rack
