//go:build cgo

// Command hostler-nvml is the NVML worker: the only program of ours with cgo, one per node, killable at any moment. It
// speaks with health/nvml's Supervisor over its standard input and output, notes each call on the shared page of file 3,
// and only ever reads. Without a driver it starts, says so in its first message and ends with exit code 3.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"github.com/spf13/pflag"

	wire "github.com/hostler-project/hostler/health/nvml"
	"github.com/hostler-project/hostler/internal/version"
)

const usage = `hostler-nvml reads NVIDIA GPUs for hostler-agent.

  hostler-nvml once      one sample as JSON, for a person
  hostler-nvml symbols   the names that it looks up in the library
  hostler-nvml serve     the conversation that hostler-agent has with it
  hostler-nvml version

Exit codes: 0 ok, 1 an error, 2 usage, 3 no driver.
`

// exits are codes that a caller can tell apart.
const (
	exitError    = 1
	exitUsage    = 2
	exitNoDriver = 3
)

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

func run(args []string, in io.Reader, out, errOut io.Writer) int {
	flags := pflag.NewFlagSet("hostler-nvml", pflag.ContinueOnError)
	flags.Usage = func() { fmt.Fprint(errOut, usage+"\n"+flags.FlagUsages()) }
	library := flags.String("library", "libnvidia-ml.so.1", "the NVML library, by name or path")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return 0
		}
		fmt.Fprintln(errOut, "hostler-nvml:", err)
		return exitUsage
	}
	// NVML keeps state per thread in places, and the page names one thread.
	runtime.LockOSThread()
	switch flags.Arg(0) {
	case "serve":
		return serve(*library, in, out, errOut)
	case "once":
		return once(*library, out, errOut)
	case "symbols":
		for _, s := range symbols() {
			fmt.Fprintln(out, s)
		}
		return 0
	case "version":
		fmt.Fprintln(out, version.Number)
		return 0
	}
	fmt.Fprint(errOut, usage)
	return exitUsage
}

// once prints one sample.
func once(library string, out, errOut io.Writer) int {
	l := open(library, wire.PrivatePage())
	if l.hello.State != wire.Answering {
		fmt.Fprintf(errOut, "hostler-nvml: %s: %s\n", l.hello.State, l.hello.Text)
		return exitNoDriver
	}
	defer l.close()
	s := l.sample(wire.Request{Op: wire.OpSample, Slow: true})
	s.At, s.Driver, s.Status = time.Now(), l.hello.Driver, wire.Status{State: wire.Answering}
	b, err := pretty(s)
	if err == nil {
		_, err = out.Write(b)
	}
	if err != nil {
		fmt.Fprintln(errOut, "hostler-nvml:", err)
		return exitError
	}
	return 0
}
