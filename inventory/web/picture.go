package web

import (
	"fmt"
	"html"
	"slices"
	"strings"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/lifecycle"
)

// The picture of the table is a line map: the states in their order from top to bottom, the way to the next one between
// them, ways that skip states on the right, ways back on the left. All ways into one state on one side share a lane, and
// lanes that do not meet share a place. Ways that every state has (something goes wrong → quarantined) would hide the
// rest; the text beside the picture says them.
const (
	boxWidth = 112
	gutter   = 92 // between a box and the first lane: room for the name of an event
	lane     = 13
	portStep = 13 // between two lines at one side of a box
	minBox   = 30
	between  = 30 // from one box to the next
)

// A track is all ways into one state on one side.
type track struct {
	to     int
	from   []int
	event  map[int]string // by where it starts
	place  int            // which lane
	lo, hi int            // rows that it spans
}

// A box is one state as drawn.
type box struct {
	name        inventory.State
	y, height   int
	left, right []port
	down        string // events to the next state
}

// A port is where a track meets a box: one it leaves by, or the one that leads in.
type port struct {
	track *track
	in    bool
}

// draw makes the picture of the lifecycle table, as SVG.
func draw() string {
	boxes, left, right := plan()
	lanes := func(ts []*track) int {
		n := 0
		for _, t := range ts {
			n = max(n, t.place+1)
		}
		return n
	}
	x0 := lanes(left)*lane + gutter + 4
	width := x0 + boxWidth + gutter + lanes(right)*lane + 4
	height := boxes[len(boxes)-1].y + boxes[len(boxes)-1].height + 2
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="map" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-labelledby="map-title"><title id="map-title">The states of a node from discovered to retired, and the ways between them; the list on this page says the same in words.</title>`, width, height, width, height)
	for _, t := range left {
		t.draw(&b, boxes, x0, -1)
	}
	for _, t := range right {
		t.draw(&b, boxes, x0+boxWidth, 1)
	}
	for i, s := range boxes {
		mid := x0 + boxWidth/2
		if s.down != "" {
			y, end := s.y+s.height, boxes[i+1].y
			fmt.Fprintf(&b, `<path class="line %s" d="M%d %dV%d"/>%s<text class="event" x="%d" y="%d">%s</text>`, tone(boxes[i+1].name), mid, y, end-5,
				arrow(tone(boxes[i+1].name), mid, end, 0, 1), mid+7, (y+end)/2+2, html.EscapeString(s.down))
		}
		fmt.Fprintf(&b, `<a href="#state-%s"><rect class="box %s" x="%d" y="%d" width="%d" height="%d" rx="8"/><text class="name" x="%d" y="%d">%s</text></a>`,
			s.name, tone(s.name), x0, s.y, boxWidth, s.height, mid, s.y+s.height/2+4, s.name)
	}
	b.WriteString("</svg>")
	return b.String()
}

// drawn says whether an edge is in the picture.
func drawn(e lifecycle.Edge) bool {
	return e.From != "" && e.From != e.To && e.To != inventory.Quarantined && e.On != lifecycle.Timeout && e.By != lifecycle.Restorer
}

// plan sorts the edges of the table into ways down, tracks on the left and tracks on the right, and gives all a place.
func plan() (boxes []box, left, right []*track) {
	row := map[inventory.State]int{}
	for i, s := range lifecycle.States {
		row[s.Name] = i
		boxes = append(boxes, box{name: s.Name})
	}
	add := func(to []*track, side func(*box) *[]port, from, dest int, ev string) []*track {
		i := slices.IndexFunc(to, func(t *track) bool { return t.to == dest })
		if i < 0 {
			i = len(to)
			to = append(to, &track{to: dest, event: map[int]string{}, lo: dest, hi: dest})
			*side(&boxes[dest]) = append(*side(&boxes[dest]), port{to[i], true})
		}
		t := to[i]
		if t.event[from] != "" {
			t.event[from] += ", " + ev
			return to
		}
		t.from, t.event[from], t.lo, t.hi = append(t.from, from), ev, min(t.lo, from), max(t.hi, from)
		*side(&boxes[from]) = append(*side(&boxes[from]), port{t, false})
		return to
	}
	for _, e := range lifecycle.Edges {
		if !drawn(e) {
			continue
		}
		from, to, ev := row[e.From], row[e.To], string(e.On)
		switch {
		case to == from+1 && boxes[from].down == "":
			boxes[from].down = ev
		case to == from+1:
			boxes[from].down += ", " + ev
		case to > from:
			right = add(right, func(b *box) *[]port { return &b.right }, from, to, ev)
		default:
			left = add(left, func(b *box) *[]port { return &b.left }, from, to, ev)
		}
	}
	places(left)
	places(right)
	y := 2
	for i := range boxes {
		b := &boxes[i]
		for _, side := range [][]port{b.left, b.right} {
			slices.SortStableFunc(side, func(p, q port) int { return height(p, i) - height(q, i) })
		}
		b.y, b.height = y, max(minBox, portStep*max(len(b.left), len(b.right))+8)
		y += b.height + between
	}
	return boxes, left, right
}

// height orders the ports of a box so that lines do not cross without need: what comes from or goes up is on top.
func height(p port, row int) int {
	if p.in {
		if p.track.lo == row {
			return 100 // comes from below
		}
		return -100
	}
	return p.track.to - row
}

// places gives each track the innermost lane that is free over all its rows, short tracks first.
func places(ts []*track) {
	order := slices.Clone(ts)
	slices.SortStableFunc(order, func(a, b *track) int { return (a.hi - a.lo) - (b.hi - b.lo) })
	var taken [][]*track
	for _, t := range order {
		t.place = slices.IndexFunc(taken, func(in []*track) bool {
			return !slices.ContainsFunc(in, func(o *track) bool { return t.lo <= o.hi && o.lo <= t.hi })
		})
		if t.place < 0 {
			t.place = len(taken)
			taken = append(taken, nil)
		}
		taken[t.place] = append(taken[t.place], t)
	}
}

// draw draws a track on the side of the boxes that begins at x; out is the direction away from them.
func (t *track) draw(b *strings.Builder, boxes []box, x, out int) {
	at := x + out*(gutter+t.place*lane)
	color := tone(boxes[t.to].name)
	in := t.port(boxes, t.to, out)
	for _, from := range t.from {
		y := t.port(boxes, from, out)
		turn := 6 // radius of the corners
		if in < y {
			turn = -6
		}
		fmt.Fprintf(b, `<path class="line %s" d="M%d %dH%dQ%d %d %d %dV%dQ%d %d %d %dH%d"/>`, color,
			x, y, at-out*6, at, y, at, y+turn, in-turn, at, in, at-out*6, in, x+out*5)
		anchor := "start"
		if out < 0 {
			anchor = "end"
		}
		fmt.Fprintf(b, `<text class="event" text-anchor="%s" x="%d" y="%d">%s</text>`, anchor, x+out*5, y-2, html.EscapeString(t.event[from]))
	}
	b.WriteString(arrow(color, x, in, -out, 0))
}

// port is the height at which a track meets a box.
func (t *track) port(boxes []box, row, out int) int {
	b := boxes[row]
	side := b.left
	if out > 0 {
		side = b.right
	}
	i := slices.IndexFunc(side, func(p port) bool { return p.track == t })
	return b.y + b.height/2 + (2*i-len(side)+1)*portStep/2
}

// arrow is a head whose point is at x, y, looking along dx, dy.
func arrow(color string, x, y, dx, dy int) string {
	return fmt.Sprintf(`<path class="head %s" d="M%d %dL%d %dL%d %dZ"/>`, color, x, y, x-7*dx-4*dy, y-7*dy-4*dx, x-7*dx+4*dy, y-7*dy+4*dx)
}
