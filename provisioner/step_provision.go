package provisioner

import (
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/lifecycle"
)

// stepProvision has the image written and read back, makes the disk the first boot device, and hands the machine over:
// the agent loads the tenant's kernel, is told to enter, and is gone. Nothing is handed over that was not written down.
func stepProvision(in Input) Decision {
	if in.View.State.V.Work.Phase == "enter" {
		return enter(in)
	}
	return withAgent(in, func(in Input) Decision {
		work := in.View.State.V.Work
		switch work.Phase {
		case inventory.OrderWrite:
			return order(in, "writing the image", func(r *inventory.Report) Decision {
				if r.Written == nil || r.Written.Image != in.View.Instance.V.Image || r.Written.ReadBack < r.Written.Bytes {
					return retryHandover(in, "the agent reported no complete read-back of the image")
				}
				return phase(in, "boot-disk", "image written and read back, %d MB in %.1f s", r.Written.Bytes>>20, r.Written.Seconds)
			})
		case "boot-disk":
			row, _ := actPhase(work.Phase)
			return walk(in, row, func(row actRow) Decision {
				say := row.Done
				if n := in.Seen.Results[row.Act].Note; n != "" {
					say += " (" + n + ")"
				}
				return startOrder(in, inventory.OrderHandoff, 1, "%s", say)
			})
		case inventory.OrderHandoff:
			return order(in, "seeding, loading the tenant's kernel", func(r *inventory.Report) Decision {
				if r.Handoff == nil {
					return retryHandover(in, "the agent reported no hand-off")
				}
				d := phase(in, "enter", "tenant's kernel loaded, entering by %s", r.Handoff.Method)
				d.Change.Edit = func(st *inventory.NodeState) { // the order's id stays: the agent asks under it
					st.Work.Phase, st.Work.Since, st.Work.Note = "enter", in.Now, d.Say
				}
				inst := in.View.Instance.V
				inst.Handoff, inst.HandoffWhy = inventory.Plain(r.Handoff.Method, 20), ""
				for _, w := range r.Handoff.Why {
					inst.HandoffWhy = inventory.Plain(inst.HandoffWhy+w+"; ", 1000)
				}
				d.Change.Instance = &inst
				return d
			})
		}
		return startOrder(in, inventory.OrderWrite, 1, "its agent answers; writing image %s", in.View.Instance.V.ImageName)
	})
}

// enter is the one phase in which a silent agent is success: it was told to go, and is gone. An agent that comes back
// with an error did not get away.
func enter(in Input) Decision {
	if r := report(in); r != nil && r.Error != "" {
		return retryHandover(in, r.Error)
	}
	// An agent that this daemon told to go is gone soon. One that was told by a daemon that died may still be asking.
	since, limit := in.Seen.Told, gone
	if since.IsZero() {
		since, limit = lastHeard(in), 10*gone
	}
	if in.Seen.Heard.After(since) {
		since = in.Seen.Heard
	}
	if quiet := in.Now.Sub(since); quiet < limit {
		return wait(limit-quiet, "the agent is entering the tenant's system")
	}
	inst, s := in.View.Instance.V, in.View.Session.V
	inst.Phase, inst.HandedOver, inst.ReadyReason = inventory.InstanceRunning, in.Now, "handed over; its system has not answered yet"
	inst.Address = in.Rules.Address(in.View.Spec.V)
	s.Phase, s.Cert, s.Reason = inventory.SessionClosed, nil, "handed over"
	d := move(lifecycle.Done, "handed over by %s", inst.Handoff)
	d.Change.Instance, d.Change.Session = &inst, &s
	d.Change.Edit = func(st *inventory.NodeState) {
		st.Work = inventory.Work{Phase: "attach", Since: in.Now}
		st.Alive, st.BootID = inventory.Unknown, ""
	}
	return d
}

// order runs an order of the hand-over to its end.
func order(in Input, doing string, done func(*inventory.Report) Decision) Decision {
	r := report(in)
	switch {
	case r == nil:
		return working(in, doing)
	case r.Error != "":
		return retryHandover(in, r.Error)
	}
	return done(r)
}

// retryHandover tries once more from the beginning, then gives the node up: its media hold half a tenant.
func retryHandover(in Input, why string) Decision {
	if in.View.State.V.Attempt < 1 {
		return move(lifecycle.Again, "once more: %s", why)
	}
	return move(lifecycle.Failed, "%s", why)
}

// tellTenant says in the instance why its node was given up, however it came to that.
func tellTenant(in Input, d Decision) Decision {
	if in.View.State.V.State != inventory.Provisioning || d.Event != lifecycle.Failed && d.Event != lifecycle.Timeout || !in.View.Instance.Exists() {
		return d
	}
	inst := in.View.Instance.V
	inst.Phase, inst.ReadyReason = inventory.InstanceFailed, d.Say
	d.Change.Instance = &inst
	return d
}

// gone is how long an agent that was told to enter must be quiet to count as gone: it asks again and again until then.
const gone = 3 * time.Second
