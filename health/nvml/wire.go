package nvml

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
)

// Protocol is the version of what worker and supervisor say to each other. They ship together; the number catches a
// worker that was left over.
const Protocol = 1

// maxFrame is far above a sample of 16 GPUs (about 250 KB).
const maxFrame = 4 << 20

// A Request is what the supervisor asks. One is under way at a time.
type Request struct {
	ID  uint64 `json:"id"`
	Op  string `json:"op"`
	Bus string `json:"bus,omitempty"` // touch: this GPU
	// PCI are the GPUs that the kernel lists, Skip those that must be left alone: sample.
	PCI  []string `json:"pci,omitempty"`
	Skip []string `json:"skip,omitempty"`
	Slow bool     `json:"slow,omitempty"` // sample: the slow readings too; touch: everything, not only one cheap call
}

// What can be asked.
const (
	OpBeat   = "beat"   // a cheap call on each GPU, and the events since
	OpSample = "sample" // everything
	OpTouch  = "touch"  // one GPU: does it answer?
	OpClose  = "close"  // shut the library down, let go of /dev/nvidia*, end
)

// An Answer is what the worker says to the request with the same ID. ID 0 is its greeting, after Init.
type Answer struct {
	ID     uint64  `json:"id"`
	Hello  *Hello  `json:"hello,omitempty"`
	Sample *Sample `json:"sample,omitempty"`
	Events []Event `json:"events,omitempty"`
	GPU    *GPU    `json:"gpu,omitempty"` // touch
	Err    string  `json:"err,omitempty"`
}

// A Hello is the worker's first message.
type Hello struct {
	Protocol int    `json:"protocol"`
	State    string `json:"state"` // Answering, NoDriver, Mismatch or Broken
	Text     string `json:"text,omitempty"`
	Driver   Driver `json:"driver"`
}

// WriteFrame writes v as JSON behind its length, in one write.
func WriteFrame(w io.Writer, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("nvml: encode a frame: %v", err)
	}
	if len(body) > maxFrame {
		return fmt.Errorf("nvml: a frame of %d bytes is longer than %d", len(body), maxFrame)
	}
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(body)), uint32(len(body)))
	_, err = w.Write(append(frame, body...))
	return err
}

// ReadFrame reads what WriteFrame wrote. io.EOF is the end between two frames.
func ReadFrame(r io.Reader, v any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxFrame {
		return fmt.Errorf("nvml: a frame of %d bytes is longer than %d: not our worker?", n, maxFrame)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return fmt.Errorf("nvml: a frame of %d bytes was cut: %w", n, err)
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("nvml: decode a frame: %v", err)
	}
	return nil
}
