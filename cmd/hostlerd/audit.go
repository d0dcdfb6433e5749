package main

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/audit"
)

// audit wires the auditor: it walks the store for itself, apart from the copy that the reconciler decides from.
func (d *daemon) audit() {
	d.auditor = &audit.Auditor{Store: d.store, Options: audit.Options{CertificateKey: d.led.CertificateKey}, Now: time.Now, Log: d.log,
		Alert: func(ctx context.Context, b audit.Broken) error {
			return d.led.Raise(ctx, b.Node, audit.Source, audit.Alert(b)) // every replica audits; the second finds it there
		}}
	d.metrics.MustRegister(audited{d.auditor, d.copy})
}

// audited tells metrics what the auditor found.
type audited struct {
	a    *audit.Auditor
	copy *inventory.Copy
}

var (
	auditRevisions   = prometheus.NewDesc("hostler_audit_revisions_total", "Revisions of the record that were audited.", nil, nil)
	auditTransitions = prometheus.NewDesc("hostler_audit_transitions_total", "Transitions of nodes that were audited.", nil, nil)
	auditBroken      = prometheus.NewDesc("hostler_audit_broken", "Breaches of an invariant that stand; anything but 0 wants a person: hostler audit.", []string{"invariant"}, nil)
	auditLag         = prometheus.NewDesc("hostler_audit_lag_revisions", "Revisions that the daemon has seen and the audit has not.", nil, nil)
	auditLists       = prometheus.NewDesc("hostler_audit_lists_total", "Times that the audit began anew from a list; what changed just before was not seen.", nil, nil)
)

// Describe implements prometheus.Collector.
func (m audited) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{auditRevisions, auditTransitions, auditBroken, auditLag, auditLists} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m audited) Collect(ch chan<- prometheus.Metric) {
	rev, v := m.copy.Rev(), m.a.Verdict()
	add := func(d *prometheus.Desc, t prometheus.ValueType, n float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, t, n, labels...)
	}
	add(auditRevisions, prometheus.CounterValue, float64(v.Counts.Revisions))
	add(auditTransitions, prometheus.CounterValue, float64(v.Counts.Transitions))
	add(auditLag, prometheus.GaugeValue, float64(max(0, rev-v.Rev)))
	add(auditLists, prometheus.CounterValue, float64(v.Lists))
	for _, r := range v.Invariants {
		if r.Pending == "" {
			add(auditBroken, prometheus.GaugeValue, float64(r.Count), r.ID)
		}
	}
}
