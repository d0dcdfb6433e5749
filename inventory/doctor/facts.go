package doctor

import "time"

// Facts are what was collected of a site. Zero values mean that nothing is known, and that is never well where somebody
// relies on it.
type Facts struct {
	Now     time.Time
	Started time.Time // of the daemon

	Members  []Member
	Embedded bool // the store runs inside the daemon
	Write    Write
	History  History
	Config   string // how the daemon was told its configuration, for commands: " --config site.yaml", or ""

	Copy       Copy
	Reconciler Reconciler
	Shards     Shards
	Breaker    Breaker
	Audit      Audit
	Restored   []string // nodes in use since before a restore, that nobody has confirmed

	Disks      []Disk
	Clock      Clock
	Keys       Keys
	Segments   []Segment
	Boot       []BootFile
	References []Reference
	Backup     time.Time // last; zero: never
}

// A Member is one etcd server.
type Member struct {
	Endpoint, Version  string
	Size, InUse, Quota int64
	Leader             bool
	Faults             []string
	Err                string // it did not answer
}

// Write is the last try to write without changing anything.
type Write struct {
	Err   string    // "": taken
	Full  bool      // NOSPACE
	Safe  bool      // safe mode: the store went back behind what the daemon saw
	Since time.Time // of the first of the tries in a row that failed
	Took  time.Duration
	At    time.Time
}

// History is how much of the past the store keeps.
type History struct {
	Revision  int64
	Compacted int64     // revision below which nothing is kept; 0: never compacted, or not known
	Moved     time.Time // when Compacted was last seen to rise
}

// Copy is the daemon's copy of the store.
type Copy struct {
	Lag   int64     // revisions that it is behind
	Since time.Time // of the lag
}

// Reconciler is the loop that moves nodes.
type Reconciler struct {
	Last    time.Time     // end of the last round; zero: none yet
	Longest time.Duration // round
}

// Shards are who looks after nodes.
type Shards struct {
	Held, Total, Nobody int
}

// Breaker is the site's breaker; Known false: there is no record of one.
type Breaker struct {
	Known, Open bool
	Since       time.Time
	Cause       string
}

// Audit is what the auditor of this daemon found; Known false: none runs here.
type Audit struct {
	Known  bool
	Broken []string
	Since  time.Time
}

// A Disk is the file system of a folder.
type Disk struct {
	What, Path  string
	Free, Total int64
	Err         string
}

// Clock is the kernel's.
type Clock struct {
	Synchronised bool
	MaxError     time.Duration
	Err          string
}

// Keys is the folder of keys.
type Keys struct {
	Folder  string
	Faults  []string // a file that is missing, or that others may read
	Foreign int      // nodes whose valid certificate another key signed
	Sealed  []string // names of credentials that this key cannot open
}

// A Segment is one declared network.
type Segment struct {
	Name, Interface, Address string
	Fault                    string // what is wrong with interface or address
	Rivals                   []Rival
}

// A Rival is another DHCP server on a segment of ours.
type Rival struct {
	Server string
	Seen   time.Time
}

// A BootFile is a file that machines boot from.
type BootFile struct {
	What, Path string
	Err        string
}

// A Reference is a record that names what is not there.
type Reference struct {
	What string // in words: credential "x", named by node y
	Fix  string
}
