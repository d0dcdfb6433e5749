package web

import (
	"encoding/xml"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/lifecycle"
)

// The picture must stay whole whatever becomes of the table.
func TestThePictureIsTheTable(t *testing.T) {
	svg := draw()
	d := xml.NewDecoder(strings.NewReader(svg))
	for {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatalf("the picture is not well-formed: %v", err)
		}
	}
	for _, s := range lifecycle.States {
		if n := strings.Count(svg, `href="#state-`+string(s.Name)+`"`); n != 1 {
			t.Errorf("%s is drawn %d times", s.Name, n)
		}
	}
	boxes, left, right := plan()
	lines := 0
	for _, b := range boxes {
		if b.down != "" {
			lines += len(strings.Split(b.down, ", "))
		}
	}
	for _, tr := range append(left, right...) {
		for _, ev := range tr.event {
			lines += len(strings.Split(ev, ", "))
		}
	}
	want := 0
	for _, e := range lifecycle.Edges {
		if drawn(e) {
			want++
		}
	}
	if lines != want {
		t.Errorf("%d edges are drawn, the table has %d to draw", lines, want)
	}
	for _, side := range [][]*track{left, right} {
		for i, a := range side {
			for _, b := range side[i+1:] {
				if a.place == b.place && a.lo <= b.hi && b.lo <= a.hi {
					t.Errorf("the ways to %s and to %s lie on each other", boxes[a.to].name, boxes[b.to].name)
				}
			}
		}
	}
}

func TestEveryStateHasATone(t *testing.T) {
	css, err := assets.ReadFile("assets/app.css")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range lifecycle.States {
		if tones[s.Name] == "" || !strings.Contains(string(css), "."+tones[s.Name]+" { --tone:") {
			t.Errorf("%s: its tone %q has no colour", s.Name, tones[s.Name])
		}
	}
	if len(tones) != len(lifecycle.States) {
		t.Errorf("%d tones for %d states", len(tones), len(lifecycle.States))
	}
}

func TestTheWayFollowsTheTable(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	circle := []inventory.History{{To: inventory.Inspecting, Time: at.Add(-time.Hour)}, {To: inventory.Sanitizing, Time: at.Add(-30 * time.Minute)}}
	var told []string
	for _, s := range way(inventory.NodeState{State: inventory.Sanitizing}, circle, at) {
		word := string(s.State)
		for _, f := range []struct {
			is   bool
			mark string
		}{{s.Been, " been"}, {s.Here, " here"}, {s.Next, " next"}} {
			if f.is {
				word += f.mark
			}
		}
		if s.Took != "" {
			word += " " + s.Took
		}
		told = append(told, word)
	}
	const want = "discovered; inspecting been 30 min; firmware; sanitizing here 30 min; burn-in next; verifying next; ready; reserved; provisioning; in-use; servicing; draining; fencing"
	if got := strings.Join(told, "; "); got != want {
		t.Errorf("the way is\n%s\nwant\n%s", got, want)
	}
	lost := way(inventory.NodeState{State: inventory.Quarantined}, nil, at)
	if last := lost[len(lost)-1]; last.State != inventory.Quarantined || !last.Here {
		t.Errorf("a node off the way ends at %+v", last)
	}
}

func TestWords(t *testing.T) {
	for got, want := range map[string]string{
		span(1500 * time.Millisecond): "1.5 s", span(90 * time.Second): "90 s", span(45 * time.Minute): "45 min", span(150 * time.Minute): "2 h 30 min", span(72 * time.Hour): "3 days",
		byteSize(999): "999 B", byteSize(7681501126656): "7.7 TB", byteSize(4 << 30): "4.3 GB", byteSize(999_999): "1 MB",
		value(0.8234): "0.823", value(6871.2): "6871", value(3): "3",
		left(-1): "no time left", left(30 * time.Second): "under a minute left", left(10 * time.Minute): "10 min left",
		quote("rack=r12"): "rack=r12", quote("a b"): "'a b'", quote("$(x)"): "'$(x)'",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if b := progress(&inventory.Progress{What: "x", Done: 9, Total: 3, Unit: "tests", LeftS: -1}); b.Value != 3 || b.Percent != "100 %" || b.Left != "" {
		t.Errorf("progress beyond its end is %+v", b)
	}
	if progress(nil) != nil || progress(&inventory.Progress{}) != nil {
		t.Error("no progress is shown as some")
	}
}
