package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// How long drives may take to appear after their driver was loaded, and how long the list of disks must stand still on a
// machine with SCSI or SATA hosts, which look for their disks in the background and do not say when they are done.
const (
	drivesIn = 20 * time.Second
	standing = 3 * time.Second
)

// settled waits until the drives of this machine have appeared, so that one that starts slowly is not taken for one that
// is missing. It returns the PCI addresses of NVMe controllers that never came to life; their absence is for others to judge.
func settled(ctx context.Context, sys string, within, still time.Duration) []string {
	begin, since := time.Now(), time.Now()
	var last []string
	for {
		waiting := asleep(sys)
		now := names(sys, "block/*")
		if !slices.Equal(now, last) {
			last, since = now, time.Now()
		}
		quiet := len(names(sys, "class/scsi_host/*")) == 0 || time.Since(since) >= still
		if len(waiting) == 0 && quiet || time.Since(begin) >= within || ctx.Err() != nil {
			return waiting
		}
		sleep(ctx, 50*time.Millisecond)
	}
}

// nvmeClass is the PCI class of NVMe controllers: mass storage, non-volatile memory, NVM Express.
const nvmeClass = "0x010802"

// asleep are the NVMe functions on the PCI bus whose controller is not there or not live yet. A dead one is not waited for.
func asleep(sys string) []string {
	var list []string
	for _, slot := range names(sys, "bus/pci/devices/*") {
		dir := filepath.Join(sys, "bus/pci/devices", slot)
		if class, err := os.ReadFile(filepath.Join(dir, "class")); err != nil || strings.TrimSpace(string(class)) != nvmeClass {
			continue
		}
		awake := false
		for _, c := range names(dir, "nvme/*") {
			state, err := os.ReadFile(filepath.Join(dir, "nvme", c, "state"))
			s := strings.TrimSpace(string(state))
			awake = err == nil && (s == "live" || s == "dead")
		}
		if !awake {
			list = append(list, slot)
		}
	}
	return list
}

// names are the last parts of what a pattern below root matches.
func names(root, pattern string) []string {
	files, err := filepath.Glob(filepath.Join(root, pattern))
	if err != nil {
		return nil
	}
	for i, f := range files {
		files[i] = filepath.Base(f)
	}
	return files
}
