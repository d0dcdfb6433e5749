package faults

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// dirVar names the folder of a run, for the process inside the namespaces.
const dirVar = "HOSTLER_FAULTS_DIR"

// programs are built once for a run, from the tree. hostlerd's build tag adds the clock that the run can set.
var programs = []struct{ name, pkg, tags string }{
	{"hostlerd", "github.com/hostler-project/hostler/cmd/hostlerd", "faults"},
	{"etcd", "go.etcd.io/etcd/server/v3", ""},
}

// Main is TestMain: outside, it builds the programs and runs itself again in new namespaces of network, processes and
// mounts; inside, it runs the tests. The first process of a process namespace takes all others with it, however it ends.
// As fence program it does what it is told (fence.go).
func Main(run func() int) int {
	if len(os.Args) > 1 && os.Args[1] == fenceVerb {
		return fenceMain(os.Args[2:])
	}
	inside := os.Getenv(dirVar) != ""
	code, err := 0, error(nil)
	if inside {
		if err = enter(); err == nil {
			code = run()
		}
	} else {
		code, err = again()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
		return 1
	}
	return code
}

// again builds, runs the tests inside, and removes what they wrote.
func again() (int, error) {
	if os.Geteuid() != 0 {
		return 1, errors.New("namespaces need root: make faults")
	}
	dir, err := os.MkdirTemp("", "hostler-faults-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	for _, p := range programs {
		b := exec.Command("go", "build", "-tags", p.tags, "-o", filepath.Join(dir, p.name), p.pkg)
		b.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := b.CombinedOutput(); err != nil {
			return 1, fmt.Errorf("build %s: %v\n%s", p.pkg, err, out)
		}
	}
	runtime.LockOSThread() // Pdeathsig is about the thread that starts the child
	self := exec.Command("/proc/self/exe", os.Args[1:]...)
	self.Env = append(os.Environ(), dirVar+"="+dir)
	self.Stdout, self.Stderr = os.Stdout, os.Stderr
	self.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWNS}
	err = self.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return max(exit.ExitCode(), 1), nil
	}
	return 0, err
}

// enter makes the new namespaces usable: a /proc of our processes, a loopback that is up.
func enter() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("mounts: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	return nil
}

// Left lists the processes of the namespace that still run beside this one.
func Left() []string {
	var out []string
	dirs, _ := os.ReadDir("/proc") // mounted by enter
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		stat, err := os.ReadFile(filepath.Join("/proc", d.Name(), "stat"))
		if err != nil || strings.Contains(string(stat), ") Z ") { // orphans of killed daemons that nobody reaps
			continue
		}
		out = append(out, strings.Fields(string(stat))[1])
	}
	return out
}
