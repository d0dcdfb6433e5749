package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// The whole run over stand-ins, and with it what the worker costs on a machine with eight GPUs.
func TestOverStandIns(t *testing.T) {
	if _, err := exec.LookPath("cc"); err != nil {
		t.Skip("SKIPPED: no stand-in for NVML: there is no C compiler (cc)")
	}
	worker := filepath.Join(t.TempDir(), "hostler-nvml")
	for _, f := range []string{"../../cmd/hostler-nvml", "../../health/nvml"} { // Go's test cache sees what is read
		names, err := filepath.Glob(f + "/*.go")
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			if _, err := os.ReadFile(n); err != nil {
				t.Fatal(err)
			}
		}
	}
	cmd := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-ldflags", "-s -w -extldflags=-Wl,-z,lazy", "-o", worker, "../../cmd/hostler-nvml")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1", "CGO_CFLAGS=-O2 -Wno-deprecated-declarations")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var out strings.Builder
	if err := run(t.Context(), []string{worker, "11", "--standin", "H100:8"}, &out); err != nil {
		t.Fatal(err)
	}
	text := out.String()
	for _, want := range []string{"8 GPUs, NVIDIA H100 80GB HBM3", "\nG5   answered: recovery\n", "\nG15  not supported: retired.pending, retired.single, retired.double\n",
		"\nG27  answered: link.replay, link.recovery, link.crc\n", "\nG40  answered: read, nvlink, ancestor\n", "\nG37  not supported: cc.ready\n", "signals by the model alone: 0"} {
		if !strings.Contains(text, want) {
			t.Errorf("missing %q in\n%s", want, text)
		}
	}
	for pattern, limit := range map[string]float64{`memory: worker ([0-9.]+) MB`: 16, `CPU at rest over [0-9]+ s: worker ([0-9.]+) %`: 0.5} {
		m := regexp.MustCompile(pattern).FindStringSubmatch(text)
		if m == nil {
			t.Fatalf("no %s in\n%s", pattern, text)
		}
		if n, err := strconv.ParseFloat(m[1], 64); err != nil || n <= 0 || n > limit {
			t.Errorf("%s, the limit is %v", m[0], limit)
		}
		t.Log(m[0])
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"worker"}, {"worker", "long"}, {"worker", "0"}, {"worker", "1", "--standin"}, {"worker", "1", "--other", "H100:8"}, {"worker", "1", "--standin", "H100"}} {
		if err := run(t.Context(), args, &strings.Builder{}); err == nil || !strings.HasPrefix(err.Error(), "usage: ") {
			t.Errorf("%v: %v", args, err)
		}
	}
}
