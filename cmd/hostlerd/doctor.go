package main

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/doctor"
	"github.com/hostler-project/hostler/inventory/ledger"
	"github.com/hostler-project/hostler/inventory/lifecycle"
	"github.com/hostler-project/hostler/provisioner/dhcp"
)

// doctor collects what can be known of this site here and now, and has it judged. It reads the copy, so that it answers
// also when the store does not.
func (d *daemon) doctor(context.Context) doctor.Report {
	f := doctor.Facts{Now: time.Now(), Started: d.started, Embedded: len(d.cfg.Etcd.Endpoints) == 0}
	if d.cfg.File != "" {
		f.Config = " --config " + d.cfg.File
	}
	f.Disks = d.disks()
	f.Clock = clock()
	f.Segments = d.segmentFacts()
	f.Boot = d.bootFiles()
	f.Keys = d.keyFacts()
	p := d.loop.Pulse()
	f.Reconciler = doctor.Reconciler{Last: p.Last, Longest: p.Longest}
	d.copy.Frozen(func(r inventory.Reader) {
		f.Shards = doctor.Shards{Total: inventory.Shards, Nobody: inventory.Shards - len(r.Under(inventory.PrefixShards))}
		if b, err := inventory.Decode[inventory.Backup](r.One(inventory.KeyBackup)); err == nil {
			f.Backup = b.V.Time
		}
	})
	f.Shards.Held = d.elector.Shards()
	f.Audit.Known = true
	for _, b := range d.auditor.Verdict().Broken {
		f.Audit.Broken = append(f.Audit.Broken, b.Error())
		if f.Audit.Since.IsZero() || b.Found.Before(f.Audit.Since) {
			f.Audit.Since = b.Found
		}
	}
	f.Breaker, f.Restored = d.afterRestore()
	f.References = d.references(&f.Keys)
	d.monitor.fill(&f)
	return doctor.Examine(f)
}

// afterRestore tells of the breaker, and names the tenants that a restore took over from a backup: until somebody has
// closed the breaker since, nobody has confirmed them.
func (d *daemon) afterRestore() (doctor.Breaker, []string) {
	kv := d.copy.One(inventory.KeyBreaker)
	b := inventory.BreakerIn(kv)
	out := doctor.Breaker{Known: kv.Exists(), Open: b.Open, Since: b.Since, Cause: b.Cause}
	era, err := inventory.Decode[inventory.Era](d.copy.One(inventory.KeyEra))
	if err != nil || len(era.V.Former) == 0 {
		return out, nil
	}
	ended := era.V.Former[len(era.V.Former)-1].Ended
	if !b.Open && b.Closed.After(ended) {
		return out, nil
	}
	var names []string
	for _, id := range d.copy.Nodes() {
		v := inventory.View(d.copy, id)
		if row, _ := lifecycle.Get(v.State.V.State); row.Owned && v.Claim.V.Since.Before(ended) {
			names = append(names, v.Name())
		}
	}
	return out, names
}

// disks are the file systems that the daemon writes to.
func (d *daemon) disks() []doctor.Disk {
	out := []doctor.Disk{{What: "data", Path: d.cfg.Data}}
	if dir := filepath.Join(d.cfg.Data, "etcd"); len(d.cfg.Etcd.Endpoints) == 0 {
		out = append(out, doctor.Disk{What: "etcd", Path: dir})
	}
	for i := range out {
		var st unix.Statfs_t
		if err := unix.Statfs(out[i].Path, &st); err != nil {
			out[i].Err = err.Error()
			continue
		}
		out[i].Free, out[i].Total = int64(st.Bavail)*st.Bsize, int64(st.Blocks)*st.Bsize
	}
	return out
}

// clock asks the kernel whether anybody keeps its clock.
func clock() doctor.Clock {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return doctor.Clock{Err: err.Error()}
	}
	return doctor.Clock{Synchronised: state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0, MaxError: time.Duration(t.Maxerror) * time.Microsecond}
}

func (d *daemon) segmentFacts() []doctor.Segment {
	var out []doctor.Segment
	for _, s := range d.segments {
		out = append(out, doctor.Segment{Name: s.Name, Interface: s.Interface, Address: s.Address.String(), Fault: segmentFault(s)})
	}
	return out
}

// segmentFault says what is wrong with a segment's card or address.
func segmentFault(s dhcp.Segment) string {
	if s.Interface != "" {
		card, err := net.InterfaceByName(s.Interface)
		if err != nil {
			return fmt.Sprintf("interface %s: %v", s.Interface, err)
		}
		if card.Flags&net.FlagUp == 0 {
			return fmt.Sprintf("interface %s is down", s.Interface)
		}
		if card.Flags&net.FlagRunning == 0 {
			return fmt.Sprintf("interface %s has no carrier", s.Interface)
		}
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return fmt.Sprintf("the machine's addresses: %v", err)
	}
	if !slices.ContainsFunc(addrs, func(a net.Addr) bool {
		n, ok := a.(*net.IPNet)
		return ok && n.IP.Equal(s.Address.AsSlice())
	}) {
		return fmt.Sprintf("address %s is on no interface", s.Address)
	}
	return ""
}

// bootFiles are the files that machines boot from; without segments none is needed.
func (d *daemon) bootFiles() []doctor.BootFile {
	if len(d.segments) == 0 {
		return nil
	}
	out := []doctor.BootFile{{What: "service OS, kernel", Path: d.dir.Service.Kernel}, {What: "service OS, initrd", Path: d.dir.Service.Initrd}}
	seen := map[string]bool{}
	for _, f := range dhcp.Firmwares {
		if !seen[f.Loader] {
			seen[f.Loader] = true
			out = append(out, doctor.BootFile{What: "loader of " + f.Means, Path: filepath.Join(d.cfg.Boot.Loaders, f.Loader)})
		}
	}
	for i := range out {
		if _, err := os.Stat(out[i].Path); err != nil {
			out[i].Err = err.Error()
		}
	}
	return out
}

// keyFacts looks at the folder as it is now: the daemon may hold in memory what is gone from the disk.
func (d *daemon) keyFacts() doctor.Keys {
	k := doctor.Keys{Folder: d.cfg.Keys}
	for _, name := range []string{"", "certificate.key", "ca.key", "ca.crt", "secrets.age"} {
		path := filepath.Join(d.cfg.Keys, name)
		st, err := os.Stat(path)
		switch {
		case err != nil:
			k.Faults = append(k.Faults, err.Error())
		case st.Mode().Perm()&0o077 != 0:
			k.Faults = append(k.Faults, fmt.Sprintf("others may read %s (%v)", path, st.Mode().Perm()))
		}
	}
	own := ledger.KeyID(d.keys.Certificate.Public().(ed25519.PublicKey))
	for _, id := range d.copy.Nodes() {
		if c := inventory.View(d.copy, id).Certificate; c.Exists() && c.V.KeyID != own {
			k.Foreign++
		}
	}
	return k
}

// references are records that name what is not there, each once however many nodes name it.
func (d *daemon) references(k *doctor.Keys) []doctor.Reference {
	var out []doctor.Reference
	said := map[string]bool{}
	say := func(fix, format string, a ...any) {
		what := fmt.Sprintf(format, a...)
		if !said[fix] {
			said[fix] = true
			out = append(out, doctor.Reference{What: what, Fix: fix})
		}
	}
	for _, kv := range d.copy.Under(inventory.PrefixCredentials) {
		ref := inventory.Parts(kv.Key)[1]
		c, err := inventory.Decode[inventory.Credential](kv)
		if err == nil {
			_, err = d.keys.Unseal(c.V.Age)
		}
		if err != nil {
			k.Sealed = append(k.Sealed, ref)
		}
	}
	for _, id := range d.copy.Nodes() {
		v := inventory.View(d.copy, id)
		if ref := v.Spec.V.BMC.Credential; ref != "" && !d.copy.One(inventory.KeyCredential(ref)).Exists() {
			say("hostler bmc credential set "+ref+" --user NAME", "credential %q is not there; %s names it", ref, v.Name())
		}
		if sku := v.Spec.V.SKU; sku != "" && !v.SKU.Exists() {
			say("declare SKU "+sku+" in site.yaml and restart hostlerd", "SKU %q is not declared; %s names it", sku, v.Name())
		}
		if image := v.Instance.V.Image; v.Instance.Exists() && image != "" && !d.copy.One(inventory.KeyImage(image)).Exists() {
			say("hostler image import FOLDER of "+image, "image %s is not there; the instance on %s names it", image, v.Name())
		}
	}
	for _, kv := range d.copy.Under(inventory.PrefixImages) {
		digest := inventory.Parts(kv.Key)[1]
		if err := d.lib.whole(digest); err != nil {
			say("hostler image import FOLDER, of that image: missing bytes are uploaded again", "image %s is offered, but its bytes are not all here: %v", digest, err)
		}
	}
	return out
}
