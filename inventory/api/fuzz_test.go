package api

import (
	"bytes"
	"encoding/csv"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"github.com/hostler-project/hostler/internal/frugal"
	"github.com/hostler-project/hostler/inventory"
)

// FuzzManifest reads any text as a manifest of nodes. Either it has faults, each with its line, or its rows can be
// written down as they are: names and identities in the one form that they are looked up by, nothing twice, nothing
// that does not fit a record; and written out again they read the same.
func FuzzManifest(f *testing.F) {
	for _, text := range []string{
		"name,serial,sku,rack,slot,mac,ip,bmc_addr,bmc_protocol,credential,approve\ngpu001,S1,h100-8x,r12,4,0c:42:a1:00:00:01,10.20.0.11,10.30.0.11,ipmi,row1,auto\n",
		"\ufeffserial, name , mac\r\n# the second row\r\nS2,gpu002,\"0C-42-A1-00-00-02;0c42.a100.0003\"\r\n", "name\n", "name,name\na,b\n", "name,mac\na,0c:42:a1:00:00:01\nb,0C:42:A1:00:00:01\n",
		"name,serial\na,\"x\ny\"\n", "name,serial\na,\x00\n", "name,serial,ip\na,b,::ffff:10.0.0.1\n", "name,mac\na,00:00:00:00:fe:80:00:00\n", "name,serial\n../x,..\n", "name,serial\n\"a", "name,serial\na,\"\u202eb\"\n",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var rows []manifestRow
		var faults []string
		size := uint64(len(text))
		frugal.Check(t, time.Millisecond+time.Duration(size)*5*time.Microsecond, 128<<10+1000*size, func() { rows, faults = parseManifest(text) })
		for _, fault := range faults {
			if !strings.HasPrefix(fault, "line ") || strings.ContainsAny(fault, "\n\r\x00") {
				t.Fatalf("a fault that cannot be shown: %q", fault)
			}
		}
		if len(faults) > 0 {
			return
		}
		seen := map[string]bool{}
		once := func(kind, v string) {
			key := inventory.KeyID(kind, v)
			if v != "" && seen[key] {
				t.Fatalf("%s %q twice", kind, v)
			}
			seen[key] = true
		}
		var out bytes.Buffer
		w := csv.NewWriter(&out)
		_ = w.Write(Columns)
		for _, row := range rows {
			s := row.spec
			for _, v := range append([]string{s.Name, s.Serial, s.SKU, s.Rack, s.Slot, s.IP, s.BMC.Addr, s.BMC.Credential}, s.MACs...) {
				if len(v) > 256 || strings.ContainsFunc(v, func(r rune) bool { return !unicode.IsPrint(r) }) || v != strings.TrimSpace(v) {
					t.Fatalf("%q cannot be written into a record or shown", v)
				}
			}
			if s.Name == "" || s.Serial == "" && len(s.MACs) == 0 {
				t.Fatalf("%+v cannot be recognized", s)
			}
			once("name", s.Name)
			once("serial", s.Serial)
			once("ip", s.IP)
			for _, m := range s.MACs {
				once("mac", m)
				if hw, err := net.ParseMAC(m); err != nil || hw.String() != m || len(hw) != 6 {
					t.Fatalf("no packet will ever be of %q", m)
				}
			}
			if a, err := netip.ParseAddr(s.IP); s.IP != "" && (err != nil || a.String() != s.IP) {
				t.Fatalf("address %q", s.IP)
			}
			_ = w.Write([]string{s.Name, s.Serial, s.SKU, s.Rack, s.Slot, strings.Join(s.MACs, " "), s.IP, s.BMC.Addr, s.BMC.Protocol, s.BMC.Credential, s.Approve})
		}
		w.Flush()
		again, faults := parseManifest(out.String())
		specs := func(rows []manifestRow) (out []inventory.Spec) {
			for _, r := range rows {
				out = append(out, r.spec)
			}
			return out
		}
		if d := cmp.Diff(specs(rows), specs(again)); d != "" || len(faults) > 0 {
			t.Fatalf("written out, it reads differently: %v\n%s", faults, d)
		}
		if !slices.ContainsFunc(strings.Split(strings.ToLower(text), "\n"), func(l string) bool { return strings.Contains(l, "name") }) {
			t.Fatal("no column name, and no fault")
		}
	})
}
