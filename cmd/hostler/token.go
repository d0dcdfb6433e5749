package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/api"
	"github.com/hostler-project/hostler/inventory/client"
)

func (a *app) token() *cobra.Command {
	return group("token", "Who may use the API", a.tokenCreate(), a.tokenLs(), a.tokenRevoke())
}

func (a *app) tokenCreate() *cobra.Command {
	var q api.TokenRequest
	var ttl time.Duration
	c := &cobra.Command{Use: "create", Short: "Make a token; it is printed once", Args: args(0, 0, ""),
		Example: "  (umask 077; hostler token create --name kim --role technician > kim.token)"}
	f := c.Flags()
	f.StringVar(&q.Name, "name", "", "whose it is; histories name it")
	f.StringVar(&q.Role, "role", "", strings.Join(api.TokenRoles, ", "))
	f.StringVar(&q.Tenant, "tenant", "", "the tenant of a rental token")
	f.DurationVar(&ttl, "ttl", api.TokenFor, "how long it is good for, at most that")
	c.RunE = a.ask(func(c *cobra.Command, cl *client.Client, _ []string) error {
		switch {
		case q.Name == "":
			return fail(exitUsage, "--name NAME", "say whose it is: --name")
		case q.Role == "":
			return fail(exitUsage, "--role "+strings.Join(api.TokenRoles, "|"), "say what it may: --role")
		case ttl <= 0:
			return fail(exitUsage, "--ttl 24h", "--ttl %v: a token must be good for some time", ttl)
		}
		q.TTL = inventory.Duration(ttl)
		made, err := cl.CreateToken(c.Context(), q)
		if err != nil {
			return err
		}
		return a.show(made, func() {
			a.print("%s", made.Token)
			fmt.Fprintf(a.err, "This is shown once: keep it in a file for HOSTLER_TOKEN_FILE. It is good for %s; hostler token revoke %s ends it.\n",
				age(time.Until(made.Expires)), made.Hash)
		})
	})
	return c
}

func (a *app) tokenLs() *cobra.Command {
	return &cobra.Command{Use: "ls", Short: "List the tokens; secrets are not kept", Args: args(0, 0, ""),
		RunE: a.ask(func(c *cobra.Command, cl *client.Client, _ []string) error {
			l, err := cl.Tokens(c.Context())
			if err != nil {
				return err
			}
			return a.show(l, func() {
				var rows [][]string
				for _, t := range l {
					rows = append(rows, []string{t.Hash, t.Name, t.Role, t.Tenant, goodFor(t)})
				}
				a.table([]string{"HASH", "NAME", "ROLE", "TENANT", "GOOD FOR"}, rows)
			})
		})}
}

func goodFor(t api.TokenInfo) string {
	left := "ever"
	switch {
	case t.Expired:
		left = "expired"
	case !t.Expires.IsZero():
		left = age(time.Until(t.Expires))
	}
	if t.Once {
		left += ", a login link"
	}
	return left
}

func (a *app) tokenRevoke() *cobra.Command {
	return &cobra.Command{Use: "revoke PREFIX", Short: "End a token at once, by the first digits of its hash", Args: args(1, 1, "the beginning of one hash"),
		RunE: a.ask(func(c *cobra.Command, cl *client.Client, args []string) error {
			t, err := cl.RevokeToken(c.Context(), args[0])
			if err != nil {
				return err
			}
			return a.show(t, func() { a.print("%s of %s (%s) is revoked", t.Hash, t.Name, t.Role) })
		})}
}
