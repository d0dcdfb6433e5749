// Package faults is ring 1 of the tests: the real hostlerd and the real etcd as processes, and what happens to them.
//
// Main runs a test binary in namespaces of its own, so that ports, processes and addresses of a run are nobody else's,
// and nothing can outlive it. A Site is three etcd members, each behind proxies that can delay, drop and cut, and the
// daemons that use them. Machines are fakes with behaviour: a controller that speaks IPMI and counts acts, an agent that
// speaks the agent's protocol, a port that a fence program moves. Clients claim and release through the API of every
// daemon and write down what they asked and heard. A Recorder watches all of etcd's history from the first moment on.
// Afterwards the history is judged: porcupine over what clients saw, the checker over what was written, the recorder
// over what was acknowledged, the acts over whose term it was. Each fault says how often it fired.
//
// The package runs the programs and writes records that a site has; it does not know how they do it. Booting over the
// network is left to rings 2 and 3: a machine that is switched on reads its session's token from the record.
package faults
