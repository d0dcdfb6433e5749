package imaging

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/hostler-project/hostler/imaging/disk"
)

// SeedData is what the tenant's first boot reads (NoCloud, cloud-init's documentation): each is a file's content. Nil
// leaves a file out; meta-data must be there, and user-data always is.
type SeedData struct {
	MetaData      []byte // needs instance-id
	UserData      []byte
	NetworkConfig []byte
	VendorData    []byte
}

// Seed puts the data on a written disk: into the partition that the image reserves, or into one appended at the end of
// the disk. Nothing of the image's own file systems is touched or mounted. It may be repeated: the partition of a run
// before is used again.
func Seed(ctx context.Context, d disk.Device, m *Manifest, data SeedData) error {
	if !bytes.Contains(data.MetaData, []byte("instance-id")) {
		return errors.New("imaging: seed: meta-data has no instance-id: cloud-init would not run")
	}
	t, err := disk.ReadTable(d, d.SectorSize())
	if err != nil {
		return fmt.Errorf("imaging: seed %s: %w", d.Name(), err)
	}
	p, found := t.Find(isSeed)
	if m.Seed != nil && (!found || p.Offset(t.Sector) != m.Seed.Offset || p.Size(t.Sector) != m.Seed.Size) {
		return fmt.Errorf("imaging: seed %s: partition %s is not where image %s reserves it", d.Name(), SeedLabel, m.Name)
	}
	if !found {
		if p, err = t.Append(seedSize, disk.TypeData, SeedLabel); err != nil {
			return fmt.Errorf("imaging: seed %s: %w", d.Name(), err)
		}
	}
	files := []disk.FATFile{{Name: "meta-data", Data: data.MetaData}, {Name: "user-data", Data: data.UserData}}
	if data.NetworkConfig != nil {
		files = append(files, disk.FATFile{Name: "network-config", Data: data.NetworkConfig})
	}
	if data.VendorData != nil {
		files = append(files, disk.FATFile{Name: "vendor-data", Data: data.VendorData})
	}
	vol, err := disk.FAT(min(p.Size(t.Sector), seedSize), t.Sector, SeedLabel, files)
	if err != nil {
		return fmt.Errorf("imaging: seed %s: %w", d.Name(), err)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	off := p.Offset(t.Sector)
	if _, err := d.WriteAt(vol, off); err != nil {
		return fmt.Errorf("imaging: seed %s at %d: %w", d.Name(), off, err)
	}
	if err := d.Sync(); err != nil {
		return fmt.Errorf("imaging: seed %s: %w", d.Name(), err)
	}
	got := disk.Buffer(len(vol))
	if _, err := d.ReadAt(got, off); err != nil || !bytes.Equal(got, vol) {
		return fmt.Errorf("imaging: seed %s: what was written at %d does not read back (%v): replace the drive", d.Name(), off, err)
	}
	if !found {
		if err := disk.WriteTable(d, t); err != nil {
			return fmt.Errorf("imaging: seed: %w", err)
		}
		again, err := disk.ReadTable(d, d.SectorSize())
		if err == nil {
			_, found = again.Find(isSeed)
		}
		if err != nil || !found {
			return fmt.Errorf("imaging: seed %s: the partition table does not read back (%v)", d.Name(), err)
		}
	}
	if f, ok := d.(interface{ Reread() }); ok {
		f.Reread()
	}
	return nil
}
