package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// A Proxy is one TCP address in front of another, where the network can go wrong.
type Proxy struct {
	Addr string
	p    *toxiproxy.Proxy
}

// newProxy listens before upstream; "" takes a free port.
func newProxy(name, listen, upstream string) (*Proxy, error) {
	if listen == "" {
		listen = "127.0.0.1:0"
	}
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop())
	x := &Proxy{p: toxiproxy.NewProxy(server, name, listen, upstream)}
	if err := x.p.Start(); err != nil {
		return nil, fmt.Errorf("faults: proxy %s: %w", name, err)
	}
	x.Addr = x.p.Listen
	return x, nil
}

// Toxic makes the line worse: toxiproxy's kinds, in one direction ("upstream" is towards etcd).
func (x *Proxy) Toxic(kind, stream string, attributes map[string]any) error {
	b, err := json.Marshal(map[string]any{"type": kind, "stream": stream, "attributes": attributes})
	if err != nil {
		return err
	}
	if _, err := x.p.Toxics.AddToxicJson(bytes.NewReader(b)); err != nil {
		return fmt.Errorf("faults: toxic %s of %s: %w", kind, x.p.Name, err)
	}
	return nil
}

// Heal takes all toxics away.
func (x *Proxy) Heal() { x.p.Toxics.ResetToxics(context.Background()) }

// Cut closes the line and every connection; Join opens it again.
func (x *Proxy) Cut() { x.p.Stop() }

// Join ends a Cut; a line that is open stays so.
func (x *Proxy) Join() error {
	if err := x.p.Start(); !errors.Is(err, toxiproxy.ErrProxyAlreadyStarted) {
		return err
	}
	return nil
}
