package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/hostler-project/hostler/inventory/api"
	"github.com/hostler-project/hostler/inventory/client"
	"github.com/hostler-project/hostler/inventory/doctor"
)

// doctorFor bounds the question: who asks what is wrong does not wait for long.
const doctorFor = 15 * time.Second

func (a *app) doctor() *cobra.Command {
	return &cobra.Command{Use: "doctor", Short: "Say what is wrong with the site's machinery, and the one command that helps", Args: args(0, 0, ""),
		Long: "Say what is wrong with store, daemon, segments, disks, clock, keys and backups, each with the one command or act that helps.\n" +
			"It also says something when hostlerd cannot be reached. Exit codes: 0 all well, 1 something is wrong.",
		RunE: func(c *cobra.Command, _ []string) error {
			r := a.examine(c.Context())
			if err := a.show(r, func() { a.doctorText(r) }); err != nil {
				return err
			}
			if !r.Well {
				return fail(exitFailed, "", "something is wrong")
			}
			return nil
		}}
}

// examine asks the daemon, and judges from here what only can be seen from here: whether it answers, and its clock.
func (a *app) examine(ctx context.Context) doctor.Report {
	ctx, stop := context.WithTimeout(ctx, doctorFor)
	defer stop()
	cl, err := a.client()
	if err != nil {
		return a.tokenless(ctx, err)
	}
	cl.HTTP = &http.Client{Timeout: doctorFor}
	begin := time.Now()
	r, err := cl.Doctor(ctx)
	if err != nil {
		return alone(a.unreachable(cl, err))
	}
	r.Add(clocks(r.Now, begin, time.Now()))
	return r
}

// tokenless is for a token that cannot be read: whether hostlerd answers at all is looked at without one.
func (a *app) tokenless(ctx context.Context, err error) doctor.Report {
	r := alone(a.unreachable(nil, err))
	cl, err := client.FromEnv(func(name string) string {
		if name == "HOSTLER_TOKEN_FILE" {
			return os.DevNull
		}
		return a.getenv(name)
	})
	if err != nil {
		return r // the address itself is not one: said already
	}
	cl.HTTP = &http.Client{Timeout: doctorFor}
	var answer *client.Error
	if _, err := cl.Version(ctx); err != nil && !(errors.As(err, &answer) && answer.Status == http.StatusUnauthorized) {
		r.Rows = append([]doctor.Row{a.unreachable(cl, err)}, r.Rows...)
	}
	return r
}

func alone(row doctor.Row) doctor.Report {
	r := doctor.Report{Well: true, Now: time.Now()}
	r.Add(row)
	return r
}

// skew is how far two clocks may be apart: tokens and certificates go by them.
const skew = 5 * time.Second

// clocks compares the daemon's clock with this machine's; it was read somewhere between begin and end.
func clocks(theirs, begin, end time.Time) doctor.Row {
	row := doctor.Row{Check: "clocks", Looks: "hostlerd's clock against this machine's", Level: doctor.OK, Found: "they agree"}
	off := time.Duration(0)
	switch {
	case theirs.Before(begin):
		off = begin.Sub(theirs)
	case theirs.After(end):
		off = theirs.Sub(end)
	}
	if off > skew {
		row.Level, row.Found = doctor.Warn, fmt.Sprintf("they are %v apart", off.Round(time.Second))
		row.Fix = "timedatectl, on both machines: one of them is not kept"
	}
	return row
}

// unreachable says why hostlerd did not answer, as far as that can be told from here.
func (a *app) unreachable(cl *client.Client, err error) doctor.Row {
	row := doctor.Row{Check: "api", Looks: "hostlerd answers at HOSTLER_URL, and takes HOSTLER_TOKEN_FILE", Level: doctor.Fail, Found: err.Error()}
	var answer *client.Error
	if errors.As(err, &answer) {
		row.Fix = answer.Fix
	}
	if cl == nil {
		return row
	}
	var dns *net.DNSError
	var timeout net.Error
	text := err.Error()
	switch {
	case answer != nil && answer.Status == http.StatusUnauthorized && cl.Token == "":
		row.Found, row.Fix = "hostlerd answers, but there is no token here", a.getToken(cl)
	case answer != nil && answer.Status == http.StatusUnauthorized:
		row.Found, row.Fix = "hostlerd answers, but refuses this token: revoked, expired, or another site's", a.getToken(cl)
	case answer != nil && answer.Status == http.StatusForbidden:
		row.Fix = "use a readonly, technician or admin token: HOSTLER_TOKEN_FILE=FILE"
	case answer != nil && answer.Status == http.StatusNotFound:
		row.Found, row.Fix = "what answers at "+cl.URL+" cannot say how it is: an older hostlerd, or another program", a.whoListens(cl)
	case answer != nil && answer.Status == 0 && strings.Contains(text, "something else than Hostler"):
		row.Fix = a.whoListens(cl)
	case errors.Is(err, syscall.ECONNREFUSED):
		row.Fix = a.start(cl)
		row.Found = "nothing listens at " + cl.URL
		if pid := running("hostlerd"); pid != "" && local(cl.URL) {
			row.Found += ", but a hostlerd runs (process " + pid + ")"
			row.Fix = "hostlerd config print --config FILE: its api.listen is another; set HOSTLER_URL to that"
		}
	case errors.As(err, &dns):
		row.Fix = "set HOSTLER_URL to an address that exists: " + dns.Name + " does not"
	case strings.Contains(text, "server gave HTTP response to HTTPS client"):
		row.Fix = "HOSTLER_URL=" + strings.Replace(cl.URL, "https:", "http:", 1)
	case strings.Contains(text, "x509:"), strings.Contains(text, "tls:"):
		row.Fix = "mend the TLS proxy before hostlerd (its certificate is not good), or the clock: timedatectl"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		row.Found = "no answer from " + cl.URL + " within " + doctorFor.String()
		row.Fix = "journalctl -n 50 -u hostlerd, then systemctl restart hostlerd"
		if !local(cl.URL) {
			row.Fix = "is that machine on, and the way there open? ping " + host(cl.URL)
		}
	}
	return row
}

func (a *app) start(cl *client.Client) string {
	if !local(cl.URL) {
		return "systemctl start hostlerd, on " + host(cl.URL)
	}
	if _, err := os.Stat("/etc/systemd/system/hostlerd.service"); err == nil {
		return "systemctl start hostlerd; if it ends again: journalctl -n 50 -u hostlerd"
	}
	return "hostlerd --config /etc/hostler/site.yaml; it says itself what keeps it from starting"
}

func (a *app) whoListens(cl *client.Client) string {
	u, err := url.Parse(cl.URL)
	if err != nil || !local(cl.URL) {
		return "check HOSTLER_URL"
	}
	return "ss -ltnp 'sport = :" + u.Port() + "' says who has the port; HOSTLER_URL if hostlerd is elsewhere"
}

func (a *app) getToken(cl *client.Client) string {
	file := a.getenv("HOSTLER_TOKEN_FILE")
	if file == "" {
		file = client.DefaultTokenFile
	}
	if _, err := os.Stat(file); errors.Is(err, os.ErrPermission) {
		return "sudo hostler doctor: only root may read " + file + "; or a token of your own in HOSTLER_TOKEN_FILE"
	}
	return "have one made: hostler token create --name YOU --role " + api.RoleTechnician + ", on hostlerd's machine as root; then HOSTLER_TOKEN_FILE=FILE"
}

func host(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return address
	}
	return u.Hostname()
}

func local(address string) bool {
	h := host(address)
	ip := net.ParseIP(h)
	return h == "localhost" || ip != nil && ip.IsLoopback()
}

// running is a process of that name on this machine; "" when there is none, or it cannot be seen.
func running(name string) string {
	names, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return ""
	}
	for _, f := range names {
		if b, err := os.ReadFile(f); err == nil && strings.TrimSpace(string(b)) == name {
			return filepath.Base(filepath.Dir(f))
		}
	}
	return ""
}

// doctorText prints a line for each row, and under what is wrong what helps. Nothing is cut: a command must be whole.
func (a *app) doctorText(r doctor.Report) {
	wide := 0
	for _, row := range r.Rows {
		wide = max(wide, len(row.Check))
	}
	bad := 0
	for _, row := range r.Rows {
		since := ""
		if !row.Since.IsZero() {
			since = ", since " + age(r.Now.Sub(row.Since)) + " ago"
		}
		a.print("%-4s  %-*s  %s%s", row.Level, wide, row.Check, row.Found, since)
		if a.wide() {
			a.print("      %-*s  (%s)", wide, "", row.Looks)
		}
		if row.Level != doctor.OK {
			bad++
			if row.Fix != "" {
				a.print("      %-*s  → %s", wide, "", row.Fix)
			}
		}
	}
	if bad == 0 {
		a.print("all well")
		return
	}
	a.print("%d of %d are not well; begin with the first", bad, len(r.Rows))
}
