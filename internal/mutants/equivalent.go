package mutants

import "fmt"

// A twin is a mutant that no test can tell from the original, and why.
type twin struct {
	fn, code, text, what string // function, line, what stands there, what becomes of it
	why                  string
}

// twins are those that were looked at one by one. A row that fits no mutant any more is refused: it was excused for code
// that is gone.
var twins = []twin{
	{"gate", "current := v.Test.V.Generation == st.Generation || st.State == inventory.Ready && v.Test.V.Generation < st.Generation",
		"v.Test.V.Generation < st.Generation", "v.Test.V.Generation <= st.Generation",
		"a test of the same generation is let through by the comparison before it"},
	{"carry", "if err := put(t, &next.Reservation, *c.Reservation, true); err != nil {", "err != nil", "err == nil",
		"of the reservation: encoding one cannot fail, and nobody hands one in with a move that ends the claim"},
	{"Claim", "for try := 0; try < 64; try++ {", "try < 64", "try <= 64", "one more try, of sixty-four that all lost, is as good"},
}

// excuse marks the mutants that have a row.
func excuse(list []Mutant) error {
	for _, tw := range twins {
		found := false
		for i := range list {
			if m := &list[i]; m.Func == tw.fn && m.Code == tw.code && m.Text == tw.text && m.What == tw.what {
				m.Alike, found = tw.why, true
			}
		}
		if !found {
			return fmt.Errorf("mutants: no mutant of %s is %q → %q any more: take the row out of equivalent.go", tw.fn, tw.text, tw.what)
		}
	}
	return nil
}
