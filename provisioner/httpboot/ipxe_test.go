package httpboot

import (
	"flag"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files")

var (
	macA   = net.HardwareAddr{0x52, 0x54, 0, 0x12, 0x34, 1}
	at80   = netip.MustParseAddrPort("192.168.77.1:80")
	secret = "0123456789abcdef0123456789abcdef"
)

func service() Plan {
	return Plan{
		Kind: Service, MAC: macA, Server: at80,
		Kernel:  "boot/service/vmlinuz",
		Initrds: []string{"boot/service/initrd.img", "session/" + secret + "/session.cpio"},
		Args: []Arg{
			{"console", "ttyS0,115200"}, {"hostler.server", "https://192.168.77.1:8443"}, {"init_on_alloc", "1"}, {"quiet", ""},
			{"hostler.ca", "sha256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="},
		},
	}
}

// The scripts are read as text by people; go test -update writes them anew.
func TestIPXE(t *testing.T) {
	plans := map[string]Plan{
		"service": service(),
		"wait":    {Kind: Wait, MAC: macA, Server: netip.MustParseAddrPort("10.0.0.1:8081"), Retry: 15 * time.Second, Reason: Approval},
		"disk":    {Kind: Disk, MAC: macA, Server: at80},
		"refuse":  {Kind: Refuse, MAC: macA, Server: at80, Reason: Burnt},
	}
	for name, p := range plans {
		t.Run(name, func(t *testing.T) {
			got, err := IPXE(p)
			if err != nil {
				t.Fatal(err)
			}
			file := "testdata/" + name + ".ipxe"
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Whatever a field holds, either the plan is refused or the script has the
// same shape as without it.
func TestNothingEscapesItsField(t *testing.T) {
	evil := []string{
		"x\nshell", "x\rshell", "a b", "a||shell", "a && shell", "${net0/mac}", "a;b", "a#b", "'", `"`, `\`, "a\x00b", "ä", "`id`", "<a>",
		"../../etc/passwd", "/etc/passwd", "a//b", "a/./b", "", ".", "..", "-a", "a%2fb", "http://elsewhere/x", strings.Repeat("a", 2000),
	}
	fields := map[string]func(*Plan, string){
		"kernel":     func(p *Plan, s string) { p.Kernel = s },
		"initrd":     func(p *Plan, s string) { p.Initrds = []string{s} },
		"2nd initrd": func(p *Plan, s string) { p.Initrds[1] = s },
		"key":        func(p *Plan, s string) { p.Args[0].Key = s },
		"kind":       func(p *Plan, s string) { p.Kind = Kind(s) },
		"reason":     func(p *Plan, s string) { p.Kind, p.Retry, p.Reason = Wait, time.Minute, Reason(s) },
	}
	for name, set := range fields {
		for _, s := range evil {
			p := service()
			set(&p, s)
			if out, err := IPXE(p); err == nil {
				t.Errorf("%s %.40q was rendered:\n%s", name, s, out)
			}
		}
	}
	for _, s := range evil[:15] {
		p := service()
		p.Args[0].Value = s
		if out, err := IPXE(p); err == nil {
			t.Errorf("value %.40q was rendered:\n%s", s, out)
		} else if len(s) > 3 && strings.Contains(err.Error(), s) {
			t.Errorf("the error repeats the value, which may be a secret: %v", err)
		}
	}
}

func TestCheckNamesEveryFault(t *testing.T) {
	p := Plan{
		Kind: Service, Kernel: "/vmlinuz", Initrds: []string{"a/x.img", "b/x.img"},
		Args: []Arg{{"initrd", "x"}, {"a", strings.Repeat("b", 257)}},
	}
	want := `boot plan: mac: need six bytes, have 0
server invalid AddrPort: need an IPv4 address and a port
kernel "/vmlinuz": not a path of ours
initrd "b/x.img": another has the same name
argument "initrd": the key needs letters and digits, and dot, dash or underscore between them; initrd is ours
argument "a": the value has a character that scripts may not carry, or is too long`
	if diff := cmp.Diff(want, p.Check().Error()); diff != "" {
		t.Error(diff)
	}
	long := service()
	for range 30 {
		long.Args = append(long.Args, Arg{"key", strings.Repeat("v", 100)})
	}
	if err := long.Check(); err == nil {
		t.Error("a command line that the kernel would cut was taken")
	}
	for _, d := range []time.Duration{0, 999 * time.Millisecond, 2 * time.Hour} {
		if (Plan{Kind: Wait, MAC: macA, Server: at80, Retry: d, Reason: NoOrder}).Check() == nil {
			t.Errorf("retry %v was taken", d)
		}
	}
}
