package main

import (
	"testing"

	"github.com/hostler-project/hostler/inventory"
)

// A drive that was exchanged between the erasure and the test keeps the machine from passing.
func TestOtherMedia(t *testing.T) {
	drive := func(serial string) inventory.Medium { return inventory.Medium{Kind: inventory.MediumNVMe, Serial: serial} }
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
