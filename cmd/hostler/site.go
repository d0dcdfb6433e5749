package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/hostler-project/hostler/internal/version"
	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/api"
	"github.com/hostler-project/hostler/inventory/client"
	"github.com/hostler-project/hostler/inventory/lifecycle"
)

func (a *app) boot() *cobra.Command {
	return group("boot", "What machines are served", &cobra.Command{Use: "preview NODE", Short: "Print what a node would be served at its next boot",
		Args: args(1, 1, "one node"), ValidArgsFunction: a.nodeNames,
		RunE: a.ask(func(c *cobra.Command, cl *client.Client, args []string) error {
			p, err := cl.BootPreview(c.Context(), args[0])
			if err != nil {
				return err
			}
			return a.show(p, func() { a.print("%s", strings.TrimRight(p.Text, "\n")) })
		})})
}

func (a *app) bmc() *cobra.Command {
	var user string
	set := &cobra.Command{Use: "set REF", Short: "Seal a BMC's login under a name; the password comes on standard input", Args: args(1, 1, "one name"),
		Example: "  hostler bmc credential set rack-bmc --user admin < password.txt"}
	set.Flags().StringVar(&user, "user", "", "user name at the BMC")
	set.RunE = a.ask(func(c *cobra.Command, cl *client.Client, args []string) error {
		if user == "" {
			return fail(exitUsage, "--user NAME", "say which --user; the password comes on standard input")
		}
		password, err := a.password("password of " + user + ": ")
		if err != nil {
			return err
		}
		info, err := cl.PutCredential(c.Context(), args[0], api.BMCLogin{User: user, Password: password})
		if err != nil {
			return err
		}
		return a.show(info, func() { a.print("%s is sealed; it is never shown again", info.Ref) })
	})
	return group("bmc", "Controllers of nodes", group("credential", "Sealed logins of BMCs", set))
}

// password reads one line from standard input, without echo where that is a terminal.
func (a *app) password(prompt string) (string, error) {
	if f, ok := a.in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprint(a.err, prompt)
		b, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(a.err)
		return string(b), err
	}
	line, err := bufio.NewReader(io.LimitReader(a.in, 4096)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read the password: %w", err)
	}
	if line = strings.TrimRight(line, "\r\n"); line == "" {
		return "", fail(exitUsage, "echo it in: … < FILE", "there is no password on standard input")
	}
	return line, nil
}

func (a *app) watch() *cobra.Command {
	return &cobra.Command{Use: "watch [SELECTOR…]", Short: "Follow what changes, from the list as it is now on", ValidArgsFunction: a.nodeNames,
		RunE: a.ask(func(c *cobra.Command, cl *client.Client, args []string) error {
			var only map[string]bool
			if len(args) > 0 {
				l, err := cl.Nodes(c.Context(), strings.Join(args, ","))
				if err != nil {
					return err
				}
				only = map[string]bool{}
				for _, n := range l.Nodes {
					only[n.ID] = true
				}
			}
			err := cl.Watch(c.Context(), func(ch client.Change) error {
				if ch.Synced || only != nil && !only[ch.Node.ID] {
					return nil
				}
				return a.change(ch)
			})
			if c.Context().Err() != nil {
				return nil // Ctrl-C is how a watch ends
			}
			return err
		})}
}

func (a *app) change(ch client.Change) error {
	p := ch.Node
	if a.output == "json" || a.output == "yaml" { // one object a line, in both: a stream has no end to indent for
		v := any(p)
		if ch.Gone {
			v = map[string]any{"id": p.ID, "gone": true}
		}
		return json.NewEncoder(a.out).Encode(v)
	}
	if ch.Gone {
		a.print("%s  %s  gone", time.Now().Format("15:04:05"), p.ID)
		return nil
	}
	what := "can be rented"
	if !p.Rentable {
		what = strings.TrimPrefix(strings.Join(p.Reasons[:min(1, len(p.Reasons))], ""), "it is "+string(p.State)+": ")
		if p.State == inventory.InUse && p.Ready {
			what = "its tenant's, and answers"
		}
	}
	a.print("%s", cut(fmt.Sprintf("%s  %s  %s  %s", time.Now().Format("15:04:05"), p.Name, p.State, what), a.edge()))
	return nil
}

func (a *app) lifecycle() *cobra.Command {
	var mermaid bool
	c := &cobra.Command{Use: "show", Short: "Print the table of states and edges", Args: args(0, 0, "")}
	c.Flags().BoolVar(&mermaid, "mermaid", false, "as a mermaid diagram")
	c.RunE = func(*cobra.Command, []string) error {
		if mermaid {
			_, err := io.WriteString(a.out, lifecycle.Mermaid())
			return err
		}
		return a.show(api.LifecycleTable(), func() {
			for _, s := range lifecycle.States {
				a.print("%s: %s", s.Name, s.Means)
				for _, e := range lifecycle.Exits(s.Name) {
					also := ""
					if text := e.Effects.String(); a.wide() && text != "" {
						also = " [" + text + "]"
					}
					a.print("  → %s: %s%s", e.To, e.Why, also)
				}
			}
		})
	}
	return group("lifecycle", "The life of a node", c)
}

func (a *app) login() *cobra.Command {
	return &cobra.Command{Use: "login", Short: "Print a link into the dashboard; it works once", Args: args(0, 0, ""),
		RunE: a.ask(func(c *cobra.Command, cl *client.Client, _ []string) error {
			l, err := cl.Login(c.Context())
			if err != nil {
				return err
			}
			link := cl.URL + l.Path
			return a.show(map[string]any{"url": link, "expires": l.Expires}, func() {
				a.print("%s", link)
				fmt.Fprintf(a.err, "It works once, within %s.\n", age(time.Until(l.Expires)))
			})
		})}
}

func (a *app) version() *cobra.Command {
	return &cobra.Command{Use: "version", Short: "Print the versions of this program and of the server", Args: args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			out := struct {
				Client string        `json:"client"`
				Server string        `json:"server,omitempty"`
				You    *api.Identity `json:"you,omitempty"`
				Error  string        `json:"error,omitempty"`
			}{Client: version.String()}
			cl, err := a.client()
			if err == nil {
				var v api.Version
				if v, err = cl.Version(c.Context()); err == nil {
					out.Server, out.You = v.Version, &v.You
				}
			}
			if err != nil {
				out.Error = err.Error()
			}
			return a.show(out, func() {
				a.print("hostler %s", out.Client)
				if out.You != nil {
					a.print("hostlerd %s, as %s (%s)", out.Server, out.You.Name, out.You.Role)
				}
				field(a.out, "server", out.Error)
			})
		}}
}
