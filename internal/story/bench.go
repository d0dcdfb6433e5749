package story

import (
	"context"
	"fmt"
	"os"
	"slices"
	"text/tabwriter"
	"time"
)

// rounds is how often each method is measured, the two in turn.
const rounds = 3

// BenchHandoff measures, on one machine, the time from "image written and read back" to the first line of the tenant's
// kernel: by kexec, and by a reboot from disk through the firmware, which is what others do.
func (s *Story) BenchHandoff(ctx context.Context) error {
	if err := s.start(ctx); err != nil {
		return err
	}
	password, err := os.ReadFile(s.Rack.BMCPasswordFile())
	if err != nil {
		return err
	}
	if _, err := s.hostler(ctx, password, "bmc", "credential", "set", "rack", "--user", "admin"); err != nil {
		return err
	}
	if err := s.importImage(ctx); err != nil {
		return err
	}
	if s.tenant, err = s.newTenant(); err != nil {
		return err
	}
	took := map[string][]float64{}
	for i := range 2 * rounds {
		sku := []string{"virtual", "virtual-by-reboot"}[i%2]
		seconds, err := s.handoff(ctx, sku, fmt.Sprintf("bench-%d", i))
		if err != nil {
			return err
		}
		took[sku] = append(took[sku], seconds)
		s.say("%s: %.1f s from verified image to the tenant's first kernel line", sku, seconds)
	}
	kexec, reboot := median(took["virtual"]), median(took["virtual-by-reboot"])
	met := 0
	if kexec < reboot {
		met = 1
	}
	w := tabwriter.NewWriter(s.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "MEASURE\tOURS (kexec)\tPEER (reboot)\tRATIO\tMARK")
	fmt.Fprintf(w, "image verified to tenant's first kernel line, s, median of %d\t%.1f\t%.1f\t%.2f\t< 1\n", rounds, kexec, reboot, kexec/reboot)
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(s.Out, "marks: %d met, %d missed\n", met, 1-met)
	return nil
}

// handoff has b rented once under a SKU and returned, and gives the seconds of its hand-over.
func (s *Story) handoff(ctx context.Context, sku, reservation string) (float64, error) {
	if err := s.become(ctx, sku); err != nil {
		return 0, err
	}
	if err := s.state(ctx, "b", "ready", 10*time.Minute); err != nil {
		return 0, err
	}
	if _, err := s.hostler(ctx, nil, "claim", "create", "--sku", sku, "--node", "b", "--reservation", reservation, "--image", "debian-12", "--ssh-key", s.path("tenant.pub")); err != nil {
		return 0, err
	}
	if err := s.state(ctx, "b", "in-use", 10*time.Minute); err != nil {
		return 0, err
	}
	list, err := s.history(ctx, "b")
	if err != nil {
		return 0, err
	}
	var verified time.Time
	for _, h := range list {
		if h.Phase == "boot-disk" {
			verified = h.Time
		}
	}
	n, err := s.Rack.Node("b")
	if err != nil {
		return 0, err
	}
	wait, stop := context.WithTimeout(ctx, 3*time.Minute)
	defer stop()
	at, err := n.WaitConsole(wait, "Linux version", verified)
	if err != nil {
		return 0, err
	}
	if err := s.until(ctx, "b", 5*time.Minute, "answering", func(r Row) bool { return r.Live.Say == "in use by site" }); err != nil {
		return 0, err
	}
	if _, err := s.hostler(ctx, nil, "claim", "release", reservation); err != nil {
		return 0, err
	}
	if err := s.until(ctx, "b", time.Minute, "leaving its tenant", func(r Row) bool { return r.State != "in-use" && r.State != "ready" }); err != nil {
		return 0, err
	}
	return at.Sub(verified).Seconds(), s.state(ctx, "b", "ready", 10*time.Minute)
}

// become gives b a SKU: a node keeps its own while it is ready, so it goes through quarantine.
func (s *Story) become(ctx context.Context, sku string) error {
	rows, err := s.nodes(ctx)
	if err != nil {
		return err
	}
	if rows["b"].ID == "" {
		_, err := s.manifest(ctx, sku)
		return err
	}
	if _, err := s.hostler(ctx, nil, "node", "quarantine", "b", "--reason", "the bench changes its SKU", "--yes"); err != nil {
		return err
	}
	if err := s.until(ctx, "b", time.Minute, "quarantined", func(r Row) bool { return r.State == "quarantined" }); err != nil {
		return err
	}
	if _, err := s.manifest(ctx, sku); err != nil {
		return err
	}
	if _, err := s.hostler(ctx, nil, "node", "return", "b", "--reason", "bench", "--yes"); err != nil {
		return err
	}
	return s.until(ctx, "b", time.Minute, "returned", func(r Row) bool { return r.State != "quarantined" })
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}
