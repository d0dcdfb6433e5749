package api

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hostler-project/hostler/inventory"
)

// A Selector says which nodes are meant: any of Names (all nodes where there are none) that also fulfils every Filter.
// Its text is terms joined by commas: n1, gpu[001-072], a serial or MAC, rack=r12, sku=h100, state=ready.
type Selector struct {
	Names   []string
	Filters map[string][]string
}

// maxNames bounds what a range may expand to.
const maxNames = 16384

// filters are the words that can stand before "=", and what they look at.
var filters = map[string]func(inventory.Public) string{
	"name":   func(p inventory.Public) string { return p.Name },
	"id":     func(p inventory.Public) string { return p.ID },
	"sku":    func(p inventory.Public) string { return p.SKU },
	"rack":   func(p inventory.Public) string { return p.Rack },
	"slot":   func(p inventory.Public) string { return p.Slot },
	"state":  func(p inventory.Public) string { return string(p.State) },
	"health": func(p inventory.Public) string { return p.Health },
	"tenant": func(p inventory.Public) string { return p.Tenant },
	"rentable": func(p inventory.Public) string {
		if p.Rentable {
			return "yes"
		}
		return "no"
	},
}

// ParseSelector reads the text of a selector.
func ParseSelector(text string) (Selector, error) {
	sel := Selector{Filters: map[string][]string{}}
	for _, term := range splitTerms(text) {
		key, value, isFilter := strings.Cut(term, "=")
		if isFilter && filters[key] == nil {
			return sel, fmt.Errorf("selector: %.50q: there is no %q to select by; have %s", term, key, strings.Join(filterNames(), ", "))
		}
		if !isFilter {
			value = term
		}
		names, err := expand(value)
		if err != nil {
			return sel, err
		}
		if isFilter {
			sel.Filters[key] = append(sel.Filters[key], names...)
		} else {
			sel.Names = append(sel.Names, names...)
		}
		if len(sel.Names) > maxNames {
			return sel, fmt.Errorf("selector: more than %d names", maxNames)
		}
	}
	return sel, nil
}

func filterNames() []string {
	var names []string
	for k := range filters {
		names = append(names, k)
	}
	slices.Sort(names)
	return names
}

// matches says whether a node fulfils every filter. Values of one word are alternatives: state=ready,state=in-use.
func (s Selector) matches(p inventory.Public) bool {
	for key, values := range s.Filters {
		if !slices.Contains(values, filters[key](p)) {
			return false
		}
	}
	return true
}

// splitTerms cuts at commas and blanks outside brackets.
func splitTerms(text string) []string {
	depth := 0
	return strings.FieldsFunc(text, func(r rune) bool {
		switch r {
		case '[':
			depth++
		case ']':
			depth--
		}
		return depth <= 0 && (r == ',' || r == ' ')
	})
}

// expand writes out bracket ranges: gpu[001-003,7] is gpu001 gpu002 gpu003 gpu7. Width is that of the first number.
func expand(pattern string) ([]string, error) {
	open := strings.IndexByte(pattern, '[')
	if open < 0 {
		if strings.ContainsRune(pattern, ']') {
			return nil, fmt.Errorf("selector: %.50q: ']' without '['", pattern)
		}
		return []string{pattern}, nil
	}
	length := strings.IndexByte(pattern[open:], ']')
	if length < 0 {
		return nil, fmt.Errorf("selector: %.50q: '[' without ']'", pattern)
	}
	rest, err := expand(pattern[open+length+1:])
	if err != nil {
		return nil, err
	}
	var out []string
	for _, part := range strings.Split(pattern[open+1:open+length], ",") {
		from, to, ranged := strings.Cut(part, "-")
		if !ranged {
			to = from
		}
		a, err1 := strconv.Atoi(from)
		b, err2 := strconv.Atoi(to)
		if cmp.Or(err1, err2) != nil || a > b {
			return nil, fmt.Errorf("selector: %.50q: %q is no range; write gpu[001-072]", pattern, part)
		}
		if (b-a+1)*len(rest) > maxNames {
			return nil, fmt.Errorf("selector: %.50q: more than %d names", pattern, maxNames)
		}
		for n := a; n <= b; n++ {
			for _, tail := range rest {
				out = append(out, fmt.Sprintf("%s%0*d%s", pattern[:open], len(from), n, tail))
			}
		}
	}
	return out, nil
}

// Natural compares names as people count: gpu9 before gpu10.
func Natural(a, b string) int {
	for a != "" && b != "" {
		na, nb := digits(a), digits(b)
		if na > 0 && nb > 0 {
			x, y := strings.TrimLeft(a[:na], "0"), strings.TrimLeft(b[:nb], "0")
			if c := cmp.Or(cmp.Compare(len(x), len(y)), cmp.Compare(x, y), cmp.Compare(na, nb)); c != 0 {
				return c
			}
			a, b = a[na:], b[nb:]
			continue
		}
		if a[0] != b[0] {
			return cmp.Compare(a[0], b[0])
		}
		a, b = a[1:], b[1:]
	}
	return cmp.Compare(len(a), len(b))
}

func digits(s string) int {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return n
}
