package mutants

// Environment names the mutant that is awake in a run.
const Environment = "HOSTLER_MUTANT"

// switchSource is the file that is added to the package: what the instrumented places ask.
const switchSource = `package %s

import (
	"os"
	"strconv"

	"github.com/hostler-project/hostler/inventory"
)

var mutant, _ = strconv.Atoi(os.Getenv("` + Environment + `"))

func mutantNot(id int, v bool) bool { return v != (mutant == id) }

func mutantEdge(id int, v, equal bool) bool { return v != (mutant == id && equal) }

func mutantAnd(id int, x bool, y func() bool) bool {
	if mutant == id {
		return x || y()
	}
	return x && y()
}

func mutantOr(id int, x bool, y func() bool) bool {
	if mutant == id {
		return x && y()
	}
	return x || y()
}

func mutantKeep(ids []int, conds ...inventory.Cond) []inventory.Cond {
	var out []inventory.Cond
	for i, c := range conds {
		if ids[i] != mutant {
			out = append(out, c)
		}
	}
	return out
}

func mutantDrop(id int, conds []inventory.Cond) []inventory.Cond {
	if mutant == id {
		return nil
	}
	return conds
}
`
