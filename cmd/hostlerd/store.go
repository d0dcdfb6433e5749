package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/backup"
	"github.com/hostler-project/hostler/inventory/etcd"
)

// storeCommands are what a person does to the store itself. They work beside a running hostlerd, whose embedded etcd they
// reach through its client port, and on a cluster.
func storeCommands(path *string) *cobra.Command {
	var yes bool
	recover := &cobra.Command{Use: "recover", Short: "Give a full store (NOSPACE) its writes back: compact, defragment, disarm, prove", Args: cobra.NoArgs,
		Long: "Give a store that refuses writes (NOSPACE) its space and its writes back: drop the history before the present revision,\n" +
			"defragment every member, one after the other, disarm the alarm, and prove it with a write that is not kept.\n" +
			"No record changes. While a member is defragmented it answers nobody, for seconds; watchers may have to list again.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := loadConfig(*path)
			if err != nil {
				return err
			}
			s, err := openRunning(cmd.Context(), c)
			if err != nil {
				return err
			}
			defer func() { _ = s.Close() }() // the process ends
			out := cmd.OutOrStdout()
			for _, m := range s.Status(cmd.Context()) {
				fmt.Fprintln(out, memberLine(m))
			}
			fmt.Fprintln(out, "Its history is dropped, every member is defragmented (it answers nobody meanwhile), NOSPACE alarms are disarmed. No record changes.")
			if err := sure(cmd, yes); err != nil {
				return err
			}
			if err := s.Recover(cmd.Context(), func(line string) { fmt.Fprintln(out, line) }); err != nil {
				return fmt.Errorf("store recover: %w", err)
			}
			return nil
		}}
	recover.Flags().BoolVar(&yes, "yes", false, "do not ask")
	store := &cobra.Command{Use: "store", Short: "Care for the store of a site"}
	store.AddCommand(recover, acknowledgeCommand(path))
	return store
}

func acknowledgeCommand(path *string) *cobra.Command {
	var yes bool
	c := &cobra.Command{Use: "acknowledge", Short: "Go on with a store that has lost writes (safe mode), as after a restore", Args: cobra.NoArgs,
		Long: "hostlerd writes nothing (safe mode) when the store stands behind what was seen of it: writes that were acknowledged are lost. A backup\n" +
			"that is younger is the better way out (hostlerd restore). This goes on with what is there, and trusts it as little as a backup:\n" +
			"a new era, every node that is not its tenant's is cut off and erased, and the breaker stays open until a person closes it.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := loadConfig(*path)
			if err != nil {
				return err
			}
			s, err := openRunning(cmd.Context(), c)
			if err != nil {
				return err
			}
			defer func() { _ = s.Close() }() // the process ends
			w := newWitness(c, s, slog.New(slog.DiscardHandler))
			switch err := w.check(cmd.Context()); {
			case err == nil:
				return errors.New("the store stands where it was seen: there is nothing to acknowledge")
			case !errors.Is(err, inventory.ErrBehind):
				return err
			}
			out := cmd.OutOrStdout()
			fmt.Fprintln(out, w.safeMode())
			r := backup.Restore{Store: s, Now: time.Now, NewID: newID, Cause: "acknowledged: " + w.safeMode(),
				Manifest: backup.Manifest{Time: w.last.Time, Revision: w.last.Revision}, Lost: w.last.Era}
			plan, err := r.Plan(cmd.Context())
			if err != nil {
				return fmt.Errorf("%w; to begin from nothing: stop hostlerd and remove %s", err, w.path)
			}
			for _, line := range plan.Words() {
				fmt.Fprintln(out, " ", line)
			}
			if err := sure(cmd, yes); err != nil {
				return err
			}
			if err := r.Apply(cmd.Context(), plan); err != nil {
				return err
			}
			fmt.Fprintln(out, "done: hostlerd goes on by itself. hostler doctor; ask the tenants named above; then hostler breaker close --reason TEXT")
			return nil
		}}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}

// openRunning reaches the store of a site that runs: the cluster, or the client port of the etcd inside hostlerd.
func openRunning(ctx context.Context, c Config) (*etcd.Store, error) {
	endpoints := c.Etcd.Endpoints
	if len(endpoints) == 0 {
		endpoints = []string{"http://" + c.Etcd.Listen}
	}
	s, err := etcd.Open(ctx, etcd.Config{Endpoints: endpoints, Timeout: 2 * time.Second}, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	for _, m := range s.Status(ctx) {
		if m.Err == nil {
			return s, nil
		}
	}
	_ = s.Close() // nothing was done with it
	what := "is etcd running?"
	if len(c.Etcd.Endpoints) == 0 {
		what = "it runs inside hostlerd: is hostlerd running? (systemctl start hostlerd)"
	}
	return nil, fmt.Errorf("the store does not answer at %s; %s", strings.Join(endpoints, ", "), what)
}

func memberLine(m etcd.Status) string {
	if m.Err != nil {
		return fmt.Sprintf("member %s does not answer: %v", m.Endpoint, m.Err)
	}
	line := fmt.Sprintf("member %s: %d MiB, %d MiB of them in use, of %d MiB", m.Endpoint, m.Size>>20, m.InUse>>20, m.Quota>>20)
	return strings.Join(append([]string{line}, m.Faults...), "; ")
}

// sure asks whoever runs a command that changes much; --yes has answered already.
func sure(cmd *cobra.Command, yes bool) error {
	if yes {
		return nil
	}
	fmt.Fprint(cmd.OutOrStdout(), "Go on? (y/N) ")
	line, err := bufio.NewReader(io.LimitReader(cmd.InOrStdin(), 64)).ReadString('\n')
	if err != nil && err != io.EOF {
		return err
	}
	if word := strings.ToLower(strings.TrimSpace(line)); word != "y" && word != "yes" {
		return fmt.Errorf("nothing was done (--yes does not ask)")
	}
	return nil
}
