package inventory

import "time"

// A Backup says when the store was last copied away whole.
type Backup struct {
	Schema   int       `json:"schema"`
	Time     time.Time `json:"time"`
	Revision int64     `json:"revision"`
	Bytes    int64     `json:"bytes"`
	SHA256   string    `json:"sha256"`
}

// An Era is one life of the store: from its first start, or from a restore, on. After a restore revisions mean something
// else, so watchers name the era with them.
type Era struct {
	Schema int         `json:"schema"`
	Era    string      `json:"era"`
	Former []FormerEra `json:"former,omitempty"` // oldest first
}

// A FormerEra is a life of the store that a restore ended.
type FormerEra struct {
	Era      string    `json:"era"`
	Ended    time.Time `json:"ended"`
	Backup   string    `json:"backup"`   // SHA-256 of the backup that ended it
	Taken    time.Time `json:"taken"`    // when the backup was made: what happened after is not in the record
	Revision int64     `json:"revision"` // of the backup
}
