package api

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/lifecycle"
)

// A Why is the answer to "why is this node where it is": computed from its record and the lifecycle table.
type Why struct {
	ID         string              `json:"id"`
	Name       string              `json:"name"`
	State      inventory.State     `json:"state"`
	Means      string              `json:"means"`
	Since      time.Time           `json:"since"`
	Reason     string              `json:"reason" doc:"What brought it here."`
	Waits      string              `json:"waits" doc:"What it waits for."`
	Progress   *inventory.Progress `json:"progress,omitempty"`
	Heard      time.Time           `json:"heard,omitzero" doc:"When its agent last spoke."`
	Allowed    inventory.Duration  `json:"allowed,omitempty"`
	Left       inventory.Duration  `json:"left,omitempty" doc:"Of the deadline; only time in which it was worked on counts."`
	Deadline   bool                `json:"deadline"`
	Still      string              `json:"still,omitempty" doc:"Why the deadline stands still."`
	AtDeadline inventory.State     `json:"at_deadline,omitempty" doc:"Where it goes when the deadline passes."`
	Next       []Exit              `json:"next" doc:"Every way out of this state."`
	Blocked    []string            `json:"blocked,omitempty" doc:"Why it cannot be rented."`
	Wishes     []inventory.Wish    `json:"wishes,omitempty"`
	Alerts     []inventory.Alert   `json:"alerts,omitempty"`
	Do         []string            `json:"do,omitempty" doc:"What a person can do."`
}

// An Exit is one way out of a state.
type Exit struct {
	On  lifecycle.Event `json:"on"`
	To  inventory.State `json:"to"`
	By  lifecycle.Who   `json:"by"`
	Why string          `json:"why"`
}

// byHand says which command makes an event happen. {node} and {claim} are filled in.
var byHand = map[lifecycle.Event]string{
	lifecycle.Approve:    "hostler node approve {node} --sku SKU --bmc ADDR --credential REF",
	lifecycle.Return:     "hostler node return {node}",
	lifecycle.Quarantine: "hostler node quarantine {node} --reason TEXT",
	lifecycle.Maintain:   "hostler node maintain {node} --reason TEXT",
	lifecycle.Abort:      "hostler node abort {node}",
	lifecycle.Confirm:    "hostler claim confirm {claim} --image NAME",
	lifecycle.Release:    "hostler claim release {claim}",
}

func (s *Server) why(ctx context.Context, in *NodeRef) (Why, error) {
	v, err := s.node(ctx, in.Node)
	if err != nil {
		return Why{}, err
	}
	return s.Explain(v), nil
}

// Handle is what to type, or to link to, for a node: its name, or its id where the name is not one plain word.
func Handle(id, name string) string {
	if idForm.MatchString(name) {
		return name
	}
	return id
}

// Explain answers for one node; the dashboard shows the same.
func (s *Server) Explain(v inventory.NodeView) Why {
	st := v.State.V
	row, known := lifecycle.Get(st.State)
	w := Why{ID: v.ID, Name: v.Name(), State: st.State, Means: row.Means, Since: st.Since, Reason: st.Reason, Next: []Exit{},
		Allowed: st.Allowed, Blocked: v.Blocked(s.Now()), Alerts: v.Alerts("")}
	if !known {
		w.Means = "This version does not know the state: the node is read-only until hostlerd is upgraded."
	}
	for _, x := range v.Wishes {
		w.Wishes = append(w.Wishes, x.V)
	}
	for _, e := range lifecycle.Exits(st.State) {
		if e.By == lifecycle.Restorer {
			continue // never while anybody could ask
		}
		w.Next = append(w.Next, Exit{e.On, e.To, e.By, e.Why})
		if e.On == lifecycle.Timeout {
			w.AtDeadline = e.To
		}
		if cmd := byHand[e.On]; cmd != "" && (v.Claim.Exists() || !strings.Contains(cmd, "{claim}")) {
			w.Do = append(w.Do, strings.NewReplacer("{node}", Handle(v.ID, v.Name()), "{claim}", v.Claim.V.Reservation).Replace(cmd))
		}
	}
	for _, a := range w.Alerts {
		if a.Next != "" {
			w.Do = append(w.Do, a.Next)
		}
	}
	if st.Allowed > 0 {
		w.Deadline, w.Left = true, max(0, st.Allowed-st.Spent)
	}
	w.Waits = s.waits(v, row)
	if l := s.live(v.ID); l != nil {
		w.Progress, w.Heard = l.Progress, l.Heard
		if l.Say != "" {
			w.Waits = l.Say
		}
		if l.Left != nil {
			w.Deadline, w.Left, w.Still = true, *l.Left, l.Still
		}
		if l.Held {
			w.Do = append([]string{"hostler breaker"}, w.Do...)
		}
	}
	return w
}

// waits says what the node waits for as far as its record tells: a daemon that is down is seen by that.
func (s *Server) waits(v inventory.NodeView, row lifecycle.State) string {
	st := v.State.V
	switch {
	case v.Broken != nil:
		return "a person: a record of it cannot be read: " + v.Broken.Error()
	case st.Work.Note != "":
		return st.Work.Note
	case st.Work.Phase != "":
		return fmt.Sprintf("its step %q, since %s", st.Work.Phase, st.Work.Since.Format(time.RFC3339))
	case st.State == inventory.Reserved:
		return fmt.Sprintf("confirm by %s, until %s", v.Claim.V.Tenant, v.Reservation.V.Expires.Format(time.RFC3339))
	case st.State == inventory.Ready && v.Avail.Exists():
		return "a tenant: it can be rented"
	case row.Owned:
		return "its tenant " + v.Claim.V.Tenant
	case row.Rest:
		return "a person"
	case row.Step == "":
		return "a person: this version has no step for this state"
	}
	return fmt.Sprintf("hostlerd to take up the step %q", row.Step)
}
