package bmc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/bougou/go-ipmi/pkg/client"
	"github.com/bougou/go-ipmi/pkg/command/transport"
	"github.com/bougou/go-ipmi/pkg/types"
)

// solPoll is how often the controller is asked for output, and thereby told
// that the session is alive.
const solPoll = 100 * time.Millisecond

// Console opens the machine's serial console (serial over LAN, IPMI v2.0
// section 15) in a session of its own, so that power can be ordered meanwhile.
// It lasts until Close, the end of ctx, or the controller's end of it; what Read
// returns then says which. A reader that stops reading stops the console.
func (c *Controller) Console(ctx context.Context) (io.ReadWriteCloser, error) {
	d := newDriver(c.target, c.pace, c.drv.logins, c.log)
	err := d.call(ctx, "open console", func(ctx context.Context) error {
		// Encryption and authentication are asked for by hand: without them the
		// console would travel in clear beside an encrypted session.
		_, err := d.client.ActivatePayload(ctx, &transport.ActivatePayloadRequest{
			PayloadType: types.PayloadTypeSOL, PayloadInstance: 1, EnableEncryption: true, EnableAuthentication: true,
		})
		if code, ok := types.IsResponseError(err); ok && code.CompletionCode() == types.CodeActivatePayloadAlreadyActive {
			return &Error{
				Op: "open console", Addr: d.target.Addr, Temporary: true, Err: errors.New("it is open elsewhere"),
				Hint: "close the other one; one that was cut off ends after a minute",
			}
		}
		return err
	})
	if err != nil {
		_ = d.Close(ctx)
		return nil, err
	}
	return d.stream(ctx), nil
}

// A console is an open serial console.
type console struct {
	driver *driver
	cancel context.CancelFunc
	out    *io.PipeReader // from the machine
	in     *io.PipeWriter // to the machine
	done   chan struct{}
	once   sync.Once
}

func (d *driver) stream(ctx context.Context) *console {
	ctx, cancel := context.WithCancel(ctx)
	outR, outW := io.Pipe()
	inR, inW := io.Pipe()
	s := &console{driver: d, cancel: cancel, out: outR, in: inW, done: make(chan struct{})}
	// A pipe's Write waits for its reader; the end of ctx must end that too.
	context.AfterFunc(ctx, func() { _ = outR.CloseWithError(context.Cause(ctx)) })
	go func() {
		defer close(s.done)
		defer cancel()
		err := unpanicked(func() error {
			return d.client.SOLStream(ctx, inR, outW, &client.SOLStreamOptions{PollInterval: solPoll})
		})
		if err == nil {
			err = io.EOF
		} else if ctx.Err() == nil {
			err = explain("console", d.target.Addr, fmt.Errorf("console ended: %w", err))
		}
		_ = outW.CloseWithError(err)
		_ = inR.CloseWithError(err)
	}()
	return s
}

// Read returns what the machine printed.
func (s *console) Read(p []byte) (int, error) { return s.out.Read(p) }

// Write types at the machine.
func (s *console) Write(p []byte) (int, error) { return s.in.Write(p) }

// Close ends the console and its session.
func (s *console) Close() error {
	s.once.Do(func() {
		s.cancel()
		_ = s.in.Close()
		_ = s.out.Close()
		<-s.done
		ctx, cancel := context.WithTimeout(context.Background(), s.driver.pace.call)
		defer cancel()
		// Best effort: the controller ends the payload with the session anyway.
		_ = unpanicked(func() error {
			_, err := s.driver.client.DeactivatePayload(ctx, &transport.DeactivatePayloadRequest{PayloadType: types.PayloadTypeSOL, PayloadInstance: 1})
			return err
		})
		_ = s.driver.Close(ctx)
	})
	return nil
}
