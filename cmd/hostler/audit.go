package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hostler-project/hostler/inventory/audit"
	"github.com/hostler-project/hostler/inventory/client"
)

func (a *app) audit() *cobra.Command {
	var file, save, key string
	c := &cobra.Command{Use: "audit", Short: "Tell whether what must hold of the record held at every revision", Args: args(0, 0, ""),
		Long: "Tell whether what must hold of the record held at every revision since\nhostlerd began to watch, or in a saved history. Exit code 1 when it did not.",
		Example: "  hostler audit\n  hostler audit --save site.history\n" +
			"  hostler audit --file site.history --key site.pub    (hostler cert key > site.pub)"}
	c.Flags().StringVar(&file, "file", "", "check a saved history, without any server")
	c.Flags().StringVar(&save, "save", "", "save what the store still keeps of its history, without secrets")
	c.Flags().StringVar(&key, "key", "", "with --file: the site's public key, to check certificates with (hostler cert key), or a file with it")
	ask := a.ask(func(c *cobra.Command, cl *client.Client, _ []string) error {
		if save != "" {
			return a.saveHistory(c, cl, save)
		}
		v, err := cl.Audit(c.Context())
		if err != nil {
			return err
		}
		return a.verdict(v)
	})
	c.RunE = func(c *cobra.Command, args []string) error {
		switch {
		case file != "" && save != "":
			return fail(exitUsage, "hostler audit --help", "--file and --save: one or the other")
		case key != "" && file == "":
			return fail(exitUsage, "hostler audit --help", "--key goes with --file: hostlerd has its own key")
		case file != "":
			return a.checkHistory(file, key)
		}
		return ask(c, args)
	}
	c.AddCommand(a.auditClear())
	return c
}

func (a *app) auditClear() *cobra.Command {
	var reason string
	c := &cobra.Command{Use: "clear NODE", Short: "Say that a node's breach was looked into: it may be rented again", Args: args(1, 1, "one node"), ValidArgsFunction: a.nodeNames}
	c.Flags().StringVar(&reason, "reason", "", "what was found; the next person will ask")
	c.RunE = a.ask(func(c *cobra.Command, cl *client.Client, args []string) error {
		out, err := cl.ClearAudit(c.Context(), args[0], reason)
		if err != nil {
			return err
		}
		return a.show(out, func() {
			a.print("%s may be rented again as far as the audit goes; what is still broken is found again", out.Name)
		})
	})
	return c
}

// checkHistory walks a saved history.
func (a *app) checkHistory(path, key string) error {
	var o audit.Options
	if key != "" {
		pub, err := publicKey(key)
		if err != nil {
			return err
		}
		o.CertificateKey = pub
	}
	f, err := os.Open(path)
	if err != nil {
		return fail(exitUsage, "hostler audit --save FILE", "%v", err)
	}
	defer f.Close()
	v, err := audit.Check(f, o)
	if err != nil {
		return fail(exitFailed, "hostler audit --save FILE makes one", "%s: %v", path, err)
	}
	return a.verdict(v)
}

// saveHistory writes to a file that is there only when it is whole.
func (a *app) saveHistory(c *cobra.Command, cl *client.Client, path string) error {
	tmp := path + ".part"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fail(exitUsage, "", "%v", err)
	}
	err = cl.AuditHistory(c.Context(), f)
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		_ = os.Remove(tmp) // half a history is none
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return a.show(map[string]any{"file": path, "bytes": info.Size()}, func() {
		a.print("saved %s, %s; check it anywhere: hostler audit --file %s", path, size(info.Size()), path)
	})
}

// verdict prints it, and fails where something is broken.
func (a *app) verdict(v audit.Verdict) error {
	if err := a.show(v, func() { a.verdictText(v) }); err != nil || v.OK {
		return err
	}
	what := fmt.Sprintf("%d breaches", len(v.Broken)+v.More)
	if len(v.Broken) == 1 {
		what = "one breach"
	}
	if len(v.Broken) == 0 {
		what = fmt.Sprintf("breaches found before hostlerd's last start, by %s", strings.Join(v.Standing, ", "))
	}
	return fail(exitFailed, "hostler why NODE, hostler node history NODE; then hostler audit clear NODE --reason TEXT", "the record is not what it must be: %s", what)
}

func (a *app) verdictText(v audit.Verdict) {
	word := "ok"
	if !v.OK {
		word = "BROKEN"
	}
	a.print("%s", word)
	if !v.Began.IsZero() {
		field(a.out, "walking since", v.Began.Local().Format(time.RFC3339)+" ("+since(v.Began)+")")
	}
	field(a.out, "revisions", fmt.Sprintf("%d, from %d to %d", v.Counts.Revisions, v.From, v.Rev))
	field(a.out, "transitions", fmt.Sprintf("%d, of %d nodes", v.Counts.Transitions, v.Counts.Nodes))
	if v.Lists > 1 {
		field(a.out, "lists", fmt.Sprintf("%d, the last %s ago: what changed just before a list was not seen", v.Lists, since(v.Listed)))
	}
	var rows [][]string
	for _, i := range v.Invariants {
		words := i.Words
		if i.Pending != "" {
			words += " (not checked yet: " + i.Pending + ")"
		}
		rows = append(rows, []string{i.ID, i.State, words})
	}
	a.table([]string{"INVARIANT", "STATE", "WHAT MUST HOLD"}, rows)
	for i, b := range v.Broken {
		by := ""
		if b.Node != "" {
			by = " by node " + b.Node
		}
		a.print("%s is broken at revision %d%s: %s", b.Invariant, b.Rev, by, b.What)
		if next := i + 1; next < len(v.Broken) && v.Broken[next].Node == b.Node && v.Broken[next].Rev == b.Rev {
			continue // the same moment: its past is told once
		}
		for _, s := range b.Before {
			a.print("  before: %s", s)
		}
	}
	if v.More > 0 {
		a.print("and %d more", v.More)
	}
	if len(v.Standing) > 0 {
		a.print("kept from being rented until somebody looks: %s", strings.Join(v.Standing, ", "))
	}
}
