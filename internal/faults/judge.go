package faults

import "github.com/hostler-project/hostler/inventory"

// A judge is the checker of inventory/audit.
type judge struct{}

func newJudge(*Keys) judge                  { return judge{} }
func (judge) load(inventory.Snapshot) error { return nil }
func (judge) apply(inventory.Batch)         {}
func (judge) broken() error                 { return nil }
