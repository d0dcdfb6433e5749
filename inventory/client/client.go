// Package client talks to the API of hostlerd: one method per route, typed as package api has it.
//
// It owns the way from HOSTLER_URL and HOSTLER_TOKEN_FILE to an answer or a *Error that says why and what to try, and
// the event stream that goes on by itself after a cut (watch.go). It knows no commands and prints nothing.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/api"
	"github.com/hostler-project/hostler/inventory/audit"
	"github.com/hostler-project/hostler/inventory/doctor"
)

// Where the server and its token are when nobody says otherwise.
const (
	DefaultURL       = "http://127.0.0.1:8080"
	DefaultTokenFile = "/var/lib/hostler/admin.token"
)

// A Client asks one server. The zero HTTP is a client with a timeout of a minute.
type Client struct {
	URL   string
	Token string
	HTTP  *http.Client
}

// An Error is an answer that is no success. Status is 0 when there was no answer at all.
type Error struct {
	Status int
	Detail string
	Fix    string   // what to try; may be empty
	Faults []string // of an input, all at once
	Cause  error    // why there was no answer
}

func (e *Error) Unwrap() error { return e.Cause }

func (e *Error) Error() string {
	if len(e.Faults) > 0 {
		return e.Detail + ":\n  " + strings.Join(e.Faults, "\n  ")
	}
	return e.Detail
}

// FromEnv makes a client from HOSTLER_URL and HOSTLER_TOKEN_FILE.
func FromEnv(getenv func(string) string) (*Client, error) {
	c := &Client{URL: strings.TrimRight(getenv("HOSTLER_URL"), "/")}
	if c.URL == "" {
		c.URL = DefaultURL
	}
	if u, err := url.Parse(c.URL); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, &Error{Detail: fmt.Sprintf("HOSTLER_URL %q is not an address like %s", c.URL, DefaultURL)}
	}
	path := getenv("HOSTLER_TOKEN_FILE")
	named := path != ""
	if !named {
		path = DefaultTokenFile
	}
	b, err := os.ReadFile(path)
	switch {
	case err == nil:
		c.Token = strings.TrimSpace(string(b))
	case named || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission):
		return nil, &Error{Detail: fmt.Sprintf("read the token: %v", err), Fix: "set HOSTLER_TOKEN_FILE to a file that holds a token"}
	}
	return c, nil
}

func (c *Client) http() *http.Client {
	if c.HTTP != nil {
		return c.HTTP
	}
	return &http.Client{Timeout: time.Minute}
}

// call makes one request. in is sent as JSON, or as it is when it is an io.Reader; out is filled when not nil.
func (c *Client) call(ctx context.Context, method, path string, query url.Values, in, out any) error {
	var body io.Reader
	kind := "application/json"
	switch v := in.(type) {
	case nil:
	case io.Reader:
		body, kind = v, "application/octet-stream"
	default:
		b, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("client: encode the request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	q, err := http.NewRequestWithContext(ctx, method, c.URL+path, body)
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	q.URL.RawQuery = query.Encode()
	if body != nil {
		q.Header.Set("Content-Type", kind)
	}
	a, err := c.send(c.http(), q)
	if err != nil {
		return err
	}
	defer a.Body.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(a.Body).Decode(out); err != nil {
		return &Error{Detail: fmt.Sprintf("%s answered something else than Hostler's API: %v", c.URL, err), Fix: "check HOSTLER_URL"}
	}
	return nil
}

// send gives a successful answer, or an *Error.
func (c *Client) send(h *http.Client, q *http.Request) (*http.Response, error) {
	if c.Token != "" {
		q.Header.Set("Authorization", "Bearer "+c.Token)
	}
	a, err := h.Do(q)
	if err != nil {
		if ctx := q.Context().Err(); ctx != nil {
			return nil, ctx
		}
		return nil, &Error{Detail: fmt.Sprintf("cannot reach hostlerd at %s: %v", c.URL, errors.Unwrap(err)), Fix: "hostler doctor; set HOSTLER_URL if it is elsewhere", Cause: err}
	}
	if a.StatusCode < 300 {
		return a, nil
	}
	defer a.Body.Close()
	e := &Error{Status: a.StatusCode, Detail: a.Status}
	var p api.Problem
	if b, err := io.ReadAll(io.LimitReader(a.Body, 4*1<<20)); err == nil && json.Unmarshal(b, &p) == nil && p.Detail != "" {
		e.Detail, e.Fix = p.Detail, p.Fix
		for _, f := range p.Errors {
			if f.Location != "" {
				f.Message = f.Location + ": " + f.Message
			}
			e.Faults = append(e.Faults, f.Message)
		}
	}
	return nil, e
}

func get[T any](ctx context.Context, c *Client, path string, query url.Values) (out T, err error) {
	return out, c.call(ctx, "GET", path, query, nil, &out)
}

func send[T any](ctx context.Context, c *Client, method, path string, in any) (out T, err error) {
	return out, c.call(ctx, method, path, nil, in, &out)
}

func node(word string, rest ...string) string {
	return "/v1/nodes/" + url.PathEscape(word) + strings.Join(rest, "")
}

// Version asks for the server's version and who we are to it.
func (c *Client) Version(ctx context.Context) (api.Version, error) {
	return get[api.Version](ctx, c, "/v1/version", nil)
}

// Doctor asks what is wrong with the site's machinery.
func (c *Client) Doctor(ctx context.Context) (doctor.Report, error) {
	return get[doctor.Report](ctx, c, "/v1/doctor", nil)
}

// Nodes lists all nodes that a selector means, page by page.
func (c *Client) Nodes(ctx context.Context, selector string) (api.NodeList, error) {
	all := api.NodeList{Nodes: []api.NodeRow{}}
	for after := ""; ; after = all.Next {
		page, err := get[api.NodeList](ctx, c, "/v1/nodes", url.Values{"select": {selector}, "limit": {"1000"}, "after": {after}})
		if err != nil {
			return all, err
		}
		page.Nodes = append(all.Nodes, page.Nodes...)
		if all = page; all.Next == "" {
			return all, nil
		}
	}
}

// Node shows one node.
func (c *Client) Node(ctx context.Context, word string) (api.NodeDetail, error) {
	return get[api.NodeDetail](ctx, c, node(word), nil)
}

// History gives a node's history, oldest first, after entry number after.
func (c *Client) History(ctx context.Context, word string, after int64) ([]inventory.History, error) {
	all := []inventory.History{}
	for {
		page, err := get[api.HistoryList](ctx, c, node(word, "/history"), url.Values{"after": {strconv.FormatInt(after, 10)}, "limit": {"1000"}})
		if err != nil {
			return all, err
		}
		all = append(all, page.Entries...)
		if after = page.Next; after == 0 {
			return all, nil
		}
	}
}

// Why asks why a node is where it is.
func (c *Client) Why(ctx context.Context, word string) (api.Why, error) {
	return get[api.Why](ctx, c, node(word, "/why"), nil)
}

// Wish wishes something of a node.
func (c *Client) Wish(ctx context.Context, word string, q api.WishRequest) (inventory.Wish, error) {
	return send[inventory.Wish](ctx, c, "POST", node(word, "/wishes"), q)
}

// WishAnswer reads a wish again.
func (c *Client) WishAnswer(ctx context.Context, word, wish string) (inventory.Wish, error) {
	return get[inventory.Wish](ctx, c, node(word, "/wishes/", url.PathEscape(wish)), nil)
}

// Approve says what a discovered node is.
func (c *Client) Approve(ctx context.Context, word string, q api.Approval) (inventory.Wish, error) {
	return send[inventory.Wish](ctx, c, "POST", node(word, "/approve"), q)
}

// Manifest compares or imports a CSV list of nodes.
func (c *Client) Manifest(ctx context.Context, q api.ManifestRequest) (api.ManifestResult, error) {
	return send[api.ManifestResult](ctx, c, "POST", "/v1/manifest", q)
}

// PutCredential seals a BMC's user and password under a name.
func (c *Client) PutCredential(ctx context.Context, ref string, l api.BMCLogin) (api.CredentialInfo, error) {
	return send[api.CredentialInfo](ctx, c, "PUT", "/v1/credentials/"+url.PathEscape(ref), l)
}

// CreateToken makes a token; its secret is in this answer and nowhere else.
func (c *Client) CreateToken(ctx context.Context, q api.TokenRequest) (api.MadeToken, error) {
	return send[api.MadeToken](ctx, c, "POST", "/v1/tokens", q)
}

// Tokens lists the tokens, without their secrets.
func (c *Client) Tokens(ctx context.Context) ([]api.TokenInfo, error) {
	l, err := get[api.TokenList](ctx, c, "/v1/tokens", nil)
	return l.Tokens, err
}

// RevokeToken ends the token whose hash begins so.
func (c *Client) RevokeToken(ctx context.Context, hash string) (api.TokenInfo, error) {
	return send[api.TokenInfo](ctx, c, "DELETE", "/v1/tokens/"+url.PathEscape(hash), nil)
}

// Images lists the images on offer.
func (c *Client) Images(ctx context.Context) ([]inventory.ImageRecord, error) {
	l, err := get[api.ImageList](ctx, c, "/v1/images", nil)
	return l.Images, err
}

// CheckImage hands a manifest in and learns which bytes are missing.
func (c *Client) CheckImage(ctx context.Context, m api.SignedManifest) (api.ImageCheck, error) {
	return send[api.ImageCheck](ctx, c, "POST", "/v1/images/check", m)
}

// PutChunk and PutBlob upload bytes of an image.
func (c *Client) PutChunk(ctx context.Context, image, digest string, r io.Reader) error {
	return c.upload(ctx, "/v1/images/"+image+"/chunks/"+digest, r)
}

// PutBlob uploads a kernel or initrd.
func (c *Client) PutBlob(ctx context.Context, image, digest string, r io.Reader) error {
	return c.upload(ctx, "/v1/images/"+image+"/blobs/"+digest, r)
}

func (c *Client) upload(ctx context.Context, path string, r io.Reader) error {
	long := *c.http()
	long.Timeout = 0 // a kernel over a thin line takes what it takes; ctx bounds it
	slow := Client{URL: c.URL, Token: c.Token, HTTP: &long}
	return slow.call(ctx, "PUT", path, nil, r, nil)
}

// CommitImage offers an image whose bytes are all there.
func (c *Client) CommitImage(ctx context.Context, m api.SignedManifest) (inventory.ImageRecord, error) {
	return send[inventory.ImageRecord](ctx, c, "POST", "/v1/images", m)
}

// claim is the path of a reservation; people of the site may say whose it is, as TENANT/RESERVATION.
func claim(id string, rest string) (path string, query url.Values) {
	tenant, rid, said := strings.Cut(id, "/")
	if !said {
		return "/v1/claims/" + url.PathEscape(id) + rest, nil
	}
	return "/v1/claims/" + url.PathEscape(rid) + rest, url.Values{"tenant": {tenant}}
}

func (c *Client) onClaim(ctx context.Context, id, verb string, in any) (out api.ClaimStatus, err error) {
	path, query := claim(id, verb)
	return out, c.call(ctx, "POST", path, query, in, &out)
}

// Claim reserves a node, and confirms when the request names an image.
func (c *Client) Claim(ctx context.Context, q api.ClaimRequest) (api.ClaimStatus, error) {
	return send[api.ClaimStatus](ctx, c, "POST", "/v1/claims", q)
}

// ConfirmClaim names image and user data of a reserved node.
func (c *Client) ConfirmClaim(ctx context.Context, id string, q api.Confirmation) (api.ClaimStatus, error) {
	return c.onClaim(ctx, id, "/confirm", q)
}

// RenewClaim holds a pending reservation for that long from now on.
func (c *Client) RenewClaim(ctx context.Context, id string, hold time.Duration) (api.ClaimStatus, error) {
	return c.onClaim(ctx, id, "/renew", map[string]string{"hold": hold.String()})
}

// ReleaseClaim gives the node back.
func (c *Client) ReleaseClaim(ctx context.Context, id, reason string) (api.ClaimStatus, error) {
	in := map[string]string{}
	if reason != "" {
		in["reason"] = reason
	}
	return c.onClaim(ctx, id, "/release", in)
}

// ShowClaim shows a reservation and its instance.
func (c *Client) ShowClaim(ctx context.Context, id string) (api.ClaimStatus, error) {
	path, query := claim(id, "")
	return get[api.ClaimStatus](ctx, c, path, query)
}

// Claims lists reservations: those that stand, or all that are remembered.
func (c *Client) Claims(ctx context.Context, all bool) ([]api.ClaimStatus, error) {
	out := []api.ClaimStatus{}
	for after := ""; ; {
		page, err := get[api.ClaimList](ctx, c, "/v1/claims", url.Values{"all": {strconv.FormatBool(all)}, "after": {after}, "limit": {"1000"}})
		if err != nil {
			return out, err
		}
		out = append(out, page.Claims...)
		if after = page.Next; after == "" {
			return out, nil
		}
	}
}

// Certificates lists a node's certificates, oldest first.
func (c *Client) Certificates(ctx context.Context, word string) (api.CertificateList, error) {
	return get[api.CertificateList](ctx, c, "/v1/certificates/"+url.PathEscape(word), nil)
}

// Certificate gets one certificate, exactly as signed.
func (c *Client) Certificate(ctx context.Context, word string, wipe int64) (inventory.Certificate, error) {
	return get[inventory.Certificate](ctx, c, "/v1/certificates/"+url.PathEscape(word)+"/"+strconv.FormatInt(wipe, 10), nil)
}

// CertificateKey gets the public key that certificates are signed with.
func (c *Client) CertificateKey(ctx context.Context) (api.PublicKey, error) {
	return get[api.PublicKey](ctx, c, "/v1/certificate-key", nil)
}

// BootPreview asks what a node would be served at its next boot.
func (c *Client) BootPreview(ctx context.Context, word string) (api.BootPreview, error) {
	return get[api.BootPreview](ctx, c, "/v1/boot/"+url.PathEscape(word), nil)
}

// Login makes a one-time login link for the dashboard.
func (c *Client) Login(ctx context.Context) (api.Login, error) {
	return send[api.Login](ctx, c, "POST", "/v1/login", nil)
}

// Audit asks what must hold of the record, and what does not.
func (c *Client) Audit(ctx context.Context) (audit.Verdict, error) {
	return get[audit.Verdict](ctx, c, "/v1/audit", nil)
}

// AuditHistory writes everything that the store still keeps of its history to w.
func (c *Client) AuditHistory(ctx context.Context, w io.Writer) error {
	long := *c.http()
	long.Timeout = 0 // a long history takes what it takes; ctx bounds it
	q, err := http.NewRequestWithContext(ctx, "GET", c.URL+"/v1/audit/history", nil)
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	a, err := c.send(&long, q)
	if err != nil {
		return err
	}
	defer a.Body.Close()
	if _, err = io.Copy(w, a.Body); err != nil {
		return &Error{Detail: fmt.Sprintf("the history broke off: %v", err), Fix: "try again; hostlerd's log says why"}
	}
	return nil
}

// ClearAudit says that a breach by a node was looked into.
func (c *Client) ClearAudit(ctx context.Context, word, reason string) (api.AuditCleared, error) {
	return send[api.AuditCleared](ctx, c, "POST", "/v1/audit/"+url.PathEscape(word)+"/clear", api.AuditClearing{Reason: reason})
}

// Breaker shows the site's breaker and how much goes on at once.
func (c *Client) Breaker(ctx context.Context) (api.BreakerStatus, error) {
	return get[api.BreakerStatus](ctx, c, "/v1/breaker", nil)
}

// CloseBreaker closes it.
func (c *Client) CloseBreaker(ctx context.Context, reason string) (inventory.Breaker, error) {
	return send[inventory.Breaker](ctx, c, "POST", "/v1/breaker/close", map[string]string{"reason": reason})
}
