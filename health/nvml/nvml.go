// Package nvml watches a machine's NVIDIA GPUs through their driver without ever being stuck in it. NVML calls cannot be
// cancelled: a process inside one that blocks cannot even be killed. So a worker of its own (cmd/hostler-nvml, the only
// program with cgo) does the calls, and the Supervisor here speaks with it over a pipe, sees on a shared Page which call
// is under way and since when, gives up on a worker that blocks, and finds out with a fresh one whether a GPU or the
// whole driver is stuck.
//
// What comes of it is a Sample, and Signals turns two of them into findings by one table, the G checks of
// health-checks.md. It does not decide what is done about them, does not read kernel log or sysfs counters, and never
// writes to a GPU.
package nvml
