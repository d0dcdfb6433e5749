package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A cost is what both processes have used so far.
type cost struct{ worker, self used }

type used struct {
	rss float64 // MB
	cpu time.Duration
}

// costs reads what the worker (our child that runs the program) and this process use.
func costs(program string) (cost, error) {
	var c cost
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return c, err
	}
	for _, d := range dirs {
		stat, err := os.ReadFile(filepath.Join("/proc", d.Name(), "stat"))
		if err != nil || !strings.Contains(string(stat), "("+filepath.Base(program)+")") || !strings.Contains(string(stat), fmt.Sprintf(") S %d ", os.Getpid())) {
			continue
		}
		if c.worker, err = measure(d.Name()); err != nil {
			return c, err
		}
	}
	if c.worker.rss == 0 {
		return c, errors.New("the worker's process is not to be found")
	}
	c.self, err = measure("self")
	return c, err
}

// measure reads one process: the scheduler counts nanoseconds for each thread.
func measure(pid string) (used, error) {
	var u used
	status, err := os.ReadFile(filepath.Join("/proc", pid, "status"))
	if err != nil {
		return u, err
	}
	for line := range strings.SplitSeq(string(status), "\n") {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(v), " kB"), 64)
			if err != nil {
				return u, err
			}
			u.rss = kb / 1000 * 1.024
		}
	}
	threads, err := filepath.Glob(filepath.Join("/proc", pid, "task/*/schedstat"))
	for _, t := range threads {
		b, readErr := os.ReadFile(t)
		if readErr != nil {
			continue // a thread that ended
		}
		first, _, _ := strings.Cut(string(b), " ")
		ns, parseErr := strconv.ParseInt(first, 10, 64)
		err = errors.Join(err, parseErr)
		u.cpu += time.Duration(ns)
	}
	return u, err
}

func percent(before, after used, long time.Duration) float64 {
	return 100 * float64(after.cpu-before.cpu) / float64(long)
}
