package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/api"
	"github.com/hostler-project/hostler/inventory/client"
)

func (a *app) claim() *cobra.Command {
	return group("claim", "Rent nodes and give them back", a.claimCreate(), a.claimConfirm(), a.claimRenew(), a.claimRelease(), a.claimLs(), a.claimShow())
}

// seedFlags are what a tenant's system is made from.
type seedFlags struct {
	image, userData, hostname string
	keys                      []string
}

func (s *seedFlags) flags(f *pflag.FlagSet) {
	f.StringVar(&s.image, "image", "", "name (the newest) or digest of an image (hostler image ls)")
	f.StringVar(&s.userData, "user-data", "", "file with cloud-init user data; - is standard input")
	f.StringArrayVar(&s.keys, "ssh-key", nil, "file with public keys; may be given again")
	f.StringVar(&s.hostname, "hostname", "", "what the system calls itself")
}

func (a *app) confirmation(s seedFlags) (api.Confirmation, error) {
	q := api.Confirmation{Image: s.image, Hostname: s.hostname}
	if s.userData != "" {
		b, err := a.file(s.userData)
		if err != nil {
			return q, err
		}
		q.UserData = string(b)
	}
	for _, path := range s.keys {
		b, err := a.file(path)
		if err != nil {
			return q, err
		}
		if strings.Contains(string(b), "PRIVATE KEY") {
			return q, fail(exitUsage, "--ssh-key "+path+".pub", "%s is a private key: it must not leave this machine", path)
		}
		for line := range strings.Lines(string(b)) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				q.SSHKeys = append(q.SSHKeys, line)
			}
		}
	}
	if s.image == "" && (q.UserData != "" || len(q.SSHKeys) > 0 || q.Hostname != "") {
		return q, fail(exitUsage, "--image NAME", "user data, keys and host name go with an image")
	}
	return q, nil
}

// maxFile bounds what is read to be sent; the server takes 48 KiB.
const maxFile = 1 << 20

// file reads a file, or standard input for "-".
func (a *app) file(path string) ([]byte, error) {
	r := a.in
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, fail(exitUsage, "", "%v", err)
		}
		defer f.Close()
		r = f
	}
	b, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fail(exitUsage, "", "%s is larger than %s", path, size(maxFile))
	}
	return b, err
}

func (a *app) claimCreate() *cobra.Command {
	var q api.ClaimRequest
	var s seedFlags
	var w waiting
	var hold time.Duration
	c := &cobra.Command{Use: "create", Short: "Reserve a node; with --image also have it provisioned", Args: args(0, 0, ""),
		Example: "  hostler claim create --sku h100 --image debian-12 --ssh-key ~/.ssh/id_ed25519.pub --wait"}
	f := c.Flags()
	f.StringVar(&q.SKU, "sku", "", "what kind of node")
	f.StringVar(&q.Node, "node", "", "this node and no other")
	f.StringVar(&q.Reservation, "reservation", "", "id of the reservation: asking again with it is safe (default: a new one)")
	f.StringVar(&q.Project, "project", "", "for your books")
	f.StringVar(&q.Tenant, "tenant", "", "admins: for whom (default: the site)")
	f.DurationVar(&hold, "hold", 0, "how long to wait for confirm (default 10m, at most 60m)")
	s.flags(f)
	w.flags(f, "until the tenant's system answers")
	c.RunE = a.ask(func(c *cobra.Command, cl *client.Client, _ []string) error {
		if q.SKU == "" && q.Node == "" {
			return fail(exitUsage, "hostler claim create --sku NAME", "say which --sku or which --node")
		}
		seed, err := a.confirmation(s)
		if err != nil {
			return err
		}
		if q.Reservation == "" {
			q.Reservation = "r-" + strings.ToLower(rand.Text()[:12])
		}
		q.Hold, q.Confirmation = inventory.Duration(hold), seed
		st, err := cl.Claim(c.Context(), q)
		if err != nil {
			return err
		}
		return a.claimEnd(c, cl, st, w, rented)
	})
	return c
}

func (a *app) claimConfirm() *cobra.Command {
	var s seedFlags
	var w waiting
	c := &cobra.Command{Use: "confirm RESERVATION", Short: "Have a reserved node provisioned", Args: args(1, 1, "one reservation")}
	s.flags(c.Flags())
	w.flags(c.Flags(), "until the tenant's system answers")
	c.RunE = a.ask(func(c *cobra.Command, cl *client.Client, args []string) error {
		if s.image == "" {
			return fail(exitUsage, "--image NAME", "say which image")
		}
		seed, err := a.confirmation(s)
		if err != nil {
			return err
		}
		st, err := cl.ConfirmClaim(c.Context(), args[0], seed)
		if err != nil {
			return err
		}
		return a.claimEnd(c, cl, st, w, rented)
	})
	return c
}

func (a *app) claimRenew() *cobra.Command {
	var hold time.Duration
	c := &cobra.Command{Use: "renew RESERVATION", Short: "Hold a reservation longer", Args: args(1, 1, "one reservation")}
	c.Flags().DurationVar(&hold, "hold", 10*time.Minute, "from now on; at most 60m in all")
	c.RunE = a.ask(func(c *cobra.Command, cl *client.Client, args []string) error {
		st, err := cl.RenewClaim(c.Context(), args[0], hold)
		if err != nil {
			return err
		}
		return a.show(st, func() { a.claimText(st) })
	})
	return c
}

func (a *app) claimRelease() *cobra.Command {
	var reason string
	var w waiting
	c := &cobra.Command{Use: "release RESERVATION", Short: "Give the node back: what is on it is erased", Args: args(1, 1, "one reservation")}
	c.Flags().StringVar(&reason, "reason", "", "for the record")
	w.flags(c.Flags(), "until the node is cut off from its tenant")
	c.RunE = a.ask(func(c *cobra.Command, cl *client.Client, args []string) error {
		st, err := cl.ReleaseClaim(c.Context(), args[0], reason)
		if err != nil {
			return err
		}
		return a.claimEnd(c, cl, st, w, func(st api.ClaimStatus) (bool, error) { return st.NodeState == "", nil })
	})
	return c
}

// rented says whether a claim has come to its good end, or can no more.
func rented(st api.ClaimStatus) (bool, error) {
	r, in := st.Reservation, st.Instance
	switch {
	case r.Phase == inventory.Released || r.Phase == inventory.Expired:
		return true, fail(exitFailed, "hostler node history "+st.NodeName, "the claim is over: %s: %s", r.Phase, r.Reason)
	case in != nil && (in.Phase == inventory.InstanceFailed || in.Phase == inventory.InstanceEnded || in.Phase == inventory.InstanceDraining):
		return true, fail(exitFailed, "hostler node history "+st.NodeName, "the instance is %s: %s", in.Phase, in.ReadyReason)
	case in == nil:
		return true, nil // reserved only
	}
	return in.Ready && st.NodeState == inventory.InUse, nil
}

// claimEnd waits where that was asked for, and prints the claim.
func (a *app) claimEnd(c *cobra.Command, cl *client.Client, st api.ClaimStatus, w waiting, end func(api.ClaimStatus) (bool, error)) error {
	var err error
	if w.wait {
		var ctx context.Context
		ctx, cancel := w.context(c)
		defer cancel()
		err = a.poll(ctx, func() (string, bool, error) {
			now, err := cl.ShowClaim(ctx, whose(st))
			if err != nil {
				return "", false, err
			}
			st = now
			say := fmt.Sprintf("%s %s", st.NodeName, st.NodeState)
			if st.Instance != nil {
				say = strings.TrimSuffix(say+": "+doing(st.Instance.ReadyReason, st.Live), ": ")
			}
			done, err := end(st)
			return say, done, err
		})
	}
	if err != nil {
		return err
	}
	return a.show(st, func() { a.claimText(st) })
}

func (a *app) claimText(st api.ClaimStatus) {
	r := st.Reservation
	a.print("%s  %s  on %s", r.ID, r.Phase, st.NodeName)
	field(a.out, "node", strings.TrimSpace(r.Node+" "+string(st.NodeState)))
	field(a.out, "tenant", strings.TrimSpace(r.Tenant+" "+r.Project))
	if r.Phase == inventory.Pending {
		field(a.out, "confirm within", age(time.Until(r.Expires)))
		field(a.out, "you can", "hostler claim confirm "+r.ID+" --image NAME")
	}
	if st.Instance != nil {
		field(a.out, "instance", instanceText(*st.Instance))
	}
	if st.Live != nil {
		field(a.out, "now", doing("", st.Live))
	}
	field(a.out, "ended", r.Reason)
}

func (a *app) claimLs() *cobra.Command {
	var all bool
	c := &cobra.Command{Use: "ls", Short: "List reservations", Args: args(0, 0, "")}
	c.Flags().BoolVar(&all, "all", false, "also those that are over")
	c.RunE = a.ask(func(c *cobra.Command, cl *client.Client, _ []string) error {
		l, err := cl.Claims(c.Context(), all)
		if err != nil {
			return err
		}
		return a.show(l, func() {
			head := []string{"RESERVATION", "NODE", "PHASE", "STATE", "FOR"}
			if a.wide() {
				head = append(head, "TENANT", "PROJECT", "SKU", "IMAGE", "ADDRESS", "INSTANCE", "REASON")
			}
			var rows [][]string
			for _, st := range l {
				r := st.Reservation
				row := []string{r.ID, st.NodeName, r.Phase, string(st.NodeState), since(r.Created)}
				if a.wide() {
					in := inventory.Instance{}
					if st.Instance != nil {
						in = *st.Instance
					}
					row = append(row, r.Tenant, r.Project, r.SKU, in.ImageName, in.Address, r.Instance, r.Reason)
				}
				rows = append(rows, row)
			}
			a.table(head, rows)
		})
	})
	return c
}

func (a *app) claimShow() *cobra.Command {
	return &cobra.Command{Use: "show RESERVATION", Short: "Show a reservation and what came of it", Args: args(1, 1, "one reservation"),
		RunE: a.ask(func(c *cobra.Command, cl *client.Client, args []string) error {
			st, err := cl.ShowClaim(c.Context(), args[0])
			if err != nil {
				return err
			}
			return a.show(st, func() { a.claimText(st) })
		})}
}

// whose names a reservation together with its tenant: ids are a tenant's own.
func whose(st api.ClaimStatus) string { return st.Reservation.Tenant + "/" + st.Reservation.ID }
