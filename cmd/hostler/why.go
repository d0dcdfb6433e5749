package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/api"
	"github.com/hostler-project/hostler/inventory/client"
	"github.com/hostler-project/hostler/inventory/lifecycle"
)

func (a *app) why() *cobra.Command {
	return &cobra.Command{Use: "why NODE", Short: "Say why a node is where it is, and what happens next", Args: args(1, 1, "one node"),
		ValidArgsFunction: a.nodeNames,
		RunE: a.ask(func(c *cobra.Command, cl *client.Client, args []string) error {
			w, err := cl.Why(c.Context(), args[0])
			if err != nil {
				return err
			}
			return a.show(w, func() { a.whyText(w) })
		})}
}

func (a *app) whyText(w api.Why) {
	out := a.out
	a.print("%s  %s  for %s", w.Name, w.State, since(w.Since))
	field(out, "means", w.Means)
	field(out, "reason", w.Reason)
	field(out, "now", w.Waits+percent(w.Progress))
	if !w.Heard.IsZero() {
		field(out, "agent heard", since(w.Heard)+" ago")
	}
	if w.Deadline {
		left := age(time.Duration(w.Left)) + " left"
		if w.AtDeadline != "" {
			left += ", then " + string(w.AtDeadline)
		}
		if w.Still != "" {
			left += "; stands still: " + w.Still
		}
		field(out, "deadline", left)
	}
	for _, e := range w.Next {
		if e.On == lifecycle.Timeout || e.On == lifecycle.Quarantine || e.On == lifecycle.Abort {
			continue // told as deadline, and as what a person can do
		}
		field(out, "next", string(e.To)+" ← "+e.Why)
	}
	for _, b := range w.Blocked {
		// On its way a node lacks proofs by nature: that they block is news only once it is ready.
		if w.State == inventory.Ready || a.wide() {
			field(out, "not rentable", b)
		}
	}
	for _, al := range w.Alerts {
		field(out, "alert", al.ID+" "+al.What+" "+al.Where)
	}
	for _, x := range w.Wishes {
		field(out, "wish", x.Verb+" "+x.Arg+" by "+x.Actor+", "+since(x.Created)+" ago")
	}
	for _, d := range w.Do {
		field(out, "you can", d)
	}
}
