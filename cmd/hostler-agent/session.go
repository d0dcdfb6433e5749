package main

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"
)

// A session is this boot, as the daemon wrote it into the second initrd.
type session struct {
	ID     string    `json:"session"`
	Node   string    `json:"node"`
	Name   string    `json:"name"`
	Token  string    `json:"token"`
	Server string    `json:"server"` // https://…:8443
	HTTP   string    `json:"http"`   // http://…, for the time only
	CAPEM  string    `json:"ca_pem"`
	Now    time.Time `json:"now,omitzero"` // when it was made

	ca *x509.Certificate
}

// commandLine is what the kernel command line says to us.
type commandLine struct {
	mac string // hostler.mac=: the interface that this machine was booted by
	ca  string // hostler.ca=sha256:HEX: what the daemon's CA must hash to
}

func parseCommandLine(line string) commandLine {
	var c commandLine
	for _, w := range strings.Fields(line) {
		key, value, _ := strings.Cut(w, "=")
		switch key {
		case "hostler.mac":
			c.mac = strings.ToLower(strings.ReplaceAll(value, "-", ":"))
		case "hostler.ca":
			c.ca = value
		}
	}
	return c
}

// readSession reads the session and removes its file, so that the token is in one place less. The CA in it must be the
// one that the kernel command line names: the two come to this machine on different ways.
func readSession(file, pin string) (session, error) {
	var s session
	b, err := os.ReadFile(file)
	if err != nil {
		return s, fatal("this boot has no session: "+err.Error(), "look at the boot script of this machine (hostler boot preview NODE): the second initrd is missing")
	}
	if err := os.Remove(file); err != nil {
		return s, fatal("the session cannot be removed after reading: "+err.Error(), "build the service OS again")
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fatal("this boot's session is not JSON", "start this machine again; if it stays so, look at hostlerd's log") // the error would quote from it
	}
	clear(b)
	if s.ID == "" || s.Node == "" || s.Token == "" {
		return s, fatal("this boot's session lacks its id, node or token", "start this machine again; if it stays so, look at hostlerd's log")
	}
	for _, u := range []string{s.Server, s.HTTP} {
		if p, err := url.Parse(u); err != nil || p.Host == "" || p.Scheme != "https" && p.Scheme != "http" {
			return s, fatal(fmt.Sprintf("this boot's session names no server (%q)", u), "look at the segment's address in site.yaml")
		}
	}
	if !strings.HasPrefix(s.Server, "https://") {
		return s, fatal(fmt.Sprintf("this boot's session names the server %q without TLS", s.Server), "look at hostlerd's version: it must be the agent's")
	}
	s.ca, err = checkPin([]byte(s.CAPEM), pin)
	return s, err
}

// checkPin returns the CA if its DER hashes to the pin.
func checkPin(text []byte, pin string) (*x509.Certificate, error) {
	const todo = "somebody may have changed what this machine booted: do not use it; hostlerd prints the hash of its CA at its start"
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" || strings.TrimSpace(string(rest)) != "" {
		return nil, fatal("the session's CA is not one PEM certificate", todo)
	}
	want, err := hex.DecodeString(strings.TrimPrefix(pin, "sha256:"))
	if err != nil || len(want) != sha256.Size || !strings.HasPrefix(pin, "sha256:") {
		return nil, fatal(fmt.Sprintf("the kernel command line has no usable hostler.ca=sha256:HEX (%q)", pin), todo)
	}
	if got := sha256.Sum256(block.Bytes); subtle.ConstantTimeCompare(got[:], want) != 1 {
		return nil, fatal(fmt.Sprintf("the session's CA hashes to sha256:%x, the kernel command line wants %s", got, pin), todo)
	}
	ca, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fatal("the session's CA cannot be read: "+err.Error(), todo)
	}
	return ca, nil
}
