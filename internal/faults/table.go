package faults

import (
	"fmt"
	"io"
	"sync"
	"text/tabwriter"
	"time"
)

// A Row is one fault as it was injected.
type Row struct {
	Fault  string
	Fired  int
	Ops    int           // that clients did meanwhile
	Gap    time.Duration // the longest time without an acknowledged write; 0: nobody asked
	Result string
}

// A Table is what a run prints at its end.
type Table struct {
	mu    sync.Mutex
	rows  []Row
	lines []string
}

// Add adds a row.
func (t *Table) Add(r Row) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rows = append(t.rows, r)
}

// Say adds a line below the rows.
func (t *Table) Say(format string, a ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines = append(t.lines, fmt.Sprintf(format, a...))
}

// Print prints it.
func (t *Table) Print(w io.Writer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.rows) == 0 {
		return
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "\nfault\tfired\toperations\tlongest gap\tresult")
	for _, r := range t.rows {
		gap := "-"
		if r.Gap > 0 {
			gap = fmt.Sprintf("%.2f s", r.Gap.Seconds())
		}
		fmt.Fprintf(tw, "%s\t%d\t%d\t%s\t%s\n", r.Fault, r.Fired, r.Ops, gap, r.Result)
	}
	_ = tw.Flush() // to the terminal
	fmt.Fprintln(w)
	for _, l := range t.lines {
		fmt.Fprintln(w, l)
	}
}
