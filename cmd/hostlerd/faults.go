package main

import (
	"fmt"
	"log/slog"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

type logLevel = slog.Level

// allFaults shows every misspelt key of a file, each with line, column and what was probably meant. When no key is
// misspelt, the decoder's own fault (a wrong type, broken YAML) is shown with its excerpt.
func allFaults(b []byte, decode error) string {
	f, err := parser.ParseBytes(b, 0)
	if err != nil || len(f.Docs) == 0 {
		return yaml.FormatError(decode, false, true)
	}
	var out []string
	misspelt(f.Docs[0].Body, reflect.TypeFor[Config](), "", &out)
	if len(out) == 0 {
		return yaml.FormatError(decode, false, true)
	}
	return strings.Join(out, "\n")
}

// misspelt walks a node of the file beside the type that it is read into.
func misspelt(n ast.Node, t reflect.Type, path string, out *[]string) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch node := n.(type) {
	case *ast.SequenceNode:
		if t.Kind() == reflect.Slice {
			for _, v := range node.Values {
				misspelt(v, t.Elem(), path+"[]", out)
			}
		}
	case *ast.MappingValueNode:
		misspeltPair(node, t, path, out)
	case *ast.MappingNode:
		for _, v := range node.Values {
			misspeltPair(v, t, path, out)
		}
	}
}

func misspeltPair(v *ast.MappingValueNode, t reflect.Type, path string, out *[]string) {
	if t.Kind() != reflect.Struct {
		return
	}
	key := v.Key.GetToken().Value
	var names []string
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
		if name == key {
			misspelt(v.Value, t.Field(i).Type, within(path, key), out)
			return
		}
		if name != "" && name != "-" {
			names = append(names, name)
		}
	}
	at := v.Key.GetToken().Position
	*out = append(*out, fmt.Sprintf("  line %d, column %d: %s is not a key; the keys here are %s", at.Line, at.Column, within(path, key), strings.Join(names, ", ")))
}

func within(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// saysNothing is true for a file without a single key. The decoder would take it as null, and wipe the defaults.
func saysNothing(b []byte) bool {
	f, err := parser.ParseBytes(b, 0)
	if err != nil {
		return false
	}
	for _, d := range f.Docs {
		if d.Body != nil && d.Body.Type() != ast.NullType && d.Body.Type() != ast.CommentType {
			return false
		}
	}
	return true
}
