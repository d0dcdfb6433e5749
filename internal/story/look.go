package story

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/hostler-project/hostler/internal/rack"
)

func (s *Story) url(path string) string {
	return fmt.Sprintf("http://127.0.0.1:%d%s", s.Rack.Ports.API, path)
}

// get asks the API; token "" sends none.
func (s *Story) get(ctx context.Context, path, token string) (int, string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url(path), nil)
	if err != nil {
		return 0, "", err
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if ctx.Err() != nil { // an event stream never ends by itself
		err = nil
	}
	return resp.StatusCode, string(b), err
}

func (s *Story) token() (string, error) {
	b, err := os.ReadFile(s.cli.TokenFile)
	return strings.TrimSpace(string(b)), err
}

// metrics reads hostlerd's counters.
func (s *Story) metrics(ctx context.Context) (map[string]float64, error) {
	code, text, err := s.get(ctx, "/metrics", "")
	if err != nil || code != http.StatusOK {
		return nil, fmt.Errorf("metrics: %d, %v", code, err)
	}
	out := map[string]float64{}
	for sc := bufio.NewScanner(strings.NewReader(text)); sc.Scan(); {
		if i := strings.LastIndexByte(sc.Text(), ' '); i > 0 && sc.Text()[0] != '#' {
			if v, err := strconv.ParseFloat(sc.Text()[i+1:], 64); err == nil {
				out[sc.Text()[:i]] = v
			}
		}
	}
	return out, nil
}

// served counts the files that hostlerd gave to machines since it started.
func (s *Story) served(ctx context.Context) (tftp, http float64, err error) {
	m, err := s.metrics(ctx)
	if err != nil {
		return 0, 0, err
	}
	const loader = `hostler_tftp_requests_total{outcome="served"}`
	if _, there := m[loader]; !there {
		return 0, 0, fmt.Errorf("hostlerd has no metric %s", loader)
	}
	return m[loader], m[`hostler_httpboot_requests_total{status="200"}`], nil
}

// watch listens to the event stream for a while.
func (s *Story) watch(ctx context.Context, long time.Duration) (string, error) {
	token, err := s.token()
	if err != nil {
		return "", err
	}
	ctx, stop := context.WithTimeout(ctx, long)
	defer stop()
	code, text, err := s.get(ctx, "/v1/watch", token)
	if err != nil || code != http.StatusOK {
		return "", fmt.Errorf("GET /v1/watch: %d, %v: %s", code, err, text)
	}
	return text, nil
}

// etcdctl reads the record as anybody could.
func (s *Story) etcdctl(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "etcdctl", append([]string{"--endpoints", fmt.Sprintf("127.0.0.1:%d", s.Rack.Ports.Etcd)}, args...)...)
	cmd.Env = append(os.Environ(), "ETCDCTL_API=3")
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("etcdctl %s: %w", strings.Join(args, " "), err)
	}
	return string(out), nil
}

// badInput tries what must not work.
func (s *Story) badInput(ctx context.Context) error {
	for token, want := range map[string]int{"": 401, "wrong": 401} {
		for _, path := range []string{"/v1/nodes", "/v1/nodes/b", "/v1/nodes/nobody", "/v1/watch"} {
			code, text, err := s.get(ctx, path, token)
			if err != nil {
				return err
			}
			if code != want || strings.Contains(text, "RACK-") || strings.Contains(text, "192.168.") {
				return fmt.Errorf("GET %s with token %q: %d, want %d: %s", path, token, code, want, text)
			}
		}
	}
	for _, path := range []string{"/loader/../../etc/passwd", "/boot/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/session/" + strings.Repeat("0", 32) + "/session.cpio",
		"/image/" + strings.Repeat("0", 64) + "/manifest.json", "/" + strings.Repeat("a", 5000)} {
		o, err := s.Rack.Exec(ctx, nil, "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--path-as-is", "http://"+rack.ServerIP+path)
		if err != nil {
			return err
		}
		if o.Stdout != "404" && o.Stdout != "400" {
			return fmt.Errorf("boot port, %.60s: %s, want 404", path, o.Stdout)
		}
	}
	return s.badImages(ctx)
}

// badImages imports an image that was changed after it was signed, and packs one that is none.
func (s *Story) badImages(ctx context.Context) error {
	dir := s.path("bad-image")
	if out, err := exec.CommandContext(ctx, "cp", "-a", s.path("image"), dir).CombinedOutput(); err != nil {
		return fmt.Errorf("cp: %v: %s", err, out)
	}
	defer os.RemoveAll(dir)
	m := filepath.Join(dir, "manifest.json")
	b, err := os.ReadFile(m)
	if err != nil {
		return err
	}
	if err := os.WriteFile(m, bytes.Replace(b, []byte("debian-12"), []byte("debian-13"), 1), 0o600); err != nil {
		return err
	}
	if err := s.refused(ctx, "sign", "image", "import", dir); err != nil {
		return err
	}
	qcow := s.path("image.qcow2")
	if err := os.WriteFile(qcow, append([]byte("QFI\xfb\x00\x00\x00\x03"), make([]byte, 1<<20)...), 0o600); err != nil {
		return err
	}
	return s.refused(ctx, "qcow2", "image", "pack", "--disk", qcow, "--out", s.path("bad-image"), "--name", "x", "--boot", "bios", "--key", s.path("image.key"))
}

// refused wants a command to fail with a reason.
func (s *Story) refused(ctx context.Context, reason string, args ...string) error {
	o, err := s.cli.Run(ctx, nil, args...)
	if err != nil {
		return err
	}
	if o.Code == 0 || !strings.Contains(o.Stderr, reason) {
		return fmt.Errorf("hostler %s: exit %d, %q; want it refused, naming %q", strings.Join(args[:2], " "), o.Code, o.Stderr, reason)
	}
	return nil
}

// audit reads the histories, and looks for the run's secrets everywhere.
func (s *Story) audit(ctx context.Context) error {
	for _, n := range []string{"a", "b"} {
		list, err := s.history(ctx, n)
		if err != nil {
			return err
		}
		at := ""
		for i, h := range list {
			if h.Seq != i+1 {
				return fmt.Errorf("history of %s: entry %d has number %d", n, i+1, h.Seq)
			}
			if h.Kind == "transition" {
				if h.From != at {
					return fmt.Errorf("history of %s: entry %d leaves %s, but the node was %s", n, h.Seq, h.From, at)
				}
				at = h.To
			}
		}
		if at != "ready" {
			return fmt.Errorf("history of %s ends in %s", n, at)
		}
	}
	return s.noSecrets(ctx)
}

// noSecrets looks for the BMC password and the tenant's user data in logs, etcd's keys and files, and every process.
func (s *Story) noSecrets(ctx context.Context) error {
	password, err := os.ReadFile(s.Rack.BMCPasswordFile())
	if err != nil {
		return err
	}
	dump, err := s.etcdctl(ctx, "get", "--prefix", "")
	if err != nil {
		return err
	}
	if len(dump) < 10000 {
		return fmt.Errorf("the dump of etcd has only %d bytes", len(dump))
	}
	files := []string{s.daemon.Log}
	for _, n := range s.Rack.Nodes {
		files = append(files, n.ConsoleLog())
	}
	err = filepath.Walk(s.path("data"), func(p string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() {
			files = append(files, p)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, pattern := range []string{"/proc/[0-9]*/cmdline", "/proc/[0-9]*/environ"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		files = append(files, found...)
	}
	if len(has([]string{s.path("user-data")}, []byte(s.secret))) == 0 || len(has([]string{s.Rack.BMCPasswordFile()}, bytes.TrimSpace(password))) == 0 {
		return errors.New("the search does not even find the secrets where they are")
	}
	var faults []error
	for what, secret := range map[string][]byte{"BMC password": bytes.TrimSpace(password), "user data": []byte(s.secret)} {
		if bytes.Contains([]byte(dump), secret) {
			faults = append(faults, fmt.Errorf("the %s is in etcd in clear", what))
		}
		if found := has(files, secret); len(found) > 0 {
			faults = append(faults, fmt.Errorf("the %s is in clear in %v", what, found))
		}
	}
	s.say("  looked through %d files and processes and %d KB of etcd for two secrets", len(files), len(dump)>>10)
	return errors.Join(faults...)
}

// An entry of hostler node history.
type entry struct {
	Seq                           int
	Time                          time.Time
	Kind, From, To, Phase, Reason string
}

func (s *Story) history(ctx context.Context, node string) ([]entry, error) {
	var list []entry
	return list, s.ask(ctx, &list, "node", "history", node)
}

// stageOf says what the time between two entries of a node's history is called, by the phase or state that begins it.
var stageOf = map[string]struct {
	name  string
	whose rack.Whose
}{
	"isolate":    {"cut off from the network", rack.OursTime},
	"fenced-off": {"power off, confirmed", rack.OursTime},
	"power-off":  {"power off, confirmed", rack.OursTime},
	"power-on":   {"power on, confirmed", rack.OursTime},
	"inspect":    {"inspect", rack.OursTime},
	"sanitize":   {"erase and read back", rack.BytesTime},
	"test":       {"test profile", rack.OursTime},
	"write":      {"write image and read back", rack.BytesTime},
	"hand-off":   {"seed and load", rack.OursTime},
	"enter":      {"enter the tenant's system", rack.OursTime},
	"running":    {"tenant's system: kernel to phone-home", rack.KernelTime},
}

// measure makes the stages out of the histories; a boot is split where iPXE said on the console what it boots.
func (s *Story) measure(ctx context.Context) error {
	for _, server := range []string{"a", "b"} {
		list, err := s.history(ctx, server)
		if err != nil {
			return err
		}
		n, err := s.Rack.Node(server)
		if err != nil {
			return err
		}
		for i := 0; i+1 < len(list); i++ {
			h, end := list[i], list[i+1].Time
			if strings.HasPrefix(h.Reason, "test profile") { // the verdict, not the run
				continue
			}
			if st, ok := stageOf[h.Phase]; ok && (h.Phase != "running" || strings.Contains(list[i+1].Reason, "phoned home")) {
				s.stages.Add(st.name, server, st.whose, h.Time, end)
			}
			if h.Phase == "boot" {
				if at, ok, err := n.ConsoleContains("Hostler: booting the service system", h.Time); err == nil && ok && at.Before(end) {
					s.stages.Add("firmware to boot script", server, rack.FirmwareTime, h.Time, at)
					s.stages.Add("boot script to agent", server, rack.KernelTime, at, end)
				}
			}
		}
	}
	return nil
}
