// Package provisioner moves nodes along the lifecycle table.
//
// Deciding is pure: Decide looks at one node (its records, and what was seen of it) and says one thing: wait for this,
// do that act, write this. One file per step (step_*.go); what all of them share, getting our agent onto the node, is
// boot.go. Loop is the other half: it feeds Decide, writes what it says through the ledger, and has acts performed
// (perform.go: BMC and fence). A step remembers nothing: its phase is written to the node's record before each act, so
// restart, retry and take-over are one path.
//
// What a machine boots (bootplan.go) and what its agent must do next (order.go) are functions of the same record.
// Subpackages speak the protocols: dhcp, tftp, httpboot, metadata, agentapi. This package knows no flags, files,
// signals or listeners.
package provisioner
