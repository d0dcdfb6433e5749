package faults

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A told is one change of a public record, as a watcher heard it or the recorder saw it.
type told struct {
	rev  int64 // 0 where the watcher was not told: the id comes with the last change of a revision
	node string
	sum  [32]byte // of the record; zero for one that is gone
}

// A stretch is what a watcher heard from one list on: the records of the list, and the changes after it.
type stretch struct {
	from    int64
	list    map[string][32]byte
	changes []told
}

// Watchers follow /v1/watch by its rules: what comes before an id counts when the id is there, a cut is followed by
// Last-Event-ID at whichever replica, and only 410 allows to list again.
type Watchers struct {
	site *Site
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu       sync.Mutex
	all      []*stretch
	cuts     int // connections that ended and were taken up again
	relisted int
	wrong    []string
}

// Watch starts n watchers; each is cut off now and then.
func (s *Site) Watch(ctx context.Context, n int) *Watchers {
	w := &Watchers{site: s}
	ctx, w.stop = context.WithCancel(ctx)
	for range n {
		w.wg.Go(func() { w.follow(ctx) })
	}
	return w
}

func (w *Watchers) follow(ctx context.Context) {
	last := ""
	var now *stretch
	for ctx.Err() == nil {
		one, cut := context.WithTimeout(ctx, time.Duration(3+rand.IntN(10))*time.Second)
		code := w.stream(one, &last, &now)
		cut()
		w.mu.Lock()
		if code == http.StatusGone {
			w.relisted++
			last, now = "", nil
		} else if last != "" {
			w.cuts++
		}
		w.mu.Unlock()
		sleep(ctx, 100*time.Millisecond)
	}
}

// stream reads one connection to its end.
func (w *Watchers) stream(ctx context.Context, last *string, now **stretch) int {
	d := w.site.Daemons[rand.IntN(len(w.site.Daemons))]
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, d.API+"/v1/watch", nil)
	if err != nil {
		return 0
	}
	q.Header.Set("Authorization", "Bearer "+w.site.Admin)
	if *last != "" {
		q.Header.Set("Last-Event-ID", *last)
	}
	a, err := http.DefaultClient.Do(q)
	if err != nil {
		return 0
	}
	defer a.Body.Close()
	if a.StatusCode != http.StatusOK {
		return a.StatusCode
	}
	var id, name, data string
	var waiting []told
	listed := map[string][32]byte{}
	for r := bufio.NewReader(a.Body); ; {
		line, err := r.ReadString('\n')
		if err != nil {
			return 0
		}
		field, value, _ := strings.Cut(strings.TrimRight(line, "\n"), ": ")
		switch {
		case field == "id":
			id = value
		case field == "event":
			name = value
		case field == "data":
			data = value
		case line == "\n" && name != "":
			w.event(&waiting, listed, last, now, id, name, data)
			id, name, data = "", "", ""
		}
	}
}

// event takes one event in.
func (w *Watchers) event(waiting *[]told, listed map[string][32]byte, last *string, now **stretch, id, name, data string) {
	var who struct{ ID string }
	_ = json.Unmarshal([]byte(data), &who) // a record without an id will be missed
	_, number, _ := strings.Cut(id, ".")
	rev, _ := strconv.ParseInt(number, 10, 64)
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case name == "synced":
		*now = &stretch{from: rev, list: listed}
		w.all = append(w.all, *now)
	case *now == nil:
		listed[who.ID] = sha256.Sum256([]byte(data))
		return
	default:
		t := told{node: who.ID}
		if name == "node" {
			t.sum = sha256.Sum256([]byte(data))
		}
		*waiting = append(*waiting, t)
	}
	if id == "" {
		return
	}
	*last = id
	for i := range *waiting {
		(*waiting)[i].rev = rev
	}
	(*now).changes = append((*now).changes, *waiting...)
	*waiting = nil
}

// End stops the watchers and compares what they heard with what was stored: the same changes in the same order, none
// missing, none twice (compare), up to where each had come.
func (w *Watchers) End() (heard, cuts, relisted, merged int, wrong []string) {
	w.stop()
	w.wg.Wait()
	for i, s := range w.all {
		heard += len(s.changes)
		n, bad := s.compare(w.site.Recorder.Publics())
		if merged += n; bad != "" {
			w.wrong = append(w.wrong, fmt.Sprintf("stretch %d from revision %d: %s", i, s.from, bad))
		}
	}
	return heard, w.cuts, w.relisted, merged, w.wrong
}

// compare walks both, batch by batch: the changes that came with one id. A list may be ahead of the revision that it is
// told with: changes that it holds are not told again. A daemon whose own watch was overtaken by a compaction lists again
// and tells, in one batch, where everything is now: that is the one batch that may leave changes out, and it is counted.
func (s *stretch) compare(stored []told) (merged int, wrong string) {
	ahead := map[string]int{} // node → place in stored of the record that the list had, where that is after from
	was := map[string][32]byte{}
	for i, t := range stored {
		sum, listed := s.list[t.node]
		_, found := ahead[t.node]
		switch {
		case t.rev <= s.from:
			was[t.node] = t.sum
		case listed && !found && was[t.node] != sum && t.sum == sum:
			ahead[t.node] = i
		}
	}
	var rest []told
	for i, t := range stored {
		if t.rev > s.from && i > at(ahead, t.node) {
			rest = append(rest, t)
		}
	}
	for n := 0; n < len(s.changes); {
		end, id := n, s.changes[n].rev
		for end < len(s.changes) && s.changes[end].rev == id {
			end++
		}
		due := 0
		for due < len(rest) && rest[due].rev <= id {
			due++
		}
		heard, want := s.changes[n:end], rest[:due]
		switch {
		case slices.EqualFunc(heard, want, same):
		case slices.EqualFunc(sorted(heard), sorted(newest(want)), same):
			merged++
		default:
			return merged, fmt.Sprintf("with id %d came %d changes, stored are %d", id, len(heard), len(want))
		}
		rest, n = rest[due:], end
	}
	return merged, ""
}

func same(a, b told) bool { return a.node == b.node && a.sum == b.sum }

// newest is the last change of each node.
func newest(all []told) []told {
	last := map[string]told{}
	for _, t := range all {
		last[t.node] = t
	}
	return slices.Collect(maps.Values(last))
}

func sorted(all []told) []told {
	return slices.SortedFunc(slices.Values(all), func(a, b told) int { return strings.Compare(a.node, b.node) })
}

func at(m map[string]int, node string) int {
	if i, ok := m[node]; ok {
		return i
	}
	return -1
}
