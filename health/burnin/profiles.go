package burnin

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hostler-project/hostler/inventory"
)

// A Profile is a named list of tests.
type Profile struct {
	Name  string
	Means string // one plain sentence
	Tests []Test
}

// A Test is one row of a profile.
type Test struct {
	Name  string
	What  string               // what a person at the screen reads meanwhile
	Limit time.Duration        // how long it may take on a fast machine (about: it ends at the next safe point)
	Slow  time.Duration        // the same on one that hashes like an emulated processor
	Must  []string             // values without which a pass is none
	For   func(m Machine) bool // whether the machine has, or should have, what it tests
	run   func(ctx context.Context, r Runner, limit time.Duration) []inventory.TestResult
}

// Profiles are all that exist. Smoke is for the hand-over of a known node: at most 60 s on a server, 6 s on an emulated
// machine with one processor.
var Profiles = []Profile{
	{"smoke", "processors, free memory and every medium give right answers", []Test{
		{"cpu", "testing processors", 10 * time.Second, 1200 * time.Millisecond, []string{"sha256_MBps", "rounds", "processors"}, always, testCPUs},
		{"memory", "testing memory", 20 * time.Second, 1500 * time.Millisecond, []string{"covered_MB", "write_MBps", "verify_MBps"}, always, testMemory},
		{"disk", "testing media", 15 * time.Second, 2 * time.Second, []string{"tested_MB", "read_MBps", "write_MBps"}, hasMedia, testDisks},
		{"nvme-smart", "asking drives for warnings", time.Second, time.Second, []string{"temperature_K"}, hasNVMe, testSMART},
	}},
}

// find is the profile of that name; the error names those that there are.
func find(rows []Profile, name string) (Profile, error) {
	var known []string
	for _, p := range rows {
		if p.Name == name {
			return p, nil
		}
		known = append(known, p.Name)
	}
	return Profile{}, fmt.Errorf("burnin: there is no profile %q (known: %s)", name, strings.Join(known, ", "))
}

func (t Test) limit(fast bool) time.Duration {
	if fast {
		return t.Limit
	}
	return t.Slow
}

// left is what the tests from the i-th on may still take, in seconds.
func (p Profile) left(i int, fast bool) float64 {
	var d time.Duration
	for _, t := range p.Tests[i:] {
		d += t.limit(fast)
	}
	return d.Seconds()
}

func always(Machine) bool { return true }

func hasMedia(m Machine) bool { return len(m.Disks) > 0 || !m.NoDisks }

func hasNVMe(m Machine) bool {
	return slices.ContainsFunc(m.Disks, func(d Disk) bool { return d.Medium.Kind == inventory.MediumNVMe })
}
