// Package version tells which build a program is. It owns nothing else.
package version

import "runtime/debug"

// Number is the release; the linker sets it (see Makefile).
var Number = "dev"

// String is the release with the commit that it was built from, where the build knows it.
func String() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return Number
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return Number + " (" + s.Value[:12] + ")"
		}
	}
	return Number
}
