// Command fuzz runs every fuzz target of the tree for a while, one after the other, and prints a table of what was
// tried: go run ./internal/fuzz [TIME [PATTERN]], as make fuzz does. The targets are found in the sources (find.go),
// so that a new one needs no list; what a target must hold is in its own file. An input that made one fall over is left
// in testdata/fuzz beside it, where go test runs it from then on: commit it with the mend.
package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "fuzz:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out, progress io.Writer) error {
	length, pattern := 30*time.Second, regexp.MustCompile("")
	var err error
	if len(args) > 0 {
		if length, err = time.ParseDuration(args[0]); err != nil {
			return fmt.Errorf("how long each target runs: %w (write 30s or 5m)", err)
		}
	}
	if len(args) > 1 {
		if pattern, err = regexp.Compile(args[1]); err != nil {
			return fmt.Errorf("which targets: %w", err)
		}
	}
	targets, err := find(os.DirFS("."))
	if err != nil {
		return err
	}
	var results []result
	for _, t := range targets {
		if !pattern.MatchString(t.pkg + " " + t.name) {
			continue
		}
		fmt.Fprintf(progress, "%s %s for %v …\n", t.pkg, t.name, length)
		r, text := fuzz(ctx, t, length)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if r.crashes > 0 {
			fmt.Fprintln(progress, text)
		}
		results = append(results, r)
	}
	if crashes := report(out, results); crashes > 0 || len(results) == 0 {
		return fmt.Errorf("%d of %d targets fell over", crashes, len(results))
	}
	return nil
}

// A result is what came of one target.
type result struct {
	target
	execs, fresh int // inputs tried; of those, with coverage that none before had
	seconds      float64
	crashes      int
}

// fuzz runs one target and gives its output. Two workers, because that is what the smallest machine has; minimizing is
// short, because an input of flickering coverage takes a minute of every target otherwise (Go 1.26).
func fuzz(ctx context.Context, t target, length time.Duration) (result, string) {
	r := result{target: t}
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, "go", "test", "./"+t.pkg, "-run", "^$", "-fuzz", "^"+t.name+"$", "-fuzztime", length.String(),
		"-fuzzminimizetime", "100x", "-parallel", "2", "-timeout", "0")
	cmd.Stdout, cmd.Stderr = &out, &out
	begin := time.Now()
	err := cmd.Run()
	text := out.String()
	r.read(text)
	// Go ends a target at its first crash. It also fails one, now and then, because the time was over in the middle of
	// an input, and says no more than that.
	if err != nil && (strings.Contains(text, "Failing input") || !strings.Contains(text, "context deadline exceeded")) {
		r.crashes = 1
	}
	if r.seconds == 0 {
		r.seconds = time.Since(begin).Seconds()
	}
	if r.crashes == 0 && r.execs == 0 {
		r.crashes = 1 // it tried nothing: that is no pass
	}
	return r, text
}

var progressLine = regexp.MustCompile(`^fuzz: elapsed: (\S+), execs: (\d+) .*new interesting: (\d+)`)

// read takes the numbers from the last of Go's progress lines that has them.
func (r *result) read(text string) {
	lines := bufio.NewScanner(bytes.NewReader([]byte(text)))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		m := progressLine.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		if d, err := time.ParseDuration(m[1]); err == nil {
			r.seconds = d.Seconds()
		}
		r.execs, _ = strconv.Atoi(m[2]) // digits only
		r.fresh, _ = strconv.Atoi(m[3])
	}
}

// report prints the table, and gives how many targets fell over.
func report(out io.Writer, results []result) (crashes int) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "target\tpackage\texecutions\texecutions/s\tnew interesting\tcrashes\t")
	for _, r := range results {
		fmt.Fprintf(w, "%s\t%s\t%d\t%.0f\t%d\t%d\t\n", r.name, r.pkg, r.execs, float64(r.execs)/max(r.seconds, 1), r.fresh, r.crashes)
		crashes += r.crashes
	}
	_ = w.Flush() // standard output
	fmt.Fprintf(out, "%d targets, %d crashes\n", len(results), crashes)
	return crashes
}
