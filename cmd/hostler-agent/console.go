package main

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A console is every terminal that the kernel writes to (console= on its command line), so that a person at the screen
// and one who reads the serial line see the same.
type console struct {
	mu   sync.Mutex
	outs []*os.File
}

// openConsole opens the terminals named in active ("tty0 ttyS0"), or /dev/console where the kernel names none.
// They are opened without waiting for a carrier: a serial line with nobody at its end must not stop the machine.
func openConsole(active, dev string) *console {
	c := &console{}
	b, _ := os.ReadFile(active) // unreadable is as empty: /dev/console then
	for _, name := range append(strings.Fields(string(b)), "console") {
		if name == "console" && len(c.outs) > 0 {
			break
		}
		f, err := os.OpenFile(filepath.Join(dev, name), os.O_WRONLY|syscall.O_NOCTTY|syscall.O_NONBLOCK, 0)
		if err == nil {
			c.outs = append(c.outs, f)
		}
	}
	return c
}

// Write gives p to every terminal. One that does not take it within a second misses it: showing never stops working.
func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.outs {
		_ = f.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = f.Write(p)
	}
	return len(p), nil
}
