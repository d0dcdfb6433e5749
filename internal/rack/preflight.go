package rack

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// needs are the programs and files that the rack runs on, with the Debian
// package that brings each.
var needs = []struct{ what, pkg string }{
	{qemuBin, "qemu-system-x86"},
	{ovmfCode, "ovmf"},
	{ovmfVars, "ovmf"},
	{"/usr/lib/ipxe/qemu/pxe-virtio.rom", "ipxe-qemu"},
	{"ipmi_sim", "openipmi"},
	{"sdrcomp", "openipmi"},
	{"/dev/net/tun", ""},
}

// Preflight says in one line what this machine lacks, and how to get it.
func Preflight() error {
	if os.Geteuid() != 0 {
		return errors.New("the rack needs root, for network namespaces and ports below 1024: run it with sudo")
	}
	return missing(func(what string) bool {
		if strings.HasPrefix(what, "/") {
			_, err := os.Stat(what)
			return err == nil
		}
		_, err := exec.LookPath(what)
		return err == nil
	})
}

func missing(have func(string) bool) error {
	var what, pkgs []string
	for _, n := range needs {
		if have(n.what) {
			continue
		}
		if n.pkg == "" {
			return fmt.Errorf("%s is missing: this kernel or container has no support for it, use a machine that has", n.what)
		}
		what = append(what, n.what)
		if len(pkgs) == 0 || pkgs[len(pkgs)-1] != n.pkg {
			pkgs = append(pkgs, n.pkg)
		}
	}
	if what == nil {
		return nil
	}
	return fmt.Errorf("missing: %s: run images/deps.sh, or apt-get install %s", strings.Join(what, ", "), strings.Join(pkgs, " "))
}
