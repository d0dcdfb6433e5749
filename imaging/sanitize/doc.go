// Package sanitize erases drives and gathers the evidence: NIST SP 800-88 rev. 2 and IEEE 2883 in words, NVMe base
// specification 2.0 in commands.
//
// Discover says which media a node has. Erase takes the media ever recorded for the node and the drives that are there:
// it refuses if one is missing, then does each drive by itself: read the sanitize log before any I/O and wait for or
// repair what runs or failed; choose the strongest technique that the drive offers; plant random markers and take
// fingerprints; erase; poll to the end; read back. One proof per medium, with every reason why it does not count.
//
// A drive is whatever answers NVMe admin commands and gives its namespaces as disks, so tests put personalities in
// place of hardware. This package does not sign certificates and does not decide what happens to a node.
package sanitize
