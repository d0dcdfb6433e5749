package burnin

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/hostler-project/hostler/inventory"
)

const (
	slabBytes   = 4 << 20
	slabWords   = slabBytes / 8
	memoryShare = 0.5                           // of what is free: the tester and the kernel must live on
	memorySeed  = uint64(0x5aa5_96c3_3c69_a55a) // neither the address alone nor a pattern that idle cells hold
)

// A span is the memory that one processor tests: slabs, and what was wrong in them.
type span struct {
	slabs      [][]uint64
	base       uint64 // number of its first slab, so that no two words of the machine hold the same
	wrong      int
	first      string // the first wrong word in words
	err        error
	write      time.Duration
	verify     time.Duration
	bytesWrote int64
	bytesRead  int64
}

// testMemory fills free memory with each word's own address for half of its time, then reads everything while writing
// the inverse, then reads the inverse. So the tested amount follows the machine's speed, and is far larger than its
// caches where there is time.
func testMemory(ctx context.Context, r Runner, limit time.Duration) []inventory.TestResult {
	begin := time.Now()
	workers := max(len(r.Machine.CPUs), 1)
	most := int(float64(r.Machine.FreeMemory) * memoryShare / float64(workers) / slabBytes)
	res := inventory.TestResult{Component: "memory", Verdict: inventory.Pass}
	if most < 1 {
		res.Verdict, res.Reason = inventory.Inconclusive, fmt.Sprintf("only %d bytes are free: nothing to test", r.Machine.FreeMemory)
		return []inventory.TestResult{res}
	}
	spans := make([]*span, workers)
	var wg sync.WaitGroup
	each := func(f func(s *span)) {
		for _, s := range spans {
			wg.Go(func() { f(s) })
		}
		wg.Wait()
	}
	for i := range spans {
		spans[i] = &span{base: uint64(i) << 40 / slabBytes}
	}
	defer each((*span).unmap)

	each(func(s *span) { s.fill(ctx, most, begin.Add(limit/2)) })
	r.settled(spans)
	each(func(s *span) { s.check(ctx, 0, true) })
	r.settled(spans)
	each(func(s *span) { s.check(ctx, ^uint64(0), false) })
	if ctx.Err() != nil {
		return []inventory.TestResult{aborted("memory")}
	}
	return []inventory.TestResult{sum(res, spans)}
}

func (r Runner) settled(spans []*span) {
	if r.settle == nil {
		return
	}
	for _, s := range spans {
		r.settle(s.slabs)
	}
}

// sum adds up what the spans found.
func sum(res inventory.TestResult, spans []*span) inventory.TestResult {
	var covered, wrong int64
	var writes, reads float64
	for _, s := range spans {
		covered += int64(len(s.slabs)) * slabBytes
		wrong += int64(s.wrong)
		writes += rate(s.bytesWrote, s.write) // they ran at the same time: rates add up
		reads += rate(s.bytesRead, s.verify)
		if s.wrong > 0 && res.Verdict != inventory.Fail {
			res.Verdict, res.Reason = inventory.Fail, s.first
		}
		if s.err != nil && res.Verdict == inventory.Pass {
			res.Verdict, res.Reason = inventory.Inconclusive, s.err.Error()
		}
	}
	res.Values = map[string]float64{"covered_MB": float64(covered) / mb, "write_MBps": writes, "verify_MBps": reads, "wrong_words": float64(wrong)}
	if wrong > 1 {
		res.Reason += fmt.Sprintf(" (and %d more wrong words)", wrong-1)
	}
	return res
}

// fill takes slabs and writes them until there are enough or the time is over; at least one.
func (s *span) fill(ctx context.Context, most int, until time.Time) {
	for len(s.slabs) < most && ctx.Err() == nil {
		b, err := unix.Mmap(-1, 0, slabBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			s.err = fmt.Errorf("take %d bytes of memory: %w", slabBytes, err)
			return
		}
		words := unsafe.Slice((*uint64)(unsafe.Pointer(&b[0])), slabWords)
		s.slabs = append(s.slabs, words)
		begin := time.Now()
		x := s.pattern(len(s.slabs) - 1)
		for i := range words {
			words[i] = x ^ uint64(i)
		}
		s.write += time.Since(begin)
		s.bytesWrote += slabBytes
		if !time.Now().Before(until) {
			return
		}
	}
}

// check reads every word, expecting the pattern xor inverse, and turns it round where asked.
func (s *span) check(ctx context.Context, inverse uint64, turn bool) {
	for n, words := range s.slabs {
		if ctx.Err() != nil {
			return
		}
		begin := time.Now()
		x := s.pattern(n) ^ inverse
		for i := range words {
			if words[i] != x^uint64(i) {
				s.fault(words, n, i, x^uint64(i))
			}
			if turn {
				words[i] = ^(x ^ uint64(i))
			}
		}
		s.verify += time.Since(begin)
		s.bytesRead += slabBytes
	}
}

// pattern is what the words of the n-th slab hold, but for the word's own number.
func (s *span) pattern(n int) uint64 { return (s.base+uint64(n))*slabWords ^ memorySeed }

func (s *span) fault(words []uint64, slab, i int, want uint64) {
	got := words[i]
	if s.wrong++; s.wrong > 1 {
		return
	}
	s.first = fmt.Sprintf("word at offset %#x holds %016x, written was %016x", (int64(slab)*slabWords+int64(i))*8, got, want)
	if at, ok := physical(uintptr(unsafe.Pointer(&words[i]))); ok {
		s.first += fmt.Sprintf(" (physical address %#x)", at)
	}
}

func (s *span) unmap() {
	for _, w := range s.slabs {
		// Nothing can be done about memory that does not go back; it ends with the boot.
		_ = unix.Munmap(unsafe.Slice((*byte)(unsafe.Pointer(&w[0])), slabBytes))
	}
	s.slabs = nil
}

// physical is the address that a technician can find the DIMM by; only root may know (Documentation/admin-guide/mm/pagemap).
func physical(virtual uintptr) (uint64, bool) {
	f, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return 0, false
	}
	defer f.Close()
	page := uintptr(os.Getpagesize())
	var entry [8]byte
	if _, err := f.ReadAt(entry[:], int64(virtual/page*8)); err != nil {
		return 0, false
	}
	e := binary.LittleEndian.Uint64(entry[:])
	frame := e & (1<<55 - 1)
	return frame*uint64(page) + uint64(virtual%page), e>>63 == 1 && frame != 0
}
