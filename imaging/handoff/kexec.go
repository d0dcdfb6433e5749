package handoff

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// A Kernel is what the running kernel can do for us.
type Kernel interface {
	// Load prepares a kernel; initrd is nil for none. Both are open for reading only.
	Load(kernel, initrd *os.File, cmdline string) error
	// Enter jumps into the prepared kernel; it returns only if it could not.
	Enter() error
	// Unload forgets it.
	Unload() error
}

// Load hands the tenant's kernel and initrd (nil for none) to k. The readers must give verified bytes: their errors end
// the load and nothing stays prepared.
func Load(k Kernel, kernel, initrd io.Reader, cmdline string) error {
	if strings.ContainsFunc(cmdline, func(r rune) bool { return r < ' ' || r > '~' }) || len(cmdline) > 2047 {
		return errors.New("handoff: kexec: the command line is not printable ASCII of at most 2047 bytes")
	}
	kf, size, err := sealedFile("kernel", kernel)
	if err != nil {
		return fmt.Errorf("handoff: kexec: kernel: %w", err)
	}
	defer kf.Close()
	if size == 0 {
		return errors.New("handoff: kexec: the kernel is empty")
	}
	var rf *os.File
	if initrd != nil {
		if rf, size, err = sealedFile("initrd", initrd); err != nil {
			return fmt.Errorf("handoff: kexec: initrd: %w", err)
		}
		defer rf.Close()
		if size == 0 { // the kernel refuses an empty one: it wants to be told that there is none
			rf = nil
		}
	}
	if err := k.Load(kf, rf, cmdline); err != nil {
		return fmt.Errorf("handoff: kexec load: %w", err)
	}
	return nil
}

// sealedFile copies r into a file in memory that nobody has open for writing: kexec_file_load answers ETXTBSY otherwise,
// and a memfd is open for writing as long as its first descriptor lives.
func sealedFile(name string, r io.Reader) (*os.File, int64, error) {
	fd, err := unix.MemfdCreate("hostler-"+name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, 0, fmt.Errorf("memfd: %w", err)
	}
	w := os.NewFile(uintptr(fd), name)
	defer w.Close()
	n, err := io.Copy(w, r)
	if err != nil {
		return nil, n, err
	}
	f, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
	return f, n, err
}

// Enter flushes every file system and jumps into the loaded kernel. It returns only if it could not; then reboot.
func Enter(k Kernel) error {
	unix.Sync()
	if err := k.Enter(); err != nil {
		return fmt.Errorf("handoff: kexec: %w", err)
	}
	return errors.New("handoff: kexec: the kernel came back")
}

// Linux is the running kernel. It needs root.
type Linux struct{}

// Load calls kexec_file_load(2), which has the kernel check signatures where it must.
func (Linux) Load(kernel, initrd *os.File, cmdline string) error {
	if initrd == nil {
		return unix.KexecFileLoad(int(kernel.Fd()), -1, cmdline, unix.KEXEC_FILE_NO_INITRAMFS)
	}
	return unix.KexecFileLoad(int(kernel.Fd()), int(initrd.Fd()), cmdline, 0)
}

// Enter calls reboot(2).
func (Linux) Enter() error { return unix.Reboot(unix.LINUX_REBOOT_CMD_KEXEC) }

// Unload calls kexec_file_load(2) with KEXEC_FILE_UNLOAD.
func (Linux) Unload() error {
	return unix.KexecFileLoad(-1, -1, "", unix.KEXEC_FILE_UNLOAD|unix.KEXEC_FILE_NO_INITRAMFS)
}
