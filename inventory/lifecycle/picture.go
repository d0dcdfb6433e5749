package lifecycle

import (
	"fmt"
	"strings"

	"github.com/hostler-project/hostler/inventory"
)

// Mermaid draws the table as a mermaid state diagram; docs/lifecycle.md holds exactly this text and a test compares.
// The quarantine, abort and restored rows of every state would hide the rest, so one note stands for them.
func Mermaid() string {
	var b strings.Builder
	b.WriteString("stateDiagram-v2\n")
	for _, e := range Edges {
		if e.On == Quarantine || e.On == Abort || e.On == Restored {
			continue
		}
		from := id(e.From)
		if e.From == "" {
			from = "[*]"
		}
		by := ""
		if e.By == API {
			by = " (API)"
		}
		fmt.Fprintf(&b, "    %s --> %s: %s%s\n", from, id(e.To), e.On, by)
	}
	b.WriteString("    note right of quarantined\n        from every state but in-use, servicing, draining and retired:\n        quarantine (alert, identity conflict, operator);\n        from every state that works: abort (operator)\n    end note\n    note right of fencing\n        restored (hostlerd restore): from every state in which\n        a tenant may have come since the backup\n    end note\n")
	return b.String()
}

// id writes a state's name as mermaid takes it: it reads a hyphen as an operator.
func id(s inventory.State) string { return strings.ReplaceAll(string(s), "-", "_") }

// Markdown is the table of states and edges for people.
func Markdown() string {
	var b strings.Builder
	b.WriteString("| state | means | deadline | step |\n|---|---|---|---|\n")
	for _, s := range States {
		d := "none"
		switch {
		case s.Posts > 0 && s.Deadline > 0:
			d = fmt.Sprintf("%v + boot ×%d", s.Deadline, s.Posts)
		case s.Posts > 0:
			d = fmt.Sprintf("boot ×%d", s.Posts)
		case s.Deadline > 0:
			d = s.Deadline.String()
		case s.Alarm > 0:
			d = fmt.Sprintf("none (told after %v)", s.Alarm)
		}
		step := s.Step
		if step == "" {
			step = "–"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", s.Name, s.Means, d, step)
	}
	b.WriteString("\n| from | on | to | who | trigger | also |\n|---|---|---|---|---|---|\n")
	for _, e := range Edges {
		from := string(e.From)
		if from == "" {
			from = "–"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", from, e.On, e.To, e.By, e.Why, e.Effects)
	}
	return b.String()
}

// String lists the effects in words.
func (e Effects) String() string {
	var out []string
	for _, f := range []struct {
		on   bool
		word string
	}{{e.Generation, "generation +1"}, {e.Taint, "taint"}, {e.Wipe, "wipe +1"}, {e.Clean, "taint gone"}, {e.EndClaim, "claim closed"}} {
		if f.on && e.Jump {
			f.word = strings.Replace(f.word, "+1", fmt.Sprintf("+%d", Jump), 1)
		}
		if f.on {
			out = append(out, f.word)
		}
	}
	return strings.Join(out, ", ")
}

// Page is docs/lifecycle.md, whole.
func Page() string {
	return "# The life of a node\n\nMade from `inventory/lifecycle/table.go` by `make docs`; a test compares. Do not edit by hand.\n\n```mermaid\n" +
		Mermaid() + "```\n\nBoot = the boot allowance: max(30 min, 1.5 × the SKU's p99 boot time).\n\n" + Markdown()
}
