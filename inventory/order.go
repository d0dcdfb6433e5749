package inventory

import "time"

// The few messages between agent and daemon (design.md section 8). The agent only dials out: it redeems its session's
// token once, then asks for its next order by long poll, and reports.

// Kinds of orders.
const (
	OrderIdle     = "idle"     // nothing to do: stay warm, ask again
	OrderInspect  = "inspect"  // answer: Hardware
	OrderSanitize = "sanitize" // answer: Proofs
	OrderTest     = "test"     // answer: Test
	OrderWrite    = "write"    // answer: Written
	OrderHandoff  = "hand-off" // answer: Handoff; then the agent is gone
	OrderReboot   = "reboot"
	OrderPowerOff = "power-off"
)

// An Order is one piece of work for one node, one generation, one session. It is safe to repeat: the same id means the
// same work, and an agent that has done it answers with the result it has.
type Order struct {
	ID         string `json:"id"`
	Kind       string `json:"kind"`
	Node       string `json:"node"`
	Generation int64  `json:"generation"`
	Session    string `json:"session"`
	Wipe       int64  `json:"wipe,omitempty"`
	Name       string `json:"name,omitempty"` // the node's name, for the console page

	Media   []Medium      `json:"media,omitempty"`   // sanitize: every medium that must be erased; test, write: what must be there, and nothing else
	Profile string        `json:"profile,omitempty"` // test
	SKU     *SKU          `json:"sku,omitempty"`     // test: what is expected
	Write   *WriteOrder   `json:"write,omitempty"`
	Handoff *HandoffOrder `json:"handoff,omitempty"`
}

// A WriteOrder names an image by digest and the medium to write it to.
type WriteOrder struct {
	Image      string `json:"image"`
	ChunkBase  string `json:"chunk_base"`  // http://…/image/<digest>: chunks, blobs, manifest and signature below it
	Medium     Medium `json:"medium"`      // by serial; gone or another: refused
	TrustedKey string `json:"trusted_key"` // minisign public key that signed the manifest
	Reboots    bool   `json:"reboots"`     // the hand-over goes by reboot
}

// A HandoffOrder starts the tenant's system. The seed is fetched apart (GET seed), so that secrets are in no order.
type HandoffOrder struct {
	Image      string `json:"image"`
	ChunkBase  string `json:"chunk_base"`
	Medium     Medium `json:"medium"`
	Instance   string `json:"instance"`
	Hostname   string `json:"hostname"`
	Method     string `json:"method"` // kexec or reboot
	Qualified  bool   `json:"qualified"`
	TrustedKey string `json:"trusted_key"`
}

// SeedFiles are the NoCloud files of an instance, complete: what the agent writes to the CIDATA partition.
type SeedFiles struct {
	MetaData      []byte `json:"meta_data"`
	UserData      []byte `json:"user_data"`
	NetworkConfig []byte `json:"network_config"`
	VendorData    []byte `json:"vendor_data"`
}

// Redeem is the agent's first message: the session's token, and the key that it made in memory. Over TLS whose CA is
// pinned by its hash; the certificate in the answer is for this key, this node, this generation, this session.
type Redeem struct {
	Session string   `json:"session"`
	Token   string   `json:"token"`
	CSR     []byte   `json:"csr"` // DER, Ed25519 or ECDSA P-256
	BootID  string   `json:"boot_id"`
	Serial  string   `json:"serial"`
	UUID    string   `json:"uuid"`
	MACs    []string `json:"macs"`
}

// Redeemed answers Redeem.
type Redeemed struct {
	Cert       []byte    `json:"cert"` // PEM chain
	Node       string    `json:"node"`
	Name       string    `json:"name"`
	Generation int64     `json:"generation"`
	Now        time.Time `json:"now"` // the agent sets its clock from this
}

// A Report is what the agent says: with Done false it is a heartbeat with progress. Next answers a report with the
// order to do now (the same one again while it is not done).
type Report struct {
	Session    string    `json:"session"`
	Generation int64     `json:"generation"`
	BootID     string    `json:"boot_id"`
	Uptime     float64   `json:"uptime_s"`
	Order      string    `json:"order,omitempty"` // the order that the rest is about
	Progress   *Progress `json:"progress,omitempty"`
	Done       bool      `json:"done,omitempty"`
	Error      string    `json:"error,omitempty"` // Done: what went wrong; empty means it worked
	Retry      bool      `json:"retry,omitempty"` // Error: trying again may help

	Hardware *Hardware      `json:"hardware,omitempty"`
	Proofs   []MediumProof  `json:"proofs,omitempty"`
	NotDone  []string       `json:"not_done,omitempty"`
	Test     *TestRun       `json:"test,omitempty"`
	Written  *Written       `json:"written,omitempty"`
	Handoff  *HandoffResult `json:"handoff,omitempty"`
	Agent    string         `json:"agent,omitempty"` // digest of the program

	Started  time.Time `json:"started,omitzero"`
	Finished time.Time `json:"finished,omitzero"`
}

// Progress of a long order: Done of Total units, and what is going on in words.
type Progress struct {
	What  string  `json:"what"`
	Done  int64   `json:"done"`
	Total int64   `json:"total"`
	Unit  string  `json:"unit"`
	LeftS float64 `json:"left_s"` // the agent's estimate, seconds; negative: not known
}

// Written tells what was written where.
type Written struct {
	Image     string   `json:"image"`
	Serial    string   `json:"serial"`
	Device    string   `json:"device"`
	Bytes     int64    `json:"bytes"`     // raw bytes written (zero runs not counted)
	ReadBack  int64    `json:"read_back"` // bytes read back and compared
	Seconds   float64  `json:"seconds"`
	Fallbacks []string `json:"fallbacks,omitempty"`
}

// A HandoffResult says how the tenant's system is about to be entered; it is sent just before, and the agent enters
// only after the daemon has taken note.
type HandoffResult struct {
	Method string   `json:"method"`        // kexec or reboot
	Why    []string `json:"why,omitempty"` // lines of the kexec checklist that failed
	Passed []string `json:"passed"`
}

// Next is the daemon's answer to a report.
type Next struct {
	Order   *Order    `json:"order,omitempty"`
	Enter   bool      `json:"enter,omitempty"`   // the hand-off was noted: go
	Revoked string    `json:"revoked,omitempty"` // this session is over; why
	Now     time.Time `json:"now"`
}
