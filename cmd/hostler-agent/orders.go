package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hostler-project/hostler/health/burnin"
	"github.com/hostler-project/hostler/health/hardware"
	"github.com/hostler-project/hostler/imaging/sanitize"
	"github.com/hostler-project/hostler/inventory"
)

// An orderFunc does one kind of order. It returns what the report is about, also beside an error.
type orderFunc func(ctx context.Context, o inventory.Order) (result, error)

// A result is the answer to an order, and what happens once the daemon has it.
type result struct {
	report inventory.Report
	enter  func(context.Context) error
	after  func() error
}

// A retryable error may not come again.
type retryable struct{ err error }

func (r *retryable) Error() string { return r.err.Error() }
func (r *retryable) Unwrap() error { return r.err }

// words are what a person at the screen reads for each kind of order.
var words = map[string]string{
	inventory.OrderInspect:  "inspecting this machine",
	inventory.OrderSanitize: "erasing all media",
	inventory.OrderTest:     "testing this machine",
	inventory.OrderWrite:    "writing the tenant's system",
	inventory.OrderHandoff:  "handing over to the tenant",
	inventory.OrderReboot:   "restarting, as ordered",
	inventory.OrderPowerOff: "switching off, as ordered",
}

// table is what this agent can do.
func (a *agent) table(images *images) map[string]orderFunc {
	return map[string]orderFunc{
		inventory.OrderInspect:  a.inspect,
		inventory.OrderSanitize: a.sanitize,
		inventory.OrderTest:     a.test,
		inventory.OrderWrite:    func(ctx context.Context, o inventory.Order) (result, error) { return images.write(ctx, a, o) },
		inventory.OrderHandoff:  func(ctx context.Context, o inventory.Order) (result, error) { return images.handoff(ctx, a, o) },
		inventory.OrderReboot: func(context.Context, inventory.Order) (result, error) {
			return result{after: a.machine.Restart}, nil
		},
		inventory.OrderPowerOff: func(context.Context, inventory.Order) (result, error) {
			return result{after: a.machine.PowerOff}, nil
		},
	}
}

// inspect reads this machine. A part that could not be read makes the whole an error: a gap looks like a missing part.
func (a *agent) inspect(ctx context.Context, _ inventory.Order) (result, error) {
	a.tell(inventory.Progress{What: "waiting for the drives", LeftS: -1})
	if late := settled(ctx, "/sys", drivesIn, standing); len(late) > 0 {
		a.log.Warn("NVMe controllers do not answer", "slots", late)
	}
	a.tell(inventory.Progress{What: "reading the hardware", LeftS: -1})
	hw, err := hardware.Read("/")
	if err != nil {
		return result{}, err
	}
	hw.Media, err = sanitize.System{}.Discover()
	if err != nil {
		return result{}, &retryable{err} // a drive may still be starting
	}
	return result{report: inventory.Report{Hardware: &hw}}, nil
}

// sanitize erases everything that is there, and whatever was recorded must be there.
func (a *agent) sanitize(ctx context.Context, o inventory.Order) (result, error) {
	drives, err := sanitize.System{}.Drives()
	if err != nil {
		return result{}, err
	}
	go func() { _, _ = a.digest() }() // it takes a second on a slow machine, and the drives are slower
	p := erasing{begin: time.Now(), of: map[string]sanitize.Progress{}}
	proofs, err := sanitize.Erase(ctx, drives, o.Media, sanitize.Options{Progress: func(one sanitize.Progress) { a.tell(p.add(one)) }})
	res := result{report: inventory.Report{Proofs: proofs}}
	digest, err2 := a.digest()
	res.report.Agent = digest
	return res, errors.Join(err, err2)
}

// erasing is how far all media are together.
type erasing struct {
	begin time.Time
	of    map[string]sanitize.Progress // by the kernel's name
}

// add takes one medium's progress and gives that of all, in MiB read back.
func (e *erasing) add(one sanitize.Progress) inventory.Progress {
	e.of[one.Medium.Device] = one
	p := inventory.Progress{Unit: "MiB", LeftS: -1}
	phases := map[string]int{}
	for _, m := range e.of {
		p.Done, p.Total = p.Done+m.Done>>20, p.Total+m.Total>>20
		phases[m.Phase]++
	}
	var parts []string
	for _, phase := range slices.Sorted(maps.Keys(phases)) {
		parts = append(parts, fmt.Sprintf("%s %d of %d media", phase, phases[phase], len(e.of)))
	}
	p.What = strings.Join(parts, ", ")
	if p.Done > 0 && phases["read back"] == len(e.of) {
		p.LeftS = time.Since(e.begin).Seconds() * float64(p.Total-p.Done) / float64(p.Done)
	}
	return p
}

// test runs a burn-in profile on what this machine has now.
func (a *agent) test(ctx context.Context, o inventory.Order) (result, error) {
	m, err := burnin.ThisMachine()
	if err != nil {
		return result{}, err
	}
	drives, err := sanitize.System{}.Drives()
	if err != nil {
		return result{}, err
	}
	there, err := present()
	if err != nil {
		return result{}, err
	}
	if faults := otherMedia(o.Media, there); len(faults) > 0 {
		now := time.Now()
		run := inventory.TestRun{Node: o.Node, Order: o.ID, Profile: o.Profile, Generation: o.Generation, Wipe: o.Wipe, Verdict: inventory.Fail, Started: now, Finished: now, Results: faults}
		return result{report: inventory.Report{Test: &run}}, nil
	}
	for _, d := range drives {
		disks, err := testable(d)
		if err != nil {
			return result{}, err
		}
		m.Disks = append(m.Disks, disks...)
	}
	m.NoDisks = o.SKU != nil && len(o.SKU.Media) == 0
	run, err := burnin.Runner{Machine: m, Progress: a.tell}.Run(ctx, o.Profile)
	if err != nil {
		return result{}, err
	}
	run.Node, run.Order, run.Generation, run.Wipe = o.Node, o.ID, o.Generation, o.Wipe
	a.page.Doing(fmt.Sprintf("test profile %s: %s %s", o.Profile, run.Verdict, burnin.Why(run)))
	return result{report: inventory.Report{Test: &run}}, nil
}

// present are the media that are in this machine now.
func present() ([]inventory.Medium, error) {
	drives, err := sanitize.System{}.Drives()
	if err != nil {
		return nil, err
	}
	var out []inventory.Medium
	for _, d := range drives {
		out = append(out, d.Medium())
	}
	return out, nil
}

// otherMedia compares the drives with those that were erased: one that came since then may hold anybody's data, and one
// that is gone was not tested.
func otherMedia(erased, there []inventory.Medium) []inventory.TestResult {
	var out []inventory.TestResult
	missing := func(from, in []inventory.Medium, reason string) {
		for _, m := range from {
			if !slices.ContainsFunc(in, func(o inventory.Medium) bool { return o.Key() == m.Key() }) {
				out = append(out, inventory.TestResult{Test: "media", Component: m.String(), Verdict: inventory.Fail, Reason: reason})
			}
		}
	}
	missing(there, erased, "it was not in the machine when that was erased")
	missing(erased, there, "it was erased, and is not in the machine any more")
	return out
}

// testable is each namespace of a drive, as burn-in wants it.
func testable(d sanitize.Drive) ([]burnin.Disk, error) {
	spaces, err := d.Visible()
	if err != nil {
		return nil, err
	}
	var all []burnin.Disk
	for i, id := range spaces {
		b := burnin.Disk{Medium: d.Medium(), Open: func() (burnin.Device, error) { return d.Open(id) }}
		if len(spaces) > 1 {
			b.Medium.Device = fmt.Sprintf("%s namespace %d", b.Medium.Device, id)
		}
		if i == 0 && b.Medium.Kind == inventory.MediumNVMe {
			b.LogPage = func(page uint8, buf []byte) error { return logPage(d, page, buf) }
		}
		all = append(all, b)
	}
	return all, nil
}

// logPage sends Get Log Page (NVMe base specification 2.0, section 5.16) for the whole controller.
func logPage(d sanitize.Drive, page uint8, buf []byte) error {
	const getLogPage, controller = 0x02, 0xffffffff
	return d.Admin(&sanitize.Command{Opcode: getLogPage, NSID: controller, CDW10: uint32(len(buf)/4-1)<<16 | uint32(page), Data: buf, Timeout: 5 * time.Second})
}

// openMedium opens the drive that an order names, told again by its key: its first namespace, and its name now.
func openMedium(m inventory.Medium) (sanitize.Namespace, string, error) {
	drives, err := sanitize.System{}.Drives()
	if err != nil {
		return nil, "", err
	}
	for _, d := range drives {
		if d.Medium().Key() != m.Key() {
			continue
		}
		spaces, err := d.Visible()
		if err != nil {
			return nil, "", err
		}
		if len(spaces) == 0 {
			return nil, "", fmt.Errorf("%s shows no namespace to write to", m)
		}
		f, err := d.Open(spaces[0])
		return f, d.Medium().Device, err
	}
	return nil, "", fmt.Errorf("medium %s is not in this machine: put it back, or inspect the machine again", m)
}
