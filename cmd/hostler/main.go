// Command hostler is the technician's command line: it asks the API of hostlerd, and does offline what needs no server
// (image pack, cert verify, lifecycle show). Flags, output and exit codes are here; all else is in inventory/client.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/hostler-project/hostler/inventory/client"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], &app{in: os.Stdin, out: os.Stdout, err: os.Stderr, getenv: os.Getenv})
	stop()
	os.Exit(code)
}

// Exit codes (design.md section 13).
const (
	exitOK      = 0
	exitFailed  = 1
	exitUsage   = 2
	exitRefused = 3
	exitTimeout = 4
)

// An app is one run of the command line.
type app struct {
	in       io.Reader
	out, err io.Writer
	getenv   func(string) string
	output   string // "", wide, json, yaml
}

// A failure is an error with an exit code and what to try.
type failure struct {
	code int
	err  error
	try  string
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func fail(code int, try, format string, a ...any) error {
	return &failure{code, fmt.Errorf(format, a...), try}
}

// run is main with everything given.
func run(ctx context.Context, args []string, a *app) int {
	root := a.root()
	root.SetArgs(args)
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	code, try := exitFailed, ""
	var f *failure
	var answer *client.Error
	switch {
	case errors.As(err, &f):
		code, try = f.code, f.try
	case errors.As(err, &answer):
		code, try = codeOf(answer.Status), answer.Fix
	case errors.Is(err, context.DeadlineExceeded):
		code, try = exitTimeout, "hostler why NODE; a longer --timeout"
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(a.err, "hostler: interrupted; what was asked for goes on")
		return exitFailed
	}
	fmt.Fprintln(a.err, "hostler:", err)
	if try != "" {
		fmt.Fprintln(a.err, "try:", try)
	}
	return code
}

// codeOf maps an answer's status to an exit code.
func codeOf(status int) int {
	switch status {
	case http.StatusConflict, http.StatusForbidden:
		return exitRefused
	case http.StatusUnprocessableEntity, http.StatusBadRequest:
		return exitUsage
	}
	return exitFailed
}

func (a *app) root() *cobra.Command {
	root := group("hostler", "Look after a fleet of rented servers", a.node(), a.why(), a.claim(), a.image(), a.manifest(), a.cert(),
		a.audit(), a.boot(), a.bmc(), a.breaker(), a.doctor(), a.watch(), a.lifecycle(), a.login(), a.token(), a.version())
	root.Long = "Look after a fleet of rented servers.\n\nHOSTLER_URL says where hostlerd is (" + client.DefaultURL +
		"),\nHOSTLER_TOKEN_FILE which token to use (" + client.DefaultTokenFile + ").\n\n" +
		"A SELECTOR is names, ids, serials, MACs, ranges like gpu[001-072], and\nrack=…, sku=…, state=…, joined by commas.\n\n" +
		"Exit codes: 0 ok, 1 some failed, 2 usage, 3 refused by policy, 4 timeout."
	root.PersistentFlags().StringVarP(&a.output, "output", "o", "", "json, yaml or wide")
	root.PersistentPreRunE = func(c *cobra.Command, _ []string) error {
		switch a.output {
		case "", "wide", "json", "yaml":
			return nil
		}
		return fail(exitUsage, "-o json", "--output %q: json, yaml or wide", a.output)
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return fail(exitUsage, c.CommandPath()+" --help", "%v", err)
	})
	root.SilenceErrors, root.SilenceUsage = true, true
	return root
}

// group is a noun: it does nothing itself, and a verb that it does not have gets the nearest one that it has.
func group(use, short string, verbs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, SuggestionsMinimumDistance: 2, Args: cobra.ArbitraryArgs}
	c.AddCommand(verbs...)
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return c.Help()
		}
		try := c.CommandPath() + " --help"
		if near := c.SuggestionsFor(args[0]); len(near) > 0 {
			try = c.CommandPath() + " " + near[0]
			if found, _, err := c.Find([]string{near[0]}); err == nil && len(found.Commands()) == 1 {
				try += " " + found.Commands()[0].Name()
			}
		}
		return fail(exitUsage, try, "%s has no %q", c.CommandPath(), args[0])
	}
	return c
}

// args checks the number of arguments; a wrong one is a fault of usage.
func args(low, high int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) >= low && (high < 0 || len(args) <= high) {
			return nil
		}
		if what == "" {
			what = "no arguments"
		}
		return fail(exitUsage, c.CommandPath()+" --help", "%s takes %s, not %d arguments", c.CommandPath(), what, len(args))
	}
}

func (a *app) client() (*client.Client, error) { return client.FromEnv(a.getenv) }

// ask makes a command that needs the server.
func (a *app) ask(f func(c *cobra.Command, api *client.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		return f(c, api, args)
	}
}

// nodeNames completes names of nodes.
func (a *app) nodeNames(c *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	api, err := a.client()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	l, err := api.Nodes(c.Context(), "")
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, n := range l.Nodes {
		if strings.HasPrefix(n.Name, typed) {
			names = append(names, n.Name+"\t"+string(n.State))
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
