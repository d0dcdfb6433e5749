package main

import (
	"context"
	"fmt"
	"io"
	"net/url"

	"github.com/hostler-project/hostler/imaging"
	"github.com/hostler-project/hostler/imaging/disk"
	"github.com/hostler-project/hostler/imaging/handoff"
	"github.com/hostler-project/hostler/inventory"
)

// handoff seeds the written medium, makes it the first boot device, and gets the way in ready: the tenant's kernel
// loaded, or a reboot with the reasons. The way is gone only when the daemon has written it down.
func (w *images) handoff(ctx context.Context, a *agent, o inventory.Order) (result, error) {
	h := o.Handoff
	if h == nil {
		return result{}, fmt.Errorf("hand-off: the order names no image")
	}
	a.tell(inventory.Progress{What: "fetching the image's manifest", LeftS: -1})
	m, src, err := fetchManifest(ctx, h.ChunkBase, h.Image, h.TrustedKey)
	if err != nil {
		return result{}, err
	}
	dev, _, err := w.open(h.Medium)
	if err != nil {
		return result{}, err
	}
	defer dev.Close()
	a.tell(inventory.Progress{What: "writing the tenant's seed", LeftS: -1})
	if err := w.seed(ctx, a, o, dev, m); err != nil {
		return result{}, err
	}
	said := w.statements(ctx, a, h, m)
	if w.vars != nil {
		if err := handoff.DiskFirst(w.vars, dev, m.Arch); err != nil {
			return result{}, err // the tenant's own reboot would come back to us, whatever the way in
		}
	}
	d := handoff.Decide(w.host, said)
	if h.Method == handoff.Reboot {
		d = handoff.Decision{Method: handoff.Reboot, Findings: []handoff.Finding{{Name: "method", Reason: "the daemon ordered a reboot"}}}
	}
	if d.Method == handoff.Kexec && w.loaded != h.Image {
		a.tell(inventory.Progress{What: "loading the tenant's kernel", LeftS: -1})
		if err := w.load(ctx, m, src); err != nil {
			if ctx.Err() != nil {
				return result{}, err
			}
			// The disk is complete: there is another way, and the reason is told.
			d.Method = handoff.Reboot
			d.Findings = append(d.Findings, handoff.Finding{Name: "load", Reason: err.Error()})
		}
	}
	if d.Method == handoff.Reboot {
		w.loaded = ""
		if err := w.kernel.Unload(); err != nil {
			a.log.Warn("the tenant's kernel stays loaded, unused", "err", err)
		}
	}
	res := result{report: inventory.Report{Handoff: &inventory.HandoffResult{Method: d.Method, Why: d.Reasons()}}}
	for _, f := range d.Findings {
		if f.Passed {
			res.report.Handoff.Passed = append(res.report.Handoff.Passed, f.Name)
		}
	}
	res.enter = func(context.Context) error {
		if d.Method == handoff.Kexec {
			err := handoff.Enter(w.kernel)
			a.page.Doing(fmt.Sprintf("%v: restarting from disk instead", err))
		}
		return a.machine.Restart()
	}
	return res, nil
}

// seed gets the tenant's files, which are in no order, and puts them on the medium. From here on the medium is the
// tenant's, and a write begins anew.
func (w *images) seed(ctx context.Context, a *agent, o inventory.Order, dev disk.Device, m *imaging.Manifest) error {
	var files inventory.SeedFiles
	if err := a.client.call(ctx, answerIn, "/v1/agent/seed", url.Values{"order": {o.ID}}, nil, &files); err != nil {
		return fmt.Errorf("hand-off: get the tenant's seed: %w", err)
	}
	defer func() {
		for _, b := range [][]byte{files.MetaData, files.UserData, files.NetworkConfig, files.VendorData} {
			clear(b)
		}
	}()
	w.result = nil
	return imaging.Seed(ctx, dev, m, imaging.SeedData{MetaData: files.MetaData, UserData: files.UserData,
		NetworkConfig: none(files.NetworkConfig), VendorData: none(files.VendorData)})
}

// none is nil for a file that was not sent: an empty one would be written.
func none(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return b
}

// statements are what this agent and the order can vouch for.
func (w *images) statements(ctx context.Context, a *agent, h *inventory.HandoffOrder, m *imaging.Manifest) handoff.Order {
	// Where the BMC can be asked in band, its watchdog is. Where it cannot, nobody in this system can have armed it, and
	// the qualification boot on this SKU would have been cut off by one that the firmware left running.
	watchdog := true
	if w.watchdog != nil {
		if err := w.watchdog(ctx); err != nil {
			a.log.Warn("the BMC's watchdog keeps this from being a kexec", "err", err)
			watchdog = false
		}
	}
	return handoff.Order{
		Qualified:    h.Qualified,
		HasKernel:    m.Kernel != nil,
		MeasuredBoot: m.Measured,
		// The daemon orders a hand-off only after it has set the BMC's boot device to disk and read it back (a UEFI
		// machine's own order is set and read back here besides).
		OverrideCleared:  true,
		DiskFirst:        true,
		WatchdogDisarmed: watchdog,
		// enter wipes the key before it jumps, and the daemon closes the session.
		KeysWiped: true,
		// A machine with GPUs reboots until the GPU layer can reset them and read back.
		GPUsReset: len(a.self.hardware.GPUs) == 0,
	}
}

// load fetches kernel and initrd, each held against its digest in the signed manifest, and gives them to the kernel.
func (w *images) load(ctx context.Context, m *imaging.Manifest, src *imaging.HTTPSource) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w.loaded = ""
	kernel := blob(ctx, src, *m.Kernel)
	defer kernel.Close()
	var initrd io.Reader
	if m.Initrd != nil {
		r := blob(ctx, src, *m.Initrd)
		defer r.Close()
		initrd = r
	}
	if err := handoff.Load(w.kernel, kernel, initrd, m.Cmdline); err != nil {
		return err
	}
	w.loaded = src.Image
	return nil
}

// blob reads one file of the image; its last read fails when the digest is another.
func blob(ctx context.Context, src *imaging.HTTPSource, b imaging.Blob) io.ReadCloser {
	r, w := io.Pipe()
	go func() { w.CloseWithError(src.Blob(ctx, b, w)) }()
	return r
}
