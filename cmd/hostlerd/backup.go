package main

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/hostler-project/hostler/internal/version"
	"github.com/hostler-project/hostler/inventory/backup"
	"github.com/hostler-project/hostler/inventory/etcd"
)

func backupCommand(path *string) *cobra.Command {
	var keep int
	c := &cobra.Command{Use: "backup FILE|FOLDER", Short: "Copy the store of the running site to a file", Args: cobra.ExactArgs(1),
		Long: "Copy the store of the running site, as of one revision, to a file (0600), with a manifest beside it (FILE.json); into a folder,\n" +
			"under a name with site and time. It is read back before it gets its name. Nobody waits meanwhile.\n\n" +
			"It holds the record and nothing else. Keep also, on another machine: the folder of keys (without it nothing sealed in the\n" +
			"record can be opened; it never changes), <data>/images and <data>/blobs.",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := loadConfig(*path)
			if err != nil {
				return err
			}
			if st, err := os.Stat(args[0]); keep > 0 && (err != nil || !st.IsDir()) {
				return fmt.Errorf("backup: --keep is for a folder, and %s is none", args[0])
			}
			s, err := openRunning(cmd.Context(), c)
			if err != nil {
				return err
			}
			defer func() { _ = s.Close() }() // the process ends
			t := backup.Taker{Store: s, Inspect: etcd.InspectSnapshot, Version: version.String(), Now: time.Now}
			file, m, err := t.Take(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "%s\n  site %s, revision %d, %d bytes, read back; keep %s, %s/images and %s/blobs as well\n", file, m.Site, m.Revision, m.Bytes, c.Keys, c.Data, c.Data)
			if err := t.Note(cmd.Context(), m); err != nil { // a full store is backed up all the same
				fmt.Fprintf(cmd.ErrOrStderr(), "hostlerd: the store could not take note of it, hostler doctor will not know: %v\n", err)
			}
			if keep > 0 {
				gone, err := backup.Prune(args[0], m.Site, keep)
				for _, g := range gone {
					fmt.Fprintln(out, "removed", g)
				}
				return err
			}
			return nil
		}}
	c.Flags().IntVar(&keep, "keep", 0, "of a folder: keep so many, remove the older ones")
	return c
}
