package health

import (
	"strconv"
	"strings"
	"time"
)

// A Rule is one row of the tables: what a signal means, and what is to be done about it.
type Rule struct {
	Check    string // number in the catalogue
	Code     string // case of the check; of XIDs and SXids a list as the manual prints it: "25, 39-41"
	Means    string // one plain sentence without a full stop
	NVIDIA   string // the catalogue's immediate action, in brackets its investigatory one
	Severity Severity
	Actions  []Action
	Again    []Again       // what it becomes when it comes back
	Follow   string        // rules on the same part that decide instead, when they come within FollowFor
	Back     time.Duration // how far back those count; 0: FollowFor
	Decode   string        // its registers decide: links74 or nvlink5
	Attach   string        // rules on the same part that it belongs to: it is their evidence, and no incident of its own
	Undoes   string        // the rule that this one ends
	Case     string        // which case the registers showed: repeats are counted for each
	Next     string        // the next physical act for a technician
	Hardware bool          // the part itself is bad or suspect
	NoReboot bool          // a power act would hurt or destroy evidence
	Source   string        // where the row comes from; empty: the table's
}

// An Again is what a rule becomes when it happens N times within a window. Lines of one fault come in bursts: those that
// follow each other within Burst are one time.
type Again struct {
	N        int
	Within   time.Duration
	Burst    time.Duration // 0: tenMinutes
	Unit     bool          // counted per unit of the part (GPC and TPC, link), not per part
	Who      int           // and by at least so many different processes
	Alone    bool          // counted only while no other XID is on the part
	SameWho  bool          // counted per process
	Severity Severity
	Actions  []Action
	Next     string
}

const (
	day        = 24 * time.Hour
	month      = 30 * day
	tenMinutes = 10 * time.Minute
)

// FollowFor is how long a signal waits for those that decide instead of it, and how far back they count.
const FollowFor = 2 * time.Second

// Sources of the tables. A row may name its own.
const (
	SourceXID   = "NVIDIA XID catalogue 2025-10-29; open driver 595.45.04; hostler rules 2026-11-25"
	SourceSXid  = "NVIDIA fabric manager guide; open driver 595.45.04; hostler rules 2026-11-25"
	SourceCheck = "hostler checks 2026-11-25"
	SourceG5    = "NVIDIA recovery action, NVML field 230 and XID 154; open driver 595.45.04"
)

// Rules is every table, by the name that Signal.Rule gives. XIDs and SXids have a name per number.
func Rules() map[string]Rule {
	out := map[string]Rule{}
	add := func(prefix string, table []Rule, source string) {
		for _, r := range table {
			if r.Source == "" {
				r.Source = source
			}
			if prefix == "" {
				out[Signal{Check: r.Check, Code: r.Code}.Rule()] = r
				continue
			}
			for _, n := range Numbers(r.Code) {
				r.Code = strconv.Itoa(n)
				out[prefix+r.Code] = r
			}
		}
	}
	add("xid/", XIDs(), SourceXID)
	add("sxid/", SXids(), SourceSXid)
	add("", RecoveryRules(), SourceG5)
	add("", GPUChecks(), SourceCheck)
	add("", HostChecks(), SourceCheck)
	add("", LogChecks(), SourceCheck)
	return out
}

// Numbers reads a list of codes as the tables write it: "11, 32, 69", "39-41".
func Numbers(list string) []int {
	var out []int
	for f := range strings.SplitSeq(list, ",") {
		from, to, ranged := strings.Cut(strings.TrimSpace(f), "-")
		a, err := strconv.Atoi(from)
		if err != nil {
			continue
		}
		b := a
		if ranged {
			if b, err = strconv.Atoi(to); err != nil {
				continue
			}
		}
		for n := a; n <= b; n++ {
			out = append(out, n)
		}
	}
	return out
}

// unknownRule is for what no table has: it stops renting, and never drops a signal.
func unknownRule(s Signal) Rule {
	r := Rule{Check: s.Check, Code: s.Code, Severity: Degraded, Actions: []Action{DrainIdle}, Source: "no table of this version has it",
		Means: "unknown code " + s.Rule(), Next: "look the code up in the manual of the installed driver, and tell us"}
	if s.Check == CheckSXid { // the line itself says how bad it is
		switch s.Value {
		case LineFatal:
			r.Severity, r.Actions, r.Means = Fatal, []Action{DrainNow, ResetGPU}, r.Means+"; its line says fatal"
		case LineNonfatal, LineCorrectable:
			r.Severity, r.Actions, r.Means = Info, nil, r.Means+"; its line says "+s.Value
		}
	}
	return r
}

// Words that lines of the driver carry about themselves, in Signal.Value.
const (
	LineFatal       = "fatal"
	LineNonfatal    = "nonfatal"
	LineCorrectable = "correctable"
	LineDetail      = "detail" // registers and data that belong to the line before
)

// decode gives the row as it stands for one signal: registers and the line's own words are read here.
func decode(s Signal, r Rule, fabricIll bool) Rule {
	switch r.Decode {
	case decodeLinks74:
		return links74(s, r)
	case decodeNVLink5:
		return nvlink5(s, r)
	case decodeLine:
		if s.Value != LineFatal && !fabricIll {
			r.Severity, r.Actions, r.Next, r.Hardware = Info, nil, "", false
		}
	}
	return r
}
