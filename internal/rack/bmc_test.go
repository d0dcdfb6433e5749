package rack

import (
	"bytes"
	"strings"
	"testing"
)

func TestTheBMCPasswordIsInOneFileOnly(t *testing.T) {
	f, password := facts(1, "/n"), newPassword()
	files, err := renderBMC(f, "/n/bmc", "/run/x/hostler-rack glue --socket /run/x/s --node a", password)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range files {
		if has := bytes.Contains(b, []byte(password)); has != (name == "lan.conf") {
			t.Errorf("%s: contains the password: %v", name, has)
		}
	}
	conf := string(files["lan.conf"])
	for _, w := range []string{
		"addr 192.168.78.101 623\n", "guid " + smbiosUUID(f.UUID) + "\n",
		`chassis_control "/run/x/hostler-rack glue --socket /run/x/s --node a"`,
		"serial 15 127.0.0.1 9101 codec VM", `sol "tcp:127.0.0.1:9201"`,
	} {
		if !strings.Contains(conf, w) {
			t.Errorf("lan.conf: missing %q in\n%s", w, conf)
		}
	}
}

func TestPasswordsFitIPMIAndDiffer(t *testing.T) {
	seen := map[string]bool{}
	for range 100 {
		p := newPassword()
		if len(p) != 16 || strings.Trim(p, "abcdefghijklmnopqrstuvwxyz234567") != "" {
			t.Errorf("%q: want 16 plain characters", p)
		}
		if seen[p] {
			t.Errorf("%q twice", p)
		}
		seen[p] = true
	}
}

func TestFRU(t *testing.T) {
	f := facts(1, "")
	b := fru(f)
	if len(b) != fruBytes {
		t.Fatalf("%d bytes, want %d", len(b), fruBytes)
	}
	sum := func(b []byte) (s byte) {
		for _, x := range b {
			s += x
		}
		return s
	}
	if sum(b[:8]) != 0 {
		t.Error("common header: wrong checksum")
	}
	for i, area := range []string{"chassis", "board", "product"} {
		at := int(b[2+i]) * 8
		size := int(b[at+1]) * 8
		if sum(b[at:at+size]) != 0 {
			t.Errorf("%s area: wrong checksum", area)
		}
		if !bytes.Contains(b[at:at+size], []byte(f.Serial)) {
			t.Errorf("%s area: no serial", area)
		}
	}
}
