package inventory

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"unicode"
)

// Schema is the newest schema number this program writes. A record with a newer one is read, never rewritten.
const Schema = 1

// MaxRecord bounds one record. Most stay far below 64 KiB (a sealed seed is the largest, 48 KiB in base64); a transaction
// of all records of a node must stay below the 1.5 MiB that etcd takes, whatever an agent reports.
const MaxRecord = 128 << 10

// ErrNewer says that a record was written by a newer version: this one must not rewrite it.
var ErrNewer = errors.New("inventory: the record has a newer schema than this program knows; upgrade hostlerd")

// A Doc is a record together with where and as of when it was read. KV holds it as it was, with the fields that this
// version does not know: they survive a rewrite.
type Doc[T any] struct {
	V  T
	KV KV
}

// Exists says whether the record was there.
func (d Doc[T]) Exists() bool { return d.KV.Exists() }

// Unchanged is the condition that nobody wrote the record since it was read.
func (d Doc[T]) Unchanged() Cond { return Unchanged(d.KV) }

// Decode reads a record. A missing key gives a Doc that does not Exist.
func Decode[T any](kv KV) (Doc[T], error) {
	d := Doc[T]{KV: kv}
	if !kv.Exists() {
		return d, nil
	}
	if err := json.Unmarshal(kv.Value, &d.V); err != nil {
		return d, fmt.Errorf("inventory: record %s is not what it should be: %v", kv.Key, err)
	}
	if text := bytes.TrimLeft(kv.Value, " \t\r\n"); len(text) == 0 || text[0] != '{' {
		return d, fmt.Errorf("inventory: record %s is not a JSON object", kv.Key)
	}
	if n := schemaOf(d.V, kv.Value); n > Schema {
		return d, fmt.Errorf("%s (schema %d): %w", kv.Key, n, ErrNewer)
	}
	return d, nil
}

// schemaOf is a record's schema number: from the field where its type has one, for a node's view decodes a dozen records
// and is made at every decision.
func schemaOf(v any, text []byte) int {
	if r := reflect.ValueOf(v); r.Kind() == reflect.Struct {
		if f := r.FieldByName("Schema"); f.IsValid() && f.CanInt() {
			return int(f.Int())
		}
	}
	var s struct {
		Schema int `json:"schema"`
	}
	_ = json.Unmarshal(text, &s) // an object already: checked above
	return s.Schema
}

// Put encodes v in place of the record, keeping the top-level fields that this version does not know.
func (d Doc[T]) Put(v T) (Op, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return Op{}, fmt.Errorf("inventory: encode %s: %v", d.KV.Key, err)
	}
	if len(d.KV.Value) > 0 {
		if b, err = keepUnknown[T](b, d.KV.Value); err != nil {
			return Op{}, fmt.Errorf("inventory: encode %s: %v", d.KV.Key, err)
		}
	}
	if len(b) > MaxRecord {
		return Op{}, fmt.Errorf("inventory: record %s would have %d bytes: at most %d", d.KV.Key, len(b), MaxRecord)
	}
	return Op{Key: d.KV.Key, Value: b}, nil
}

// Plain makes words from outside fit to be kept and shown: what a terminal would obey becomes a space, what is longer
// than a person reads is cut.
func Plain(s string, most int) string {
	return clip(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s), most)
}

func keepUnknown[T any](fresh, old []byte) ([]byte, error) {
	var now, raw map[string]json.RawMessage
	if err := json.Unmarshal(fresh, &now); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(old, &raw); err != nil {
		return nil, err
	}
	// What the old value held and T knows comes from the fresh value alone: an emptied omitempty field must vanish.
	changed := false
	for k, v := range raw {
		if _, have := now[k]; have || known[T](k) {
			continue
		}
		now[k] = v
		changed = true
	}
	if !changed {
		return fresh, nil
	}
	return json.Marshal(now)
}

// known says whether T has a field of that name. The field's value plays no part: what a newer version added inside it
// must not make it a stranger, and keep it for ever.
func known[T any](key string) bool {
	one, err := json.Marshal(map[string]any{key: nil})
	if err != nil {
		return false
	}
	var v T
	d := json.NewDecoder(bytes.NewReader(one))
	d.DisallowUnknownFields()
	return d.Decode(&v) == nil
}

// Encode is for records written for the first time under key.
func Encode[T any](key string, v T) (Op, error) { return Doc[T]{KV: KV{Key: key}}.Put(v) }

// Delete is the operation that removes a key.
func Delete(key string) Op { return Op{Key: key} }
