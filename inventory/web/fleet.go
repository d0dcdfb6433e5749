package web

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/api"
	"github.com/hostler-project/hostler/inventory/lifecycle"
)

const (
	perPage   = 200 // nodes on one page of the fleet
	maxPeople = 12  // nodes in the block that asks for a person
	unsold    = 2 * time.Minute
)

// A line is one node of the fleet, in short.
type line struct {
	ID, Name, Path string
	State          inventory.State
	Ago, Stamp     string
	Waits          string
	Bar            *bar
	SKU, Place     string
	Tenant         string
	Unwell         string // what is wrong with its health; "" while healthy
	Alive          string
	Rentable       bool
}

// A tally is how many nodes are in one state.
type tally struct {
	State    inventory.State
	Count    int
	Link     string
	Picked   bool
	X, Width int // of 1000, in the bar above
}

// A summary is what is said of the fleet at its top.
type summary struct {
	Total, Rentable, Rented, Moving, People int
	Tallies                                 []tally
	All                                     string // link that shows every state
	Filtered                                bool
}

// A plea is a node that needs a person: what is wrong, and the next act.
type plea struct {
	line
	What string
	Do   string
}

// A filter is what the fleet page was asked to show.
type filter struct {
	State inventory.State
	Text  string
	Page  int
}

func (s *Server) fleet(r *http.Request) func(context.Context) (view, error) {
	q := r.URL.Query()
	f := filter{State: inventory.State(q.Get("state")), Text: strings.TrimSpace(q.Get("q"))}
	f.Page, _ = strconv.Atoi(q.Get("page")) // not a number: the first page
	f.Page = max(f.Page, 1)
	return func(context.Context) (view, error) { return s.fleetView(f), nil }
}

func (s *Server) fleetView(f filter) view {
	now := s.API.Now()
	all := s.publics()
	var shown []inventory.Public
	for _, p := range all {
		if (f.State == "" || p.State == f.State) && s.matches(p, f.Text) {
			shown = append(shown, p)
		}
	}
	pages := max(1, (len(shown)+perPage-1)/perPage)
	f.Page = min(f.Page, pages)
	first := (f.Page - 1) * perPage
	list := part{ID: "nodes", List: []part{}}
	for _, p := range shown[first:min(first+perPage, len(shown))] {
		list.List = append(list.List, part{ID: "at-" + p.ID, Template: "node-line", Data: s.line(p, now)})
	}
	pleas, people := s.pleas(all, now)
	type count struct {
		Shown, Total, Page, Pages int
		Before, After             string
		Filter                    filter
	}
	c := count{Shown: len(shown), Total: len(all), Page: f.Page, Pages: pages, Filter: f}
	if f.Page > 1 {
		c.Before = f.link(f.State, f.Page-1)
	}
	if f.Page < pages {
		c.After = f.link(f.State, f.Page+1)
	}
	type choice struct {
		Filter filter
		States []inventory.State
	}
	ask := choice{Filter: f}
	for _, row := range lifecycle.States {
		ask.States = append(ask.States, row.Name)
	}
	sum := s.summary(all, f)
	sum.People = people
	return view{Title: "Fleet", Nav: "fleet", Body: "fleet", CLI: f.commands(), Parts: []part{
		{ID: "audit", Template: "audit", Data: s.audit()},
		{ID: "summary", Template: "summary", Data: sum},
		{ID: "people", Template: "people", Data: struct {
			Pleas []plea
			More  int
		}{pleas, people - len(pleas)}},
		{ID: "filter", Template: "filter", Data: ask},
		{ID: "count", Template: "count", Data: c},
		list,
	}}
}

// audit is what the fleet page says when the record is not what it must be; "" while it is.
func (s *Server) audit() string {
	v := s.API.Audited()
	switch {
	case v.OK:
		return ""
	case len(v.Broken) == 0:
		return "The record was not what it must be, and nobody has looked yet: " + strings.Join(v.Standing, ", ") + " cannot be rented until then."
	}
	b := v.Broken[len(v.Broken)-1]
	out := "The record is not what it must be: " + b.Invariant + " is broken at revision " + strconv.FormatInt(b.Rev, 10)
	if b.Node != "" {
		out += " by node " + b.Node
	}
	out += ": " + b.What + "."
	if more := len(v.Broken) - 1 + v.More; more > 0 {
		out += " And " + strconv.Itoa(more) + " more."
	}
	return out
}

// roll is the public records of all nodes as of one revision, kept for all pages that are open: reading thousands of
// records is most of the work of a fleet page.
type roll struct {
	mu  sync.Mutex
	rev int64
	all []inventory.Public
}

// publics are the public records of all nodes, in the order in which people count: gpu9 before gpu10. They are shared:
// nobody changes them.
func (s *Server) publics() []inventory.Public {
	s.roll.mu.Lock()
	defer s.roll.mu.Unlock()
	rev := s.API.Copy.Rev() // before the records: they may be newer than it, never older
	if rev == s.roll.rev {
		return s.roll.all
	}
	var all []inventory.Public
	for _, kv := range s.API.Copy.Under(inventory.PrefixPublic) {
		p, err := inventory.Decode[inventory.Public](kv)
		if id := inventory.Parts(kv.Key)[1]; err != nil && !errors.Is(err, inventory.ErrNewer) {
			p.V = inventory.Public{ID: id, Name: id, Health: "unhealthy", Detail: err.Error()} // shown, so that somebody looks
		}
		all = append(all, p.V)
	}
	slices.SortStableFunc(all, func(a, b inventory.Public) int { return api.Natural(a.Name, b.Name) })
	s.roll.rev, s.roll.all = rev, all
	return all
}

// matches looks for every word of a text in what a node is known by; "rack=r12" means just that rack.
func (s *Server) matches(p inventory.Public, text string) bool {
	if text == "" {
		return true
	}
	spec, _ := inventory.Decode[inventory.Spec](s.API.Copy.One(inventory.KeySpec(p.ID))) // unreadable: found by less
	known := strings.ToLower(strings.Join(append([]string{"", p.ID, p.Name, "rack=" + p.Rack, "slot=" + p.Slot, "sku=" + p.SKU, "state=" + string(p.State),
		"tenant=" + p.Tenant, "health=" + p.Health, spec.V.Serial, spec.V.IP, spec.V.BMC.Addr, p.Instance, p.Reservation, ""}, spec.V.MACs...), "\n")) + "\n"
	for _, w := range strings.Fields(strings.ToLower(text)) {
		if strings.Contains(w, "=") {
			w = "\n" + w + "\n"
		}
		if !strings.Contains(known, w) {
			return false
		}
	}
	return true
}

// line says of a node what the fleet page shows.
func (s *Server) line(p inventory.Public, now time.Time) line {
	v := inventory.View(s.API.Copy, p.ID)
	why := s.API.Explain(v)
	l := line{ID: p.ID, Name: cmp.Or(p.Name, p.ID), Path: nodePath(p.ID, p.Name), State: p.State, Ago: ago(now, p.Since), Stamp: stamp(p.Since),
		Waits: why.Waits, Bar: progress(why.Progress), SKU: p.SKU, Place: place(p.Rack, p.Slot), Tenant: p.Tenant,
		Alive: v.State.V.Alive, Rentable: p.Rentable && v.Avail.Exists()}
	if p.Health != "healthy" {
		l.Unwell = cmp.Or(p.Detail, "unhealthy")
	}
	return l
}

func place(rack, slot string) string {
	switch {
	case rack != "" && slot != "":
		return "rack " + rack + ", slot " + slot
	case rack != "":
		return "rack " + rack
	case slot != "":
		return "slot " + slot
	}
	return ""
}

func nodePath(id, name string) string { return "/nodes/" + url.PathEscape(api.Handle(id, name)) }

// needs says why a node needs a person; "" when it does not.
func (s *Server) needs(p inventory.Public, now time.Time) string {
	age := now.Sub(p.Since)
	row, known := lifecycle.Get(p.State)
	switch {
	case !known:
		return cmp.Or(p.Detail, "its state is unknown to this version of hostlerd")
	case p.State == inventory.Quarantined:
		return cmp.Or(p.Detail, "quarantined")
	case p.Health != "healthy":
		return cmp.Or(p.Detail, "unhealthy")
	case p.State == inventory.Repair:
		return "a technician exchanges parts"
	case p.State == inventory.Discovered:
		spec, err := inventory.Decode[inventory.Spec](s.API.Copy.One(inventory.KeySpec(p.ID)))
		if err == nil && spec.V.Approve == "auto" {
			return ""
		}
		return "new here: waits for approval"
	case row.Alarm > 0 && age > row.Alarm:
		return "has been " + string(p.State) + " for " + span(age)
	case p.State == inventory.Ready && !p.Rentable && age > unsold && len(p.Reasons) > 0:
		return "ready, but cannot be rented: " + p.Reasons[0]
	}
	return ""
}

// pleas are the nodes that need a person, newest first, those with something wrong before those that are only new.
func (s *Server) pleas(all []inventory.Public, now time.Time) (out []plea, total int) {
	type found struct {
		p    inventory.Public
		what string
	}
	var wanting []found
	for _, p := range all {
		if what := s.needs(p, now); what != "" {
			wanting = append(wanting, found{p, what})
		}
	}
	slices.SortStableFunc(wanting, func(a, b found) int {
		if x, y := a.p.State == inventory.Discovered, b.p.State == inventory.Discovered; x != y {
			if x {
				return 1
			}
			return -1
		}
		return b.p.Since.Compare(a.p.Since)
	})
	for _, w := range wanting[:min(maxPeople, len(wanting))] {
		one := plea{line: s.line(w.p, now), What: w.what}
		why := s.API.Explain(inventory.View(s.API.Copy, w.p.ID))
		one.Do = "hostler why " + api.Handle(w.p.ID, w.p.Name)
		if len(why.Do) > 0 {
			one.Do = why.Do[0]
		}
		for _, a := range why.Alerts { // what hands must do comes before any command
			if a.Next != "" {
				one.What, one.Do = a.What, a.Next
			}
		}
		out = append(out, one)
	}
	return out, len(wanting)
}

// summary counts the fleet, state by state in the order of the table.
func (s *Server) summary(all []inventory.Public, f filter) summary {
	sum := summary{Total: len(all), All: f.link("", 1), Filtered: f.State != ""}
	counts := map[inventory.State]int{}
	for _, p := range all {
		counts[p.State]++
		row, _ := lifecycle.Get(p.State)
		switch {
		case p.Rentable:
			sum.Rentable++
		case row.Owned:
			sum.Rented++
		case !row.Rest && row.Name != "":
			sum.Moving++
		}
	}
	states := []inventory.State{}
	for _, row := range lifecycle.States {
		states = append(states, row.Name)
	}
	for st := range counts { // of a newer version, or unreadable
		if !slices.Contains(states, st) {
			states = append(states, st)
		}
	}
	slices.Sort(states[len(lifecycle.States):])
	x, before := 0, 0
	for _, st := range states {
		n := counts[st]
		if n == 0 && st != f.State {
			continue
		}
		t := tally{State: st, Count: n, Link: f.link(st, 1), Picked: st == f.State, X: x}
		if before += n; len(all) > 0 {
			t.Width = 1000*before/len(all) - x
		}
		x += t.Width
		sum.Tallies = append(sum.Tallies, t)
	}
	return sum
}

// link is the address of the fleet page with another state or page, and the same text.
func (f filter) link(state inventory.State, page int) string {
	q := url.Values{}
	if state != "" {
		q.Set("state", string(state))
	}
	if f.Text != "" {
		q.Set("q", f.Text)
	}
	if page > 1 {
		q.Set("page", strconv.Itoa(page))
	}
	if len(q) == 0 {
		return "/"
	}
	return "/?" + q.Encode()
}

// commands are the same in a terminal. Words that are no selector are looked for by grep.
func (f filter) commands() []string {
	var terms []string
	if _, known := lifecycle.Get(f.State); known {
		terms = append(terms, "state="+string(f.State))
	}
	grep := ""
	for _, w := range strings.Fields(f.Text) {
		if sel, err := api.ParseSelector(w); err == nil && len(sel.Filters) > 0 {
			terms = append(terms, quote(w))
			continue
		}
		grep += " | grep -iF -e " + quote(w)
	}
	ls := "hostler node ls"
	if len(terms) > 0 {
		ls += " " + strings.Join(terms, ",")
	}
	watch := strings.Replace(ls, "node ls", "watch", 1)
	return []string{ls + grep, watch}
}

// quote makes one word of a shell of any text.
func quote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-=/:@%+", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
