package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hostler-project/hostler/inventory/api"
	"github.com/hostler-project/hostler/inventory/client"
)

func (a *app) manifest() *cobra.Command {
	var dry bool
	c := &cobra.Command{Use: "import FILE", Short: "Bring the record in line with a CSV list of nodes", Args: args(1, 1, "one file"),
		Long: "Bring the record in line with a CSV list of nodes. Columns, in any order:\n" + strings.Join(api.Columns, ",") +
			".\nA row whose MAC or serial is known changes that node; an empty cell leaves what is there."}
	c.Flags().BoolVar(&dry, "dry-run", false, "only show the difference")
	c.RunE = a.ask(func(c *cobra.Command, cl *client.Client, args []string) error {
		text, err := a.file(args[0])
		if err != nil {
			return err
		}
		r, err := cl.Manifest(c.Context(), api.ManifestRequest{CSV: string(text), DryRun: dry})
		if err != nil {
			return err
		}
		err = a.show(r, func() { a.manifestText(r) })
		if err == nil && r.Count.Conflict > 0 {
			err = fail(exitFailed, "correct the rows and import again: the others stay as they are", "%d of %d rows conflict with the record", r.Count.Conflict, len(r.Rows))
		}
		return err
	})
	return group("manifest", "Lists of nodes", c)
}

func (a *app) manifestText(r api.ManifestResult) {
	for _, row := range r.Rows {
		if row.Do == api.RowSame && !a.wide() {
			continue
		}
		a.print("%s %s (line %d)", map[string]string{api.RowAdd: "+", api.RowChange: "~", api.RowSame: "=", api.RowConflict: "!"}[row.Do], row.Name, row.Line)
		for _, c := range row.Changes {
			fmt.Fprintln(a.out, "   ", c)
		}
		field(a.out, "  conflict", row.Reason)
		field(a.out, "  try", row.Fix)
		field(a.out, "  note", row.Warning)
	}
	did := "imported:"
	if r.DryRun {
		did = "would do:"
	}
	a.print("%s %d add, %d change, %d same, %d conflict", did, r.Count.Add, r.Count.Change, r.Count.Same, r.Count.Conflict)
}
