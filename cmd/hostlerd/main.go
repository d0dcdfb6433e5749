// Command hostlerd is the daemon of a site: boot services, reconciler, API and dashboard in one process, with an etcd of
// its own or a cluster's. This folder wires the parts together; it reads flags, files and signals, and knows no rule of
// the domain.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/hostler-project/hostler/internal/version"
)

func main() { os.Exit(Main()) }

// Main is main with an exit code.
func Main() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "hostlerd:", err)
		return 1
	}
	return 0
}

func command() *cobra.Command {
	var path string
	root := &cobra.Command{
		Use:           "hostlerd",
		Short:         "The daemon of a Hostler site",
		Long:          "hostlerd runs a site: boot services on the declared segments, the reconciler, API and dashboard.\nWithout --config: embedded etcd under /var/lib/hostler, API on 127.0.0.1:8080, no DHCP.",
		Version:       version.String(),
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := loadConfig(path)
			if err != nil {
				return err
			}
			c.File = path
			var level slog.Level
			if err := level.UnmarshalText([]byte(c.Log.Level)); err != nil {
				return err
			}
			log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
			return serve(cmd.Context(), c, log)
		},
	}
	root.PersistentFlags().StringVar(&path, "config", "", "site.yaml")
	config := &cobra.Command{Use: "config", Short: "Check or print the configuration"}
	config.AddCommand(
		&cobra.Command{Use: "check", Short: "Print everything that is wrong with it", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := loadConfig(path); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), "the configuration is good")
			return nil
		}},
		&cobra.Command{Use: "print", Short: "Print it with all defaults", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := loadConfig(path)
			if err != nil {
				return err
			}
			return yaml.NewEncoder(cmd.OutOrStdout()).Encode(c)
		}},
	)
	root.AddCommand(config, storeCommands(&path), backupCommand(&path), restoreCommand(&path))
	return root
}
