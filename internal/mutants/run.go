package mutants

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Suite is a package whose tests should notice.
type Suite struct {
	Package string // its folder
	Args    []string
	Limit   time.Duration // of one run; a mutant that hangs was noticed
}

// Suites are tried in this order, until one notices: the fast one next to the code, the checker, and what uses the ledger.
var Suites = []Suite{
	{Package: "inventory/ledger", Args: []string{"-rapid.nofailfile"}, Limit: time.Minute},
	{Package: "inventory/audit", Args: []string{"-test.run=Holds|Breaches"}, Limit: time.Minute},
	{Package: "provisioner", Args: []string{"-test.skip=Crash|Fleet"}, Limit: 2 * time.Minute},
}

// A Lab has the test binaries with all mutants in them.
type Lab struct {
	Root    string // of the repository
	Dir     string // for its files
	Mutants []Mutant
	overlay string
	bins    map[string]string // by package
}

// NewLab instruments a package by a scope.
func NewLab(root, dir, folder string, scope []Scope) (*Lab, error) {
	l := &Lab{Root: root, Dir: dir, overlay: filepath.Join(dir, "overlay.json"), bins: map[string]string{}}
	replace := map[string]string{}
	add := func(name string, src []byte) error {
		to := filepath.Join(dir, name)
		replace[filepath.Join(root, folder, name)] = to
		return os.WriteFile(to, src, 0o600)
	}
	next := 0
	for _, s := range scope {
		src, err := os.ReadFile(filepath.Join(root, folder, s.File))
		if err != nil {
			return nil, err
		}
		out, found, err := Instrument(src, s, &next)
		if err != nil {
			return nil, err
		}
		l.Mutants = append(l.Mutants, found...)
		if err := add(s.File, out); err != nil {
			return nil, err
		}
	}
	if err := add("mutants_switch.go", fmt.Appendf(nil, switchSource, filepath.Base(folder))); err != nil {
		return nil, err
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return nil, err
	}
	return l, os.WriteFile(l.overlay, b, 0o600)
}

// Build compiles a suite's tests, and runs them with every mutant asleep: they must pass.
func (l *Lab) Build(ctx context.Context, s Suite) error {
	bin := filepath.Join(l.Dir, strings.ReplaceAll(s.Package, "/", "-")+".test")
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-overlay", l.overlay, "-o", bin, "./"+s.Package)
	cmd.Dir = l.Root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mutants: build the tests of %s: %v\n%s", s.Package, err, out)
	}
	l.bins[s.Package] = bin
	if noticed, out := l.run(ctx, s, 0); noticed {
		return fmt.Errorf("mutants: the tests of %s fail without any mutant:\n%s", s.Package, out)
	}
	return nil
}

// run runs a suite with one mutant awake, and says whether it noticed: failed, panicked or hung.
func (l *Lab) run(ctx context.Context, s Suite, id int) (noticed bool, out []byte) {
	limited, stop := context.WithTimeout(ctx, s.Limit)
	defer stop()
	cmd := exec.CommandContext(limited, l.bins[s.Package], append([]string{"-test.failfast", "-test.count=1"}, s.Args...)...)
	cmd.Dir = filepath.Join(l.Root, s.Package)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", Environment, id))
	var b bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &b
	err := cmd.Run()
	return err != nil, b.Bytes()
}

// A Result is what became of a mutant. By is the suite that noticed; "" when it survived.
type Result struct {
	Mutant
	By string
}

// Hunt runs mutants through a suite, as many at once as there are workers, and gives those that it did not notice.
func (l *Lab) Hunt(ctx context.Context, s Suite, list []Mutant, workers int, told func(Result)) []Mutant {
	var mu sync.Mutex
	var left []Mutant
	var wg sync.WaitGroup
	todo := make(chan Mutant)
	for range workers {
		wg.Go(func() {
			for m := range todo {
				noticed, _ := l.run(ctx, s, m.ID)
				mu.Lock()
				if noticed {
					told(Result{m, s.Package})
				} else {
					left = append(left, m)
				}
				mu.Unlock()
			}
		})
	}
	for _, m := range list {
		todo <- m
	}
	close(todo)
	wg.Wait()
	slices.SortFunc(left, func(a, b Mutant) int { return a.ID - b.ID })
	return left
}
