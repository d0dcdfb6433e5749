package main

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/api"
	"github.com/hostler-project/hostler/inventory/client"
)

func (a *app) node() *cobra.Command {
	return group("node", "List, show and act on nodes", a.nodeLs(), a.nodeShow(), a.nodeHistory(), a.nodeApprove(),
		a.nodeWish(inventory.WishQuarantine, "quarantine SELECTOR…", "Take nodes out: not for sale until somebody decides"),
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
		field(w, "waits for", doing("", d.Live))
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
	f.StringVar(&q.Protocol, "protocol", "", "of its BMC: ipmi (default) or redfish")
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

// nodeWish is a verb that is written as a wish, for one node or many.
func (a *app) nodeWish(verb, use, short string) *cobra.Command {
	var reason string
	var dry, yes bool
	var w waiting
	c := &cobra.Command{Use: use, Short: short, ValidArgsFunction: a.nodeNames, Args: args(1, -1, "a selector")}
	low := 1
	if verb == inventory.WishPower {
		low = 2
		c.Args = args(2, -1, "on, off or cycle, and a selector")
		c.ValidArgsFunction = func(c *cobra.Command, given []string, typed string) ([]string, cobra.ShellCompDirective) {
			if len(given) == 0 {
				return []string{"on", "off", "cycle"}, cobra.ShellCompDirectiveNoFileComp
			}
			return a.nodeNames(c, given, typed)
		}
	}
	f := c.Flags()
	f.StringVar(&reason, "reason", "", "for the record, and for the next person")
	f.BoolVar(&dry, "dry-run", false, "only say what would be done, and to how many")
	f.BoolVar(&yes, "yes", false, "do not ask, also for many nodes")
	w.flags(f, "until each is answered")
	c.RunE = a.ask(func(c *cobra.Command, cl *client.Client, args []string) error {
		if verb == inventory.WishQuarantine && strings.TrimSpace(reason) == "" {
			return fail(exitUsage, "--reason TEXT", "quarantine needs a reason: the next person will ask")
		}
		q := api.WishRequest{Verb: verb, Reason: reason}
		if low == 2 {
			q.Arg = args[0]
		}
		l, err := cl.Nodes(c.Context(), strings.Join(args[low-1:], ","))
		if err != nil {
			return err
		}
		switch {
		case len(l.Unknown) > 0:
			return fail(exitFailed, "hostler node ls", "no node is called %s; nothing was done", strings.Join(l.Unknown, ", "))
		case len(l.Nodes) == 0:
			return fail(exitFailed, "hostler node ls", "the selector means no node")
		}
		what := strings.TrimSpace(verb + " " + q.Arg)
		if dry {
			return a.show(l, func() {
				a.nodeTable(l.Nodes)
				a.print("would %s %d nodes; nothing was done", what, len(l.Nodes))
			})
		}
		if len(l.Nodes) > 1 && !yes {
			if err := a.confirm("%s %d nodes (%s)", what, len(l.Nodes), some(l.Nodes)); err != nil {
				return err
			}
		}
		return a.wishAll(c, cl, l.Nodes, q, w)
	})
	return c
}

// wishParallel is how many nodes are asked at once: writes of the API are short.
const wishParallel = 8

// wished is what came of one node's wish.
type wished struct {
	Node  string         `json:"node"`
	Wish  inventory.Wish `json:"wish,omitzero"`
	Error string         `json:"error,omitempty"`
}

func (a *app) wishAll(c *cobra.Command, cl *client.Client, nodes []api.NodeRow, q api.WishRequest, w waiting) error {
	ctx, cancel := w.context(c)
	defer cancel()
	out := make([]wished, len(nodes))
	errs := make([]error, len(nodes))
	slots := make(chan struct{}, wishParallel)
	var all sync.WaitGroup
	for i, n := range nodes {
		all.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			out[i].Node = n.Name
			out[i].Wish, errs[i] = cl.Wish(ctx, n.ID, q)
			if errs[i] == nil && w.wait {
				out[i].Wish, errs[i] = a.answered(ctx, cl, out[i].Wish)
			}
			if errs[i] != nil {
				out[i].Error = errs[i].Error()
			}
		})
	}
	all.Wait()
	if len(nodes) == 1 && errs[0] != nil {
		return errs[0]
	}
	failed := 0
	err := a.show(out, func() {
		for _, o := range out {
			text := o.Error
			if text == "" {
				text = strings.TrimSpace(q.Verb+" "+q.Arg) + " " + state(o.Wish)
			}
			a.print("%s: %s", o.Node, text)
		}
	})
	for _, e := range errs {
		if e != nil {
			failed++
		}
	}
	if err == nil && failed > 0 {
		err = fail(exitFailed, "hostler why NODE", "%d of %d nodes did not %s", failed, len(nodes), q.Verb)
	}
	return err
}

// state says how far a wish is.
func state(w inventory.Wish) string {
	switch w.Answer {
	case "", inventory.Doing:
		return "wished (" + w.ID + ")"
	}
	return strings.TrimSuffix(w.Answer+": "+w.Detail, ": ")
}

// some names the first few nodes.
func some(nodes []api.NodeRow) string {
	var names []string
	for i, n := range nodes {
		if i == 5 {
			names = append(names, "…")
			break
		}
		names = append(names, n.Name)
	}
	return strings.Join(names, " ")
}

var errNotAsked = errors.New("not confirmed: nothing was done")
