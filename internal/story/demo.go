package story

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/hostler-project/hostler/internal/rack"
	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/lifecycle"
)

// Demo walks two servers until one is rented and in use and one is ready, shows how, and then waits for ctx to end.
func (s *Story) Demo(ctx context.Context) error {
	s.say("hostlerd starts in the rack: two servers, powered off, drives empty")
	if err := s.start(ctx); err != nil {
		return err
	}
	s.say("dashboard and API: %s", s.url("/"))
	password, err := os.ReadFile(s.Rack.BMCPasswordFile())
	if err != nil {
		return err
	}
	if _, err := s.hostler(ctx, password, "bmc", "credential", "set", "rack", "--user", rack.BMCUser); err != nil {
		return err
	}
	s.say("b comes from a manifest; hostlerd switches it on through its BMC")
	if _, err := s.manifest(ctx, "virtual"); err != nil {
		return err
	}
	s.say("somebody presses the power button of a, which nobody knows yet")
	a, err := s.Rack.Node("a")
	if err != nil {
		return err
	}
	if err := a.Button(); err != nil {
		return err
	}
	stop := s.live(ctx)
	defer stop()
	if err := s.until(ctx, "a", 3*time.Minute, "discovered", func(r Row) bool { return r.ID != "" }); err != nil {
		return err
	}
	s.say("hostler node approve %s --name a --sku virtual --bmc %s --credential rack", a.MAC, a.BMC)
	if err := s.approveA(ctx); err != nil {
		return err
	}
	if err := s.importImage(ctx); err != nil {
		return err
	}
	if err := s.state(ctx, "b", "ready", 10*time.Minute); err != nil {
		return err
	}
	if s.tenant, err = s.newTenant(); err != nil {
		return err
	}
	if err := os.WriteFile(s.path("user-data"), s.userData(), 0o600); err != nil {
		return err
	}
	s.say("b is ready; a tenant claims it: hostler claim create --sku virtual --image debian-12 --ssh-key … --user-data …")
	if _, err := s.hostler(ctx, nil, "claim", "create", "--sku", "virtual", "--node", "b", "--reservation", "demo", "--image", "debian-12", "--hostname", "tenant-b",
		"--user-data", s.path("user-data"), "--ssh-key", s.path("tenant.pub")); err != nil {
		return err
	}
	if err := s.inHand(ctx, "b", "tenant-b"); err != nil {
		return err
	}
	if err := s.state(ctx, "a", "ready", 10*time.Minute); err != nil {
		return err
	}
	stop()
	return s.farewell(ctx)
}

// farewell says what can be done now, and waits.
func (s *Story) farewell(ctx context.Context) error {
	login, err := s.hostler(ctx, nil, "login")
	if err != nil {
		return err
	}
	link, _, _ := strings.Cut(strings.TrimSpace(login), "\n")
	s.mu.Lock()
	fmt.Fprintf(s.Out, `
b is rented and in use, a is ready.

  dashboard   %s
  next        export HOSTLER_URL=%s HOSTLER_TOKEN_FILE=%s
              %s why b
              %s claim release demo --wait
  tenant      nsenter --net=/run/hostler-netns/hostler-%s ssh -i %s root@%s
  console     %s --name %s console b

Ctrl-C ends the rack and leaves nothing behind.
`, link, s.url(""), s.cli.TokenFile, s.cli.Program, s.cli.Program, s.Rack.Name, s.path("tenant.key"), s.tenant.addr, s.Bin+"/hostler-rack", s.Rack.Name)
	s.mu.Unlock()
	select {
	case <-ctx.Done():
		return nil
	case <-s.daemon.Process().Done():
		return fmt.Errorf("hostlerd ended: see %s", s.daemon.Log)
	}
}

// live redraws one line per server while the story goes on; where Out is no terminal, show's lines are all there is.
func (s *Story) live(ctx context.Context) (stop func()) {
	if !s.Live {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			if rows, err := s.nodes(ctx); err == nil {
				s.draw(rows)
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(500 * time.Millisecond):
			}
		}
	}()
	return func() { cancel(); <-done }
}

// draw writes the servers' lines below the story and puts the cursor back above them.
func (s *Story) draw(rows map[string]Row) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	b.WriteString("\x1b[J")
	lines := 0
	for _, n := range s.Rack.Nodes {
		r, ok := rows[n.Name]
		if !ok {
			continue
		}
		head := fmt.Sprintf("   %s  %-12s %4.0f s ", n.Name, r.State, time.Since(r.Since).Seconds())
		line := head + r.Live.Say
		if p := r.Live.Progress; p != nil && p.Total > 0 {
			line = head + bar(p.Done, p.Total) + " " + p.What
			if p.LeftS >= 0 {
				line += fmt.Sprintf(", %.0f s left", p.LeftS)
			}
		}
		if len(line) > 80 {
			line = line[:80]
		}
		if next := after(r.State); next != "" {
			line += " → " + next
		}
		b.WriteString(line + "\n")
		lines++
	}
	fmt.Fprintf(&b, "\x1b[%dA", max(lines, 1))
	if lines > 0 {
		fmt.Fprint(s.Out, b.String())
	}
}

// after is where a node goes from a state when all is well.
func after(state string) string {
	for _, ev := range []lifecycle.Event{lifecycle.Done, lifecycle.Claim, lifecycle.Confirm, lifecycle.Approve} {
		if e, err := lifecycle.Find(inventory.State(state), ev); err == nil {
			return string(e.To)
		}
	}
	return ""
}

func bar(done, total int64) string {
	const width = 20
	n := int(done * width / total)
	return "[" + strings.Repeat("#", min(n, width)) + strings.Repeat(".", max(width-n, 0)) + "]"
}
