package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/hostler-project/hostler/internal/rack"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// downGrace is how long a rack may take to end in order before it is killed.
const downGrace = 15 * time.Second

func down(name *string) *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "End a running rack, and remove what a dead one left",
		Args:  cobra.NoArgs,
		RunE:  func(*cobra.Command, []string) error { return rack.Stop(*name, downGrace) },
	}
}

func sweep(name *string) *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   "sweep",
		Short: "Remove what a dead rack left: processes, namespace, taps, drives",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if !all {
				return rack.Sweep(*name)
			}
			names, err := rack.Racks()
			for _, n := range names {
				err = errors.Join(err, rack.Sweep(n))
			}
			return err
		},
	}
	c.Flags().BoolVar(&all, "all", false, "all racks; those that run are reported and left alone")
	return c
}

func status(name *string) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "status",
		Short: "Show the rack's servers: power, boot device, cable, addresses",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			a, err := rack.Ask(rack.ControlSocket(*name), rack.Request{Op: "status"})
			if err != nil {
				return err
			}
			switch output {
			case "json":
				return printJSON(c.OutOrStdout(), a.Status)
			case "":
				return printStatus(c.OutOrStdout(), *a.Status)
			}
			return fmt.Errorf("--output %q: have json, or nothing for a table", output)
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "", "json")
	return c
}

func press(name *string) *cobra.Command {
	var hold bool
	c := &cobra.Command{
		Use:   "press NODE",
		Short: "Press a server's power button: on if it is off, else ask its system to switch off",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			op := "press"
			if hold {
				op = "hold"
			}
			_, err := rack.Ask(rack.ControlSocket(*name), rack.Request{Op: op, Node: args[0]})
			return err
		},
	}
	c.Flags().BoolVar(&hold, "hold", false, "hold it down: power off at once")
	return c
}

func glue() *cobra.Command {
	var socket, node string
	c := &cobra.Command{
		Use:    "glue get|set NAME [VALUE] …",
		Short:  "What ipmi_sim runs to ask and switch its server",
		Hidden: true,
		Args:   cobra.MinimumNArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			a, err := rack.Ask(socket, rack.Request{Op: "glue", Node: node, Args: args})
			if err != nil {
				return err
			}
			_, err = io.WriteString(c.OutOrStdout(), a.Glue)
			return err
		},
	}
	c.Flags().StringVar(&socket, "socket", "", "the rack's control socket")
	c.Flags().StringVar(&node, "node", "", "the server")
	return c
}

// fence is the exec driver's program: isolate NODE, attach NODE [INSTANCE],
// observe NODE. Each prints where the port is, as the kernel says.
func fence(name *string) *cobra.Command {
	c := &cobra.Command{
		Use:   "fence",
		Short: "Move a server's port between networks, or see where it is",
	}
	for _, v := range []struct {
		use, short string
		max        int
	}{
		{"isolate NODE", "Cut the server off from every network", 1},
		{"attach NODE [INSTANCE]", "Plug the server into an instance's network, or the provisioning network", 2},
		{"observe NODE", "Print where the server is plugged in", 1},
	} {
		verb := &cobra.Command{
			Use:   v.use,
			Short: v.short,
			Args:  cobra.RangeArgs(1, v.max),
		}
		verb.RunE = func(c *cobra.Command, args []string) error {
			q := rack.Request{Op: verb.Name(), Node: args[0]}
			if len(args) == 2 {
				q.Instance = args[1]
			}
			a, err := rack.Ask(rack.ControlSocket(*name), q)
			if err != nil {
				return err
			}
			return json.NewEncoder(c.OutOrStdout()).Encode(a.Port)
		}
		c.AddCommand(verb)
	}
	return c
}

func console(name *string) *cobra.Command {
	return &cobra.Command{
		Use:   "console NODE",
		Short: "Show a server's serial console and type into it; leave with Ctrl-]",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			conn, err := rack.Console(rack.ControlSocket(*name), args[0])
			if err != nil {
				return err
			}
			defer conn.Close()
			if in := int(os.Stdin.Fd()); term.IsTerminal(in) {
				before, err := term.MakeRaw(in)
				if err != nil {
					return err
				}
				defer term.Restore(in, before)
			}
			end := make(chan struct{}, 2)
			go func() { io.Copy(c.OutOrStdout(), conn); end <- struct{}{} }()
			go func() { typing(conn, os.Stdin); end <- struct{}{} }()
			select {
			case <-end:
			case <-c.Context().Done():
			}
			return nil
		},
	}
}

// leave is Ctrl-], as in telnet.
const leave = 0x1d

// typing passes keys on until Ctrl-]. At the end of a file or pipe it keeps
// showing the console.
func typing(to io.Writer, from io.Reader) {
	buf := make([]byte, 256)
	for {
		n, err := from.Read(buf)
		for i, b := range buf[:n] {
			if b == leave {
				to.Write(buf[:i])
				return
			}
		}
		if _, bad := to.Write(buf[:n]); bad != nil {
			return
		}
		if err != nil {
			select {}
		}
	}
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func printStatus(w io.Writer, s rack.Status) error {
	fmt.Fprintf(w, "rack %s: namespace %s, files %s, API http://127.0.0.1:%d, etcd 127.0.0.1:%d\n\n", s.Name, s.Netns, s.Dir, s.Ports.API, s.Ports.Etcd)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NODE\tPOWER\tFIRMWARE\tBOOT\tCABLE\tSERIAL\tMAC\tBMC")
	for _, n := range s.Nodes {
		power, bmc, cable := "off", n.BMC.String(), string(n.Cable.Port)
		if n.Power {
			power = "on"
		}
		if !n.BMCAlive {
			bmc += " (dead)"
		}
		if n.Cable.Instance != "" {
			cable += " " + n.Cable.Instance
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", n.Name, power, n.Firmware, n.Boot, cable, n.Serial, n.MAC, bmc)
	}
	return t.Flush()
}
