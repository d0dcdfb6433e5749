package inventory

import "time"

// Public is what the rental layer sees of a node: no BMC, no serials of media, at most 3 KiB.
type Public struct {
	Schema      int       `json:"schema"`
	ID          string    `json:"id"`
	Name        string    `json:"name"`
	SKU         string    `json:"sku"`
	Rack        string    `json:"rack,omitempty"`
	Slot        string    `json:"slot,omitempty"`
	State       State     `json:"state"`
	Since       time.Time `json:"since"`
	Rentable    bool      `json:"rentable"`
	Reasons     []string  `json:"reasons,omitempty"` // why not rentable, in words
	Health      string    `json:"health"`            // healthy or unhealthy; no third word (fleet checks refuse others)
	Detail      string    `json:"health_detail,omitempty"`
	Generation  int64     `json:"generation"`
	Wipe        int64     `json:"wipe"`
	Sanitized   bool      `json:"sanitized"`
	Tested      time.Time `json:"tested,omitzero"`
	Tenant      string    `json:"tenant,omitempty"`
	Reservation string    `json:"reservation,omitempty"`
	Instance    string    `json:"instance,omitempty"`
	Ready       bool      `json:"ready"` // the tenant's OS has answered
	Fence       string    `json:"fence,omitempty"`
}

// Avail exists only while a node is rentable; one compare on its mod revision proves that it still is.
type Avail struct {
	Schema int       `json:"schema"`
	SKU    string    `json:"sku"`
	Rack   string    `json:"rack,omitempty"`
	Wipe   int64     `json:"wipe"`
	Tested time.Time `json:"tested"`
	Since  time.Time `json:"since"`
}

// A Claim ties a node to a reservation.
type Claim struct {
	Schema      int       `json:"schema"`
	Node        string    `json:"node"`
	Tenant      string    `json:"tenant"`
	Reservation string    `json:"reservation"`
	Instance    string    `json:"instance"`
	Generation  int64     `json:"generation"`
	Since       time.Time `json:"since"`
}

// Phases of a reservation.
const (
	Pending   = "pending"
	Committed = "committed"
	Released  = "released"
	Expired   = "expired"
)

// A Reservation is made by the client under an id of its own: the id is the idempotency key. Its phase moves pending →
// committed or pending → expired in one compare-and-swap; released ones stay 30 days as a tombstone.
type Reservation struct {
	Schema   int       `json:"schema"`
	ID       string    `json:"id"`
	Tenant   string    `json:"tenant"`
	Project  string    `json:"project,omitempty"`
	Phase    string    `json:"phase"`
	SKU      string    `json:"sku"`
	Node     string    `json:"node"`
	Instance string    `json:"instance"`
	Image    string    `json:"image,omitempty"` // digest
	Created  time.Time `json:"created"`
	Expires  time.Time `json:"expires"` // by the clock of the daemon that granted it: for people
	Hold     Duration  `json:"hold"`    // how long it waits for its confirm, counted as deadlines are, from the last grant
	Ended    time.Time `json:"ended,omitzero"`
	Reason   string    `json:"reason,omitempty"` // why it ended
}

// Phases of an instance.
const (
	InstanceProvisioning = "provisioning"
	InstanceRunning      = "running"
	InstanceDraining     = "draining"
	InstanceEnded        = "ended"
	InstanceFailed       = "failed"
)

// An Instance is one tenant's use of one node.
type Instance struct {
	Schema      int       `json:"schema"`
	ID          string    `json:"id"`
	Node        string    `json:"node"`
	Tenant      string    `json:"tenant"`
	Reservation string    `json:"reservation"`
	Generation  int64     `json:"generation"`
	Image       string    `json:"image"` // digest
	ImageName   string    `json:"image_name,omitempty"`
	Phase       string    `json:"phase"`
	Ready       bool      `json:"ready"`
	ReadyReason string    `json:"ready_reason,omitempty"`
	Hostname    string    `json:"hostname,omitempty"`
	SeedHash    string    `json:"seed_hash,omitempty"` // SHA-256 of user data and keys; the data itself is sealed
	Handoff     string    `json:"handoff,omitempty"`   // kexec or reboot
	HandoffWhy  string    `json:"handoff_why,omitempty"`
	Address     string    `json:"address,omitempty"`
	HostKeys    []string  `json:"host_keys,omitempty"`
	Confirmed   time.Time `json:"confirmed,omitzero"`
	HandedOver  time.Time `json:"handed_over,omitzero"`
	ReadyAt     time.Time `json:"ready_at,omitzero"`
	Ended       time.Time `json:"ended,omitzero"`
	Fence       string    `json:"fence,omitempty"`
}

// Sealed is a tenant's secret seed: an age file, readable by the daemon alone, deleted at fencing.
type Sealed struct {
	Schema int    `json:"schema"`
	Age    []byte `json:"age"`
}

// A Seed is what is inside Sealed.
type Seed struct {
	UserData string   `json:"user_data,omitempty"`
	SSHKeys  []string `json:"ssh_keys,omitempty"`
	Hostname string   `json:"hostname,omitempty"`
}

// An ImageRecord names an image that was imported: its manifest was verified against a trusted key.
type ImageRecord struct {
	Schema   int       `json:"schema"`
	Digest   string    `json:"digest"`
	Name     string    `json:"name"`
	Size     int64     `json:"size"`
	Stored   int64     `json:"stored"` // compressed bytes of all chunks
	Chunks   int       `json:"chunks"`
	Arch     string    `json:"arch"`
	Boot     []string  `json:"boot_modes"`
	OS       string    `json:"os,omitempty"`
	Kexec    bool      `json:"kexec"`
	SignedBy string    `json:"signed_by"`
	Imported time.Time `json:"imported"`
	Blocked  string    `json:"blocked,omitempty"`
}

// A Token is an API token, stored under the hash of its secret.
type Token struct {
	Schema  int       `json:"schema"`
	Name    string    `json:"name"`
	Role    string    `json:"role"` // rental, technician, readonly, admin
	Tenant  string    `json:"tenant,omitempty"`
	Expires time.Time `json:"expires,omitzero"`
	Once    bool      `json:"once,omitempty"` // a login link: gone after its first use
}
