package main

import (
	"encoding/binary"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
)

// Linux input events (input.h, input-event-codes.h): 16 bytes of time on 64-bit machines, then type, code, value.
const (
	eventBytes = 24
	eventKey   = 1
	keyPower   = 116
)

// watchPowerButton closes off when the power button of any input device below dir is pressed (ACPI gives the short press
// to the system, and so does a BMC's soft power-off). A machine without one can still be switched off hard.
func watchPowerButton(dir string, log *slog.Logger, off chan<- struct{}) {
	files, err := filepath.Glob(filepath.Join(dir, "event*"))
	if err != nil || len(files) == 0 {
		log.Info("no power button to listen to: only a hard power-off works")
		return
	}
	var once sync.Once
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			log.Warn("an input device cannot be listened to", "err", err)
			continue
		}
		go func() {
			defer f.Close()
			if pressed(f) {
				once.Do(func() { close(off) })
			}
		}()
	}
}

// pressed reads events until the power key goes down; false when there are no more.
func pressed(r io.Reader) bool {
	var e [eventBytes]byte
	for {
		if _, err := io.ReadFull(r, e[:]); err != nil {
			return false
		}
		le := binary.LittleEndian
		if le.Uint16(e[16:]) == eventKey && le.Uint16(e[18:]) == keyPower && le.Uint32(e[20:]) == 1 {
			return true
		}
	}
}
