//go:build faults

package faults

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// flat is how much a figure may differ between an early and a late window of the soak.
const flat = 0.05

// gauges are what must not grow. Memory is the process's resident size after the collector has had its way; the middle of
// a window is taken, so that one sample in the middle of a collection says nothing.
var gauges = []struct{ name, metric string }{
	{"goroutines", "go_goroutines"},
	{"descriptors", "process_open_fds"},
	{"memory", "process_resident_memory_bytes"},
}

// A sample is one look at a process: how long it had run, and the gauges.
type sample struct {
	age    time.Duration
	values []float64
}

// The soak: SOAK minutes of claims, tenancies and watches while one hostlerd of two is killed 200 times in 30 minutes. The
// other one is never killed: its figures must be flat between an early and a late window. What is killed has no long
// life; of it, the same age after a start is compared over its lives.
func TestSoak(t *testing.T) {
	minutes, err := strconv.ParseFloat(os.Getenv("SOAK"), 64)
	if err != nil {
		t.Skip("SOAK=MINUTES runs it: make soak")
	}
	length := time.Duration(minutes * float64(time.Minute))
	every := 9 * time.Second // 200 in 30 minutes
	site := open(t, Options{Daemons: 2, Quick: 16, Whole: 6, Config: map[string]any{"limits": limits, "replica": map[string]any{"lease": "2s"}}})
	quick, whole := site.Clients(t.Context(), 6, Quick, false), site.Clients(t.Context(), 4, Whole, true)
	watchers := site.Watch(t.Context(), 2)
	must(t, quick.Acked(t.Context(), 60*time.Second))
	lives, killedOne := site.Daemons[0], site.Daemons[1]
	var long, short []sample
	began, n := time.Now(), 0
	for time.Since(began) < length {
		time.Sleep(every - 2*time.Second)
		if s, ok := look(t, lives); ok {
			long = append(long, s)
		}
		if s, ok := look(t, killedOne); ok {
			short = append(short, s)
		}
		killedOne.Kill()
		n++
		must(t, killedOne.Start())
		_, err := killedOne.Serving(t.Context(), site.Admin, 30*time.Second)
		must(t, err)
		must(t, quick.Acked(t.Context(), 30*time.Second))
		time.Sleep(max(0, time.Until(began.Add(time.Duration(n)*every))))
	}
	gap := quick.Gap(began)
	ops := append(quick.End(), whole.End()...)
	table.Add(Row{fmt.Sprintf("soak of %v: hostlerd SIGKILL", length), n, len(ops), gap, "see below"})
	steady(t, "never killed", long)
	steady(t, "killed, at the same age", short)
	heard, cuts, relisted, merged, wrong := watchers.End()
	table.Say("watches: %d changes heard, %d cuts taken up again, %d lists after 410, %d batches of a daemon that had to list again itself; wrong %d", heard, cuts, relisted, merged, len(wrong))
	for _, w := range wrong {
		t.Errorf("watch: %s", w)
	}
	c, err := site.Terms()
	must(t, err)
	table.Say("acts: %d power orders (%d of daemons that had ended), %d of the fence, %d with an old term", c.Power, c.Unplaced, c.Fence, len(c.Old))
	for _, o := range c.Old {
		t.Errorf("an act with an old term: %s", o)
	}
	verdict(t, site, ops)
}

// look takes a sample; without an answer there is none.
func look(t *testing.T, d *Daemon) (sample, bool) {
	t.Helper()
	m, err := d.Metrics(t.Context())
	if err != nil {
		return sample{}, false
	}
	s := sample{age: time.Since(d.Started)}
	for _, g := range gauges {
		s.values = append(s.values, m[g.metric])
	}
	return s, true
}

// steady compares the second sixth of the samples with the last: the first is the warming up.
func steady(t *testing.T, who string, all []sample) {
	t.Helper()
	sixth := len(all) / 6
	if sixth < 2 {
		t.Errorf("%s: only %d samples", who, len(all))
		return
	}
	var out []string
	for i, g := range gauges {
		early, late := middle(all[sixth:2*sixth], i), middle(all[len(all)-sixth:], i)
		grown := late/early - 1
		mark := "ok"
		if grown > flat {
			mark = "GROWN"
			t.Errorf("%s: %s %.0f → %.0f (%+.1f %%)", who, g.name, early, late, 100*grown)
		}
		out = append(out, fmt.Sprintf("%s %.0f → %.0f (%+.1f %%, %s)", g.name, early, late, 100*grown, mark))
	}
	table.Say("hostlerd that is %s: %s", who, strings.Join(out, ", "))
}

// middle is the median of one gauge.
func middle(all []sample, gauge int) float64 {
	var v []float64
	for _, s := range all {
		v = append(v, s.values[gauge])
	}
	slices.Sort(v)
	return v[len(v)/2]
}
