package burnin

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostler-project/hostler/inventory"
)

// A kernel is a piece of work whose every bit of the answer is known before: integers, or floating point numbers small
// enough that every order of adding them is exact. A comparison with the machine's own first answer would call a
// constant wrong answer right.
type kernel struct {
	name   string
	bytes  int64 // bytes worked on, for the rate; 0 where it says nothing
	answer uint64
	run    func() uint64
}

const blockBytes = 64 << 10

// block is what SHA-256 and CRC-32C work on: bytes of a small generator, the same everywhere.
var block = func() []byte {
	b := make([]byte, blockBytes)
	x := uint64(88172645463325252) // xorshift64, Marsaglia 2003
	for i := 0; i < len(b); i += 8 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		binary.LittleEndian.PutUint64(b[i:], x)
	}
	return b
}()

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// knownAnswers are the kernels of the cpu test: the integer units, the checksum instruction, the vector and the floating
// point units. A test computes the answers in another way.
func knownAnswers(int) []kernel {
	return []kernel{
		{"sha256", blockBytes, 0x6abae36373205a56, func() uint64 {
			sum := sha256.Sum256(block)
			return binary.BigEndian.Uint64(sum[:])
		}},
		{"crc32c", blockBytes, 0x636ab3a1, func() uint64 { return uint64(crc32.Checksum(block, castagnoli)) }},
		{"matrix-integer", 0, 0x2c190e4da36702c3, matrixInt},
		{"matrix-float", 0, 0xb53cc28a209bdc9e, matrixFloat},
	}
}

const side = 40 // of the square matrices

// matrixInt multiplies two matrices of 64-bit integers with wrap-around and folds the product.
func matrixInt() uint64 {
	var a, b [side][side]uint64
	for i := range side {
		for j := range side {
			a[i][j] = binary.LittleEndian.Uint64(block[(i*side+j)*8:])
			b[i][j] = binary.LittleEndian.Uint64(block[(j*side+i)*8+side*side*8:])
		}
	}
	var fold uint64
	for i := range side {
		for j := range side {
			var sum uint64
			for k := range side {
				sum += a[i][k] * b[k][j]
			}
			fold = fold*1099511628211 + sum
		}
	}
	return fold
}

// matrixFloat does the same with small integers as float64: no product or sum leaves the 53 bits that are exact.
func matrixFloat() uint64 {
	var a, b [side][side]float64
	for i := range side {
		for j := range side {
			a[i][j] = float64(int8(block[i*side+j]))
			b[i][j] = float64(int8(block[j*side+i+side*side]))
		}
	}
	var fold uint64
	for i := range side {
		for j := range side {
			var sum float64
			for k := range side {
				sum += a[i][k] * b[k][j]
			}
			fold = fold*1099511628211 + uint64(int64(sum))
		}
	}
	return fold
}

// pinThread ties the calling goroutine's thread to one processor. The goroutine must have locked its thread and must end
// without unlocking it, so that the thread dies with its tie.
func pinThread(cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	return unix.SchedSetaffinity(0, &set)
}

// A core is what one processor did.
type core struct {
	rounds int64
	hashed time.Duration
	result inventory.TestResult // Verdict "" while nothing is wrong
}

// maxFaults is how many single faults a test names; the rest is only counted, since a record is at most 64 KiB.
const maxFaults = 16

func testCPUs(ctx context.Context, r Runner, limit time.Duration) []inventory.TestResult {
	begin := time.Now()
	cores := make([]core, len(r.Machine.CPUs))
	var wg sync.WaitGroup
	for i, cpu := range r.Machine.CPUs {
		wg.Go(func() { cores[i] = r.testCPU(ctx, cpu, begin.Add(limit)) })
	}
	wg.Wait()

	all := inventory.TestResult{Component: "all processors", Verdict: inventory.Pass,
		Seconds: time.Since(begin).Seconds(), Values: map[string]float64{"processors": float64(len(cores))}}
	var results []inventory.TestResult
	wrong, slowest := 0, 0.0
	for i, c := range cores {
		if c.result.Verdict == inventory.Aborted {
			return []inventory.TestResult{aborted(all.Component)}
		}
		if c.result.Verdict != "" {
			if wrong++; wrong <= maxFaults {
				results = append(results, c.result)
			}
			continue
		}
		speed := rate(c.rounds*blockBytes, c.hashed)
		all.Values["rounds"] += float64(c.rounds)
		all.Values["sha256_MBps"] += speed
		if i == 0 || speed < slowest {
			slowest = speed
			all.Values["slowest_MBps"], all.Values["slowest_processor"] = speed, float64(r.Machine.CPUs[i])
		}
	}
	if wrong > 0 {
		all.Verdict, all.Reason = worst(results), fmt.Sprintf("%d of %d processors did not give right answers", wrong, len(cores))
	}
	return append(results, all)
}

// testCPU works on one processor until the time is over. Every round does every kernel, at least once.
func (r Runner) testCPU(ctx context.Context, cpu int, until time.Time) (c core) {
	name := fmt.Sprintf("cpu%d", cpu)
	pin, kernels := r.pin, r.kernels
	if pin == nil {
		pin = pinThread
	}
	if kernels == nil {
		kernels = knownAnswers
	}
	runtime.LockOSThread()
	if err := pin(cpu); err != nil {
		c.result = inventory.TestResult{Component: name, Verdict: inventory.Inconclusive, Reason: fmt.Sprintf("cannot run on it: %v", err)}
		return c
	}
	list := kernels(cpu)
	for {
		for _, k := range list {
			begin := time.Now()
			got := k.run()
			if k.name == "sha256" {
				c.hashed += time.Since(begin)
			}
			if got != k.answer {
				c.result = inventory.TestResult{Component: name, Verdict: inventory.Fail,
					Reason: fmt.Sprintf("%s gave %016x, the answer is %016x (round %d)", k.name, got, k.answer, c.rounds+1)}
				return c
			}
		}
		c.rounds++
		if ctx.Err() != nil {
			c.result = aborted(name)
			return c
		}
		if !time.Now().Before(until) {
			return c
		}
	}
}

// worst is the strongest verdict among results that did not pass.
func worst(results []inventory.TestResult) string {
	v := inventory.Inconclusive
	for _, r := range results {
		if r.Verdict == inventory.Fail {
			v = inventory.Fail
		}
	}
	return v
}

// fastMBps divides machines of metal (SHA-256 at 300 MB/s and more a core) from emulated ones (about 14 MB/s).
const fastMBps = 100

// isFast measures one processor for a moment, so that an emulated machine is not kept for a minute.
func (r Runner) isFast(ctx context.Context) bool {
	if r.speed != nil {
		return r.speed(ctx)
	}
	begin := time.Now()
	for range 4 {
		sha256.Sum256(block)
	}
	return rate(4*blockBytes, time.Since(begin)) > fastMBps
}
