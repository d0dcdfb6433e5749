package bmc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"time"

	ipmi "github.com/bougou/go-ipmi/pkg/client"
	"github.com/bougou/go-ipmi/pkg/types"
)

// An Error says which controller refused what, and whether asking again can
// help.
type Error struct {
	Op          string        // what we asked, e.g. "set boot device"
	Addr        string        // whom we asked, host:port
	Temporary   bool          // the controller may do it if asked later
	Unconfirmed bool          // it may or may not have happened: the controller's answers do not settle it
	Credentials bool          // the login was refused, or would be: asking again with the same credential is no use
	Foreign     bool          // the controller sits in another machine than expected; nothing was done
	After       time.Duration // it is not asked again before; 0 means not known
	Hint        string        // what a person can do about it; may be empty
	Err         error
}

// Error says what was tried, on what, what happened, and the hint.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "bmc %s: %s: ", e.Addr, e.Op)
	if e.Unconfirmed {
		b.WriteString("unconfirmed: ")
	}
	fmt.Fprint(&b, e.Err)
	if e.Hint != "" {
		fmt.Fprintf(&b, " (%s)", e.Hint)
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// A meaning is what a code from the controller tells a caller and a person.
type meaning struct {
	temporary, credentials bool
	hint                   string
}

var (
	fullHouse  = meaning{temporary: true, hint: "all its sessions are taken; unused ones end after a minute"}
	mixedUp    = meaning{temporary: true, hint: "it mixed up two logins, as slow controllers do"}
	noSuchUser = meaning{credentials: true, hint: "it does not know this user, or the user may not log in over the network"}
	notAdmin   = meaning{credentials: true, hint: "the user needs administrator privilege on the LAN channel"}
	otherSuite = meaning{hint: "it does not speak this cipher suite: name 17 instead of 3, or 3 instead of 17"}
	busy       = meaning{temporary: true, hint: "it is busy"}
	starting   = meaning{temporary: true, hint: "it is starting or updating itself"}
	lacking    = meaning{hint: "it does not have this function"}
)

// loginCodes are the RMCP+ status codes of session setup that mean more than
// their text (IPMI v2.0 table 13-15).
var loginCodes = map[types.RmcpStatusCode]meaning{
	types.RmcpStatusCodeNoResToCreateSess:          fullHouse,
	types.RmcpStatusCodeNoResToCreateSessAtRole:    fullHouse,
	types.RmcpStatusCodeInvalidSessionID:           mixedUp,
	types.RmcpStatusCodeInactiveSessionID:          mixedUp,
	types.RmcpStatusCodeInvalidIntegrityCheckValue: mixedUp,
	types.RmcpStatusCodeUnauthorizedName:           noSuchUser,
	types.RmcpStatusCodeInvalidNameLength:          noSuchUser,
	types.RmcpStatusCodeUnauthorizedGUID:           noSuchUser,
	types.RmcpStatusCodeInvalidRole:                notAdmin,
	types.RmcpStatusCodeUnauthorizedRoleOfPriLevel: notAdmin,
	types.RmcpStatusCodeNoCipherSuiteMatch:         otherSuite,
	types.RmcpStatusCodeInvalidAuthAlg:             otherSuite,
	types.RmcpStatusCodeInvalidIntegrityAlg:        otherSuite,
	types.RmcpStatusCodeInvalidConfidentAlg:        otherSuite,
	types.RmcpStatusCodeNoMatchingAuthPayload:      otherSuite,
	types.RmcpStatusCodeNoMatchingIntegrityPayload: otherSuite,
}

// answerCodes are the same for commands (IPMI v2.0 table 5-2).
var answerCodes = map[types.CompletionCode]meaning{
	types.CodeOK:                                  {temporary: true, hint: "it sent an answer that makes no sense"}, // go-ipmi's code for an answer it could not read
	types.CodeNodeBusy:                            busy,
	types.CodeProcessTimeout:                      busy,
	types.CodeOutOfSpace:                          busy,
	types.CodeCannotProvideResponse:               busy,
	types.CodeCannotProvideResponseSDRRInUpdate:   busy,
	types.CodeDestinationUnavailable:              busy,
	types.CodeCannotProvideResponseFirmwareUpdate: starting,
	types.CodeCannotProvideResponseBMCInitialize:  starting,
	types.CodeInsufficientPrivilege:               notAdmin,
	types.CodeInvalidCommand:                      lacking,
	types.CodeInvalidCommandForLUN:                lacking,
	types.CodeParameterNotSupported:               lacking,
}

// explain turns what go-ipmi and the network said into an *Error.
func explain(op, addr string, err error) *Error {
	if known, ok := errors.AsType[*Error](err); ok {
		return known
	}
	e := &Error{Op: op, Addr: addr, Err: err}
	var m meaning
	if status, ok := errors.AsType[*types.RmcpStatusError](err); ok {
		m = loginCodes[status.StatusCode()]
	} else if code, ok := types.IsResponseError(err); ok {
		m = answerCodes[code.CompletionCode()]
	} else if errors.Is(err, context.Canceled) {
		m = meaning{temporary: true}
	} else if errors.Is(err, ipmi.ErrRAKPAuthentication) {
		m = meaning{credentials: true, hint: "set the right one with: hostler bmc credential set"}
		e.Err = reworded{"the password is not the one it knows", err}
	} else if errors.Is(err, syscall.ECONNREFUSED) {
		m = meaning{temporary: true, hint: "is IPMI over LAN enabled, and is this the controller's address?"}
		e.Err = reworded{"nothing listens there", err}
	} else if isType[*net.DNSError](err) {
		m = meaning{temporary: true, hint: "correct its name, or give its address"}
	} else if silent(err) {
		m = meaning{temporary: true, hint: "look at the management network, or reset the controller if it answers ping"}
		e.Err = reworded{"no answer", err}
	} else {
		m = meaning{temporary: true}
	}
	e.Temporary, e.Credentials, e.Hint = m.temporary, m.credentials, m.hint
	return e
}

// A reworded error says the same in fewer words, and unwraps to the original.
type reworded struct {
	text string
	err  error
}

func (e reworded) Error() string { return e.text }
func (e reworded) Unwrap() error { return e.err }

func isType[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// silent tells whether err is that nothing came back. The text is that of an
// error which go-ipmi does not export.
func silent(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout() || strings.Contains(err.Error(), "no datagram matched") ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, syscall.ECONNREFUSED)
}

// unanswered tells whether err leaves open what the controller thinks of the
// session: anything but a proper answer of its own.
func unanswered(err error) bool {
	if isType[*Error](err) {
		return false // ours, about an answer
	}
	if code, ok := types.IsResponseError(err); ok {
		return code.CompletionCode() == types.CodeOK
	}
	return !isType[*types.RmcpStatusError](err) && !errors.Is(err, ipmi.ErrRAKPAuthentication)
}
