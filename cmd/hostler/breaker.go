package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hostler-project/hostler/inventory/api"
	"github.com/hostler-project/hostler/inventory/client"
)

func (a *app) breaker() *cobra.Command {
	c := group("breaker", "What stops everything new when too many nodes become unhealthy at once", a.breakerClose())
	help := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return help(c, args)
		}
		return a.ask(func(c *cobra.Command, cl *client.Client, _ []string) error {
			b, err := cl.Breaker(c.Context())
			if err != nil {
				return err
			}
			return a.show(b, func() { a.breakerText(b) })
		})(c, args)
	}
	return c
}

func (a *app) breakerText(s api.BreakerStatus) {
	b := s.Breaker
	word := "closed"
	if b.Open {
		word = "open"
	}
	if !b.Since.IsZero() {
		word += " for " + since(b.Since)
	}
	a.print("breaker  %s", word)
	if b.Open {
		field(a.out, "cause", b.Cause)
		field(a.out, "means", "no power or destructive act starts and no deadline runs; what runs goes on, and what is seen is written down")
	} else if b.By != "" {
		field(a.out, "closed", "by "+b.By+": "+b.Reason)
	}
	field(a.out, "unhealthy", fmt.Sprintf("%d of %d nodes within %s; more than %d open it", s.Unhealthy, s.Nodes, age(time.Duration(s.Limits.Breaker.Within)), s.Allowed))
	for _, x := range s.AtOnce {
		field(a.out, x.Activity, fmt.Sprintf("%d at once, %d at most", x.Nodes, x.Limit))
	}
	if b.Open {
		field(a.out, "you can", "hostler node ls state=quarantined")
		field(a.out, "you can", "hostler breaker close --reason TEXT, once the cause is found: what waits begins at once, within the limits")
	}
}

func (a *app) breakerClose() *cobra.Command {
	var reason string
	var yes bool
	c := &cobra.Command{Use: "close", Short: "Let things start again: the cause is found", Args: args(0, 0, "")}
	c.Flags().StringVar(&reason, "reason", "", "what was found, for the record and the next person")
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	c.RunE = a.ask(func(c *cobra.Command, cl *client.Client, _ []string) error {
		if strings.TrimSpace(reason) == "" {
			return fail(exitUsage, "--reason TEXT", "closing the breaker needs a reason: the next person will ask")
		}
		if !yes {
			s, err := cl.Breaker(c.Context())
			if err != nil {
				return err
			}
			if s.Breaker.Open {
				if err := a.confirm("close the breaker (%s); what waits for it begins at once, within the limits", s.Breaker.Cause); err != nil {
					return err
				}
			}
		}
		b, err := cl.CloseBreaker(c.Context(), reason)
		if err != nil {
			return err
		}
		return a.show(b, func() { a.print("the breaker is closed") })
	})
	return c
}
