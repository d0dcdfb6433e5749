package faults

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// Two models, because linearizability is local: what clients heard of one reservation, and what they heard of one node.
// An operation whose outcome is unknown returns at infinity and may or may not have happened.

// byReservation: absent → held(node) → over. An answer tells where it is; a node once told stays.
var byReservation = porcupine.NondeterministicModel{
	Init: func() []any { return []any{""} },
	Step: func(state, in, _ any) []any {
		s, o := state.(string), in.(Op)
		held := s != "" && s != "over"
		known := func(node string) []any { // the reservation is held, by this node as far as it was ever told
			if s == "?" || s == node {
				return []any{node}
			}
			return nil
		}
		if o.Outcome == Refused {
			switch {
			case o.Why == whyOver && s == "over", (o.Why == whyNone || o.Why == whyLeft) && s == "":
				return []any{s}
			}
			return nil
		}
		switch o.Kind + " " + o.Outcome {
		case claimOp + " " + OK:
			if s == "" {
				return []any{o.Node}
			}
			return known(o.Node)
		case claimOp + " " + Unknown:
			if s == "" {
				return []any{"", "?"}
			}
			return []any{s}
		case releaseOp + " " + OK:
			if s == "" {
				return nil
			}
			return []any{"over"}
		case releaseOp + " " + Unknown:
			if held {
				return []any{s, "over"}
			}
			return []any{s}
		case showOp + " " + OK:
			if o.Phase == "released" || o.Phase == "expired" {
				if s == "over" {
					return []any{s}
				}
				return nil
			}
			return known(o.Node)
		}
		return []any{s} // a look whose answer was lost
	},
	Equal: func(a, b any) bool { return a == b },
}

// byNode: free or some reservation's. Here a second holder shows.
var byNode = porcupine.NondeterministicModel{
	Init: func() []any { return []any{""} },
	Step: func(state, in, _ any) []any {
		s, o := state.(string), in.(Op)
		switch o.Kind + " " + o.Outcome {
		case claimOp + " " + OK:
			if s == "" || s == o.Reservation {
				return []any{o.Reservation}
			}
			return nil
		case claimOp + " " + Unknown:
			if s == "" {
				return []any{"", o.Reservation}
			}
			return []any{s}
		case releaseOp + " " + OK:
			if s == o.Reservation {
				return []any{""}
			}
			return []any{s} // a repeat: it was over
		case releaseOp + " " + Unknown:
			if s == o.Reservation {
				return []any{s, ""}
			}
			return []any{s}
		}
		return []any{s}
	},
	Equal: func(a, b any) bool { return a == b },
}

// A Verdict is what porcupine says of a history.
type Verdict struct {
	Reservations, Nodes int // histories that were checked apart
	Operations          int
	Took                time.Duration
	Illegal             []string
}

// Judge checks what clients saw. nodeOf resolves the node of operations whose answer was lost: those that name none took
// no effect, or are no node's business.
func Judge(ops []Op, nodeOf func(reservation string) string, limit time.Duration) Verdict {
	v := Verdict{Operations: len(ops)}
	began := time.Now()
	reservations, nodes := map[string][]porcupine.Operation{}, map[string][]porcupine.Operation{}
	for i, o := range ops {
		p := porcupine.Operation{ClientId: o.Client, Input: o, Call: int64(o.Call), Return: int64(o.Return)}
		if o.Outcome == Unknown {
			if o.Kind == showOp {
				continue
			}
			p.ClientId, p.Return = 1<<20+i, math.MaxInt64 // the client goes on before it returns
		}
		reservations[o.Reservation] = append(reservations[o.Reservation], p)
		node := cmp.Or(o.Node, nodeOf(o.Reservation))
		if node != "" && o.Outcome != Refused && o.Kind != showOp {
			nodes[node] = append(nodes[node], p)
		}
	}
	v.Reservations, v.Nodes = len(reservations), len(nodes)
	check := func(what string, m porcupine.Model, all map[string][]porcupine.Operation) {
		for key, history := range all {
			if r := porcupine.CheckOperationsTimeout(m, history, limit); r != porcupine.Ok {
				v.Illegal = append(v.Illegal, fmt.Sprintf("%s %s: %s: %s", what, key, r, story(history)))
			}
		}
	}
	check("reservation", byReservation.ToModel(), reservations)
	check("node", byNode.ToModel(), nodes)
	v.Took = time.Since(began)
	slices.Sort(v.Illegal)
	return v
}

// story is a history in words, as far as a person reads on.
func story(history []porcupine.Operation) string {
	var out string
	for i, p := range history {
		if i == 40 {
			return out + " …"
		}
		o := p.Input.(Op)
		out += fmt.Sprintf("\n    %v–%v client %d: %s %s → %s %s %s %s", o.Call, o.Return, o.Client, o.Kind, o.Reservation, o.Outcome, o.Why, o.Node, o.Phase)
	}
	return out
}
