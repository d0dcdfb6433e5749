package inventory

import "time"

// A History entry is one line of a node's life, numbered without gaps. Kind is transition, step, session, wish or alert.
type History struct {
	Schema     int       `json:"schema"`
	Seq        int64     `json:"seq"`
	Time       time.Time `json:"time"`
	Kind       string    `json:"kind"`
	From       State     `json:"from,omitempty"`
	To         State     `json:"to,omitempty"`
	Event      string    `json:"event,omitempty"`
	Phase      string    `json:"phase,omitempty"`
	Reason     string    `json:"reason"`
	Actor      string    `json:"actor"`
	Generation int64     `json:"generation"`
	Wipe       int64     `json:"wipe"`
}

// Verbs of wishes.
const (
	WishApprove    = "approve"
	WishQuarantine = "quarantine"
	WishReturn     = "return"
	WishAbort      = "abort"
	WishPower      = "power"
	WishRelease    = "release"
	WishMaintain   = "maintain"
	WishRepair     = "repair"
	WishRetire     = "retire"
)

// A Wish is what somebody wants of a node. The reconciler answers every one: done, refused (with the reason) or stale.
type Wish struct {
	Schema     int       `json:"schema"`
	ID         string    `json:"id"`
	Node       string    `json:"node"`
	Verb       string    `json:"verb"`
	Arg        string    `json:"arg,omitempty"` // power: on, off, cycle
	Actor      string    `json:"actor"`
	Reason     string    `json:"reason,omitempty"`
	Generation int64     `json:"generation"` // it is stale, and refused, once the node's generation differs
	Created    time.Time `json:"created"`
	Expires    time.Time `json:"expires"`
	Answer     string    `json:"answer,omitempty"` // "", doing, done, refused, stale
	Detail     string    `json:"detail,omitempty"`
	Answered   time.Time `json:"answered,omitzero"`
}

// Phases of a boot session.
const (
	SessionArmed    = "armed"
	SessionRedeemed = "redeemed"
	SessionBurnt    = "burnt"
	SessionClosed   = "closed"
)

// A Session is one boot of the service OS on one node, written before any power act. The token itself is not here: it
// is derived from the daemon's key and the nonce, and only its hash is stored.
type Session struct {
	Schema     int       `json:"schema"`
	ID         string    `json:"id"`
	Node       string    `json:"node"`
	Generation int64     `json:"generation"`
	Purpose    string    `json:"purpose"`        // the state it was made in
	Since      time.Time `json:"since,omitzero"` // of that state, as its record says: which stay in it
	Nonce      string    `json:"nonce"`
	TokenHash  string    `json:"token_hash"`
	Phase      string    `json:"phase"`
	Boots      int       `json:"boots"` // how many times in a row a session had to be made (budget 2)
	Created    time.Time `json:"created"`
	Expires    time.Time `json:"expires"`            // of the token
	KeyHash    string    `json:"key_hash,omitempty"` // of the key that redeemed it
	Cert       []byte    `json:"cert,omitempty"`     // what it was given; the same key gets the same again
	BootID     string    `json:"boot_id,omitempty"`
	Redeemed   time.Time `json:"redeemed,omitzero"`
	Reason     string    `json:"reason,omitempty"`
}

// A Certificate proves that every medium of a node was erased, for one wipe. Body are the exact bytes that were signed:
// JSON of CertificateBody.
type Certificate struct {
	Schema    int    `json:"schema"`
	Body      []byte `json:"body"`
	Signature []byte `json:"signature"` // Ed25519 over Body
	KeyID     string `json:"key_id"`    // first 16 hex digits of SHA-256 of the public key
}

// A CertificateBody is what a certificate says (reliability.md 1.9; NIST SP 800-88r2 appendix, IEEE 2883 techniques).
type CertificateBody struct {
	Schema     int           `json:"schema"`
	Site       string        `json:"site"`
	Node       string        `json:"node"`
	Name       string        `json:"name"`
	Serial     string        `json:"serial"`
	Generation int64         `json:"generation"`
	Wipe       int64         `json:"wipe"`
	Instance   string        `json:"instance,omitempty"` // whose data was erased, when there was one
	Media      []MediumProof `json:"media"`
	NotDone    []string      `json:"not_done"` // what was not erased or not possible, in words
	Fence      string        `json:"fence"`    // fence driver, "none" where there is none
	Agent      string        `json:"agent"`    // digest of the program that did it
	Started    time.Time     `json:"started"`
	Finished   time.Time     `json:"finished"`
}

// Verdicts of a test run. Zero, NaN, missing or skipped is never a pass.
const (
	Pass         = "pass"
	Fail         = "fail"
	Inconclusive = "inconclusive"
	Aborted      = "aborted"
)

// A TestRun is the verdict of one run of a burn-in profile; samples are a blob.
type TestRun struct {
	Schema     int          `json:"schema"`
	ID         string       `json:"id"`
	Node       string       `json:"node"`
	Order      string       `json:"order,omitempty"` // the order it answers
	Profile    string       `json:"profile"`
	Verdict    string       `json:"verdict"`
	Generation int64        `json:"generation"`
	Wipe       int64        `json:"wipe"`
	Started    time.Time    `json:"started"`
	Finished   time.Time    `json:"finished"`
	Results    []TestResult `json:"results"`
	Blob       string       `json:"blob,omitempty"`
}

// A TestResult is one test of a run.
type TestResult struct {
	Test      string             `json:"test"`
	Component string             `json:"component"`
	Verdict   string             `json:"verdict"`
	Reason    string             `json:"reason,omitempty"`
	Seconds   float64            `json:"seconds"`
	Values    map[string]float64 `json:"values,omitempty"` // unit is part of the name: read_MBps
}

// Alert classes.
const (
	PreventAllocation = "prevent-allocation"
	DrainWhenIdle     = "drain-when-idle"
	DrainNow          = "drain-now"
	PreventTransition = "prevent-transition"
	NoAutoReboot      = "no-auto-reboot"
	TenantVisible     = "tenant-visible"
	HardwareAlert     = "hardware"
)

// HealthReport is what one source (agent, bmc, nvml) last said of a node. Never deleted: silence reads as stale.
type HealthReport struct {
	Schema   int       `json:"schema"`
	Source   string    `json:"source"`
	Observed time.Time `json:"observed"`
	Alerts   []Alert   `json:"alerts"`
	Note     string    `json:"note,omitempty"` // who took alerts away, and why
}

// An Alert is one thing that is wrong. Its classes say what follows from it at once; severity and actions, in the words of
// package health, what is to be done about it.
type Alert struct {
	ID       string    `json:"id"`
	Since    time.Time `json:"since"`
	Classes  []string  `json:"classes"`
	What     string    `json:"what"`
	Where    string    `json:"where,omitempty"`
	Next     string    `json:"next,omitempty"`     // the next physical act
	Severity string    `json:"severity,omitempty"` // info, degraded, fatal
	Actions  []string  `json:"actions,omitempty"`  // mildest first: drain-now, reset-gpu
	Rule     string    `json:"rule,omitempty"`     // which rule said so, and where that comes from
	Count    int64     `json:"count,omitempty"`    // how often it was seen
	Evidence []string  `json:"evidence,omitempty"` // lines, word for word
}

// A Credential is a BMC's user and password, sealed to the daemon's key.
type Credential struct {
	Schema  int       `json:"schema"`
	Age     []byte    `json:"age"`
	Changed time.Time `json:"changed"`
	Actor   string    `json:"actor"`
}

// A NodeView is one node with all that belongs to it, as of one revision.
type NodeView struct {
	ID          string
	Spec        Doc[Spec]
	State       Doc[NodeState]
	Facts       Doc[Facts]
	Public      Doc[Public]
	Avail       Doc[Avail]
	Claim       Doc[Claim]
	Reservation Doc[Reservation]
	Instance    Doc[Instance]
	Session     Doc[Session]
	Certificate Doc[Certificate] // of the present wipe
	Test        Doc[TestRun]     // the newest
	Health      []Doc[HealthReport]
	Wishes      []Doc[Wish] // unanswered, oldest first
	SKU         Doc[SKU]
	Broken      error // a record that could not be read: the node is read-only until a person looks
}
