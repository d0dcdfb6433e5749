package bmc

import (
	"context"
	"crypto/hmac"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"

	"github.com/bougou/go-ipmi/pkg/crypto"
	"github.com/bougou/go-ipmi/pkg/types"
)

// A suite is one set of algorithms of IPMI v2.0 table 22-20. Only those that
// authenticate and encrypt every message are offered.
type suite struct {
	auth      types.AuthAlg
	integrity types.IntegrityAlg
	crypt     types.CryptAlg
	macLen    int // bytes of authentication code at the end of a message
}

var suites = map[int]suite{
	3:  {types.AuthAlg_HMAC_SHA1, types.IntegrityAlg_HMAC_SHA1_96, types.CryptAlg_AES_CBC_128, 12},
	17: {types.AuthAlg_HMAC_SHA256, types.IntegrityAlg_HMAC_SHA256_128, types.CryptAlg_AES_CBC_128, 16},
}

// A wire is the UDP socket of one session. It lets only those datagrams through
// to go-ipmi that are what the session expects. That is needed because go-ipmi
// v0.9.1
//
//   - does not check the authentication code of what it receives, and takes even
//     a datagram from outside the session for an answer: whoever can send with
//     the controller's address could say "the machine is off";
//   - parses datagrams in a goroutine of its own, where a short or badly padded
//     one panics and takes the whole program along;
//   - takes the first datagram as the answer to a login message, also when it is
//     a late second answer to the one before.
type wire struct {
	net.Conn
	log *slog.Logger

	mu          sync.Mutex
	asked       types.PayloadType // of the last datagram sent
	consoleRand []byte            // our random number and role, as sent in RAKP message 1
	role        byte
	refused     types.RmcpStatusCode // what the latest login message said
	session     *session             // nil until the login is done
	dropped     int
	may         func() error // asked before every datagram; nil: nobody
}

// A session is what is known of the active session: how its messages prove that
// they come from the controller.
type session struct {
	suite  suite
	id     uint32 // our id for it, in each message to us
	k1, k2 []byte // keys for integrity and encryption (IPMI v2.0 section 13.32)
	last   uint32 // highest sequence number seen
	window uint64 // bit n: last-n was seen

	may func() error // asked before every datagram; nil: nobody
}

// RMCP and session header, as offsets into a datagram (IPMI v2.0 table 13-8).
const (
	atClass    = 3 // 07h: IPMI
	atAuthType = 4 // 06h: RMCP+
	atType     = 5 // bit 7 encrypted, bit 6 authenticated, bits 5:0 payload type
	atID       = 6
	atSequence = 10
	atLength   = 14
	atPayload  = 16
)

// setupAnswers says which message answers which during login.
var setupAnswers = map[types.PayloadType]types.PayloadType{
	types.PayloadTypeRmcpOpenSessionRequest: types.PayloadTypeRmcpOpenSessionResponse,
	types.PayloadTypeRAKPMessage1:           types.PayloadTypeRAKPMessage2,
	types.PayloadTypeRAKPMessage3:           types.PayloadTypeRAKPMessage4,
}

func dialWire(ctx context.Context, addr string, log *slog.Logger) (*wire, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "udp", addr)
	if err != nil {
		return nil, err
	}
	return &wire{Conn: conn, log: log}, nil
}

// Dial makes the wire its own proxy.Dialer: go-ipmi's own dialling knows
// neither contexts nor IPv6.
func (w *wire) Dial(_, _ string) (net.Conn, error) { return w, nil }

// guard has may asked before every datagram, those that go-ipmi sends again included. Nil: none.
func (w *wire) guard(may func() error) {
	w.mu.Lock()
	w.may = may
	w.mu.Unlock()
}

// Write sends a datagram and notes what kind of answer it calls for.
func (w *wire) Write(b []byte) (int, error) {
	w.mu.Lock()
	may := w.may
	w.mu.Unlock()
	if may != nil {
		if err := may(); err != nil {
			return 0, &Error{Op: "send", Temporary: true, Err: err}
		}
	}
	if len(b) > atPayload && b[atAuthType] == byte(types.AuthTypeRMCPPlus) {
		w.mu.Lock()
		w.asked = types.PayloadType(b[atType] & 0x3f)
		// RAKP message 1: random number at 8, role at 24 (IPMI v2.0 table 13-11).
		if p := b[atPayload:]; w.asked == types.PayloadTypeRAKPMessage1 && len(p) > 24 {
			w.consoleRand, w.role = append([]byte(nil), p[8:24]...), p[24]
		}
		w.mu.Unlock()
	}
	return w.Conn.Write(b)
}

// Read returns the next datagram that is acceptable. The read deadline that
// go-ipmi sets holds for all that it reads in search of it.
func (w *wire) Read(b []byte) (int, error) {
	for {
		n, err := w.Conn.Read(b)
		if err != nil {
			return n, err
		}
		w.mu.Lock()
		err = w.accept(b[:n])
		if err != nil {
			w.dropped++
		}
		w.mu.Unlock()
		if err == nil {
			return n, nil
		}
		w.log.Debug("datagram ignored", "err", err)
	}
}

// secure derives the session's keys; from now on only its messages pass.
func (w *wire) secure(t Target, id uint32, bmcRand []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := &session{suite: suites[t.CipherSuite], id: id}
	var err error
	_, s.k1, s.k2, err = crypto.DeriveSessionKeys(s.suite.auth, w.consoleRand, bmcRand, w.role, t.User,
		crypto.PadPassword20([]byte(t.Password.Reveal())))
	w.session = s
	return err
}

// active tells whether the login got as far as a session.
func (w *wire) active() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.session != nil
}

// refusal returns err, or what the controller said if that was a refusal.
func (w *wire) refusal(err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.session != nil || w.refused == types.RmcpStatusCodeNoErrors {
		return err
	}
	return types.NewRmcpStatusError(w.refused)
}

// accept says why a datagram is none of ours, or nil.
func (w *wire) accept(b []byte) error {
	if len(b) < atPayload || b[0] != types.RmcpVersion || b[atClass] != types.MessageClassIPMI || b[atAuthType] != byte(types.AuthTypeRMCPPlus) {
		return errors.New("not an RMCP+ message")
	}
	kind := types.PayloadType(b[atType] & 0x3f)
	id, length := binary.LittleEndian.Uint32(b[atID:]), int(binary.LittleEndian.Uint16(b[atLength:]))
	if len(b) < atPayload+length {
		return fmt.Errorf("cut short: %d bytes, says it has %d", len(b), atPayload+length)
	}
	if w.session != nil {
		return w.session.accept(b, kind, id, length)
	}
	if want, ok := setupAnswers[w.asked]; !ok || kind != want || b[atType]&0xc0 != 0 || id != 0 {
		return fmt.Errorf("%v for session %#x while waiting for the answer to %v", kind, id, w.asked)
	}
	// Tag and status code; ipmi_sim sends no more when it refuses, which
	// go-ipmi takes for cut short.
	if length >= 2 {
		w.refused = types.RmcpStatusCode(b[atPayload+1])
	}
	return nil
}

func (s *session) accept(b []byte, kind types.PayloadType, id uint32, length int) error {
	if b[atType]&0xc0 != 0xc0 || id != s.id || (kind != types.PayloadTypeIPMI && kind != types.PayloadTypeSOL) {
		return fmt.Errorf("%v for session %#x is not of this session", kind, id)
	}
	end := len(b) - s.suite.macLen
	if end < atPayload+length {
		return errors.New("no authentication code")
	}
	code, err := crypto.SessionIntegrityAuthCode(s.suite.integrity, b[atAuthType:end], s.k1, "")
	if err != nil {
		return err
	}
	if !hmac.Equal(code[:s.suite.macLen], b[end:]) {
		return errors.New("authentication code does not match")
	}
	// From here on it is the controller's own; it may still be out of order, or nonsense.
	if payload := b[atPayload : atPayload+length]; length < 32 || length%16 != 0 {
		return fmt.Errorf("encrypted payload of %d bytes", length)
	} else if _, err := crypto.DecryptAESPayload(payload, s.k2); err != nil {
		return err
	}
	return s.fresh(binary.LittleEndian.Uint32(b[atSequence:]))
}

// fresh refuses a message that was seen already or is too old to tell, as
// IPMI v2.0 section 6.12.13 asks of a receiver.
func (s *session) fresh(n uint32) error {
	if ahead := n - s.last; int32(ahead) > 0 {
		s.window = s.window<<ahead | 1
		s.last = n
		return nil
	}
	behind := s.last - n
	if behind >= 64 || s.window&(1<<behind) != 0 {
		return fmt.Errorf("message %d seen already", n)
	}
	s.window |= 1 << behind
	return nil
}
