package burnin

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// ThisMachine is the processors and the free memory of the machine that this program runs on; the caller adds disks.
func ThisMachine() (Machine, error) {
	cpus, err := online("/sys/devices/system/cpu/online")
	free, err2 := available("/proc/meminfo")
	return Machine{CPUs: cpus, FreeMemory: free}, errors.Join(err, err2)
}

// online reads a list of processors as the kernel writes it: "0-3,8".
func online(file string) ([]int, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("burnin: list processors: %w", err)
	}
	var cpus []int
	for part := range strings.SplitSeq(strings.TrimSpace(string(b)), ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		a, err := strconv.Atoi(from)
		z, err2 := strconv.Atoi(to)
		if err != nil || err2 != nil || z < a {
			return nil, fmt.Errorf("burnin: list processors: %s says %q", file, strings.TrimSpace(string(b)))
		}
		for n := a; n <= z; n++ {
			cpus = append(cpus, n)
		}
	}
	return cpus, nil
}

// available is MemAvailable in bytes: what can be taken without pushing anything out.
func available(file string) (int64, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, fmt.Errorf("burnin: measure free memory: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) == 3 && f[0] == "MemAvailable:" && f[2] == "kB" {
			kb, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				break
			}
			return kb << 10, nil
		}
	}
	return 0, fmt.Errorf("burnin: measure free memory: %s has no MemAvailable in kB", file)
}
