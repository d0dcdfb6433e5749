//go:build cgo

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"

	wire "github.com/hostler-project/hostler/health/nvml"
)

// pageFile is the file descriptor of the shared page.
const pageFile = 3

// serve answers requests until the supervisor closes the pipe or asks for the end. The calls are made by this thread;
// requests are read by another, so that the end of the supervisor ends the worker even inside a call that blocks.
func serve(library string, in io.Reader, out, errOut io.Writer) int {
	debug.SetGCPercent(50) // little memory is worth more here than little work
	page, err := wire.MapPage(os.NewFile(pageFile, "page"))
	if err != nil {
		fmt.Fprintln(errOut, "hostler-nvml: serve is for hostler-agent:", err)
		return exitUsage
	}
	requests := make(chan wire.Request, 1)
	go func() {
		for {
			var r wire.Request
			if err := wire.ReadFrame(in, &r); err != nil {
				if !errors.Is(err, io.EOF) {
					fmt.Fprintln(errOut, "hostler-nvml:", err)
				}
				os.Exit(0)
			}
			requests <- r
		}
	}()
	l := open(library, page)
	if err := wire.WriteFrame(out, wire.Answer{Hello: &l.hello}); err != nil {
		return exitError
	}
	if l.hello.State != wire.Answering {
		return exitNoDriver
	}
	for r := range requests {
		a := l.answer(r)
		a.ID = r.ID
		if err := wire.WriteFrame(out, a); err != nil {
			fmt.Fprintln(errOut, "hostler-nvml:", err)
			return exitError
		}
		if r.Op == wire.OpClose {
			return 0
		}
	}
	return 0
}

// answer does one request.
func (l *lib) answer(r wire.Request) wire.Answer {
	switch r.Op {
	case wire.OpBeat:
		return wire.Answer{Events: l.beat()}
	case wire.OpSample:
		return wire.Answer{Sample: l.sample(r)}
	case wire.OpTouch:
		g := l.touch(r.Bus, r.Slow)
		return wire.Answer{GPU: &g}
	case wire.OpClose:
		l.close()
		return wire.Answer{}
	}
	return wire.Answer{Err: "unknown request " + r.Op}
}

func pretty(v any) ([]byte, error) {
	b, err := json.MarshalIndent(v, "", "  ")
	return append(b, '\n'), err
}
