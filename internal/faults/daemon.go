package faults

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/hostler-project/hostler/inventory"
)

const (
	siteName = "faults"
	segment  = "rack"
)

// A Daemon is one hostlerd process.
type Daemon struct {
	*Process
	Name  string
	API   string // base URL
	Agent string // base URL for agents

	bin, dir, config, log string
	env                   []string
}

// newDaemon writes the site.yaml of replica n. Every replica has an address of its own on the segment.
func newDaemon(n int, bin, dir, keys string, endpoints, fence []string, more map[string]any) (*Daemon, error) {
	d := &Daemon{Name: fmt.Sprintf("hostlerd%d", n), bin: bin}
	d.dir = filepath.Join(dir, d.Name)
	d.config, d.log = filepath.Join(dir, d.Name+".yaml"), filepath.Join(dir, d.Name+".log")
	api, err := freePort()
	if err != nil {
		return nil, err
	}
	address := fmt.Sprintf("127.77.0.%d", n+1)
	d.API, d.Agent = "http://"+api, "https://"+address+":8443"
	boot := filepath.Join(dir, "boot") // what it serves at boot is another ring's affair; it only has to be there
	for _, f := range []string{"os/vmlinuz", "os/initrd.cpio", "loaders/README"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(boot, f)), 0o700); err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(boot, f), []byte("x"), 0o600); err != nil {
			return nil, err
		}
	}
	c := map[string]any{
		"site": siteName, "data": d.dir, "keys": keys,
		"etcd": map[string]any{"endpoints": endpoints}, "api": map[string]any{"listen": api},
		"segments": []any{map[string]any{"name": segment, "relay": []string{"127.99.0.254"}, "subnet": "10.77.0.0/16", "address": address, "mode": "authoritative"}},
		"boot":     map[string]any{"service_os": filepath.Join(boot, "os"), "loaders": filepath.Join(boot, "loaders")},
		"patience": map[string]any{"boot": "60s"},
	}
	if len(fence) > 0 {
		c["fence"] = map[string]any{"driver": "exec", "program": fence}
	}
	for k, v := range more {
		c[k] = v
	}
	var list []any
	for _, s := range skus() {
		var media []any
		for _, m := range s.Media {
			media = append(media, map[string]any{"slot": m.Slot, "kind": m.Kind, "boot": m.Boot})
		}
		list = append(list, map[string]any{"name": s.Name, "min_cpus": s.MinCPUs, "min_memory_bytes": s.MinMemory, "media": media,
			"burnin_profile": s.BurnInProfile, "verify_profile": s.VerifyProfile, "trust": s.Trust})
	}
	c["skus"] = list
	b, err := yaml.Marshal(c)
	if err != nil {
		return nil, err
	}
	return d, os.WriteFile(d.config, b, 0o600)
}

// Start starts the daemon, on the folder that it has.
func (d *Daemon) Start() (err error) {
	d.Process, err = start(d.Name, d.log, d.bin, d.env, "--config", d.config)
	return err
}

// Run runs one of hostlerd's other commands with this daemon's configuration, and gives what it printed.
func (d *Daemon) Run(ctx context.Context, args ...string) (string, error) {
	return output(ctx, d.bin, append(args, "--config", d.config)...)
}

// Serving waits until the API answers a list of nodes, and says how long after its start that was.
func (d *Daemon) Serving(ctx context.Context, token string, limit time.Duration) (time.Duration, error) {
	end := time.Now().Add(limit)
	for time.Now().Before(end) {
		if code := d.get(ctx, "/v1/nodes?limit=100", token); code == http.StatusOK {
			return time.Since(d.Started), nil
		}
		if !d.Alive() {
			return 0, fmt.Errorf("faults: %s ended by itself:\n%s", d.Name, tail(d.log))
		}
		time.Sleep(10 * time.Millisecond)
	}
	return 0, fmt.Errorf("faults: %s does not serve after %v:\n%s", d.Name, limit, tail(d.log))
}

// get asks the API and gives the status, 0 where there was no answer.
func (d *Daemon) get(ctx context.Context, path, token string) int {
	ctx, stop := context.WithTimeout(ctx, 2*time.Second)
	defer stop()
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, d.API+path, nil)
	if err != nil {
		return 0
	}
	q.Header.Set("Authorization", "Bearer "+token)
	a, err := http.DefaultClient.Do(q)
	if err != nil {
		return 0
	}
	a.Body.Close()
	return a.StatusCode
}

// Metrics reads /metrics: values by name, summed over labels.
func (d *Daemon) Metrics(ctx context.Context) (map[string]float64, error) {
	ctx, stop := context.WithTimeout(ctx, 2*time.Second)
	defer stop()
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, d.API+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	a, err := http.DefaultClient.Do(q)
	if err != nil {
		return nil, err
	}
	defer a.Body.Close()
	out := map[string]float64{}
	for s := bufio.NewScanner(a.Body); s.Scan(); {
		name, value, ok := strings.Cut(s.Text(), " ")
		if v, err := strconv.ParseFloat(value, 64); ok && err == nil && !strings.HasPrefix(name, "#") {
			name, _, _ = strings.Cut(name, "{")
			out[name] += v
		}
	}
	return out, nil
}

// tail is the end of a log.
func tail(path string) string {
	b, _ := os.ReadFile(path)
	return string(b[max(0, len(b)-3000):])
}

// admin makes an admin token that works at every replica.
func newToken(ctx context.Context, s inventory.Store, role, tenant string) (string, error) {
	return apiToken(ctx, s, inventory.Token{Name: "run-" + role + tenant, Role: role, Tenant: tenant})
}
