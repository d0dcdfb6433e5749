package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A mount is one pseudo file system. Late ones need a driver first; needs is a folder that must be there.
type mount struct {
	kind, at string
	flags    uintptr
	late     bool
	needs    string
}

const quietFlags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

var mounts = []mount{
	{"proc", "/proc", quietFlags, false, ""},
	{"sysfs", "/sys", quietFlags, false, ""},
	{"devtmpfs", "/dev", unix.MS_NOSUID, false, ""},
	{"tmpfs", "/run", quietFlags, false, ""},
	{"tmpfs", "/tmp", quietFlags, false, ""},
	{"efivarfs", "/sys/firmware/efi/efivars", quietFlags, true, "/sys/firmware/efi"},
}

// mountAll mounts the early or the late ones; what is mounted already is fine.
func mountAll(late bool) error {
	var errs []error
	for _, m := range mounts {
		if m.late != late {
			continue
		}
		if m.needs != "" {
			if _, err := os.Stat(m.needs); err != nil {
				continue
			}
		} else if err := os.MkdirAll(m.at, 0o755); err != nil {
			errs = append(errs, err)
		}
		if err := unix.Mount(m.kind, m.at, m.kind, m.flags, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			errs = append(errs, fmt.Errorf("mount %s on %s: %w", m.kind, m.at, err))
		}
	}
	return errors.Join(errs...)
}
