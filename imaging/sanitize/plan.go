package sanitize

import (
	"errors"
	"fmt"

	"github.com/hostler-project/hostler/inventory"
)

// A technique is one way to erase a drive. The table is in order of strength; the first that the drive offers is used,
// and if it then fails, the drive fails: no weaker one is tried in its place.
type technique struct {
	name   string
	method string
	offers func(c caps) error                        // nil, or why the drive does not offer it
	issue  func(n namespace) *Command                // one per namespace; nil NSID field 0xffffffff: once for the drive
	whole  bool                                      // one command erases all namespaces, attached or not
	nvme   bool                                      // needs admin commands
	leaves func(reads byte) (zero, ones, other bool) // what areas may look like after it
	says   func(n namespace) string                  // the command in words
}

// techniques are tried from the top.
var techniques = []technique{
	{name: inventory.TechniqueSanitizeCrypto, method: inventory.MethodPurge, whole: true, nvme: true,
		offers: sanicap(canCrypto, "crypto erase"), issue: sanitizeCommand(4), leaves: anything,
		says: func(namespace) string { return "sanitize action=crypto-erase" }},
	{name: inventory.TechniqueSanitizeBlock, method: inventory.MethodPurge, whole: true, nvme: true,
		offers: sanicap(canBlock, "block erase"), issue: sanitizeCommand(2), leaves: blank,
		says: func(namespace) string { return "sanitize action=block-erase" }},
	{name: inventory.TechniqueFormatCrypto, method: inventory.MethodPurge, nvme: true,
		offers: func(c caps) error {
			if err := formats(c); err != nil || c.cryptoSES() {
				return err
			}
			return errors.New("format with cryptographic erase: not offered by the drive (FNA bit 2 is 0)")
		}, issue: formatCommand(2), leaves: anything, says: formatSays(2)},
	{name: inventory.TechniqueFormatUserData, method: inventory.MethodPurge, nvme: true,
		offers: formats, issue: formatCommand(1), leaves: blank, says: formatSays(1)},
	{name: inventory.TechniqueOverwrite, method: inventory.MethodClear,
		offers: func(caps) error { return nil }, leaves: func(byte) (bool, bool, bool) { return true, false, false },
		says: func(n namespace) string { return fmt.Sprintf("overwrite with zeros nsid=%d", n.ID) }},
}

func sanicap(bit uint32, word string) func(caps) error {
	return func(c caps) error {
		switch {
		case c.SANICAP&3 == 0 && c.SANICAP&4 == 0:
			return errors.New("sanitize: not offered by the drive (SANICAP 0)")
		case c.SANICAP&bit == 0:
			return fmt.Errorf("sanitize with %s: not offered by the drive (SANICAP 0x%x)", word, c.SANICAP)
		}
		return nil
	}
}

func formats(c caps) error {
	if !c.formats() {
		return fmt.Errorf("format: not offered by the drive (OACS 0x%x)", c.OACS)
	}
	return nil
}

func sanitizeCommand(action uint32) func(namespace) *Command {
	return func(namespace) *Command { return &Command{Opcode: opSanitize, CDW10: action} }
}

// formatCommand keeps the namespace's present LBA format, so that its layout is what it was.
func formatCommand(ses uint32) func(namespace) *Command {
	return func(n namespace) *Command { return &Command{Opcode: opFormat, NSID: n.ID, CDW10: n.lbaf | ses<<9} }
}

func formatSays(ses int) func(namespace) string {
	return func(n namespace) string { return fmt.Sprintf("format nsid=%d ses=%d", n.ID, ses) }
}

// anything: after a crypto erase, old ciphertext may be read through a new key; markers and fingerprints tell.
func anything(byte) (zero, ones, other bool) { return true, true, true }

// blank: erased flash reads as the drive says of deallocated blocks; where it says nothing, as zeros or ones.
func blank(reads byte) (zero, ones, other bool) { return reads != 2, reads != 1, false }

// choose returns the strongest technique for the drive and why it is none of those before it.
func choose(nvme bool, c caps) (technique, []string) {
	var not []string
	for _, t := range techniques {
		switch {
		case t.nvme && !nvme:
			continue
		default:
			err := t.offers(c)
			if err == nil {
				return t, not
			}
			if n := len(not); n == 0 || not[n-1] != err.Error() {
				not = append(not, err.Error())
			}
		}
	}
	panic("sanitize: the last technique is for every drive")
}

// A span is a range of bytes to read.
type span struct{ off, n int64 }

// The sample plan of design.md section 10 and reliability.md 1.9.
const (
	fullUpTo  = 64 << 30 // all of a namespace is read up to this size
	edge      = 1 << 30  // of a larger one: so much at each end,
	share     = 10       // and one of so many steps between, at a random place in each group
	readStep  = 4 << 20
	markers   = 64
	prints    = 256
	printSize = 4096
)

// plan says which parts of a namespace are read back, and in words. full forces all of it. pick(n) gives a random
// number below n.
func plan(size int64, full bool, pick func(n int64) int64) ([]span, string) {
	var all []span
	add := func(from, to int64) {
		for ; from < to; from += readStep {
			all = append(all, span{from, min(readStep, to-from)})
		}
	}
	if full || size <= fullUpTo {
		add(0, size)
		return all, "full: every block"
	}
	add(0, edge)
	for at := int64(edge); at < size-edge; at += share * readStep {
		group := min(share*readStep, size-edge-at)
		from := at + pick((group+readStep-1)/readStep)*readStep
		add(from, min(from+readStep, at+group))
	}
	add(size-edge, size)
	return all, fmt.Sprintf("stratified: first and last GiB, and of each %d MiB between %d MiB at random", share*readStep>>20, readStep>>20)
}

// places returns where markers or fingerprints go: the first block, the last, and one at random in each of the strata
// between.
func places(size int64, block int64, count int, pick func(n int64) int64) []int64 {
	blocks := size / block
	count = int(min(int64(count), blocks))
	out := make([]int64, 0, count)
	for i := range int64(count) {
		from, to := blocks*i/int64(count), blocks*(i+1)/int64(count)
		at := from + pick(to-from)
		if i == 0 {
			at = 0
		} else if i == int64(count)-1 {
			at = blocks - 1
		}
		out = append(out, at*block)
	}
	return out
}
