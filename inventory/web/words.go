package web

import (
	"fmt"
	"html/template"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hostler-project/hostler/inventory"
)

// tones group the states by what they mean for the owner of the fleet; each has a colour in app.css. A state is always
// written out beside its colour.
var tones = map[inventory.State]string{
	inventory.Discovered:   "new",
	inventory.Inspecting:   "work",
	inventory.Firmware:     "work",
	inventory.Sanitizing:   "work",
	inventory.BurnIn:       "work",
	inventory.Verifying:    "work",
	inventory.Ready:        "ready",
	inventory.Reserved:     "held",
	inventory.Provisioning: "held",
	inventory.InUse:        "rented",
	inventory.Servicing:    "rented",
	inventory.Draining:     "leaving",
	inventory.Fencing:      "leaving",
	inventory.Quarantined:  "wrong",
	inventory.Repair:       "away",
	inventory.Maintenance:  "away",
	inventory.Retiring:     "away",
	inventory.Retired:      "new",
}

func tone(s inventory.State) string {
	if t, ok := tones[s]; ok {
		return t
	}
	return "wrong" // of a newer version, or unreadable: a person must look
}

// verdicts are the colours of test verdicts, in the same tones.
var verdicts = map[string]string{inventory.Pass: "ready", inventory.Fail: "wrong", inventory.Inconclusive: "leaving", inventory.Aborted: "leaving"}

// words are the functions of the templates.
var words = template.FuncMap{
	"tone":    tone,
	"verdict": func(v string) string { return verdicts[v] },
	"bytes":   byteSize,
	"span":    span,
	"short":   func(s string) string { return s[:min(12, len(s))] },
	"join":    strings.Join,
	"command": func(s string) bool { return strings.HasPrefix(s, "hostler ") },
	"stamp":   stamp,
	"seconds": func(s float64) string { return span(time.Duration(s * float64(time.Second))) },
	"value":   value,
	"plus":    func(a, b int) int { return a + b },
}

// span is a length of time in words; coarse on purpose, so that a page that stands still does not change each second.
func span(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return strconv.FormatFloat(math.Max(0, math.Floor(d.Seconds()*10)/10), 'f', -1, 64) + " s"
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		h, m := int(d.Hours()), int(d.Minutes())%60
		if h >= 10 || m == 0 {
			return fmt.Sprintf("%d h", h)
		}
		return fmt.Sprintf("%d h %d min", h, m)
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

// ago is how long something lasts already.
func ago(now, t time.Time) string {
	d := now.Sub(t)
	switch {
	case t.IsZero():
		return "never"
	case d < time.Minute:
		return "under a minute"
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	}
	return span(d)
}

// left is how much time there still is.
func left(d time.Duration) string {
	switch {
	case d <= 0:
		return "no time left"
	case d < time.Minute:
		return "under a minute left"
	}
	return span(d) + " left"
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}

// byteSize is a size as drives and memory are sold: decimal.
func byteSize(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n), -1
	for ; f >= 999.95 && i < 4; i++ {
		f /= 1000
	}
	return strings.TrimSuffix(strconv.FormatFloat(f, 'f', 1, 64), ".0") + " " + []string{"kB", "MB", "GB", "TB", "PB"}[i]
}

// value is a measured number with as many digits as say something.
func value(f float64) string {
	if math.Abs(f) >= 100 || f == math.Trunc(f) {
		return strconv.FormatFloat(f, 'f', 0, 64)
	}
	return strconv.FormatFloat(f, 'g', 3, 64)
}

// A bar is progress, with the words that say it.
type bar struct {
	What, Amount, Percent, Left string
	Value, Max                  int64 // Max 0: nobody knows how much there is
}

// progress is nil where there is none.
func progress(p *inventory.Progress) *bar {
	if p == nil || p.What == "" && p.Total <= 0 {
		return nil
	}
	b := &bar{What: p.What}
	if p.Total > 0 {
		b.Max, b.Value = p.Total, min(max(p.Done, 0), p.Total)
		b.Percent = fmt.Sprintf("%d %%", int64(float64(b.Value)/float64(b.Max)*100))
		b.Amount = fmt.Sprintf("%d of %d %s", b.Value, b.Max, p.Unit)
		if slices.Contains([]string{"bytes", "byte", "B"}, p.Unit) {
			b.Amount = byteSize(b.Value) + " of " + byteSize(b.Max)
		}
	}
	if p.LeftS >= 0 && p.LeftS < math.MaxInt32 && p.Total > 0 && p.Done < p.Total {
		if b.Left = left(time.Duration(p.LeftS * float64(time.Second))); p.LeftS >= 60 {
			b.Left = "about " + b.Left
		}
	}
	return b
}
