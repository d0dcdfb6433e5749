package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Deadlines of what is said to the daemon. A long poll lasts longPoll and then has answerIn left to arrive.
const (
	longPoll = 20 * time.Second
	answerIn = 10 * time.Second
	dialIn   = 5 * time.Second
)

const maxAnswer = 4 << 20 // bytes of a daemon's answer that are read

// A client speaks to one daemon, over TLS 1.3 under one CA.
type client struct {
	base string
	http *http.Client
}

// newClient makes one whose connections present what identity holds.
func newClient(s session, c *clock, id *identity) *client {
	roots := x509.NewCertPool()
	roots.AddCert(s.ca)
	return &client{base: strings.TrimSuffix(s.Server, "/"), http: &http.Client{
		Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: dialIn, KeepAlive: 5 * time.Second}).DialContext,
			TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, Time: c.Now, GetClientCertificate: id.certificate},
			TLSHandshakeTimeout: answerIn,
			MaxIdleConns:        4,
			IdleConnTimeout:     2 * longPoll,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func (c *client) close() { c.http.CloseIdleConnections() }

// A refusal is an answer that is not 2xx.
type refusal struct {
	what   string
	status int
	text   string
}

func (r *refusal) Error() string {
	return fmt.Sprintf("%s: the server says %d %s: %s", r.what, r.status, http.StatusText(r.status), r.text)
}

// final says whether asking the same again cannot help: the daemon understood, and will not.
func (r *refusal) final() bool {
	return r.status/100 == 4 && r.status != http.StatusRequestTimeout && r.status != http.StatusTooManyRequests
}

// isFinal says whether err is a refusal for good.
func isFinal(err error) bool {
	var r *refusal
	return errors.As(err, &r) && r.final()
}

// call sends in (nil: nothing, by GET) and reads the answer into out, within the time given.
func (c *client) call(ctx context.Context, within time.Duration, path string, query url.Values, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	method, body := http.MethodGet, io.Reader(nil)
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("encode %s: %w", path, err)
		}
		method, body = http.MethodPost, bytes.NewReader(b)
	}
	u := c.base + path
	if len(query) > 0 {
		u += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, u, body)
	if err != nil {
		return err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if resp.StatusCode/100 != 2 {
		return &refusal{what: method + " " + path, status: resp.StatusCode, text: problem(b)}
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("%s %s: the answer is not what it should be: %w", method, path, err)
	}
	return nil
}

// problem is the detail of an RFC 9457 problem, or the beginning of whatever text came.
func problem(b []byte) string {
	var p struct{ Title, Detail string }
	text := string(b)
	if json.Unmarshal(b, &p) == nil && p.Title+p.Detail != "" {
		text = p.Detail
		if text == "" {
			text = p.Title
		}
	}
	return strings.TrimSpace(printable(text[:min(len(text), 300)]))
}
