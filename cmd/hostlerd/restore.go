package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hostler-project/hostler/inventory/backup"
	"github.com/hostler-project/hostler/inventory/etcd"
)

// A restoring is one run of hostlerd restore.
type restoring struct {
	file    string
	site    string   // "": the configuration's
	members []string // NAME=PEER-URL of a new cluster; none: the embedded store
	out     string   // of a cluster: where the members' folders go
	yes     bool
	dryRun  bool
}

func restoreCommand(path *string) *cobra.Command {
	var r restoring
	c := &cobra.Command{Use: "restore FILE", Short: "Make the store anew from a backup; hostlerd must not run", Args: cobra.ExactArgs(1),
		Long: "Make the store anew from a backup, in a data folder without one. What happened after the backup is not known, so the site gets a\n" +
			"new era, every node that is not its tenant's by the record is cut off, inspected and erased, and nothing is switched or erased\n" +
			"before a person has looked and closed the breaker. It says first what becomes of how many nodes, and asks.\n\n" +
			"For a cluster: --member NAME=PEER-URL for each, and --out FOLDER; move FOLDER/NAME to each member's machine as its data folder.",
		Example: "  systemctl stop hostlerd\n  mv /var/lib/hostler/etcd /var/lib/hostler/etcd.lost\n  hostlerd restore /backup/north-20261125T010000.000Z.snapshot --config /etc/hostler/site.yaml\n  systemctl start hostlerd",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := loadConfig(*path)
			if err != nil {
				return err
			}
			r.file = args[0]
			return r.run(cmd, c)
		}}
	c.Flags().StringVar(&r.site, "site", "", "take the backup of this site, whatever the configuration names")
	c.Flags().StringArrayVar(&r.members, "member", nil, "NAME=PEER-URL of a member of a new cluster")
	c.Flags().StringVar(&r.out, "out", "", "of a cluster: folder for the members' data folders")
	c.Flags().BoolVar(&r.yes, "yes", false, "do not ask")
	c.Flags().BoolVar(&r.dryRun, "dry-run", false, "say what would be done, and do nothing")
	return c
}

func (r *restoring) run(cmd *cobra.Command, c Config) error {
	peers, final, err := r.target(c)
	if err != nil {
		return err
	}
	m, err := backup.ReadManifest(r.file)
	if err != nil {
		return err
	}
	if _, err := etcd.InspectSnapshot(r.file); err != nil {
		return err
	}
	if want := cmp.Or(r.site, c.Site); m.Site != want {
		return fmt.Errorf("restore: %s is a backup of site %q, not of %q: --site %s if that is meant", r.file, m.Site, want, m.Site)
	}
	// Everything happens in a folder beside the final one. A restore that was cut off leaves it, and the next begins anew.
	if err := os.MkdirAll(filepath.Dir(final), 0o700); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	work := final + ".restoring"
	if err := os.RemoveAll(work); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	defer func() { _ = os.RemoveAll(work) }() // by then it has its name, or is of no use
	ec := etcd.EmbeddedConfig{Dir: work, ListenClient: c.Etcd.Listen, ListenPeer: c.Etcd.Peer, QuotaBytes: max(c.Etcd.Quota, 2*m.Bytes)}
	if err := etcd.RestoreSnapshot(r.file, ec); err != nil {
		return err
	}
	done, err := r.mend(cmd, ec, m, peers)
	if err != nil || !done {
		return err
	}
	out := cmd.OutOrStdout()
	if len(peers) > 0 {
		fmt.Fprintf(out, "done. Now, for each member: move %s/NAME to its machine as etcd's --data-dir, and start it with the same --name,\n", r.out)
		fmt.Fprintf(out, "--initial-advertise-peer-urls and --initial-cluster %s; then start hostlerd.\n", strings.Join(r.members, ","))
	} else {
		if err := os.Rename(work, final); err != nil {
			return fmt.Errorf("restore: %w", err)
		}
		fmt.Fprintln(out, "done. Now: systemctl start hostlerd; hostler doctor; ask the tenants named above; then hostler breaker close --reason TEXT")
	}
	// What the daemon remembers of the lost store is no reason any more not to go on.
	if err := os.Remove(filepath.Join(c.Data, seenFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("restore: %w", err)
	}
	return nil
}

// target says where the restored store goes, and refuses a place that is taken.
func (r *restoring) target(c Config) ([]etcd.Peer, string, error) {
	var peers []etcd.Peer
	for _, m := range r.members {
		name, url, ok := strings.Cut(m, "=")
		if !ok || name == "" || name != filepath.Base(name) || !strings.Contains(url, "://") {
			return nil, "", fmt.Errorf("restore: --member %q is not NAME=http://ADDRESS:2380", m)
		}
		peers = append(peers, etcd.Peer{Name: name, URL: url})
	}
	final := filepath.Join(c.Data, "etcd")
	switch {
	case len(peers) > 0 && r.out == "", len(peers) == 0 && r.out != "":
		return nil, "", errors.New("restore: a cluster needs both --member NAME=PEER-URL, for each, and --out FOLDER")
	case len(peers) > 0:
		final = r.out
	case len(c.Etcd.Endpoints) > 0:
		return nil, "", errors.New("restore: the configuration names a cluster (etcd.endpoints): say --member NAME=PEER-URL for each of the new one, and --out FOLDER")
	}
	if files, err := os.ReadDir(final); err == nil && len(files) > 0 {
		return nil, "", fmt.Errorf("restore: %s is not empty: stop hostlerd and move it away (mv %s %s.lost)", final, final, final)
	} else if err == nil {
		return peers, final, os.Remove(final) // empty: the restored one takes its name
	} else if !errors.Is(err, os.ErrNotExist) {
		return nil, "", fmt.Errorf("restore: %w", err)
	}
	return peers, final, nil
}

// mend opens the restored store for this process alone and has the record brought in order; done is false for a dry run.
func (r *restoring) mend(cmd *cobra.Command, ec etcd.EmbeddedConfig, m backup.Manifest, peers []etcd.Peer) (done bool, err error) {
	ctx, out := cmd.Context(), cmd.OutOrStdout()
	s, err := etcd.StartPrivate(ctx, ec, slog.New(slog.DiscardHandler))
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	b := backup.Restore{Store: s, Manifest: m, Now: time.Now, NewID: newID}
	plan, err := b.Plan(ctx)
	if err != nil {
		return false, err
	}
	if plan.Site != m.Site || plan.Era != m.Era {
		return false, fmt.Errorf("restore: the manifest says site %s, era %s; the snapshot holds site %s, era %s", m.Site, m.Era, plan.Site, plan.Era)
	}
	fmt.Fprintf(out, "%s: site %s, revision %d, taken %s (%s ago)\n", r.file, m.Site, m.Revision, m.Time.Format(time.RFC3339), time.Since(m.Time).Round(time.Minute))
	for _, line := range plan.Words() {
		fmt.Fprintln(out, " ", line)
	}
	if r.dryRun {
		fmt.Fprintln(out, "nothing was done (--dry-run)")
		return false, nil
	}
	if err := sure(cmd, r.yes); err != nil {
		return false, err
	}
	if err := b.Apply(ctx, plan); err != nil {
		return false, err
	}
	if len(peers) > 0 {
		return true, r.spread(ctx, s, peers)
	}
	return true, nil
}

// spread writes the mended store as the data folders of a cluster's members.
func (r *restoring) spread(ctx context.Context, s *etcd.Embedded, peers []etcd.Peer) error {
	f, err := os.CreateTemp("", "hostler-restore-*")
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	defer func() { _ = os.Remove(f.Name()) }() // 0600, and of no use any more
	if err := errors.Join(s.Snapshot(ctx, io.Writer(f)), f.Close()); err != nil {
		return err
	}
	return etcd.WriteMembers(f.Name(), r.out, peers, "hostler-"+newID())
}
