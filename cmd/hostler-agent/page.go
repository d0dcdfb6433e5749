package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/hostler-project/hostler/inventory"
)

// A page tells a person at the console who this node is and what it is doing, as plain lines: they have to be legible in
// a serial log and on a screen, so there are no cursor movements and no colours.
type page struct {
	out    io.Writer
	uptime func() time.Duration

	mu    sync.Mutex
	doing string
	whats map[string]bool // progress words shown since
	shown time.Duration
}

// lineEvery is how often a long piece of work shows how far it is.
const lineEvery = 5 * time.Second

func newPage(out io.Writer, uptime func() time.Duration) *page {
	return &page{out: out, uptime: uptime}
}

const rule = "------------------------------------------------------------------------"

// Banner writes lines between two rules.
func (p *page) Banner(lines ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.out, "\n%s\n  %s\n%s\n", rule, strings.Join(lines, "\n  "), rule)
}

// Who says which node this is, as far as it is known, and whatever more helps to find it.
func (p *page) Who(name, id, serial string, more ...string) {
	lines := []string{"This is node " + name + " (" + id + ")"}
	if serial != "" {
		lines = append(lines, "serial  "+serial)
	}
	lines = append(lines, more...)
	p.Banner(append(lines, "Hostler works on this machine: please do not switch it off.")...)
}

// Doing writes one line when what is being done changes.
func (p *page) Doing(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.doing == what {
		return
	}
	p.doing, p.whats = what, map[string]bool{}
	p.line(what)
}

// Progress writes a line for new words, and now and then while the numbers change.
func (p *page) Progress(pr inventory.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.whats[pr.What] && p.uptime()-p.shown < lineEvery {
		return
	}
	if p.whats == nil {
		p.whats = map[string]bool{}
	}
	p.whats[pr.What] = true
	text := p.doing + ": " + pr.What
	if pr.Total > 0 {
		text += fmt.Sprintf(", %d %% (%d of %d %s)", 100*pr.Done/pr.Total, pr.Done, pr.Total, pr.Unit)
	}
	if pr.LeftS > 0 {
		text += ", about " + (time.Duration(pr.LeftS * float64(time.Second))).Round(time.Second).String() + " left"
	}
	p.line(text)
}

// Fatal says what happened, what to do, and when the machine starts again.
func (p *page) Fatal(err error, again time.Duration) {
	what, todo := fmt.Sprint(err), "tell the makers of Hostler what stands above"
	if f, ok := err.(*fault); ok {
		what, todo = f.what, f.todo
	}
	p.Banner("STOPPED: "+what, "What to do: "+todo, fmt.Sprintf("This machine starts again in %v.", again))
}

func (p *page) line(text string) {
	p.shown = p.uptime()
	fmt.Fprintf(p.out, "[%7.1fs] %s\n", p.shown.Seconds(), printable(text))
}

// printable keeps what others wrote (a server's answer, a drive's model) from moving the cursor or worse.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}
