package imaging

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// A Source gives chunks by digest. Bytes from it are believed only after they were hashed, so it may be anybody.
type Source interface {
	// Chunk opens the packed bytes of the chunk; size is what the manifest says of their number, as a hint. The error
	// is a *SourceError where asking again cannot help.
	Chunk(ctx context.Context, digest string, size int) (io.ReadCloser, error)
}

// A SourceError is a source's final answer: asking it again cannot help.
type SourceError struct {
	What string // what was asked for, with where
	Err  error
}

// Error names source and cause.
func (e *SourceError) Error() string { return fmt.Sprintf("imaging: fetch %s: %v", e.What, e.Err) }

// Unwrap returns the cause.
func (e *SourceError) Unwrap() error { return e.Err }

// HTTPSource fetches from <Base>/image/<Image>/chunk/<sha256> and …/blob/<sha256>.
type HTTPSource struct {
	Base   string       // such as "http://10.0.0.1"
	Image  string       // the image's digest
	Client *http.Client // see NewHTTPClient
}

// NewHTTPClient returns a client for a source: connections are kept for all workers, and a redirect is refused, since
// only the server that the work order names is asked. rt is nil for plain HTTP.
func NewHTTPClient(rt *http.Transport) *http.Client {
	if rt == nil {
		rt = &http.Transport{}
	}
	rt.MaxIdleConnsPerHost, rt.MaxConnsPerHost, rt.DisableCompression = 64, 64, true
	return &http.Client{Transport: rt, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		return &SourceError{What: r.URL.Path, Err: fmt.Errorf("it was redirected to %s: refused", r.URL.Host)}
	}}
}

// Chunk opens one chunk.
func (s *HTTPSource) Chunk(ctx context.Context, digest string, _ int) (io.ReadCloser, error) {
	return s.get(ctx, "/chunk/"+digest, MaxPacked)
}

// Blob copies kernel or initrd to w and checks it. What was written counts only if it returns nil.
func (s *HTTPSource) Blob(ctx context.Context, b Blob, w io.Writer) error {
	r, err := s.get(ctx, "/blob/"+b.SHA256, b.Size)
	if err != nil {
		return err
	}
	defer r.Close()
	return CopyBlob(w, r, b)
}

func (s *HTTPSource) get(ctx context.Context, path string, limit int64) (io.ReadCloser, error) {
	url := strings.TrimSuffix(s.Base, "/") + "/image/" + s.Image + path
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, &SourceError{What: url, Err: err}
	}
	resp, err := s.Client.Do(req)
	if err != nil {
		var final *SourceError
		if errors.As(err, &final) {
			return nil, final
		}
		return nil, fmt.Errorf("imaging: fetch: %w", err)
	}
	if resp.StatusCode == http.StatusOK && resp.ContentLength <= limit {
		return resp.Body, nil
	}
	resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusOK:
		return nil, fmt.Errorf("imaging: fetch %s: %w: %d bytes announced", url, ErrContent, resp.ContentLength)
	case resp.StatusCode/100 == 4 && resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusRequestTimeout:
		return nil, &SourceError{What: url, Err: errors.New(resp.Status)}
	}
	return nil, fmt.Errorf("imaging: fetch %s: %s", url, resp.Status)
}
