//go:build cgo

package main

import (
	"encoding/binary"
	"fmt"
	"math"

	driver "github.com/NVIDIA/go-nvml/pkg/nvml"

	wire "github.com/hostler-project/hostler/health/nvml"
)

// sample reads everything that is due from every GPU. One that is lost or refuses does not stop the others.
func (l *lib) sample(r wire.Request) *wire.Sample {
	s := &wire.Sample{Count: l.enumerate(r.PCI, r.Skip, r.Slow)}
	for _, g := range l.gpus {
		if g.open {
			l.read(g, r.Slow || g.Values == nil)
		}
		w := g.GPU
		if w.State != wire.Present {
			w.Values, w.Links = nil, nil
		}
		s.GPUs = append(s.GPUs, w)
	}
	if r.Slow {
		s.System, s.Peers = l.system(), l.peers()
	}
	s.Events, s.Calls = l.events(), l.calls
	return s
}

// read asks one GPU. Slow values stay from the last time they were asked.
func (l *lib) read(g *gpu, slow bool) {
	if g.Values == nil {
		g.Values, g.Links = wire.Values{}, map[string][]wire.Value{}
	}
	if !g.events {
		g.Values["events"], g.events = l.register(g), true
	}
	for _, q := range questions {
		if !g.open {
			return // it was lost on the way
		}
		if q.slow && !slow {
			continue
		}
		if !l.hasAll(q.symbols) && q.or != nil {
			q = *q.or
		}
		if !l.hasAll(q.symbols) {
			for _, k := range q.keys {
				g.Values[k] = wire.NotSupported()
			}
			continue
		}
		l.ask(g, q)
	}
	if g.open {
		l.fields(g, slow)
	}
	if g.open {
		l.links(g)
	}
	g.Serial = g.Values.Text("serial")
}

// ask puts one question. A panic in the binding is that question's error, not the worker's end.
func (l *lib) ask(g *gpu, q question) {
	defer func() {
		if p := recover(); p != nil {
			l.page.End()
			for _, k := range q.keys {
				g.Values[k] = wire.Failed(fmt.Sprint("panic: ", p))
			}
		}
	}()
	var out []wire.Value
	ret := l.call(q.symbols[0], g.Bus, func() (ret driver.Return) {
		out, ret = q.ask(g.dev)
		return ret
	})
	for i, k := range q.keys {
		if ret == driver.SUCCESS && i < len(out) {
			g.Values[k] = out[i]
		} else {
			g.Values[k] = value(0, ret)
		}
	}
	l.lostBy(g, ret)
}

// lostBy notes when a call says that the whole GPU is gone.
func (l *lib) lostBy(g *gpu, ret driver.Return) {
	if ret == driver.ERROR_GPU_IS_LOST {
		l.note(g, ret)
	}
}

// fields asks for all readings that are fields, in one call.
func (l *lib) fields(g *gpu, slow bool) {
	var keys []string
	var fields []driver.FieldValue
	for _, r := range wire.Readings {
		if r.Field == 0 || r.Link || r.Slow && !slow {
			continue
		}
		keys = append(keys, r.Key)
		fields = append(fields, driver.FieldValue{FieldId: wire.FieldFor(r, l.major)})
	}
	for i, v := range l.fieldValues(g, fields) {
		g.Values[keys[i]] = v
	}
}

var fieldSymbols = []string{"nvmlDeviceGetFieldValues"}

// fieldValues asks for fields, in parcels: the library takes no more than a hundred at once.
func (l *lib) fieldValues(g *gpu, fields []driver.FieldValue) []wire.Value {
	out := make([]wire.Value, len(fields))
	const parcel = 64
	for from := 0; from < len(fields); from += parcel {
		part := fields[from:min(from+parcel, len(fields))]
		ret := driver.ERROR_FUNCTION_NOT_FOUND
		if l.hasAll(fieldSymbols) {
			ret = l.call("nvmlDeviceGetFieldValues", g.Bus, func() driver.Return { return g.dev.GetFieldValues(part) })
		}
		for i := range part {
			if ret == driver.SUCCESS {
				out[from+i] = fieldValue(part[i])
			} else {
				out[from+i] = value(0, ret)
			}
		}
		if l.lostBy(g, ret); !g.open {
			return out[:from]
		}
	}
	return out
}

// fieldValue is the number in a field, by the type that the driver says it has. A field that a driver has no number for
// is an invalid argument to it: not supported.
func fieldValue(f driver.FieldValue) wire.Value {
	ret := driver.Return(f.NvmlReturn)
	if ret == driver.ERROR_INVALID_ARGUMENT {
		return wire.NotSupported()
	}
	if ret != driver.SUCCESS {
		return value(0, ret)
	}
	raw := f.Value[:]
	switch driver.ValueType(f.ValueType) {
	case driver.VALUE_TYPE_DOUBLE:
		return wire.Number(int64(math.Float64frombits(binary.NativeEndian.Uint64(raw))))
	case driver.VALUE_TYPE_UNSIGNED_INT:
		return wire.Number(int64(binary.NativeEndian.Uint32(raw)))
	case driver.VALUE_TYPE_SIGNED_INT:
		return wire.Number(int64(int32(binary.NativeEndian.Uint32(raw))))
	case driver.VALUE_TYPE_UNSIGNED_SHORT:
		return wire.Number(int64(binary.NativeEndian.Uint16(raw)))
	}
	return number(binary.NativeEndian.Uint64(raw))
}

// number keeps what does not fit a signed number at its largest: a counter that says so has wrapped.
func number(n uint64) wire.Value { return wire.Number(int64(min(n, math.MaxInt64))) }

// value is a number, unless the code says otherwise.
func value(n uint64, ret driver.Return) wire.Value {
	switch ret {
	case driver.SUCCESS:
		return number(n)
	case driver.ERROR_NOT_SUPPORTED, driver.ERROR_FUNCTION_NOT_FOUND, driver.ERROR_ARGUMENT_VERSION_MISMATCH, driver.ERROR_DEPRECATED:
		return wire.NotSupported()
	}
	return wire.Failed(text(ret))
}

// hasAll says whether the library has all symbols: calling one that it lacks would end the process.
func (l *lib) hasAll(symbols []string) bool {
	for _, s := range symbols {
		if !l.has[s] {
			return false
		}
	}
	return true
}
