// Command gpucheck is what `make gpu-check` runs: the agent's side of health/nvml with the real hostler-nvml, on a machine
// with NVIDIA GPUs. It prints which checks answered, which are not supported, what a poll takes, and what both processes
// cost; with --standin it does the same over stand-ins, which is how this page of numbers is tested. It judges nothing for
// good: what it says is for a person.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hostler-project/hostler/health/nvml"
	standin "github.com/hostler-project/hostler/internal/standin/nvml"
)

// usage is printed for anything but what it says.
const usage = "usage: gpucheck WORKER SECONDS [--standin SHAPE:COUNT]"

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "gpu-check:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) != 2 && (len(args) != 4 || args[2] != "--standin") {
		return errors.New(usage)
	}
	seconds, err := strconv.Atoi(args[1])
	if err != nil || seconds < 1 {
		return errors.New(usage)
	}
	s := &nvml.Supervisor{Program: args[0], Sys: "/sys", Deadlines: nvml.Standard(), Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	if len(args) == 4 {
		clean, err := stand(ctx, s, args[3])
		if err != nil {
			return err
		}
		defer clean()
	}
	if gpus := nvml.PCI(s.Sys); len(gpus) == 0 {
		fmt.Fprintln(out, "gpu-check: SKIPPED: this machine has no NVIDIA GPU")
		return nil
	}
	return watch(ctx, s, time.Duration(seconds)*time.Second, out)
}

// stand puts stand-ins in the place of the driver.
func stand(ctx context.Context, s *nvml.Supervisor, what string) (func(), error) {
	shape, n, _ := strings.Cut(what, ":")
	count, err := strconv.Atoi(n)
	if err != nil {
		return nil, errors.New(usage)
	}
	dir, err := os.MkdirTemp("", "gpucheck")
	if err != nil {
		return nil, err
	}
	clean := func() { _ = os.RemoveAll(dir) }
	library, err := standin.Build(ctx, dir)
	if err != nil {
		clean()
		return nil, err
	}
	m, err := standin.New(filepath.Join(dir, "state"), shape, count)
	if err != nil {
		clean()
		return nil, err
	}
	s.Args, s.Env, s.Sys, s.VersionFile = []string{"--library", library}, []string{m.Env()}, m.Sys(), m.VersionFile()
	return clean, nil
}

// watch takes samples for a while and prints what came of it.
func watch(ctx context.Context, s *nvml.Supervisor, long time.Duration, out io.Writer) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var took []time.Duration
	samples := make(chan nvml.Sample, 1000)
	s.Tell = func(n nvml.Sample) { samples <- n }
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	defer func() { stop(); <-done }()

	var first, last, previous nvml.Sample
	found := map[string]string{}
	var before cost
	rest := time.NewTimer(time.Hour)
	begin := time.Now()
	for end := time.After(long + 30*time.Second); ; {
		select {
		case n := <-samples:
			if n.Status.State != nvml.Answering {
				if n.Status.State != nvml.Starting {
					fmt.Fprintf(out, "NVML: %s %s\n", n.Status.State, n.Status.Text)
				}
				continue
			}
			if first.At.IsZero() { // from here on it is at rest
				first, begin = n, time.Now()
				var err error
				if before, err = costs(s.Program); err != nil {
					return err
				}
				rest.Reset(long)
			}
			if n.At.After(last.At) {
				took = append(took, n.Took)
			}
			for _, x := range nvml.Signals(previous, &n, nvml.ExpectOf(n)) {
				found[x.Incident()] = fmt.Sprintf("%s %s: %s", x.Mark, x.Incident(), x.Value)
			}
			last, previous = n, n
			continue
		case <-end:
			return fmt.Errorf("the driver never answered: %s %s", s.Sample().Status.State, s.Sample().Status.Text)
		case <-rest.C:
		}
		break
	}
	after, err := costs(s.Program)
	if err != nil {
		return err
	}
	print(out, last, took, before, after, time.Since(begin), found)
	return nil
}

func print(out io.Writer, s nvml.Sample, took []time.Duration, before, after cost, long time.Duration, found map[string]string) {
	fmt.Fprintf(out, "driver %s (module %s), NVML %s, %d GPUs, %s\n\n", s.Driver.Version, s.Driver.Kernel, s.Driver.NVML, len(s.GPUs), s.GPUs[0].Values.Text("name"))
	for _, l := range table(s) {
		for _, part := range []struct {
			name string
			keys []string
		}{{"answered", l.answered}, {"not supported", l.unsupported}, {"ERROR", l.failed}} {
			if len(part.keys) > 0 {
				fmt.Fprintf(out, "%-4s %s: %s\n", l.check, part.name, strings.Join(part.keys, ", "))
			}
		}
	}
	fmt.Fprintf(out, "\nsignals by the model alone: %d\n", len(found))
	for _, line := range found {
		fmt.Fprintln(out, "  "+line)
	}
	slow := took[0] // the first has the slow readings
	slices.Sort(took)
	fmt.Fprintf(out, "\npoll: the first %.1f ms, median of %d %.1f ms, longest %.1f ms\n", ms(slow), len(took), ms(took[len(took)/2]), ms(took[len(took)-1]))
	fmt.Fprintf(out, "calls: %d in all; up to", s.Calls.Total())
	for i, b := range s.Calls.Bounds() {
		fmt.Fprintf(out, " %s: %d", b, s.Calls.Counts[i])
	}
	fmt.Fprintf(out, "; slowest %s %.1f ms\n", s.Calls.Call, ms(s.Calls.Slowest))
	fmt.Fprintf(out, "memory: worker %.1f MB, this side %.1f MB resident\n", after.worker.rss, after.self.rss)
	fmt.Fprintf(out, "CPU at rest over %.0f s: worker %.3f %%, this side %.3f %% of a core\n", long.Seconds(), percent(before.worker, after.worker, long), percent(before.self, after.self, long))
}

// A line is what came of the readings of one check.
type line struct {
	check                         string
	answered, unsupported, failed []string
}

// table sorts every reading under its check. One that only some GPUs answer is named with them.
func table(s nvml.Sample) []line {
	var all []line
	add := func(check, key string, values []nvml.Value) {
		i := slices.IndexFunc(all, func(l line) bool { return l.check == check })
		if i < 0 {
			all, i = append(all, line{check: check}), len(all)
		}
		ok, problem := 0, ""
		for _, v := range values {
			if v.OK() {
				ok++
			} else if v.Err != "" {
				problem = v.Err
			}
		}
		switch {
		case problem != "":
			all[i].failed = append(all[i].failed, key+" ("+problem+")")
		case len(values) > 0 && ok == len(values):
			all[i].answered = append(all[i].answered, key)
		case ok > 0:
			all[i].answered = append(all[i].answered, fmt.Sprintf("%s (%d of %d)", key, ok, len(values)))
		default: // none at all: a GPU without links, or without peers
			all[i].unsupported = append(all[i].unsupported, key)
		}
	}
	for _, r := range nvml.Readings {
		var values []nvml.Value
		for _, g := range s.GPUs {
			if r.Link {
				values = append(values, g.Links[r.Key]...)
			} else if v, asked := g.Values[r.Key]; asked {
				values = append(values, v)
			}
		}
		add(r.Check, r.Key, values)
	}
	for _, r := range nvml.SystemReadings {
		if v, asked := s.System[r.Key]; asked {
			add(r.Check, r.Key, []nvml.Value{v})
		}
	}
	for _, r := range nvml.PeerReadings {
		var values []nvml.Value
		for k, v := range s.Peers {
			if strings.HasPrefix(k, r.Key+" ") {
				values = append(values, v)
			}
		}
		add(r.Check, r.Key, values)
	}
	number := func(l line) int { n, _ := strconv.Atoi(strings.TrimPrefix(l.check, "G")); return n }
	slices.SortStableFunc(all, func(a, b line) int { return number(a) - number(b) })
	return all
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
