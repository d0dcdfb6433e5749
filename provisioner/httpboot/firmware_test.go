//go:build rack

package httpboot

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hostler-project/hostler/provisioner/dhcp"
	"github.com/hostler-project/hostler/provisioner/tftp"
	"github.com/vishvananda/netlink"
)

// TestMain runs these tests in a network namespace of their own, which has no
// name and ends with the process.
func TestMain(m *testing.M) {
	const mark = "HOSTLER_HTTPBOOT_TEST_NETNS"
	if os.Getenv(mark) != "" {
		lo, err := netlink.LinkByName("lo")
		if err == nil {
			err = netlink.LinkSetUp(lo)
		}
		if err != nil {
			os.Stderr.WriteString("httpboot: loopback in the new namespace: " + err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	c := exec.Command("/proc/self/exe", os.Args[1:]...)
	c.Env = append(os.Environ(), mark+"=1")
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := c.Run(); err != nil {
		if _, failed := errors.AsType[*exec.ExitError](err); !failed {
			os.Stderr.WriteString("httpboot: new network namespace: " + err.Error() + " (run as root)\n")
		}
		os.Exit(1)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// story notes what the machine asked for, and when.
type story struct {
	mu    sync.Mutex
	begin time.Time
	lines []string
}

func (s *story) add(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, what)
	fmt.Fprintf(os.Stderr, "    %6.1f s  %s\n", time.Since(s.begin).Seconds(), what)
}

func (s *story) count(what string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.lines {
		if strings.HasPrefix(l, what) {
			n++
		}
	}
	return n
}

// one is a Directory with one machine.
type one struct{ *story }

func (o one) Knows(q dhcp.Query) bool { return slices.Equal(q.MAC, macA) }

func (o one) Answer(_ context.Context, q dhcp.Query) dhcp.Answer {
	o.add(fmt.Sprintf("dhcp %s, ipxe %v, arch %d, http %v", q.Type, q.IPXE, q.Arch, q.HTTP))
	return dhcp.Answer{Known: true, IP: netip.MustParseAddr("192.168.77.10"), Boot: true}
}

// loaders notes TFTP requests.
type loaders struct {
	tftp.Map
	*story
}

func (l loaders) Open(name string, from netip.Addr) ([]byte, bool) {
	l.add("tftp " + name)
	return l.Map.Open(name, from)
}

// planner gives out one plan after the other, the last one for ever.
type planner struct {
	mu    sync.Mutex
	plans []Plan
}

func (p *planner) Plan(context.Context, Client) (Plan, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.plans[0]
	if len(p.plans) > 1 {
		p.plans = p.plans[1:]
	}
	return now, nil
}

// Real firmware finds its way to our script by every path that we offer, asks
// again while it is told to wait, and comes back when what it is to boot is not
// there.
func TestFirmware(t *testing.T) {
	const ovmf = "/usr/share/OVMF/OVMF_CODE_4M.fd"
	uefi := []string{"-drive", "if=pflash,format=raw,readonly=on,file=" + ovmf, "-drive", "if=pflash,format=raw,file=VARS", "-device", "virtio-net-pci,netdev=n0,romfile=,mac=" + macA.String()}
	bios := []string{"-boot", "n", "-device", "virtio-net-pci,netdev=n0,mac=" + macA.String()}
	httpOnly := []string{"-fw_cfg", "name=opt/org.tianocore/IPv4PXESupport,string=n", "-fw_cfg", "name=opt/org.tianocore/IPv6PXESupport,string=n"}
	for _, tt := range []struct {
		name     string
		noAdvert bool
		qemu     []string
		want     []string // each must have happened, in this order
	}{
		{"BIOS, iPXE in ROM", false, bios, []string{"dhcp discover, ipxe true, arch 0", "http GET /ipxe?mac="}},
		{"BIOS, solicitations unanswered", true, bios, []string{"dhcp discover, ipxe true, arch 0", "http GET /ipxe?mac="}},
		{"UEFI PXE", false, uefi, []string{"dhcp discover, ipxe false, arch 7", "tftp snponly-x86_64.efi", "dhcp discover, ipxe true, arch 7", "http GET /ipxe?mac="}},
		{"UEFI HTTP", false, append(slices.Clone(uefi), httpOnly...), []string{"dhcp discover, ipxe false, arch 16", "http HEAD /loader/snponly-x86_64.efi", "http GET /loader/snponly-x86_64.efi", "dhcp discover, ipxe true, arch 7", "http GET /ipxe?mac="}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tap(t)
			s := &story{begin: time.Now()}
			serveAll(t, s, tt.noAdvert)
			dir := t.TempDir()
			vars, err := os.ReadFile("/usr/share/OVMF/OVMF_VARS_4M.fd")
			must(t, err)
			must(t, os.WriteFile(filepath.Join(dir, "VARS"), vars, 0o600))
			args := []string{"-accel", "tcg,thread=multi", "-machine", "q35,graphics=off", "-cpu", "max", "-m", "512", "-display", "none", "-monitor", "none",
				"-serial", "file:" + dir + "/serial", "-no-reboot", "-netdev", "tap,id=n0,ifname=tap0,script=no,downscript=no", "-device", "virtio-rng-pci"}
			for _, a := range tt.qemu {
				args = append(args, strings.Replace(a, "file=VARS", "file="+dir+"/VARS", 1))
			}
			vm := exec.Command("qemu-system-x86_64", args...)
			vm.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
			vm.Stderr = os.Stderr
			must(t, vm.Start())
			defer func() { vm.Process.Kill(); vm.Wait() }()
			for end := time.Now().Add(2 * time.Minute); time.Now().Before(end) && s.count("http GET /ipxe") < 4; {
				time.Sleep(100 * time.Millisecond)
			}
			// First a wait page, twice, then a kernel that is not there, then a refusal.
			if n := s.count("http GET /ipxe"); n < 4 || s.count("http GET /boot/gone") < 1 {
				serial, _ := os.ReadFile(dir + "/serial")
				t.Fatalf("the script was fetched %d times, the kernel %d times; the machine said\n%s", n, s.count("http GET /boot/gone"), serial)
			}
			at := 0
			for _, l := range s.lines {
				if at < len(tt.want) && strings.HasPrefix(l, tt.want[at]) {
					at++
				}
			}
			if at < len(tt.want) {
				t.Errorf("this did not happen, or not after the others: %s", tt.want[at])
			}
		})
	}
}

// tap makes a card with our address whose other end is the machine's.
func tap(t *testing.T) {
	link := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "tap0"}, Mode: netlink.TUNTAP_MODE_TAP, Flags: netlink.TUNTAP_NO_PI | netlink.TUNTAP_VNET_HDR, NonPersist: false}
	must(t, netlink.LinkAdd(link))
	t.Cleanup(func() { netlink.LinkDel(link) })
	addr, err := netlink.ParseAddr("192.168.77.1/24")
	must(t, err)
	must(t, netlink.AddrAdd(link, addr))
	must(t, netlink.LinkSetUp(link))
}

// serveAll runs the three servers until the test ends.
func serveAll(t *testing.T, s *story, noAdvert bool) {
	const loader = "/usr/lib/ipxe/snponly.efi" // Debian's name of the x86-64 build
	data, err := os.ReadFile(loader)
	must(t, err)
	us := netip.MustParseAddr("192.168.77.1")

	d := &dhcp.Server{Directory: one{s}, Segments: []dhcp.Segment{{Name: "boot", Interface: "tap0", Subnet: netip.MustParsePrefix("192.168.77.0/24"), Address: us, Mode: dhcp.Authoritative, NoAdvert: noAdvert}}}
	f := &tftp.Server{Address: netip.AddrPortFrom(us, 69), Files: loaders{tftp.Map{"snponly-x86_64.efi": data}, s}}
	at := netip.AddrPortFrom(us, 80)
	wait := Plan{Kind: Wait, MAC: macA, Server: at, Retry: time.Second, Reason: Approval}
	broken := Plan{Kind: Service, MAC: macA, Server: at, Kernel: "boot/gone", Initrds: []string{"boot/initrd.img"}, Args: []Arg{{"quiet", ""}}}
	h := &Handler{Files: Map{"loader/snponly-x86_64.efi": loader, "boot/initrd.img": loader}, Boot: &planner{plans: []Plan{wait, wait, broken, {Kind: Refuse, MAC: macA, Server: at, Reason: Retired}}}}
	web := NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.add("http " + r.Method + " " + r.RequestURI)
		h.ServeHTTP(w, r)
	}), nil)

	listeners, err := d.Listen()
	must(t, err)
	port69, err := f.Listen()
	must(t, err)
	port80, err := net.Listen("tcp4", at.String())
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { d.Serve(ctx, listeners) })
	wg.Go(func() { f.Serve(ctx, port69) })
	wg.Go(func() { web.Serve(port80) })
	t.Cleanup(func() { cancel(); web.Close(); wg.Wait() })
}
