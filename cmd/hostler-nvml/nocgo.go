//go:build !cgo

package main

import (
	"fmt"
	"os"
)

// Without cgo there is no NVML; this keeps go build ./... working on a machine without a C compiler.
func main() {
	fmt.Fprintln(os.Stderr, "hostler-nvml: it was built without cgo; make build makes it with")
	os.Exit(3)
}
