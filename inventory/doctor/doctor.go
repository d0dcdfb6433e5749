// Package doctor judges whether a site's machinery is well: store, daemon, segments, disks, clock, keys, backups.
//
// Whoever runs the site collects Facts; Examine walks the table of checks (checks.go, host.go) over them and gives rows:
// what was looked at, how bad it is, since when, and the one command or act that helps. Checks are pure functions of the
// facts: nothing is asked, opened or changed here, and nothing is said of nodes' own lives (hostler why does).
package doctor

import (
	"cmp"
	"time"
)

// How bad a row is.
const (
	OK   = "ok"
	Warn = "warn" // goes on, but not for ever
	Fail = "fail" // something that people rely on does not work now
)

// A Row is the outcome of one check, or one of several things that it found.
type Row struct {
	Check string    `json:"check"`
	Looks string    `json:"looks" doc:"What the check looks at."`
	Level string    `json:"level" doc:"ok, warn or fail."`
	Found string    `json:"found"`
	Since time.Time `json:"since,omitzero"`
	Fix   string    `json:"fix,omitempty" doc:"The one command or act that helps."`
}

// A Report is what doctor says of a site.
type Report struct {
	Well bool      `json:"well" doc:"No row is warn or fail."`
	Now  time.Time `json:"now" doc:"The daemon's clock."`
	Rows []Row     `json:"rows"`
}

// A Finding is what a check says; Level "" is ok.
type Finding struct {
	Level string
	Found string
	Since time.Time
	Fix   string
}

// A Check is one line of the table.
type Check struct {
	Name  string
	Looks string
	Judge func(Facts) []Finding // at least one
}

// Checks is the table, in the order in which a person should mend things.
var Checks = []Check{
	{"store", "every member of etcd: reachable, leader, alarms", judgeStore},
	{"store writes", "a transaction that changes nothing: does the store take writes, how fast", judgeWrites},
	{"store space", "size of the database against its quota", judgeSpace},
	{"store history", "old revisions are compacted", judgeHistory},
	{"copy", "the daemon's copy of the store follows it", judgeCopy},
	{"reconciler", "nodes are decided about, in time", judgeReconciler},
	{"shards", "every node has a replica that looks after it", judgeShards},
	{"breaker", "acts on nodes are allowed", judgeBreaker},
	{"invariants", "what must always hold, as the auditor checks it", judgeInvariants},
	{"restore", "tenants that a restore left to be confirmed", judgeRestore},
	{"disk", "free space where hostlerd writes", judgeDisks},
	{"clock", "the kernel's clock is kept by somebody", judgeClock},
	{"keys", "the folder of keys: there, private, this site's", judgeKeys},
	{"segments", "interface up, our address on it, no other DHCP server", judgeSegments},
	{"boot files", "loaders and service OS", judgeBoot},
	{"references", "credentials, SKUs and images that records name are there", judgeReferences},
	{"backup", "age of the last hostlerd backup", judgeBackup},
}

// Examine walks the table.
func Examine(f Facts) Report {
	r := Report{Well: true, Now: f.Now}
	for _, c := range Checks {
		for _, x := range c.Judge(f) {
			r.Add(Row{c.Name, c.Looks, cmp.Or(x.Level, OK), x.Found, x.Since, x.Fix})
		}
	}
	return r
}

// Add puts a row into the report.
func (r *Report) Add(row Row) {
	r.Rows = append(r.Rows, row)
	r.Well = r.Well && row.Level == OK
}
