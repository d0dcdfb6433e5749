package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/hostler-project/hostler/imaging"
	"github.com/hostler-project/hostler/inventory/api"
	"github.com/hostler-project/hostler/inventory/client"
)

func (a *app) image() *cobra.Command {
	return group("image", "Make images, offer them, list them", a.imageLs(), a.imagePack(), a.imageImport(),
		group("key", "Keys of image authors", a.imageKeyNew()))
}

func (a *app) imageLs() *cobra.Command {
	return &cobra.Command{Use: "ls", Short: "List the images on offer", Args: args(0, 0, ""),
		RunE: a.ask(func(c *cobra.Command, cl *client.Client, _ []string) error {
			l, err := cl.Images(c.Context())
			if err != nil {
				return err
			}
			return a.show(l, func() {
				head := []string{"NAME", "DIGEST", "SIZE", "IMPORTED"}
				if a.wide() {
					head = append(head, "STORED", "ARCH", "BOOT", "KEXEC", "OS", "SIGNED BY", "FULL DIGEST")
				}
				var rows [][]string
				for _, m := range l {
					row := []string{m.Name, m.Digest[:12], size(m.Size), since(m.Imported) + " ago"}
					if a.wide() {
						row = append(row, size(m.Stored), m.Arch, strings.Join(m.Boot, ","), fmt.Sprint(m.Kexec), m.OS, m.SignedBy, m.Digest)
					}
					if m.Blocked != "" {
						row[0] += " (blocked)"
					}
					rows = append(rows, row)
				}
				a.table(head, rows)
			})
		})}
}

func (a *app) imageKeyNew() *cobra.Command {
	return &cobra.Command{Use: "new FILE", Short: "Make a signing key; FILE.pub goes to the site's images.trusted_keys", Args: args(1, 1, "one file"),
		RunE: func(_ *cobra.Command, args []string) error {
			pub, err := imaging.GenerateKey(args[0])
			if err != nil {
				return err
			}
			return a.show(map[string]string{"key": args[0], "public": pub.String()}, func() {
				a.print("%s is the key: keep it. The public key, for images.trusted_keys in site.yaml:\n%s", args[0], pub)
			})
		}}
}

func (a *app) imagePack() *cobra.Command {
	var o imaging.PackOptions
	var key string
	c := &cobra.Command{Use: "pack", Short: "Make a signed image folder from a raw disk (offline)", Args: args(0, 0, ""),
		Example: "  hostler image pack --disk debian.raw --out debian --name debian-12 --boot bios,uefi --key author.key"}
	f := c.Flags()
	f.StringVar(&o.Disk, "disk", "", "raw disk with a GUID partition table")
	f.StringVar(&o.Out, "out", "", "folder to make")
	f.StringVar(&o.Name, "name", "", "what people call the image")
	f.StringVar(&o.OS, "os", "", "for people, such as \"Debian 12\"")
	f.StringVar(&o.Arch, "arch", "amd64", "amd64 or arm64")
	f.StringSliceVar(&o.BootModes, "boot", nil, "bios, uefi or both")
	f.IntVar(&o.SectorSize, "sector-size", 512, "512 or 4096")
	f.StringVar(&o.Kernel, "kernel", "", "for kexec; without it only a reboot enters the image")
	f.StringVar(&o.Initrd, "initrd", "", "for kexec")
	f.StringVar(&o.Cmdline, "cmdline", "", "for kexec")
	f.BoolVar(&o.Measured, "measured-boot", false, "its secrets hang on TPM measurements: never kexec")
	f.StringVar(&key, "key", "", "signing key (hostler image key new)")
	c.RunE = func(c *cobra.Command, _ []string) error {
		for name, v := range map[string]string{"--disk": o.Disk, "--out": o.Out, "--name": o.Name, "--key": key} {
			if v == "" {
				return fail(exitUsage, "hostler image pack --help", "%s is missing", name)
			}
		}
		var err error
		if o.Key, err = imaging.LoadKey(key, nil); err != nil {
			return err
		}
		step := int64(-1)
		o.Progress = func(p imaging.Progress) {
			if now := 10 * p.Done / max(p.Total, 1); now != step {
				step = now
				fmt.Fprintf(a.err, "%s %d %%, %s of %s packed to %s\n", p.Phase, now*10, size(p.Done), size(p.Total), size(p.Packed))
			}
		}
		p, err := imaging.Pack(c.Context(), o)
		if err != nil {
			return imageFault(err)
		}
		return a.show(map[string]any{"digest": p.Digest, "name": p.Manifest.Name, "size": p.Manifest.Size, "stored": p.Bytes, "folder": o.Out}, func() {
			a.print("%s  %s  %s packed to %s in %s", p.Manifest.Name, p.Digest[:12], size(p.Manifest.Size), size(p.Bytes), o.Out)
			field(a.out, "you can", "hostler image import "+o.Out)
		})
	}
	return c
}

// imageFault says that it is the image that is refused, where it is.
func imageFault(err error) error {
	var format *imaging.FormatError
	if errors.As(err, &format) {
		return fail(exitRefused, "qemu-img convert -O raw DISK disk.raw, then hostler image pack --disk disk.raw", "%v", err)
	}
	return err
}

func (a *app) imageImport() *cobra.Command {
	return &cobra.Command{Use: "import FOLDER", Short: "Upload an image folder and offer it", Args: args(1, 1, "one image folder"),
		RunE: a.ask(func(c *cobra.Command, cl *client.Client, args []string) error {
			if err := isDisk(args[0]); err != nil {
				return err
			}
			f, err := imaging.ReadFolder(args[0])
			if err != nil {
				return err
			}
			signed := api.SignedManifest{Manifest: f.Bytes, Signature: f.Signature}
			check, err := cl.CheckImage(c.Context(), signed)
			if err != nil {
				return err
			}
			if err := a.upload(c.Context(), cl, f, check); err != nil {
				return err
			}
			rec, err := cl.CommitImage(c.Context(), signed)
			if err != nil {
				return err
			}
			return a.show(rec, func() {
				a.print("%s  %s  %s, uploaded %d chunks and %d blobs", rec.Name, rec.Digest[:12], size(rec.Size), len(check.Missing.Chunks), len(check.Missing.Blobs))
			})
		})}
}

// isDisk catches a disk given where a folder should be.
func isDisk(path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return fail(exitUsage, "", "%v", err)
	}
	if st.IsDir() {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	head := make([]byte, imaging.SniffLen)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return err
	}
	try := "hostler image pack --disk " + path + " …, then import the folder"
	what := imaging.Sniff(head[:n], nil)
	if what == "" {
		return fail(exitRefused, try, "%s is a file, not an image folder: only packed, signed images are imported", path)
	}
	return fail(exitRefused, "qemu-img convert -O raw "+path+" disk.raw, then "+strings.ReplaceAll(try, path, "disk.raw"),
		"%s is %s: only packed, signed images are imported, and only raw disks are packed", path, what)
}

// uploads is how many chunks travel at once.
const uploads = 4

func (a *app) upload(ctx context.Context, cl *client.Client, f *imaging.Folder, check api.ImageCheck) error {
	total := len(check.Missing.Chunks) + len(check.Missing.Blobs)
	var done atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(uploads)
	one := func(open func(string) (*os.File, error), put func(context.Context, string, string, io.Reader) error, digest string) {
		g.Go(func() error {
			r, err := open(digest)
			if err != nil {
				return fmt.Errorf("the image folder is not complete: %w", err)
			}
			defer r.Close()
			if err := put(ctx, check.Digest, digest, r); err != nil {
				return err
			}
			if n := done.Add(1); n%64 == 0 || n == int64(total) {
				fmt.Fprintf(a.err, "uploaded %d of %d\n", n, total)
			}
			return nil
		})
	}
	for _, d := range check.Missing.Blobs {
		one(f.OpenBlob, cl.PutBlob, d)
	}
	for _, d := range check.Missing.Chunks {
		one(f.OpenChunk, cl.PutChunk, d)
	}
	return g.Wait()
}
