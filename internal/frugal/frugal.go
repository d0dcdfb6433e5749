// Package frugal is for tests: it holds one call to a bound of processor time and of memory, as fuzz targets must for
// what comes from anybody on the wire (reliability.md F-22). Time is that of the calling thread, so that a busy machine
// is no fault of the code, and a call that seems too dear is made again: the cheapest counts. It starts nothing and
// keeps nothing.
package frugal

import (
	"runtime"
	"runtime/metrics"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tries is how often a call may seem too dear: the garbage collector and the first page faults are charged to somebody.
const tries = 30

// Check calls f, and again while it costs more than the bounds; only then the test fails. f must be repeatable, and do
// its work in the goroutine that calls it.
func Check(t testing.TB, cpu time.Duration, memory uint64, f func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	least, smallest := time.Duration(1<<62), ^uint64(0)
	for range tries {
		before, begin := allocated(), spent()
		f()
		least, smallest = min(least, spent()-begin), min(smallest, allocated()-before)
		if least <= cpu && smallest <= memory {
			return
		}
	}
	t.Fatalf("it costs %v and %d bytes, may cost %v and %d (%d tries)", least, smallest, cpu, memory, tries)
}

// spent is the processor time of this thread.
func spent() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		panic(err) // Linux has this clock since 2.6.12
	}
	return time.Duration(ts.Nano())
}

// allocated is what the program ever allocated, give or take what processors hold in reserve.
func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
