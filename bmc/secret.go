package bmc

import (
	"fmt"
	"io"
	"log/slog"
)

// A Secret is a string that does not print: every way of formatting or
// encoding it gives the same mask, so that it cannot end in a log, an error or
// a record by accident.
type Secret string

const mask = "********"

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return string(s) }

// String returns the mask.
func (s Secret) String() string { return mask }

// GoString returns the mask, for %#v.
func (s Secret) GoString() string { return mask }

// Format writes the mask whatever the verb; %x of a string would spell it out.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, mask) }

// MarshalJSON encodes the mask.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + mask + `"`), nil }

// MarshalText encodes the mask.
func (s Secret) MarshalText() ([]byte, error) { return []byte(mask), nil }

// LogValue logs the mask.
func (s Secret) LogValue() slog.Value { return slog.StringValue(mask) }
