package doctor

import (
	"fmt"
	"strings"
	"time"
)

func found(format string, a ...any) Finding { return Finding{Found: fmt.Sprintf(format, a...)} }

func (x Finding) warn(fix string) Finding { x.Level, x.Fix = Warn, fix; return x }
func (x Finding) fail(fix string) Finding { x.Level, x.Fix = Fail, fix; return x }

func (x Finding) since(t time.Time) Finding { x.Since = t; return x }

// startStore is how a store that does not answer is started.
func startStore(f Facts) string {
	if f.Embedded {
		return "systemctl restart hostlerd (the store runs inside it); journalctl -n 50 -u hostlerd"
	}
	return "systemctl start etcd, on that member's machine; journalctl -u etcd -n 50"
}

func recoverStore(f Facts) string { return "hostlerd store recover" + f.Config }

func judgeStore(f Facts) []Finding {
	var out []Finding
	leader, up := false, 0
	for _, m := range f.Members {
		if m.Err != "" {
			x := found("%s does not answer: %s", m.Endpoint, m.Err).warn(startStore(f))
			out = append(out, x)
			continue
		}
		up++
		leader = leader || m.Leader
		for _, fault := range m.Faults {
			switch {
			case strings.Contains(fault, "NOSPACE"):
				out = append(out, found("%s: alarm NOSPACE: no write is taken", m.Endpoint).fail(recoverStore(f)))
			case strings.Contains(fault, "CORRUPT"):
				out = append(out, found("%s: alarm CORRUPT: its data differ from the other members'", m.Endpoint).
					fail("stop that member and replace it by a new one (etcdctl member remove, member add); with a single member: hostlerd restore"))
			default:
				out = append(out, found("%s: %s", m.Endpoint, fault).fail(startStore(f)))
			}
		}
	}
	switch {
	case len(f.Members) == 0:
		out = append(out, found("no member is known").fail(startStore(f)))
	case up == 0:
		for i := range out {
			out[i].Level = Fail
		}
	case len(out) == 0:
		out = append(out, found("%d of %d members answer, etcd %s", up, len(f.Members), f.Members[0].Version))
	}
	return out
}

// slowWrite is what a write may take: above, claims are slow for people, and etcd's own elections come near.
const slowWrite = 500 * time.Millisecond

func judgeWrites(f Facts) []Finding {
	w := f.Write
	switch {
	case w.At.IsZero():
		return []Finding{found("not tried yet").warn("ask again in a few seconds")}
	case w.Full:
		return []Finding{found("refused: the store is full. Reads, boots and tenants go on; claims and releases wait").fail(recoverStore(f)).since(w.Since)}
	case w.Safe:
		return []Finding{found("%s", w.Err).fail("hostlerd restore FILE, from a backup; or, if there is none that is younger: hostlerd store acknowledge" + f.Config).since(w.Since)}
	case w.Err != "":
		return []Finding{found("not taken: %s. Boots are answered from memory; nothing is started", w.Err).fail(startStore(f)).since(w.Since)}
	case w.Took > slowWrite:
		return []Finding{found("a write takes %v", w.Took.Round(time.Millisecond)).warn("give etcd a disk of its own: look at who writes with iostat -x 5")}
	}
	return []Finding{found("taken in %v", w.Took.Round(10*time.Microsecond))}
}

func judgeSpace(f Facts) []Finding {
	var out []Finding
	for _, m := range f.Members {
		if m.Err != "" {
			continue
		}
		x := found("%s: %s, %s of it in use, of %s", m.Endpoint, bytes(m.Size), bytes(m.InUse), bytes(m.Quota))
		switch {
		case m.Quota > 0 && m.InUse*10 >= m.Quota*8:
			x = x.warn("raise etcd.quota in site.yaml (a cluster: --quota-backend-bytes) and restart: the records themselves fill it")
		case m.Quota > 0 && m.Size*10 >= m.Quota*8:
			x = x.warn(recoverStore(f))
		}
		out = append(out, x)
	}
	if len(out) == 0 {
		out = append(out, found("not known: no member answers").fail(startStore(f)))
	}
	return out
}

// History that is kept although nobody compacts shows as many revisions over a long time.
const (
	longHistory = 2 * time.Hour
	manyKept    = 100_000
)

func judgeHistory(f Facts) []Finding {
	h := f.History
	kept := h.Revision - h.Compacted
	x := found("%d revisions are kept, at revision %d", kept, h.Revision)
	if kept > manyKept && f.Now.Sub(later(h.Moved, f.Started)) > longHistory {
		return []Finding{x.warn("start etcd with --auto-compaction-mode=periodic --auto-compaction-retention=10m").since(h.Moved)}
	}
	return []Finding{x}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// A watch hears at least so often of revisions that touched nothing of ours.
const (
	embeddedProgress = 30 * time.Second
	clusterProgress  = 11 * time.Minute
)

func judgeCopy(f Facts) []Finding {
	c, patience := f.Copy, clusterProgress
	if f.Embedded {
		patience = embeddedProgress
	}
	if c.Lag > 0 && f.Now.Sub(c.Since) > patience {
		return []Finding{found("%d revisions behind", c.Lag).fail("systemctl restart hostlerd").since(c.Since)}
	}
	return []Finding{found("up to date")}
}

// A reconciler that does not come round is stuck; it decides about every node twice a second.
const (
	stuckRound = 30 * time.Second
	slowRound  = 5 * time.Second
)

func judgeReconciler(f Facts) []Finding {
	r := f.Reconciler
	switch {
	case f.Write.Err != "":
		return []Finding{found("no node is moved while the store takes no writes").fail("mend the store first: the rows above").since(f.Write.Since)}
	case f.Now.Sub(later(r.Last, f.Started)) > stuckRound:
		return []Finding{found("no round has ended for %v", f.Now.Sub(later(r.Last, f.Started)).Round(time.Second)).fail("systemctl restart hostlerd").since(r.Last)}
	case r.Longest > slowRound:
		return []Finding{found("its longest round took %v", r.Longest.Round(time.Millisecond)).warn("journalctl -n 100 -u hostlerd: which node's decisions are slow")}
	case r.Last.IsZero():
		return []Finding{found("begins")}
	}
	return []Finding{found("last round %v ago, longest %v", f.Now.Sub(r.Last).Round(time.Millisecond), r.Longest.Round(time.Millisecond))}
}

func judgeShards(f Facts) []Finding {
	s := f.Shards
	if s.Nobody > 0 {
		return []Finding{found("%d of %d shards are nobody's: their nodes wait", s.Nobody, s.Total).warn("start another hostlerd, or wait for an election: systemctl status hostlerd on every replica's machine")}
	}
	return []Finding{found("this daemon holds %d of %d", s.Held, s.Total)}
}

func judgeBreaker(f Facts) []Finding {
	b := f.Breaker
	if b.Open {
		return []Finding{found("open: %s. No power, no erasure", b.Cause).fail("hostler breaker close --reason TEXT, once you know why it opened").since(b.Since)}
	}
	if !b.Known {
		return []Finding{found("never opened")}
	}
	return []Finding{found("closed")}
}

func judgeInvariants(f Facts) []Finding {
	a := f.Audit
	if !a.Known {
		return []Finding{found("not looked at by this daemon")}
	}
	var out []Finding
	for _, b := range a.Broken {
		out = append(out, found("%s", b).fail("hostler audit").since(a.Since))
	}
	if len(out) == 0 {
		out = append(out, found("all hold"))
	}
	return out
}

func judgeRestore(f Facts) []Finding {
	if len(f.Restored) == 0 {
		return []Finding{found("none")}
	}
	return []Finding{found("%d in use since before the restore, by the record: %s. Ask each tenant", len(f.Restored), strings.Join(f.Restored, ", ")).
		warn("hostler node history NODE; one that is not its tenant's any more: hostler claim release TENANT/RESERVATION")}
}
