package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"golang.org/x/term"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/api"
)

// show prints v as JSON or YAML where that was asked for, else lets human do it.
func (a *app) show(v any, human func()) error {
	if a.output != "json" && a.output != "yaml" {
		human()
		return nil
	}
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	if a.output == "yaml" {
		if b, err = yaml.JSONToYAML(b); err != nil {
			return err
		}
	}
	_, err = a.out.Write(append(trimEnd(b), '\n'))
	return err
}

func trimEnd(b []byte) []byte { return []byte(strings.TrimRight(string(b), "\n")) }

func (a *app) wide() bool { return a.output == "wide" }

func (a *app) print(format string, v ...any) { fmt.Fprintf(a.out, format+"\n", v...) }

// table prints rows in columns. On a terminal the last column is cut at its edge: a phone shows one line a node.
func (a *app) table(head []string, rows [][]string) {
	width := make([]int, len(head))
	for _, r := range append([][]string{head}, rows...) {
		for i, c := range r {
			width[i] = max(width[i], utf8.RuneCountInString(c))
		}
	}
	edge := a.edge()
	for _, r := range append([][]string{head}, rows...) {
		var b strings.Builder
		for i, c := range r {
			if i == len(r)-1 {
				b.WriteString(c)
				break
			}
			b.WriteString(c + strings.Repeat(" ", width[i]-utf8.RuneCountInString(c)+2))
		}
		fmt.Fprintln(a.out, cut(strings.TrimRight(b.String(), " "), edge))
	}
}

// edge is the width of the terminal; 0 where the output is none.
func (a *app) edge() int {
	f, ok := a.out.(*os.File)
	if !ok || a.wide() {
		return 0
	}
	w, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return w
}

func cut(s string, edge int) string {
	if r := []rune(s); edge > 1 && len(r) > edge {
		return string(r[:edge-1]) + "…"
	}
	return s
}

// age is a length of time in at most two units: 3d4h, 2h5m, 40s.
func age(d time.Duration) string {
	d = d.Round(time.Second)
	switch {
	case d < 0:
		return "0s"
	case d >= 48*time.Hour:
		return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

func since(t time.Time) string {
	if t.IsZero() {
		return "–"
	}
	return age(time.Since(t))
}

// size is a number of bytes for people.
func size(n int64) string {
	unit := "B"
	f := float64(n)
	for _, u := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if f < 1024 {
			break
		}
		f, unit = f/1024, u
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", f), ".0") + " " + unit
}

// field prints "  name: value" where there is a value.
func field(w io.Writer, name, value string) {
	if value != "" {
		fmt.Fprintf(w, "  %s: %s\n", name, value)
	}
}

// doing says in a few words what a node is at.
func doing(reason string, l *api.Live) string {
	if l == nil || l.Say == "" {
		return reason
	}
	return l.Say + percent(l.Progress)
}

func percent(p *inventory.Progress) string {
	if p == nil || p.Total <= 0 {
		return ""
	}
	out := fmt.Sprintf(" (%s %d %%", p.What, 100*p.Done/p.Total)
	if p.LeftS > 0 {
		out += ", " + age(time.Duration(p.LeftS*float64(time.Second))) + " left"
	}
	return out + ")"
}
