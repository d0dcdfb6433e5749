// Package burnin runs the tests of a profile on this machine and gives a verdict.
//
// A Profile is a row of Profiles: tests and how long each may take. Runner.Run walks it and returns an inventory.TestRun:
// cpu (every processor does integer-exact work whose answers are known), memory (address and inverse patterns over what is
// free), disk (a scratch region is read, written, verified and put back), nvme-smart (the drive's own critical warnings).
// There are four verdicts. Fail: the hardware gave a wrong answer. Inconclusive: the tester could not tell. Aborted: the
// run was cancelled. Pass: everything that the profile asks for was seen to work; a rate of zero, a NaN, a missing value
// or a test that did not run is never a pass (health-checks.md section 2.2).
//
// The tests are bounded by time, so a fast machine is tested over more bytes. Nothing here compares machines with each
// other (health/cohort will), or knows what a verdict leads to.
package burnin

import (
	"context"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/hostler-project/hostler/inventory"
)

// A Machine is what a run works on.
type Machine struct {
	CPUs       []int // the kernel's numbers of all processors
	FreeMemory int64 // bytes that may be taken without hurting anybody
	Disks      []Disk
	NoDisks    bool // the SKU has none: that there are none to test is no gap
}

// A Runner runs profiles on one machine.
type Runner struct {
	Machine  Machine
	Progress func(inventory.Progress) // may be nil; called from one goroutine
	Rows     []Profile                // nil: Profiles

	pin     func(cpu int) error        // nil: pinThread
	kernels func(cpu int) []kernel     // nil: knownAnswers; a test breaks a processor here
	settle  func(slabs [][]uint64)     // nil: nothing; a test breaks memory here
	speed   func(context.Context) bool // nil: measure; says whether this machine is fast
}

// Run does the tests of a profile. The error is for a profile that does not exist; everything that goes wrong with the
// machine or the tests is in the results. Cancelling ctx ends it within a second with the verdict aborted.
func (r Runner) Run(ctx context.Context, profile string) (inventory.TestRun, error) {
	rows := r.Rows
	if rows == nil {
		rows = Profiles
	}
	p, err := find(rows, profile)
	if err != nil {
		return inventory.TestRun{}, err
	}
	run := inventory.TestRun{Schema: inventory.Schema, Profile: p.Name, Started: time.Now().UTC()}
	fast := r.isFast(ctx)
	for i, t := range p.Tests {
		if ctx.Err() != nil {
			break
		}
		if !t.For(r.Machine) {
			continue
		}
		if r.Progress != nil {
			r.Progress(inventory.Progress{What: t.What, Done: int64(i), Total: int64(len(p.Tests)), Unit: "tests", LeftS: p.left(i, fast)})
		}
		begin := time.Now()
		for _, res := range t.run(ctx, r, t.limit(fast)) {
			if res.Seconds == 0 {
				res.Seconds = time.Since(begin).Seconds()
			}
			res.Test = t.Name
			run.Results = append(run.Results, judge(res, t.Must))
		}
	}
	run.Finished = time.Now().UTC()
	run.Verdict = verdict(ctx, p, r.Machine, run.Results)
	return run, nil
}

// judge takes a pass back when a value is not a number, or when one that the test must have is missing or not positive.
func judge(r inventory.TestResult, must []string) inventory.TestResult {
	doubt := func(format string, args ...any) {
		if r.Verdict == inventory.Pass {
			r.Verdict, r.Reason = inventory.Inconclusive, fmt.Sprintf(format, args...)
		}
	}
	for name, v := range r.Values {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			doubt("%s is not a number", name)
			delete(r.Values, name) // JSON cannot carry it, and the whole run would be lost
		}
	}
	for _, name := range must {
		v, have := r.Values[name]
		if !have {
			doubt("%s was not measured", name)
		} else if v <= 0 {
			doubt("%s is %v: nothing was measured", name, v)
		}
	}
	switch r.Verdict {
	case inventory.Pass, inventory.Fail, inventory.Inconclusive, inventory.Aborted:
	default:
		r.Verdict, r.Reason = inventory.Inconclusive, fmt.Sprintf("the test said %q, which is no verdict", r.Verdict)
	}
	return r
}

// verdict is that of the whole run: a wrong answer counts most, then that it was cut short, then doubt.
func verdict(ctx context.Context, p Profile, m Machine, results []inventory.TestResult) string {
	seen := map[string]bool{}
	ran := map[string]bool{}
	for _, r := range results {
		seen[r.Verdict] = true
		ran[r.Test] = true
	}
	complete := len(p.Tests) > 0
	for _, t := range p.Tests {
		complete = complete && (ran[t.Name] || !t.For(m))
	}
	switch {
	case seen[inventory.Fail]:
		return inventory.Fail
	case seen[inventory.Aborted] || ctx.Err() != nil:
		return inventory.Aborted
	case seen[inventory.Inconclusive] || !complete:
		return inventory.Inconclusive
	}
	return inventory.Pass
}

// Why says in one line what kept a run from passing; "" for a pass.
func Why(run inventory.TestRun) string {
	var lines []string
	for _, r := range run.Results {
		if r.Verdict != inventory.Pass {
			lines = append(lines, fmt.Sprintf("%s of %s: %s: %s", r.Test, r.Component, r.Verdict, r.Reason))
		}
	}
	if len(lines) == 0 && run.Verdict != inventory.Pass {
		return "not every test of profile " + run.Profile + " has run"
	}
	return strings.Join(lines, "; ")
}

// aborted is the result of a test that was told to stop.
func aborted(component string) inventory.TestResult {
	return inventory.TestResult{Component: component, Verdict: inventory.Aborted, Reason: "the run was cancelled"}
}

const mb = 1e6 // rates and amounts are in 10^6 bytes, as makers of drives count

// rate is bytes over time in MB/s; no time at all is no rate.
func rate(bytes int64, took time.Duration) float64 {
	if took <= 0 {
		return 0
	}
	return float64(bytes) / mb / took.Seconds()
}
