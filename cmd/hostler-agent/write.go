package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/hostler-project/hostler/imaging"
	"github.com/hostler-project/hostler/imaging/handoff"
	"github.com/hostler-project/hostler/imaging/sanitize"
	"github.com/hostler-project/hostler/inventory"
)

// images does the orders that are about a tenant's image, and remembers what this boot wrote, so that a medium that
// already holds the image is only checked again.
type images struct {
	open     func(inventory.Medium) (sanitize.Namespace, string, error)
	there    func() ([]inventory.Medium, error) // the media in this machine
	host     handoff.Host
	kernel   handoff.Kernel
	vars     handoff.Vars                // nil: no UEFI
	watchdog func(context.Context) error // stops the BMC's; nil: the BMC cannot be asked from here

	image  string // digest of what was written
	medium string // key of where
	result *imaging.Result
	loaded string // digest of the image whose kernel is loaded
}

// warmChunks is how many random chunks of a medium that should hold the image already are read again, beside its ends.
const warmChunks = 64

// unchanged refuses to hand over a machine whose media are not those that were erased and tested: one that came since
// then would bring its data to the tenant.
func (w *images) unchanged(tested []inventory.Medium) error {
	if len(tested) == 0 { // an order of a daemon that names none
		return nil
	}
	there, err := w.there()
	if err != nil {
		return err
	}
	var faults []string
	for _, f := range otherMedia(tested, there) {
		faults = append(faults, f.Component+": "+f.Reason)
	}
	if len(faults) > 0 {
		return fmt.Errorf("write: the media are not those that were erased: %s", strings.Join(faults, "; "))
	}
	return nil
}

// write puts an image on a medium: fetched by chunk, checked, written, read back.
func (w *images) write(ctx context.Context, a *agent, o inventory.Order) (result, error) {
	if o.Write == nil {
		return result{}, fmt.Errorf("write: the order names no image")
	}
	if err := w.unchanged(o.Media); err != nil {
		return result{}, err
	}
	begin := time.Now()
	a.tell(inventory.Progress{What: "fetching the image's manifest", LeftS: -1})
	m, src, err := fetchManifest(ctx, o.Write.ChunkBase, o.Write.Image, o.Write.TrustedKey)
	if err != nil {
		return result{}, err
	}
	dev, name, err := w.open(o.Write.Medium)
	if err != nil {
		return result{}, err
	}
	defer dev.Close()
	res, note := w.result, []string{"already written in this boot: both ends and random chunks checked"}
	if res == nil || w.image != o.Write.Image || w.medium != o.Write.Medium.Key() || res.CheckWarm(ctx, dev, warmChunks) != nil {
		w.result = nil
		if res, err = imaging.Write(ctx, m, src, dev, imaging.Options{Progress: func(p imaging.Progress) { a.tell(left(p, begin)) }}); err != nil {
			return result{}, err
		}
		w.image, w.medium, w.result = o.Write.Image, o.Write.Medium.Key(), res
		note = res.Remarks
	}
	if m.Kernel != nil && !o.Write.Reboots && w.loaded != o.Write.Image {
		// Loaded now, so that a hand-off needs neither network nor hashing. That it will be entered is decided then.
		a.tell(inventory.Progress{What: "loading the tenant's kernel", LeftS: -1})
		if err := w.load(ctx, m, src); err != nil {
			note = append(note, "its kernel is not loaded yet: "+err.Error())
		}
	}
	return result{report: inventory.Report{Written: &inventory.Written{
		Image: o.Write.Image, Serial: o.Write.Medium.Serial, Device: name,
		Bytes: res.Bytes - res.Zeroed, ReadBack: res.Bytes, // Write returns only when every byte was read back
		Seconds: time.Since(begin).Seconds(), Fallbacks: note,
	}}}, nil
}

// left is the progress of a write with an estimate by its mean speed.
func left(p imaging.Progress, begin time.Time) inventory.Progress {
	pr := inventory.Progress{What: p.Phase + " the image", Done: p.Done >> 20, Total: p.Total >> 20, Unit: "MiB", LeftS: -1}
	if p.Done > 0 {
		pr.LeftS = time.Since(begin).Seconds() * float64(p.Total-p.Done) / float64(p.Done)
	}
	return pr
}

// fetchManifest gets an image's manifest from the place that an order names, and holds it against the digest and the key
// that the order names. Its bytes are believed only then.
func fetchManifest(ctx context.Context, base, digest, key string) (*imaging.Manifest, *imaging.HTTPSource, error) {
	k, err := imaging.ParsePublicKey(key)
	if err != nil {
		return nil, nil, err
	}
	root, ok := strings.CutSuffix(strings.TrimSuffix(base, "/"), "/image/"+digest)
	if !ok || !imaging.IsDigest(digest) {
		return nil, nil, fmt.Errorf("image %q: the order's address %q is not that image's", digest, base)
	}
	src := &imaging.HTTPSource{Base: root, Image: digest, Client: imaging.NewHTTPClient(nil)}
	text, err := fetch(ctx, src.Client, base+"/manifest.json", imaging.MaxManifest)
	if err != nil {
		return nil, nil, err
	}
	sig, err := fetch(ctx, src.Client, base+"/manifest.json.minisig", 4096)
	if err != nil {
		return nil, nil, err
	}
	if got := imaging.Digest(text); got != digest {
		return nil, nil, fmt.Errorf("image %s: what came has the digest %s: refused", digest, got)
	}
	m, err := imaging.Verify(text, sig, []imaging.PublicKey{k})
	return m, src, err
}

// fetch reads a small file.
func fetch(ctx context.Context, hc *http.Client, url string, most int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := hc.Do(req)
	if err != nil {
		return nil, &retryable{err}
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, &retryable{fmt.Errorf("fetch %s: %s", url, resp.Status)}
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	if err == nil && int64(len(b)) > most {
		return nil, fmt.Errorf("fetch %s: more than %d bytes", url, most)
	}
	if err != nil {
		return nil, &retryable{fmt.Errorf("fetch %s: %w", url, err)}
	}
	return b, nil
}
