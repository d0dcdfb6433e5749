package rack

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"text/tabwriter"
	"time"
)

// Whose time a stage's seconds are.
type Whose string

// What a boot and a hand-over spend their time on.
const (
	FirmwareTime Whose = "firmware"
	KernelTime   Whose = "kernel"
	BytesTime    Whose = "bytes"
	OursTime     Whose = "ours"
)

// A Stage is one measured piece of a node's way.
type Stage struct {
	Stage   string  `json:"stage"`
	Node    string  `json:"node"`
	Seconds float64 `json:"seconds"`
	Whose   Whose   `json:"whose"`
}

// Stages collects measurements. The zero value is ready.
type Stages struct {
	mu   sync.Mutex
	list []Stage
}

// Add notes a stage by its two ends.
func (s *Stages) Add(stage, node string, whose Whose, from, to time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	seconds := float64(to.Sub(from).Milliseconds()) / 1000
	s.list = append(s.list, Stage{stage, node, seconds, whose})
}

// Time starts a stage; the returned function ends it.
func (s *Stages) Time(stage, node string, whose Whose) func() {
	from := time.Now()
	return func() { s.Add(stage, node, whose, from, time.Now()) }
}

// WriteFile writes all stages as JSON, in the order they ended.
func (s *Stages) WriteFile(path string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.list
	if list == nil {
		list = []Stage{}
	}
	b, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("rack: write stages: %w", err)
	}
	if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("rack: write stages: %w", err)
	}
	return nil
}

// Table prints all stages for people.
func (s *Stages) Table(w io.Writer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "STAGE\tNODE\tSECONDS\tWHOSE")
	for _, x := range s.list {
		fmt.Fprintf(t, "%s\t%s\t%.1f\t%s\n", x.Stage, x.Node, x.Seconds, x.Whose)
	}
	return t.Flush()
}
