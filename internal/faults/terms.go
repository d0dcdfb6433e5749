package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/hostler-project/hostler/inventory"
)

// A TermCount is what reached machines and ports, and how much of it came too late.
type TermCount struct {
	Power, Fence int
	Unplaced     int      // power orders of a daemon that had ended when they were looked at
	Old          []string // by a replica, or under a term, that another one had followed already
}

// replica is the id under which a daemon holds shards; "" before its first start.
func (d *Daemon) replica() string {
	b, _ := os.ReadFile(filepath.Join(d.dir, "replica.id"))
	return strings.TrimSpace(string(b))
}

// Terms counts all acts against the shards as the recorder saw them taken. A controller knows no term: there it counts
// whose socket the order came from. The recorder hears of a new term a moment after it began, never before, so no act is
// called old that was not.
func (s *Site) Terms() (TermCount, error) {
	var c TermCount
	fence, err := fenceActs(filepath.Join(s.Dir, "fence"))
	if err != nil {
		return c, err
	}
	byMAC, name := map[string]string{}, map[string]string{}
	for _, m := range s.Fleet.Machines {
		byMAC[m.Spec.MACs[0]] = m.ID
	}
	for _, d := range s.Daemons {
		name[d.Name] = d.replica()
	}
	s.Recorder.mu.Lock()
	defer s.Recorder.mu.Unlock()
	for _, a := range s.Fleet.Acts() {
		if a.Kind != "on" && a.Kind != "off" {
			continue
		}
		c.Power++
		if name[a.By] == "" {
			c.Unplaced++
			continue
		}
		if t, ok := s.Recorder.termAt(a.Node, func(t termChange) bool { return t.At.Before(a.At) }); ok && t.Value != name[a.By] {
			c.Old = append(c.Old, fmt.Sprintf("%s: power %s of %s by %s, but %s had held the shard since %s", a.At.Format("15:04:05.000"), a.Kind, a.Node, a.By, t.Value, t.At.Format("15:04:05.000")))
		}
	}
	for _, a := range fence {
		c.Fence++
		term, err := strconv.ParseInt(a.Term, 10, 64)
		if err != nil {
			return c, fmt.Errorf("faults: fence act %s of %s without a term (HOSTLER_TERM=%q)", a.Verb, a.Port, a.Term)
		}
		if t, ok := s.Recorder.termAt(byMAC[a.Port], func(t termChange) bool { return t.At.Before(a.At) }); ok && t.Create > term {
			c.Old = append(c.Old, fmt.Sprintf("%s: fence %s of %s under term %d, but term %d had begun at %s", a.At.Format("15:04:05.000"), a.Verb, a.Port, term, t.Create, t.At.Format("15:04:05.000")))
		}
	}
	return c, nil
}

// termAt is the newest term on a node's shard of those that match. The caller holds mu.
func (r *Recorder) termAt(node string, match func(termChange) bool) (termChange, bool) {
	all := r.terms[inventory.KeyShard(inventory.Shard(node))]
	for i := len(all) - 1; i >= 0; i-- {
		if match(all[i]) {
			return all[i], true
		}
	}
	return termChange{}, false
}

// Taken counts the shards that a replica has taken so far.
func (r *Recorder) Taken(replica string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, all := range r.terms {
		for _, t := range all {
			if t.Value == replica {
				n++
			}
		}
	}
	return n
}
