// Hostler-agent is the program on the node: PID 1 of the service OS.
//
// It mounts, loads modules, gets an address, redeems its boot session's token once for a certificate (identity.go,
// client.go), and then does what the daemon orders, one order at a time (agent.go, orders.go): inspect, sanitize, test,
// write, hand-off, reboot, power-off. Meanwhile the console page tells a person at the screen which node this is and
// what it is doing. It only dials out. It decides nothing: an order names node, generation and session, and is done,
// refused or reported as failed.
//
// As PID 1 it never ends by itself: what it cannot get over is shown with what to do, and the machine starts again.
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func main() {
	if os.Getpid() == 1 {
		live() // the kernel's words for init are not ours to read
	}
	if err := command().Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "hostler-agent:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:           "hostler-agent",
		Short:         "PID 1 of Hostler's service OS",
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("it works only as PID 1 of the service OS (images/service-os/assemble.sh puts it there); try: hostler-agent version")
		},
	}
	root.AddCommand(&cobra.Command{
		Use:   "version",
		Short: "say which build this is",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(c.OutOrStdout(), "hostler-agent", version())
			return err
		},
	})
	return root
}

// version is what the build recorded: module version, or commit and whether it was changed.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	if v == "" {
		v = "(devel)"
	}
	return v + " " + info.GoVersion
}
