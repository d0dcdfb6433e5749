package main

import (
	"errors"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/api"
	"github.com/hostler-project/hostler/inventory/client"
)

// nodeWish is a verb that is written as a wish, for one node or many.
func (a *app) nodeWish(verb, use, short string) *cobra.Command {
	var reason string
	var dry, yes bool
	var w waiting
	c := &cobra.Command{Use: use, Short: short, ValidArgsFunction: a.nodeNames, Args: args(1, -1, "a selector")}
	low := 1
	if verb == inventory.WishPower {
		low = 2
		c.Args = args(2, -1, "on, off or cycle, and a selector")
		c.ValidArgsFunction = func(c *cobra.Command, given []string, typed string) ([]string, cobra.ShellCompDirective) {
			if len(given) == 0 {
				return []string{"on", "off", "cycle"}, cobra.ShellCompDirectiveNoFileComp
			}
			return a.nodeNames(c, given, typed)
		}
	}
	f := c.Flags()
	f.StringVar(&reason, "reason", "", "for the record, and for the next person")
	f.BoolVar(&dry, "dry-run", false, "only say what would be done, and to how many")
	f.BoolVar(&yes, "yes", false, "do not ask, also for many nodes")
	w.flags(f, "until each is answered")
	c.RunE = a.ask(func(c *cobra.Command, cl *client.Client, args []string) error {
		if (verb == inventory.WishQuarantine || verb == inventory.WishMaintain) && strings.TrimSpace(reason) == "" {
			return fail(exitUsage, "--reason TEXT", "%s needs a reason: the next person will ask", verb)
		}
		q := api.WishRequest{Verb: verb, Reason: reason}
		if low == 2 {
			q.Arg = args[0]
		}
		l, err := cl.Nodes(c.Context(), strings.Join(args[low-1:], ","))
		if err != nil {
			return err
		}
		switch {
		case len(l.Unknown) > 0:
			return fail(exitFailed, "hostler node ls", "no node is called %s; nothing was done", strings.Join(l.Unknown, ", "))
		case len(l.Nodes) == 0:
			return fail(exitFailed, "hostler node ls", "the selector means no node")
		}
		what := strings.TrimSpace(verb + " " + q.Arg)
		if dry {
			return a.show(l, func() {
				a.nodeTable(l.Nodes)
				a.print("would %s %d nodes; nothing was done", what, len(l.Nodes))
			})
		}
		if len(l.Nodes) > 1 && !yes {
			if err := a.confirm("%s %d nodes (%s)", what, len(l.Nodes), some(l.Nodes)); err != nil {
				return err
			}
		}
		return a.wishAll(c, cl, l.Nodes, q, w)
	})
	return c
}

// wishParallel is how many nodes are asked at once: writes of the API are short.
const wishParallel = 8

// wished is what came of one node's wish.
type wished struct {
	Node  string         `json:"node"`
	Wish  inventory.Wish `json:"wish,omitzero"`
	Error string         `json:"error,omitempty"`
}

func (a *app) wishAll(c *cobra.Command, cl *client.Client, nodes []api.NodeRow, q api.WishRequest, w waiting) error {
	ctx, cancel := w.context(c)
	defer cancel()
	out := make([]wished, len(nodes))
	errs := make([]error, len(nodes))
	slots := make(chan struct{}, wishParallel)
	var all sync.WaitGroup
	for i, n := range nodes {
		all.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			out[i].Node = n.Name
			out[i].Wish, errs[i] = cl.Wish(ctx, n.ID, q)
			if errs[i] == nil && w.wait {
				out[i].Wish, errs[i] = a.answered(ctx, cl, out[i].Wish)
			}
			if errs[i] != nil {
				out[i].Error = errs[i].Error()
			}
		})
	}
	all.Wait()
	if len(nodes) == 1 && errs[0] != nil {
		return errs[0]
	}
	failed := 0
	err := a.show(out, func() {
		for _, o := range out {
			text := o.Error
			if text == "" {
				text = strings.TrimSpace(q.Verb+" "+q.Arg) + " " + state(o.Wish)
			}
			a.print("%s: %s", o.Node, text)
		}
	})
	for _, e := range errs {
		if e != nil {
			failed++
		}
	}
	if err == nil && failed > 0 {
		err = fail(exitFailed, "hostler why NODE", "%d of %d nodes did not %s", failed, len(nodes), q.Verb)
	}
	return err
}

// state says how far a wish is.
func state(w inventory.Wish) string {
	switch w.Answer {
	case "", inventory.Doing:
		return "wished (" + w.ID + ")"
	}
	return strings.TrimSuffix(w.Answer+": "+w.Detail, ": ")
}

// some names the first few nodes.
func some(nodes []api.NodeRow) string {
	var names []string
	for i, n := range nodes {
		if i == 5 {
			names = append(names, "…")
			break
		}
		names = append(names, n.Name)
	}
	return strings.Join(names, " ")
}

var errNotAsked = errors.New("not confirmed: nothing was done")
