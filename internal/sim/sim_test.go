package sim

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// number reads a setting of the Makefile's from the environment.
func number(name string, otherwise int64) int64 {
	if n, err := strconv.ParseInt(os.Getenv(name), 10, 64); err == nil {
		return n
	}
	return otherwise
}

// explain is a run that failed, how to see it again, and how to keep it.
func explain(r Result) string {
	return fmt.Sprintf("seed %d broke after %d transitions, %v: %v\nagain: SIM_SEED=%d SIM_NODES=%d SIM_TRANSITIONS=%d go test ./internal/sim -run 'TestSeed$' -v\n%s", r.Params.Seed, r.Transitions, r.Virtual, r.Err,
		r.Params.Seed, r.Params.Nodes, r.Params.Transitions, strings.Join(r.Trace, "\n"))
}

// A world in which nothing fails has no broken invariant either, and every node comes to rest.
func TestCalm(t *testing.T) {
	for seed := range uint64(2) {
		if r := Run(Params{Seed: seed, Nodes: 3, Transitions: 100, Calm: true}); r.Err != nil {
			t.Error(explain(r))
		}
	}
}

// TestSeed plays one seed, with its whole trace.
func TestSeed(t *testing.T) {
	seed := number("SIM_SEED", -1)
	if seed < 0 {
		t.Skip("SIM_SEED names none")
	}
	r := Run(Params{Seed: uint64(seed), Nodes: int(number("SIM_NODES", 0)), Transitions: number("SIM_TRANSITIONS", 400), Log: true})
	if r.Err != nil {
		t.Error(explain(r))
	}
}

// Seeds that once broke something stay: testdata/seeds, one file each: its parameters, and what it was.
func TestSeedsThatBroke(t *testing.T) {
	files, err := filepath.Glob("testdata/seeds/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	each(t, len(files), func(i int) {
		p, err := parameters(files[i])
		if err != nil {
			t.Error(err)
			return
		}
		if r := Run(p); r.Err != nil {
			t.Errorf("%s: %s", files[i], explain(r))
		}
	})
}

// parameters reads a file of testdata/seeds: lines "word number"; a line that begins with # is for people.
func parameters(file string) (p Params, err error) {
	f, err := os.Open(file)
	if err != nil {
		return p, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		word, text, _ := strings.Cut(lines.Text(), " ")
		if word == "#" || word == "" {
			continue
		}
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return p, fmt.Errorf("%s: %v", file, err)
		}
		switch word {
		case "seed":
			p.Seed = n
		case "nodes":
			p.Nodes = int(n)
		case "transitions":
			p.Transitions = int64(n)
		default:
			return p, fmt.Errorf("%s: no such parameter: %s", file, word)
		}
	}
	return p, nil
}

// each calls f for every number below n, on two goroutines: each history is single-threaded.
func each(t *testing.T, n int, f func(int)) {
	t.Helper()
	var wg sync.WaitGroup
	next := make(chan int)
	for range 2 {
		wg.Go(func() {
			for i := range next {
				f(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
}

// The same seed is the same history, byte for byte: every change of the store and every act.
func TestReplay(t *testing.T) {
	each(t, int(number("SIM_REPLAYS", 4)), func(i int) {
		p := Params{Seed: uint64(1_000_000 + i), Nodes: 1 + i%4, Transitions: 30}
		one, two := Run(p), Run(p)
		if one.Hash != two.Hash || one.Revisions != two.Revisions {
			for k := range one.Trace {
				if k >= len(two.Trace) || one.Trace[k] != two.Trace[k] {
					t.Errorf("seed %d went two ways (%d and %d revisions): line %d of the trace is\n%s\nand then\n%s", p.Seed, one.Revisions, two.Revisions, k, one.Trace[k], strings.Join(two.Trace[k:min(k+1, len(two.Trace))], ""))
					break
				}
			}
		}
	})
}

// Histories under all faults, until so many transitions were seen: no invariant breaks, the truth never disagrees with
// the record, and when the faults stop every node comes to rest, and to ready where somebody looks after it.
func TestHistories(t *testing.T) {
	t.Parallel() // with the fleets
	total, seed, length := number("SIM_TOTAL", 500), uint64(number("SIM_FROM", 1)), number("SIM_EACH", 200)
	began := time.Now()
	var mu sync.Mutex
	var sum struct {
		histories, broken      int
		transitions, revisions int64
		shortest               int64
		virtual                time.Duration
	}
	fired, seen := map[string]int{}, map[string]int{}
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				mu.Lock()
				p := Params{Seed: seed, Transitions: length}
				seed++
				over := sum.transitions >= total || sum.broken > 2
				mu.Unlock()
				if over {
					return
				}
				r := Run(p)
				mu.Lock()
				sum.histories++
				sum.transitions += r.Transitions
				sum.revisions += r.Revisions
				sum.virtual += r.Virtual
				if sum.shortest == 0 || r.Transitions < sum.shortest {
					sum.shortest = r.Transitions
				}
				add(fired, r.Fired)
				add(seen, r.Seen)
				if r.Err != nil {
					sum.broken++
					t.Error(explain(r))
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	t.Logf("%d histories of %d to about %d transitions, %d transitions in %d revisions, %v of virtual time in %.0f s; %d broken\nfaults fired:\n%salso seen:\n%s", sum.histories, sum.shortest, length, sum.transitions, sum.revisions,
		sum.virtual.Round(time.Hour), time.Since(began).Seconds(), sum.broken, Table(fired), table(seen))
	if sum.broken == 0 && sum.shortest < 50 {
		t.Errorf("a history has %d transitions: fewer than 50", sum.shortest)
	}
	for _, f := range Faults {
		if total >= 50_000 && fired[f.Name] == 0 {
			t.Errorf("fault %q (%s) never fired: it tests nothing", f.Name, f.ID)
		}
	}
}

func add(to, from map[string]int) {
	for k, n := range from {
		to[k] += n
	}
}

func table(seen map[string]int) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(seen)) {
		fmt.Fprintf(&b, "         %-28s %9d\n", k, seen[k])
	}
	return b.String()
}

// A time that the simulation makes is one as time.Now makes it: what passed is by the monotonic reading, what it says by
// the wall.
func TestStamp(t *testing.T) {
	year := 365 * 24 * time.Hour
	a, b := stamp(start, time.Minute), stamp(start.Add(-10*year), 2*time.Minute)
	if got := b.Sub(a); got != time.Minute || !b.After(a) {
		t.Errorf("a minute passed while the clock was set back: got %v", got)
	}
	if !b.Round(0).Equal(start.Add(-10*year)) || b.Format(time.RFC3339) != "2016-11-24T03:00:00Z" {
		t.Errorf("the wall says %v", b)
	}
	if got := b.Add(time.Second).Sub(a); got != time.Minute+time.Second {
		t.Errorf("got %v", got)
	}
}
