package nvml

import (
	"bytes"
	"encoding/json"
	"strconv"
)

// A Value is what the driver said when it was asked once: a number, a text, "not supported", or the error it gave instead.
// The zero Value is the number 0; what was never asked is absent from the map that would hold it.
type Value struct {
	N           int64
	S           string
	Unsupported bool
	Err         string
}

// Number is a Value that is a number.
func Number(n int64) Value { return Value{N: n} }

// Text is a Value that is a text, such as a serial.
func Text(s string) Value { return Value{S: s} }

// NotSupported is what this GPU or this driver does not know: it says nothing about health, least of all that it is good.
func NotSupported() Value { return Value{Unsupported: true} }

// Failed is an answer that should have come and did not.
func Failed(err string) Value { return Value{Err: err} }

// OK says whether the driver answered with something.
func (v Value) OK() bool { return !v.Unsupported && v.Err == "" }

// String is for people.
func (v Value) String() string {
	switch {
	case v.Unsupported:
		return "not supported"
	case v.Err != "":
		return "error: " + v.Err
	case v.S != "":
		return v.S
	}
	return strconv.FormatInt(v.N, 10)
}

// MarshalJSON writes 42, "text", null for not supported, {"err":"…"}: a sample holds a thousand of these.
func (v Value) MarshalJSON() ([]byte, error) {
	switch {
	case v.Unsupported:
		return []byte("null"), nil
	case v.Err != "":
		return json.Marshal(map[string]string{"err": v.Err})
	case v.S != "":
		return json.Marshal(v.S)
	}
	return strconv.AppendInt(nil, v.N, 10), nil
}

// UnmarshalJSON reads what MarshalJSON writes.
func (v *Value) UnmarshalJSON(b []byte) error {
	*v = Value{}
	switch {
	case bytes.Equal(b, []byte("null")):
		v.Unsupported = true
	case len(b) > 0 && b[0] == '"':
		return json.Unmarshal(b, &v.S)
	case len(b) > 0 && b[0] == '{':
		var e struct{ Err string }
		err := json.Unmarshal(b, &e)
		v.Err = e.Err
		return err
	default:
		n, err := strconv.ParseInt(string(b), 10, 64)
		v.N = n
		return err
	}
	return nil
}

// Values are one GPU's answers by the key of the Reading; each key that was asked is there.
type Values map[string]Value

// Number is a key's number; false when it was not asked, is not supported, or failed.
func (v Values) Number(key string) (int64, bool) {
	x, ok := v[key]
	return x.N, ok && x.OK()
}

// Text is a key's text, "" when there is none.
func (v Values) Text(key string) string { return v[key].S }
