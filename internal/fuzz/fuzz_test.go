package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// areas is everything that reads what somebody else wrote, and who fuzzes it. The first eight are issue 3's.
var areas = []struct {
	area    string
	targets []string
}{
	{"DHCPv4 options", []string{"provisioner/dhcp FuzzRespond"}},
	{"TFTP requests", []string{"provisioner/tftp FuzzRequest", "provisioner/tftp FuzzTransfer"}},
	{"HTTP boot paths", []string{"provisioner/httpboot FuzzPath"}},
	{"agent reports", []string{"provisioner FuzzReport", "provisioner/agentapi FuzzMessages"}},
	{"image headers", []string{"imaging FuzzHeader"}},
	{"manifests", []string{"imaging FuzzDecode", "inventory/api FuzzManifest"}},
	{"boot-script fields", []string{"provisioner/httpboot FuzzScript"}},
	{"BMC answers", []string{"bmc FuzzAnswer", "bmc FuzzDatagram"}},
	{"router solicitations", []string{"provisioner/dhcp FuzzAdvert"}},
	{"what a fence program observed", []string{"provisioner FuzzObserve"}},
	{"kernel log lines", []string{"health/kmsg FuzzMatch"}},
	{"what an NVML worker says", []string{"health/nvml FuzzFrame"}},
}

// A parser whose target went away is fuzzed by nobody, and nobody would notice; a target without an area is one that
// nobody could say the purpose of.
func TestEveryAreaIsFuzzed(t *testing.T) {
	found, err := find(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	var have, want []string
	for _, f := range found {
		have = append(have, f.pkg+" "+f.name)
	}
	for _, a := range areas {
		if len(a.targets) == 0 {
			t.Errorf("%s: no target", a.area)
		}
		want = append(want, a.targets...)
		for _, target := range a.targets {
			if !slices.Contains(have, target) {
				t.Errorf("%s: target %s is not in the sources", a.area, target)
			}
		}
	}
	for _, h := range have {
		if !slices.Contains(want, h) {
			t.Errorf("target %s is in no area", h)
		}
	}
}

// Inputs that made a target fall over belong to a target that exists.
func TestFoundInputsHaveATarget(t *testing.T) {
	found, err := find(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		folders, err := filepath.Glob(filepath.Join("../..", f.pkg, "testdata/fuzz/*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, folder := range folders {
			if name := filepath.Base(folder); !slices.ContainsFunc(found, func(g target) bool { return g.pkg == f.pkg && g.name == name }) {
				t.Errorf("%s: inputs of a target that is gone", folder)
			}
		}
	}
}

func TestFind(t *testing.T) {
	src := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte("package x\n" + s)} }
	got, err := find(fstest.MapFS{
		"a/a_test.go":            src("import \"testing\"\nfunc FuzzB(f *testing.F) {}\nfunc FuzzA(f *testing.F) {}\nfunc Fuzzy() {}\nfunc helper(f *testing.F) {}\ntype t struct{}\nfunc (t) FuzzC(f *testing.F) {}"),
		"a/a.go":                 src("import \"testing\"\nfunc FuzzD(f *testing.F) {}"),
		"b/testdata/x_test.go":   src("import \"testing\"\nfunc FuzzE(f *testing.F) {}"),
		"out/images/old_test.go": src("import \"testing\"\nfunc FuzzF(f *testing.F) {}"),
	})
	if err != nil || !slices.Equal(got, []target{{"a", "FuzzB"}, {"a", "FuzzA"}}) {
		t.Errorf("got %v, %v", got, err)
	}
}

// What Go prints is read as it is.
func TestReport(t *testing.T) {
	good := result{target: target{"a", "FuzzA"}}
	good.read("fuzz: elapsed: 0s, gathering baseline coverage: 12/12 completed, now fuzzing with 2 workers\nfuzz: elapsed: 27s, execs: 319644 (9880/sec), new interesting: 281 (total: 293)\n" +
		"fuzz: elapsed: 30s, execs: 366785 (15714/sec), new interesting: 285 (total: 297)\nPASS\nok  	x	30.108s\n")
	bad := result{target: target{"b", "FuzzB"}, crashes: 1}
	bad.read("fuzz: elapsed: 1m3s, execs: 79 (26/sec), new interesting: 1 (total: 35)\n--- FAIL: FuzzB (0.01s)\n")
	var out bytes.Buffer
	if n := report(&out, []result{good, bad}); n != 1 {
		t.Errorf("%d crashes", n)
	}
	var got [][]string
	for line := range strings.Lines(out.String()) {
		got = append(got, strings.Fields(line))
	}
	want := [][]string{{"target", "package", "executions", "executions/s", "new", "interesting", "crashes"}, {"FuzzA", "a", "366785", "12226", "285", "0"}, {"FuzzB", "b", "79", "1", "1", "1"}, {"2", "targets,", "1", "crashes"}}
	if !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("got\n%s", out.String())
	}
}
