// Package inventory holds the words of Hostler and the one record of the fleet.
//
// The words, used the same way in code, API, CLI and docs: a node is one server; its BMC is the controller that powers
// it; a medium is anything in it that keeps data without power; an image is what a tenant boots; the service OS is what
// we boot; the agent is our program on the node; a session is one boot of our service OS; an order is one piece of work
// for the agent; a wish is what a person or program wants of a node; a fact is what was measured; a claim ties a node to
// a reservation of a tenant; an instance is a tenant's use of a node; a certificate proves that the media are erased;
// an alert is what health found; a hold keeps a node from being rented.
//
// Records are JSON values under the keys of keys.go, in any Store (etcd, or memory with etcd's semantics). Subpackage
// lifecycle has the table of states, ledger writes every move of a node as one transaction, api and web show it.
// This package does not know how anything is done: no hardware, no network, no clock of its own.
package inventory
