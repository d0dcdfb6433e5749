// Command hostler-rack runs the virtual rack and does by hand what a person does
// at a real one: press a power button, look at a console, move a cable. It is also
// what ipmi_sim runs to switch a server (glue) and what hostlerd's exec fence
// driver runs to move its port (fence). All the work is in internal/rack.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/hostler-project/hostler/internal/rack"
	"github.com/spf13/cobra"
)

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	cmd := root()
	cmd.SetArgs(args)
	if err := cmd.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "hostler-rack:", err)
		return 1
	}
	return 0
}

func root() *cobra.Command {
	var name string
	c := &cobra.Command{
		Use:           "hostler-rack",
		Short:         "A virtual rack: servers that really boot, and their BMCs",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	c.PersistentFlags().StringVar(&name, "name", defaultName(), "which rack; $RACK by default")
	c.AddCommand(up(&name), down(&name), sweep(&name), status(&name), press(&name), console(&name), fence(&name), glue(), demo(&name), storyCommand(&name), bench(), gpus())
	return c
}

func defaultName() string {
	if n := os.Getenv("RACK"); n != "" {
		return n
	}
	return plainName
}

// plainName is the rack of make rack. It has hostlerd's usual ports on the host;
// all others take free ones.
const plainName = "rack"

var usualPorts = rack.Ports{API: 8080, Etcd: 2379}

func up(name *string) *cobra.Command {
	var config rack.Config
	var verbose bool
	c := &cobra.Command{
		Use:   "up",
		Short: "Build the rack, servers powered off, and run it until Ctrl-C",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			config.Name = *name
			if *name == plainName {
				if !c.Flags().Changed("api-port") {
					config.Ports.API = usualPorts.API
				}
				if !c.Flags().Changed("etcd-port") {
					config.Ports.Etcd = usualPorts.Etcd
				}
			}
			level := slog.LevelInfo
			if verbose {
				level = slog.LevelDebug
			}
			config.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
			var err error
			if config.Glue, err = os.Executable(); err != nil {
				return err
			}
			r, err := rack.Up(c.Context(), config)
			if err != nil {
				return err
			}
			s, err := r.Status()
			if err == nil {
				err = printStatus(c.OutOrStdout(), s)
			}
			if err == nil {
				fmt.Fprintf(c.OutOrStdout(), "\nrack %s is up. Try: hostler-rack press a, hostler-rack console a; end it with Ctrl-C.\n", r.Name)
				<-c.Context().Done()
			}
			if down := r.Down(); err == nil {
				err = down
			}
			return err
		},
	}
	f := c.Flags()
	f.IntVar(&config.Nodes, "nodes", 2, "how many servers; two at once are what two cores carry")
	f.StringVar(&config.Dir, "dir", "", "drives and logs (default /var/lib/hostler-rack/NAME)")
	f.IntVar(&config.Ports.API, "api-port", 0, "port on 127.0.0.1 that leads to hostlerd's API (rack \"rack\": 8080, others: a free one)")
	f.IntVar(&config.Ports.Etcd, "etcd-port", 0, "port on 127.0.0.1 that leads to hostlerd's etcd (rack \"rack\": 2379, others: a free one)")
	f.BoolVar(&verbose, "verbose", false, "log events of the servers' emulators too")
	return c
}
