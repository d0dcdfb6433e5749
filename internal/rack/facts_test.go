package rack

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestServersDifferInEverythingThatIdentifiesThem(t *testing.T) {
	seen := map[string]string{}
	for n := 1; n <= maxNodes; n++ {
		f := facts(n, "/d")
		ids := []string{f.Name, f.Serial, f.UUID, f.MAC, f.IP.String(), f.BMC.String(), f.BMCMAC, f.tap()}
		for _, d := range f.Drives {
			ids = append(ids, d.Serial)
		}
		for _, id := range ids {
			if was, ok := seen[id]; ok {
				t.Errorf("server %s and %s both have %q", was, f.Name, id)
			}
			seen[id] = f.Name
		}
		if !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(f.UUID) {
			t.Errorf("server %s: %q is no RFC 4122 UUID", f.Name, f.UUID)
		}
		if f.UUID != facts(n, "/elsewhere").UUID {
			t.Errorf("server %s: UUID differs from run to run", f.Name)
		}
	}
}

func TestSMBIOSUUID(t *testing.T) {
	// The example of the SMBIOS specification, section 7.2.1.
	if got := smbiosUUID("00112233-4455-6677-8899-aabbccddeeff"); got != "33221100554477668899aabbccddeeff" {
		t.Errorf("got %s", got)
	}
}

func TestAServerIsFoundByWhatIsPrintedOnIt(t *testing.T) {
	r := &Rack{Name: "x", Nodes: []*Node{{Facts: facts(1, "")}, {Facts: facts(2, "")}}}
	for _, word := range []string{"b", "RACK-B", "rack-b", "52:54:00:77:00:02", r.Nodes[1].UUID} {
		if n, err := r.Node(word); err != nil || n.Name != "b" {
			t.Errorf("%q: got %v, %v, want server b", word, n, err)
		}
	}
	if _, err := r.Node("c"); err == nil || !strings.Contains(err.Error(), `"c"`) {
		t.Errorf("unknown word: got %v, want an error naming it", err)
	}
}

func TestQEMUArgs(t *testing.T) {
	tests := []struct {
		name      string
		number    int
		boot      Boot
		want, not []string
	}{
		{"uefi by network", 1, BootNone,
			[]string{"file=" + ovmfCode, "file=/n/vars.fd", "romfile=", "mac=52:54:00:77:00:01,bootindex=0", "serial=RACK-A-NVME0,bootindex=1"},
			[]string{"serial=RACK-A-NVME1,bootindex"}},
		{"uefi from disk", 1, BootDisk, []string{"mac=52:54:00:77:00:01,bootindex=1", "serial=RACK-A-NVME0,bootindex=0"}, nil},
		{"bios by network", 2, BootPXE, []string{"mac=52:54:00:77:00:02,bootindex=0", "ifname=tap-b"}, []string{"OVMF", "romfile"}},
		{"bios from disk", 2, BootDisk, []string{"serial=RACK-B-NVME0,bootindex=0"}, nil},
		{"no such device means own order", 2, BootCDROM, []string{"mac=52:54:00:77:00:02,bootindex=0"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := facts(tt.number, "/n")
			args := strings.Join(qemuArgs(f, "/n", "/r/qmp.sock", tt.boot), " ")
			for _, w := range append(tt.want, "-uuid "+f.UUID, "type=1,manufacturer=Hostler,product=Virtual Rack Server,serial="+f.Serial, "unix:/r/qmp.sock") {
				if !strings.Contains(args, w) {
					t.Errorf("missing %q in %s", w, args)
				}
			}
			for _, w := range append(tt.not, "kvm") {
				if strings.Contains(args, w) {
					t.Errorf("unwanted %q in %s", w, args)
				}
			}
		})
	}
}

func TestOnlyTheDiskSettingBootsFromDisk(t *testing.T) {
	for _, b := range []Boot{BootNone, BootPXE, BootDisk, BootCDROM, BootBIOS} {
		diskFirst := slices.Equal(bootOrder(b), []string{diskDevice, nicDevice})
		if diskFirst != (b == BootDisk) {
			t.Errorf("boot device %s: order %v", b, bootOrder(b))
		}
	}
}
