package nvml

import (
	"fmt"
	"time"
)

// A Sample is all that is known of a machine's GPUs through the driver at one moment. Fields that the worker does not
// fill are the supervisor's.
type Sample struct {
	At     time.Time     `json:"at"`
	Took   time.Duration `json:"took"` // from the request until its answer was read
	Status Status        `json:"status"`
	Driver Driver        `json:"driver"`
	// PCI are the GPUs that the kernel lists, by bus address, whether or not the driver knows them.
	PCI    []string         `json:"pci,omitempty"`
	Count  Value            `json:"count"`            // how many the driver lists
	System Values           `json:"system,omitempty"` // readings of the whole machine
	GPUs   []GPU            `json:"gpus,omitempty"`
	Peers  map[string]Value `json:"peers,omitempty"` // see PeerKey
	Events []Event          `json:"events,omitempty"`
	Calls  Latency          `json:"calls"`
	// Memory is what judging must know of earlier samples beyond the last one.
	Memory Memory `json:"memory,omitzero"`
}

// A Driver is what was loaded when the worker started.
type Driver struct {
	Version string `json:"version,omitempty"` // as the library says
	NVML    string `json:"nvml,omitempty"`
	Kernel  string `json:"kernel,omitempty"`  // as /proc/driver/nvidia/version says: the module that runs
	Library string `json:"library,omitempty"` // the file that was mapped
	Inode   uint64 `json:"inode,omitempty"`
}

// A GPU is one device. UUID and Bus name it; its place in the list means nothing, because places shift when one is lost.
type GPU struct {
	Bus    string             `json:"bus"`
	UUID   string             `json:"uuid,omitempty"`
	Serial string             `json:"serial,omitempty"`
	State  string             `json:"state"`         // present, lost, stuck, refused
	Err    string             `json:"err,omitempty"` // why it is not present
	Values Values             `json:"values,omitempty"`
	Links  map[string][]Value `json:"links,omitempty"` // readings of each NVLink, by its number
}

// States of a GPU.
const (
	Present = "present" // it answers
	Lost    = "lost"    // the driver says it is lost, or does not list it any more
	Stuck   = "stuck"   // a call on it blocked and others did not: it is left alone
	Refused = "refused" // the driver refuses it for another reason
)

// Key is what a GPU is told from others by.
func (g GPU) Key() string { return g.UUID + "@" + g.Bus }

// Same says whether two samples speak of one GPU.
func (g GPU) Same(o GPU) bool {
	if g.UUID != "" && o.UUID != "" {
		return g.UUID == o.UUID
	}
	return g.Bus == o.Bus
}

// An Event is something that the driver reported by itself.
type Event struct {
	At   time.Time `json:"at"`
	Bus  string    `json:"bus"`
	Type uint64    `json:"type"`          // one bit, see EventTypes
	Xid  uint64    `json:"xid,omitempty"` // with an XID event
	// GI and CI are the MIG instances concerned; nil where none is.
	GI *uint32 `json:"gi,omitempty"`
	CI *uint32 `json:"ci,omitempty"`
}

// PeerKey names a reading of a pair of GPUs: what is read, nvlink, or ancestor.
func PeerKey(what, a, b string) string { return what + " " + a + " " + b }

// Memory is what judging carries from sample to sample.
type Memory struct {
	Since map[string]time.Time   `json:"since,omitempty"` // since when something is bad without a break
	Told  map[string]bool        `json:"told,omitempty"`  // and was told, so that its end is told too
	Seen  map[string][]time.Time `json:"seen,omitempty"`  // when something was seen
	From  map[string]Mark        `json:"from,omitempty"`  // where counting for a rate began
}

// A Mark is a counter at one moment.
type Mark struct {
	At time.Time `json:"at"`
	N  int64     `json:"n"`
}

// Latency counts the worker's calls by how long they took: a driver grows slow before it hangs.
type Latency struct {
	Counts  [len(latencyBounds) + 1]uint64 `json:"counts"` // by latencyBounds, the last is everything above
	Slowest time.Duration                  `json:"slowest"`
	Call    string                         `json:"call,omitempty"` // the slowest one
	Bus     string                         `json:"bus,omitempty"`
}

var latencyBounds = [...]time.Duration{100 * time.Microsecond, time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second}

// Bounds are the upper bounds of Counts, without the last.
func (Latency) Bounds() []time.Duration { return latencyBounds[:] }

// Add counts one call.
func (l *Latency) Add(call, bus string, took time.Duration) {
	i := 0
	for i < len(latencyBounds) && took > latencyBounds[i] {
		i++
	}
	l.Counts[i]++
	if took > l.Slowest {
		l.Slowest, l.Call, l.Bus = took, call, bus
	}
}

// Total is how many calls were counted.
func (l Latency) Total() (n uint64) {
	for _, c := range l.Counts {
		n += c
	}
	return n
}

// A Status is how the conversation with the driver stands.
type Status struct {
	State string    `json:"state"`
	Since time.Time `json:"since"`
	Text  string    `json:"text,omitempty"`
	// Evidence is what the kernel showed of processes that a call blocked.
	Evidence []Evidence `json:"evidence,omitempty"`
	// Held are processes that were killed and did not end.
	Held int `json:"held,omitempty"`
}

// States of a conversation.
const (
	Starting    = "starting"
	Answering   = "ok"
	NoDriver    = "no driver"
	Mismatch    = "version mismatch" // library and kernel module differ: an upgrade without a reboot, no fault of the hardware
	DriverStuck = "driver stuck"
	Blind       = "blind" // too many processes hang in the driver: no more until the machine boots
	Released    = "released"
	Broken      = "broken" // the worker itself does not run
)

// Evidence is one process that a call blocked.
type Evidence struct {
	At      time.Time     `json:"at"`
	PID     int           `json:"pid"`
	Call    string        `json:"call"`
	Bus     string        `json:"bus,omitempty"`
	Blocked time.Duration `json:"blocked"`
	State   string        `json:"state,omitempty"` // of the thread, from /proc
	Wchan   string        `json:"wchan,omitempty"`
	Stack   string        `json:"stack,omitempty"` // only root may read it
}

// String is one line.
func (e Evidence) String() string {
	s := fmt.Sprintf("%s blocked %s in process %d", e.Call, e.Blocked.Round(100*time.Millisecond), e.PID)
	if e.Bus != "" {
		s += " on GPU " + e.Bus
	}
	if e.State != "" {
		s += ", thread state " + e.State
	}
	if e.Wchan != "" && e.Wchan != "0" {
		s += ", waits in " + e.Wchan
	}
	return s
}
