package main

import (
	"encoding/json"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/audit"
	"github.com/hostler-project/hostler/inventory/etcd"
)

// Somebody writes into etcd by hand: the running daemon says so everywhere, keeps the node from being rented, and after a
// restart still says that nobody has looked.
func TestAuditOfARunningDaemon(t *testing.T) {
	c := config(t)
	var log buffer
	stop := start(t, c, &log)
	secret := token(c)
	body, _ := json.Marshal(map[string]any{"csv": "name,serial,sku,rack,slot,mac,ip,bmc_addr,bmc_protocol,credential,approve\nn1,S1,small,r1,1,52:54:00:00:00:01,10.0.0.2,,,,\n"})
	if code, text := call(t, c, "POST", "/v1/manifest", string(body), secret); code != 200 {
		t.Fatalf("a node from a manifest: %d %s", code, text)
	}
	says := func(what string, path string, words ...string) {
		t.Helper()
		text := ""
		for range 500 {
			_, text = call(t, c, "GET", path, "", secret)
			missing := false
			for _, w := range words {
				missing = missing || !strings.Contains(text, w)
			}
			if !missing {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		t.Errorf("%s: %s does not say %q:\n%s", what, path, words, text)
	}
	says("as it should be", "/v1/audit", `"ok":true`, `"nodes":1`, `"transitions":1`)
	says("as it should be", "/metrics", `hostler_audit_broken{invariant="I13"} 0`, "hostler_audit_transitions_total 1", "hostler_audit_lag_revisions 0", "hostler_audit_revisions_total")

	s, err := etcd.Open(t.Context(), etcd.Config{Endpoints: []string{"http://" + c.Etcd.Listen}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	nodes, err := s.List(t.Context(), inventory.PrefixPublic, inventory.ListOptions{})
	if err != nil || len(nodes.KVs) != 1 {
		t.Fatalf("%v, %d nodes", err, len(nodes.KVs))
	}
	id := inventory.Parts(nodes.KVs[0].Key)[1]
	err = inventory.Update(t.Context(), s, inventory.KeyState(id), func(kv inventory.KV) ([]inventory.Cond, []inventory.Op, error) {
		kv.Key = inventory.KeyState(id)
		d, err := inventory.Decode[inventory.NodeState](kv)
		d.V.Reason = "by hand"
		op, e := d.Put(d.V)
		if err == nil {
			err = e
		}
		return nil, []inventory.Op{op}, err
	})
	if err != nil {
		t.Fatal(err)
	}
	says("a breach", "/v1/audit", `"ok":false`, `"invariant":"I13"`, "not exactly that was written with it", `"standing":["n1"]`)
	says("a breach", "/metrics", `hostler_audit_broken{invariant="I13"} 1`)
	says("a breach", "/v1/nodes/n1/why", "audit:I13")
	if n := strings.Count(log.String(), "an invariant is broken"); n != 1 {
		t.Errorf("logged %d times", n)
	}

	_, file := call(t, c, "GET", "/v1/audit/history", "", secret)
	v, err := audit.Check(strings.NewReader(file), audit.Options{})
	if err != nil || v.OK || v.Broken[0].Invariant != "I13" || strings.Contains(file, strings.TrimSpace(secret)) {
		t.Errorf("the saved history: %v, %+v", err, v.Broken)
	}

	if err := stop(); err != nil {
		t.Fatal(err)
	}
	_ = s.Close() // its etcd went with the daemon
	start(t, c, io.Discard)
	says("after a restart", "/v1/audit", `"ok":false`, `"standing":["n1"]`)
	if code, text := call(t, c, "POST", "/v1/audit/n1/clear", `{"reason":"a test did it"}`, secret); code != 200 {
		t.Errorf("clear: %d %s", code, text)
	}
	says("after somebody looked", "/v1/audit", `"ok":true`)
}
