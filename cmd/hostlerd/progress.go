package main

import "github.com/prometheus/client_golang/prometheus"

// progress shows how far the reconciler's first look at its nodes is.
func (d *daemon) progress() []prometheus.Collector {
	gauge := func(name, help string, value func() int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(value()) })
	}
	return []prometheus.Collector{
		gauge("hostler_nodes_owned", "Nodes that this replica reconciles.", func() int { _, n := d.loop.Decided(); return n }),
		gauge("hostler_nodes_decided", "Of those, how many it has decided about since it started.", func() int { n, _ := d.loop.Decided(); return n }),
	}
}
