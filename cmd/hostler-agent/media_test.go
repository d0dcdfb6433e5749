package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hostler-project/hostler/inventory"
)

// A drive that was exchanged between the erasure and the test keeps the machine from passing.
func TestOtherMedia(t *testing.T) {
	drive := func(serial string) inventory.Medium {
		return inventory.Medium{Kind: inventory.MediumNVMe, Serial: serial}
	}
	two := []inventory.Medium{drive("A"), drive("B")}
	for _, c := range []struct {
		name  string
		there []inventory.Medium
		want  int
	}{
		{"the same", []inventory.Medium{drive("B"), drive("A")}, 0},
		{"one more", append([]inventory.Medium{drive("C")}, two...), 1},
		{"one less", two[:1], 1},
		{"another", []inventory.Medium{drive("A"), drive("C")}, 2},
		{"none", nil, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := otherMedia(two, c.there)
			if len(got) != c.want {
				t.Fatalf("got %v", got)
			}
			for _, r := range got {
				if r.Verdict != inventory.Fail || r.Component == "" || r.Reason == "" {
					t.Errorf("got %+v", r)
				}
			}
		})
	}
}

// An image is written only while the media are those that were erased and tested.
func TestNothingIsWrittenBesideOtherMedia(t *testing.T) {
	other := drive0
	other.Serial = "DRIVE-9"
	for name, c := range map[string]struct {
		there []inventory.Medium
		want  string
	}{
		"the same":    {[]inventory.Medium{drive0}, ""},
		"one more":    {[]inventory.Medium{drive0, other}, "DRIVE-9"},
		"another":     {[]inventory.Medium{other}, "DRIVE-0"},
		"none at all": {nil, "DRIVE-0"},
	} {
		t.Run(name, func(t *testing.T) {
			d, s := newDaemon(t, nil), newStore(t, "", "", "root=LABEL=root")
			d.orders = []inventory.Order{{ID: "o1", Kind: inventory.OrderWrite, Media: []inventory.Medium{drive0},
				Write: &inventory.WriteOrder{Image: s.digest, ChunkBase: s.base, Medium: drive0, TrustedKey: s.public}}}
			a, _, _ := newAgent(t, d, nil)
			images, _, file := tenant(t)
			images.there = func() ([]inventory.Medium, error) { return c.there, nil }
			a.orders = a.table(images)
			start(t, a)
			d.until("the write", 10*time.Second, func() bool { return len(d.done) == 1 })
			r := results(d)[0]
			if (r.Error == "") != (c.want == "") || !strings.Contains(r.Error, c.want) || (r.Written == nil) != (c.want != "") {
				t.Errorf("written %+v, error %q; want %q", r.Written, r.Error, c.want)
			}
			b, err := os.ReadFile(file)
			if blank := len(bytes.Trim(b, "\x00")) == 0; err != nil || blank != (c.want != "") {
				t.Errorf("the medium is blank: %v, %v", blank, err)
			}
		})
	}
}
