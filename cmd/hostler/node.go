package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/api"
	"github.com/hostler-project/hostler/inventory/client"
)

func (a *app) node() *cobra.Command {
	return group("node", "List, show and act on nodes", a.nodeLs(), a.nodeShow(), a.nodeHistory(), a.nodeApprove(),
		a.nodeWish(inventory.WishQuarantine, "quarantine SELECTOR…", "Take nodes out: not for sale until somebody decides"),
		a.nodeWish(inventory.WishMaintain, "maintain SELECTOR…", "Take resting nodes out for work on them, until they are returned"),
		a.nodeWish(inventory.WishReturn, "return SELECTOR…", "Send quarantined or maintained nodes back: inspected, erased, tested"),
		a.nodeWish(inventory.WishAbort, "abort SELECTOR…", "Stop what nodes are doing: to quarantine, at the next safe point"),
		a.nodeWish(inventory.WishPower, "power on|off|cycle SELECTOR…", "Switch resting nodes by their BMC, and see that it happened"))
}

func (a *app) nodeLs() *cobra.Command {
	return &cobra.Command{Use: "ls [SELECTOR…]", Short: "List nodes", ValidArgsFunction: a.nodeNames,
		Example: "  hostler node ls rack=r12,state=ready\n  hostler node ls gpu[001-072] -o wide",
		RunE: a.ask(func(c *cobra.Command, cl *client.Client, args []string) error {
			l, err := cl.Nodes(c.Context(), strings.Join(args, ","))
			if err != nil {
				return err
			}
			err = a.show(l, func() { a.nodeTable(l.Nodes) })
			if err == nil && len(l.Unknown) > 0 {
				err = fail(exitFailed, "hostler node ls", "no node is called %s", strings.Join(l.Unknown, ", "))
			}
			return err
		})}
}

func (a *app) nodeTable(nodes []api.NodeRow) {
	head := []string{"NAME", "STATE", "FOR", "WHAT"}
	if a.wide() {
		head = []string{"NAME", "STATE", "FOR", "SKU", "RACK", "SLOT", "ALIVE", "OFFER", "HEALTH", "TENANT", "IP", "BMC", "SERIAL", "MAC", "ID", "WHAT"}
	}
	var rows [][]string
	for _, n := range nodes {
		offer := "no"
		if n.Rentable {
			offer = "yes"
		}
		r := []string{n.Name, string(n.State), since(n.Since)}
		if a.wide() {
			r = append(r, n.SKU, n.Rack, n.Slot, n.Alive, offer, n.Health, n.Tenant, n.IP, n.BMC, n.Serial, strings.Join(n.MACs, ";"), n.ID)
		}
		rows = append(rows, append(r, doing(n.Why, n.Live)))
	}
	a.table(head, rows)
}

func (a *app) nodeShow() *cobra.Command {
	return &cobra.Command{Use: "show NODE", Short: "Show all there is to know of a node", Args: args(1, 1, "one node"), ValidArgsFunction: a.nodeNames,
		RunE: a.ask(func(c *cobra.Command, cl *client.Client, args []string) error {
			d, err := cl.Node(c.Context(), args[0])
			if err != nil {
				return err
			}
			return a.show(d, func() { a.nodeText(d) })
		})}
}

func (a *app) nodeText(d api.NodeDetail) {
	p, w := d.Public, a.out
	a.print("%s  %s  for %s", p.Name, p.State, since(p.Since))
	field(w, "id", p.ID)
	field(w, "sku", p.SKU)
	field(w, "place", strings.TrimSpace(p.Rack+" "+p.Slot))
	offer := "can be rented"
	if !p.Rentable {
		offer = "cannot be rented: " + strings.Join(p.Reasons, "; ")
	}
	field(w, "offer", offer)
	field(w, "health", strings.TrimSpace(p.Health+" "+p.Detail))
	if s := d.Spec; s != nil {
		field(w, "serial", s.Serial)
		field(w, "mac", strings.Join(s.MACs, " "))
		field(w, "ip", s.IP)
		field(w, "bmc", strings.TrimSpace(s.BMC.Addr+" "+s.BMC.Protocol+" "+s.BMC.Credential))
		for _, h := range s.Holds {
			field(w, "hold", fmt.Sprintf("%s by %s: %s", h.Kind, h.Actor, h.Reason))
		}
	}
	if s := d.State; s != nil {
		field(w, "reason", s.Reason)
		field(w, "generation", fmt.Sprintf("%d, wipe %d %s", s.Generation, s.Wipe, s.Taint))
		field(w, "agent", s.Alive)
		field(w, "step", strings.TrimSpace(s.Work.Phase+" "+s.Work.Note))
	}
	if d.Live != nil {
		field(w, "now", doing("", d.Live))
	}
	if f := d.Facts; f != nil {
		h := f.Hardware
		field(w, "hardware", fmt.Sprintf("%s %s, %s, %d CPUs, %s", h.Manufacturer, h.Product, h.Firmware, h.CPUs, size(h.MemoryBytes)))
		for _, m := range h.Media {
			field(w, "medium", m.String()+", "+size(m.Size))
		}
		for _, n := range h.NICs {
			field(w, "nic", n.Name+" "+n.MAC)
		}
		for _, g := range h.GPUs {
			field(w, "gpu", strings.TrimSpace(g.PCI+" "+g.Device+" "+g.Serial))
		}
	}
	if cert := d.Certificate; cert != nil {
		field(w, "certificate", fmt.Sprintf("wipe %d, %d media, %s %s", cert.Wipe, cert.Media, cert.Finished.Format(time.RFC3339), cert.Broken))
	}
	if t := d.Test; t != nil {
		field(w, "test", fmt.Sprintf("%s: %s, %s", t.Profile, t.Verdict, t.Finished.Format(time.RFC3339)))
	}
	if cl := d.Claim; cl != nil {
		field(w, "claim", cl.Reservation+" of "+cl.Tenant)
	}
	if in := d.Instance; in != nil {
		field(w, "instance", instanceText(*in))
	}
	for _, x := range d.Wishes {
		field(w, "wish", x.Verb+" "+x.Arg+" by "+x.Actor)
	}
	field(w, "broken", d.Broken)
}

func instanceText(in inventory.Instance) string {
	out := fmt.Sprintf("%s %s %s", in.ID, in.Phase, in.ImageName)
	if in.Ready {
		out += ", ready"
	}
	for _, s := range []string{in.Address, in.Handoff, in.ReadyReason} {
		if s != "" {
			out += ", " + s
		}
	}
	return out
}

func (a *app) nodeHistory() *cobra.Command {
	return &cobra.Command{Use: "history NODE", Short: "Tell what happened to a node, oldest first", Args: args(1, 1, "one node"), ValidArgsFunction: a.nodeNames,
		RunE: a.ask(func(c *cobra.Command, cl *client.Client, args []string) error {
			h, err := cl.History(c.Context(), args[0], 0)
			if err != nil {
				return err
			}
			return a.show(h, func() {
				var rows [][]string
				for _, e := range h {
					what := e.Phase
					if e.Kind == "transition" {
						what = "→ " + string(e.To)
					}
					r := []string{fmt.Sprint(e.Seq), e.Time.Local().Format("01-02 15:04:05"), what}
					if a.wide() {
						r = append(r, e.Kind, e.Event, e.Actor, fmt.Sprint(e.Generation), fmt.Sprint(e.Wipe))
					}
					rows = append(rows, append(r, e.Reason))
				}
				head := []string{"NO", "TIME", "WHAT"}
				if a.wide() {
					head = append(head, "KIND", "EVENT", "ACTOR", "GENERATION", "WIPE")
				}
				a.table(append(head, "REASON"), rows)
			})
		})}
}

func (a *app) nodeApprove() *cobra.Command {
	var q api.Approval
	var w waiting
	c := &cobra.Command{Use: "approve NODE", Short: "Say what a discovered node is, and let it be inspected", Args: args(1, 1, "one node"),
		ValidArgsFunction: a.nodeNames,
		Example:           "  hostler node approve 52:54:00:00:00:0a --sku rack-small --bmc 10.0.1.5 --credential rack-bmc --name a",
	}
	f := c.Flags()
	f.StringVar(&q.SKU, "sku", "", "what it must be; site.yaml declares them")
	f.StringVar(&q.BMC, "bmc", "", "address of its BMC, with :port where it is not the usual one")
	f.StringVar(&q.Protocol, "protocol", "", "of its BMC: ipmi (default), the only one that this version speaks")
	f.StringVar(&q.Credential, "credential", "", "name of a credential (hostler bmc credential set)")
	f.StringVar(&q.Name, "name", "", "what people call it")
	f.StringVar(&q.IP, "ip", "", "its fixed address on the segment")
	f.StringVar(&q.Rack, "rack", "", "where it stands")
	f.StringVar(&q.Slot, "slot", "", "where in the rack")
	f.StringVar(&q.Reason, "reason", "", "for the record")
	w.flags(f, "until it is ready")
	c.RunE = a.ask(func(c *cobra.Command, cl *client.Client, args []string) error {
		wish, err := cl.Approve(c.Context(), args[0], q)
		if err != nil {
			return err
		}
		if w.wait {
			ctx, cancel := w.context(c)
			defer cancel()
			if wish, err = a.answered(ctx, cl, wish); err != nil {
				return err
			}
			if err := a.until(ctx, cl, wish.Node, inventory.Ready); err != nil {
				return err
			}
		}
		return a.show(wish, func() { a.print("%s: approval is %s", args[0], state(wish)) })
	})
	return c
}
