package burnin

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/hostler-project/hostler/inventory"
)

// smartPage is the log page "SMART / Health Information", 512 bytes (NVMe base specification 2.0, figure 207).
const (
	smartPage  = 0x02
	smartBytes = 512
)

// criticalWarnings are the bits of its first byte.
var criticalWarnings = []string{
	"the spare capacity is below its threshold",
	"a temperature is outside its thresholds",
	"reliability is degraded by media or internal errors",
	"the medium is read-only",
	"the backup of volatile memory has failed",
	"the persistent memory region is read-only or unreliable",
}

// testSMART asks every NVMe controller for its warnings.
func testSMART(ctx context.Context, r Runner, _ time.Duration) []inventory.TestResult {
	var results []inventory.TestResult
	for _, d := range r.Machine.Disks {
		if d.Medium.Kind != inventory.MediumNVMe {
			continue
		}
		if ctx.Err() != nil {
			return append(results, aborted(d.Medium.String()))
		}
		begin := time.Now()
		res := smart(d)
		res.Component, res.Seconds = d.Medium.String(), time.Since(begin).Seconds()
		results = append(results, res)
	}
	return results
}

func smart(d Disk) inventory.TestResult {
	if d.LogPage == nil {
		return inventory.TestResult{Verdict: inventory.Inconclusive, Reason: "there is no way to ask this drive for its log"}
	}
	b := make([]byte, smartBytes)
	if err := d.LogPage(smartPage, b); err != nil {
		return inventory.TestResult{Verdict: inventory.Inconclusive, Reason: fmt.Sprintf("read its SMART log: %v", err)}
	}
	res := inventory.TestResult{Verdict: inventory.Pass, Values: map[string]float64{
		"temperature_K":   float64(binary.LittleEndian.Uint16(b[1:])),
		"spare_percent":   float64(b[3]),
		"used_percent":    float64(b[5]),
		"power_on_hours":  float64(binary.LittleEndian.Uint64(b[128:])),
		"media_errors":    float64(binary.LittleEndian.Uint64(b[160:])),
		"unsafe_shutdown": float64(binary.LittleEndian.Uint64(b[144:])),
	}}
	var warnings []string
	for bit := range 8 {
		if b[0]&(1<<bit) == 0 {
			continue
		}
		if bit < len(criticalWarnings) {
			warnings = append(warnings, criticalWarnings[bit])
		} else {
			warnings = append(warnings, fmt.Sprintf("warning bit %d", bit))
		}
	}
	if len(warnings) > 0 {
		res.Verdict, res.Reason = inventory.Fail, "the drive warns: "+strings.Join(warnings, ", ")
	}
	return res
}
