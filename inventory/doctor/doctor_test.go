package doctor

import (
	"strings"
	"testing"
	"time"
)

var now = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

// well is a site with nothing wrong.
func well() Facts {
	return Facts{Now: now, Started: now.Add(-time.Hour), Embedded: true, Config: " --config site.yaml",
		Members:    []Member{{Endpoint: "http://127.0.0.1:2379", Version: "3.7.3", Size: 4 << 20, InUse: 2 << 20, Quota: 512 << 20, Leader: true}},
		Write:      Write{At: now, Took: 2 * time.Millisecond},
		History:    History{Revision: 5000, Compacted: 4000, Moved: now.Add(-5 * time.Minute)},
		Reconciler: Reconciler{Last: now.Add(-300 * time.Millisecond), Longest: 10 * time.Millisecond},
		Shards:     Shards{Held: 64, Total: 64},
		Disks:      []Disk{{What: "data", Path: "/var/lib/hostler", Free: 50 << 30, Total: 100 << 30}},
		Clock:      Clock{Synchronised: true, MaxError: 20 * time.Millisecond},
		Keys:       Keys{Folder: "/var/lib/hostler/keys"},
		Segments:   []Segment{{Name: "row1", Interface: "eth1", Address: "10.20.0.1"}},
		Boot:       []BootFile{{What: "service OS, kernel", Path: "/srv/vmlinuz"}},
		Backup:     now.Add(-time.Hour),
	}
}

func TestWell(t *testing.T) {
	r := Examine(well())
	if !r.Well || len(r.Rows) < len(Checks) {
		t.Errorf("got %+v", r)
	}
	for _, row := range r.Rows {
		if row.Level != OK || row.Found == "" || row.Looks == "" || row.Fix != "" {
			t.Errorf("%+v: a healthy row says what it found and needs no help", row)
		}
	}
}

// Each case spoils one thing; exactly that check must say so, at that level, with the command that helps.
func TestWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		name         string
		spoil        func(*Facts)
		check, level string
		found, fix   string
	}{
		{"no quorum", func(f *Facts) { f.Members[0].Err = "timeout" }, "store", Fail, "does not answer", "systemctl restart hostlerd"},
		{"one of two members", func(f *Facts) { f.Members = append(f.Members, Member{Endpoint: "http://b", Err: "refused"}) }, "store", Warn, "http://b does not answer", "journalctl"},
		{"full", func(f *Facts) { f.Members[0].Faults = []string{"memberID:1 alarm:NOSPACE "} }, "store", Fail, "NOSPACE", "hostlerd store recover --config site.yaml"},
		{"corrupt", func(f *Facts) { f.Members[0].Faults = []string{"memberID:1 alarm:CORRUPT "} }, "store", Fail, "CORRUPT", "replace it"},
		{"no leader", func(f *Facts) { f.Members[0].Faults = []string{"etcdserver: no leader"} }, "store", Fail, "no leader", "systemctl"},
		{"writes refused", func(f *Facts) { f.Write = Write{At: now, Err: "NOSPACE", Full: true, Since: now.Add(-time.Minute)} }, "store writes", Fail, "the store is full", "hostlerd store recover --config site.yaml"},
		{"writes lost", func(f *Facts) { f.Write = Write{At: now, Err: "timeout", Since: now.Add(-time.Minute)} }, "store writes", Fail, "timeout", "systemctl"},
		{"writes slow", func(f *Facts) { f.Write.Took = time.Second }, "store writes", Warn, "takes 1s", "iostat"},
		{"never probed", func(f *Facts) { f.Write = Write{} }, "store writes", Warn, "not tried", "again"},
		{"fragmented", func(f *Facts) { f.Members[0].Size = 450 << 20 }, "store space", Warn, "450 MiB", "hostlerd store recover"},
		{"records fill it", func(f *Facts) { f.Members[0].Size, f.Members[0].InUse = 450<<20, 440<<20 }, "store space", Warn, "440 MiB", "etcd.quota"},
		{"never compacted", func(f *Facts) {
			f.Started = now.Add(-24 * time.Hour)
			f.History = History{Revision: 1_000_000, Compacted: 0}
		}, "store history", Warn, "1000000 revisions", "--auto-compaction"},
		{"copy behind", func(f *Facts) { f.Copy = Copy{Lag: 7, Since: now.Add(-time.Minute)} }, "copy", Fail, "7 revisions", "restart hostlerd"},
		{"stuck", func(f *Facts) { f.Reconciler.Last = now.Add(-2 * time.Minute) }, "reconciler", Fail, "no round has ended for 2m", "restart hostlerd"},
		{"slow rounds", func(f *Facts) { f.Reconciler.Longest = 20 * time.Second }, "reconciler", Warn, "20s", "journalctl"},
		{"safe mode", func(f *Facts) { f.Write = Write{At: now, Err: "the store went back", Safe: true} }, "store writes", Fail, "went back", "hostlerd store acknowledge --config site.yaml"},
		{"orphans", func(f *Facts) { f.Shards = Shards{Held: 30, Total: 64, Nobody: 4} }, "shards", Warn, "4 of 64", "start another hostlerd"},
		{"breaker", func(f *Facts) { f.Breaker = Breaker{Known: true, Open: true, Cause: "30 nodes silent", Since: now} }, "breaker", Fail, "30 nodes silent", "hostler breaker close"},
		{"broken invariant", func(f *Facts) { f.Audit = Audit{Known: true, Broken: []string{"I3: n-1 is ready and tainted"}} }, "invariants", Fail, "I3", "hostler audit"},
		{"restored", func(f *Facts) { f.Restored = []string{"gpu001", "gpu002"} }, "restore", Warn, "2 in use", "hostler"},
		{"disk low", func(f *Facts) { f.Disks[0].Free = 5 << 30 }, "disk", Warn, "5 GiB free", "du -xh /var/lib/hostler"},
		{"small disk low", func(f *Facts) { f.Disks[0].Free, f.Disks[0].Total = 900<<20, 2<<30 }, "disk", Warn, "900 MiB", "du"},
		{"disk full", func(f *Facts) { f.Disks[0].Free = 1 << 20 }, "disk", Fail, "1 MiB", "du"},
		{"disk gone", func(f *Facts) { f.Disks[0].Err = "no such file" }, "disk", Fail, "no such file", "mount"},
		{"clock", func(f *Facts) { f.Clock = Clock{} }, "clock", Warn, "nobody keeps", "timedatectl"},
		{"clock unknown", func(f *Facts) { f.Clock = Clock{Err: "EPERM"} }, "clock", Warn, "EPERM", "timedatectl"},
		{"key missing", func(f *Facts) { f.Keys.Faults = []string{"stat secrets.age: no such file"} }, "keys", Fail, "secrets.age", "copy it back"},
		{"key open to others", func(f *Facts) { f.Keys.Faults = []string{"others may read ca.key"} }, "keys", Fail, "others may", "chmod"},
		{"another site's keys", func(f *Facts) { f.Keys.Foreign = 3 }, "keys", Fail, "3 nodes", "copy this site's keys"},
		{"sealed to another key", func(f *Facts) { f.Keys.Sealed = []string{"row1"} }, "keys", Fail, "row1", "hostler bmc credential set row1"},
		{"card down", func(f *Facts) { f.Segments[0].Fault = "interface eth1 is down" }, "segments", Fail, "is down", "ip link set eth1 up"},
		{"address gone", func(f *Facts) { f.Segments[0].Fault = "address 10.20.0.1 is on no interface" }, "segments", Fail, "on no interface", "ip addr add 10.20.0.1"},
		{"rival", func(f *Facts) { f.Segments[0].Rivals = []Rival{{"10.20.0.9", now}} }, "segments", Fail, "10.20.0.9", "switch its DHCP off"},
		{"loader", func(f *Facts) { f.Boot[0].Err = "not there" }, "boot files", Warn, "not there", "make images"},
		{"credential", func(f *Facts) {
			f.References = []Reference{{`credential "x" is not there`, "hostler bmc credential set x"}}
		}, "references", Fail, "credential", "set x"},
		{"old backup", func(f *Facts) { f.Backup = now.Add(-50 * time.Hour) }, "backup", Warn, "50 h", "hostlerd backup"},
		{"no backup", func(f *Facts) { f.Backup = time.Time{} }, "backup", Warn, "never", "hostlerd backup"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := well()
			c.spoil(&f)
			r := Examine(f)
			if r.Well {
				t.Error("it says that all is well")
			}
			hit := false
			for _, row := range r.Rows {
				if row.Level != OK && row.Fix == "" {
					t.Errorf("%+v: nothing that helps", row)
				}
				hit = hit || row.Check == c.check && row.Level == c.level && strings.Contains(row.Found, c.found) && strings.Contains(row.Fix, c.fix)
			}
			if !hit {
				t.Errorf("no row %s %s %q → %q in %+v", c.check, c.level, c.found, c.fix, r.Rows)
			}
		})
	}
}

// A hundred missing things are not a hundred rows.
func TestManyReferences(t *testing.T) {
	f := well()
	for range 100 {
		f.References = append(f.References, Reference{"x", "y"})
	}
	n := 0
	for _, row := range Examine(f).Rows {
		if row.Check == "references" {
			n++
		}
	}
	if n != manyReferences+1 {
		t.Errorf("%d rows", n)
	}
}
