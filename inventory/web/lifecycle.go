package web

import (
	"context"
	"html/template"
	"net/http"
	"strconv"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/lifecycle"
)

// A stage is one state of the table, with the ways out of it and how many nodes are there.
type stage struct {
	lifecycle.State
	Time  string
	Edges []lifecycle.Edge
	Count int
	Link  string
}

// lifecycle shows the table, and a picture drawn from it.
func (s *Server) lifecycle(*http.Request) func(context.Context) (view, error) {
	picture := template.HTML(draw()) // of the table alone, which is ours
	return func(context.Context) (view, error) {
		counts := map[inventory.State]int{}
		for _, p := range s.publics() {
			counts[p.State]++
		}
		v := view{Title: "Lifecycle", Nav: "lifecycle", Body: "lifecycle", CLI: []string{"hostler lifecycle show"},
			Parts: []part{{ID: "picture", Template: "picture", Data: picture}}}
		list := part{ID: "states", List: []part{}}
		for _, row := range lifecycle.States {
			list.List = append(list.List, part{ID: "state-" + string(row.Name), Template: "state", Data: stage{row, limit(row),
				lifecycle.Exits(row.Name), counts[row.Name], filter{}.link(row.Name, 1)}})
		}
		v.Parts = append(v.Parts, list)
		return v, nil
	}
}

// limit is how long a node may stay in a state, in words.
func limit(row lifecycle.State) string {
	text := ""
	switch {
	case row.Rest && row.Alarm > 0:
		return "as long as it takes; a person is told after " + span(row.Alarm)
	case row.Rest:
		return "as long as it takes"
	case row.Deadline > 0 && row.Posts > 0:
		text = span(row.Deadline) + " and "
	case row.Deadline > 0:
		return "at most " + span(row.Deadline)
	}
	boots := "a boot"
	if row.Posts > 1 {
		boots = strconv.Itoa(row.Posts) + " boots"
	}
	return "at most " + text + "the time of " + boots
}
