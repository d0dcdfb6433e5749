package doctor

import (
	"fmt"
	"strings"
	"time"
)

// What is left on a disk before it counts as nearly full: both, so that neither a huge nor a small disk cries wolf.
const (
	leastFree  = 1 << 30
	leastShare = 10 // percent
)

func judgeDisks(f Facts) []Finding {
	var out []Finding
	for _, d := range f.Disks {
		if d.Err != "" {
			out = append(out, found("%s %s: %s", d.What, d.Path, d.Err).fail("mount it, or make the folder: ls -ld "+d.Path))
			continue
		}
		x := found("%s %s: %s free of %s", d.What, d.Path, bytes(d.Free), bytes(d.Total))
		if d.Free < leastFree || d.Free*100 < d.Total*leastShare {
			x = x.warn("du -xh " + d.Path + " | sort -h | tail: remove what is not Hostler's")
			if d.Free < leastFree/16 {
				x.Level = Fail
			}
		}
		out = append(out, x)
	}
	if len(out) == 0 {
		out = append(out, found("not looked at").warn("systemctl restart hostlerd"))
	}
	return out
}

func judgeClock(f Facts) []Finding {
	const blind = "how far etcd's members' clocks are off cannot be asked"
	switch c := f.Clock; {
	case c.Err != "":
		return []Finding{found("the kernel does not say: %s", c.Err).warn("timedatectl")}
	case !c.Synchronised:
		return []Finding{found("nobody keeps this machine's clock: certificates and expiries go by it").warn("timedatectl set-ntp true (apt install systemd-timesyncd, or chrony)")}
	default:
		return []Finding{found("kept, at most %v off; %s", c.MaxError.Round(time.Millisecond), blind)}
	}
}

func judgeKeys(f Facts) []Finding {
	var out []Finding
	k := f.Keys
	for _, fault := range k.Faults {
		fix := "copy it back from where the keys are kept, before hostlerd is restarted: it would make new ones"
		if strings.Contains(fault, "others may") {
			fix = "chmod -R go= " + k.Folder
		}
		out = append(out, found("%s", fault).fail(fix))
	}
	if k.Foreign > 0 {
		out = append(out, found("the certificates of %d nodes were signed by another key than certificate.key: these keys are another site's, or were made anew", k.Foreign).
			fail("copy this site's keys into "+k.Folder+" and restart hostlerd; if they are lost, those nodes are erased again: hostler node quarantine, return"))
	}
	if len(k.Sealed) > 0 {
		out = append(out, found("secrets.age cannot open: %s", strings.Join(k.Sealed, ", ")).fail("hostler bmc credential set "+k.Sealed[0]+" --user NAME (each), or copy this site's keys back"))
	}
	if len(out) == 0 {
		out = append(out, found("%s: all there, private, this site's", k.Folder))
	}
	return out
}

func judgeSegments(f Facts) []Finding {
	var out []Finding
	for _, s := range f.Segments {
		if s.Fault != "" {
			fix := "ip link set " + s.Interface + " up; is the cable in?"
			if strings.Contains(s.Fault, "address") {
				fix = "ip addr add " + s.Address + " dev " + s.Interface + ", and in the machine's network configuration"
			}
			out = append(out, found("%s: %s", s.Name, s.Fault).fail(fix))
		}
		for _, r := range s.Rivals {
			out = append(out, found("%s: another DHCP server answers there: %s", s.Name, r.Server).
				fail("find "+r.Server+" (ip neigh show "+r.Server+" gives its MAC) and switch its DHCP off").since(r.Seen))
		}
	}
	switch {
	case len(f.Segments) == 0:
		out = append(out, found("none is declared: no machine is booted"))
	case len(out) == 0:
		out = append(out, found("all %d are up, nobody else answers", len(f.Segments)))
	}
	return out
}

func judgeBoot(f Facts) []Finding {
	var out []Finding
	for _, b := range f.Boot {
		if b.Err != "" {
			out = append(out, found("%s: %s", b.What, b.Err).warn("make images, and copy out/images to where site.yaml says (boot.service_os, boot.loaders)"))
		}
	}
	switch {
	case len(f.Boot) == 0:
		out = append(out, found("none are needed: no segment is declared"))
	case len(out) == 0:
		out = append(out, found("all %d are there", len(f.Boot)))
	}
	return out
}

// manyReferences is how many rows of one kind a person reads.
const manyReferences = 10

func judgeReferences(f Facts) []Finding {
	var out []Finding
	for _, r := range f.References[:min(len(f.References), manyReferences)] {
		out = append(out, found("%s", r.What).fail(r.Fix))
	}
	if more := len(f.References) - len(out); more > 0 {
		out = append(out, found("and %d more", more).fail("mend these first"))
	}
	if len(out) == 0 {
		out = append(out, found("all there"))
	}
	return out
}

// staleBackup is the age at which a backup would cost too much.
const staleBackup = 24 * time.Hour

func judgeBackup(f Facts) []Finding {
	fix := "hostlerd backup /backup --keep 48" + f.Config + ", from a timer (docs/first-site.md)"
	switch age := f.Now.Sub(f.Backup); {
	case f.Backup.IsZero():
		return []Finding{found("never: if this store is lost, everything is").warn(fix)}
	case age > staleBackup:
		return []Finding{found("%d h old", int(age.Hours())).warn(fix).since(f.Backup)}
	default:
		return []Finding{found("%v ago", age.Round(time.Minute))}
	}
}

// bytes is a number of bytes for people.
func bytes(n int64) string {
	f, unit := float64(n), "B"
	for _, u := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if f < 1024 {
			break
		}
		f, unit = f/1024, u
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", f), ".0") + " " + unit
}
