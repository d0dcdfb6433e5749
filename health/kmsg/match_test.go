package kmsg

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/hostler-project/hostler/health"
)

// corpus is the lines of testdata/corpus.txt with what they mean.
func corpus(t testing.TB) (lines, means []string) {
	t.Helper()
	b, err := os.ReadFile("testdata/corpus.txt")
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(b)) {
		switch l = strings.TrimSuffix(l, "\n"); {
		case strings.HasPrefix(l, "#"):
		case strings.HasPrefix(l, "\t"):
			means = append(means, l[1:])
		default:
			lines = append(lines, strings.ReplaceAll(l, `\n`, "\n"))
		}
	}
	if len(lines) != len(means) || len(lines) < 90 {
		t.Fatalf("corpus: %d lines, %d meanings", len(lines), len(means))
	}
	return lines, means
}

func told(s health.Signal, ok bool) string {
	if !ok {
		return "-"
	}
	out := s.Incident()
	say := func(when bool, format string, a ...any) {
		if when {
			out += " " + fmt.Sprintf(format, a...)
		}
	}
	say(s.Value != "", "%s", s.Value)
	say(s.Mark != health.Event, "%s", s.Mark)
	say(len(s.Words) > 0, "words=%d", len(s.Words))
	say(s.More > 0, "more=%d", s.More)
	say(s.Who != "", "who=%s", s.Who)
	return out
}

func TestCorpus(t *testing.T) {
	lines, means := corpus(t)
	m, rules := NewMatcher(), health.Rules()
	for i, l := range lines {
		s, ok := m.Match(l)
		if got := told(s, ok); got != means[i] {
			t.Errorf("%s\n got %s\nwant %s", l, got, means[i])
		}
		if !ok {
			continue
		}
		if s.Line != l {
			t.Errorf("evidence %q of %q", s.Line, l)
		}
		if _, known := rules[s.Rule()]; !known && s.Mark != health.Ended && s.Code != "999" {
			t.Errorf("%s: no table has the rule %s", l, s.Rule())
		}
	}
}

// Every pattern of the table is met by a line of the corpus.
func TestEveryPatternIsInTheCorpus(t *testing.T) {
	lines, _ := corpus(t)
	for _, p := range patterns() {
		met := false
		for _, l := range lines {
			met = met || strings.Contains(l, p.literal) && p.expr.MatchString(l)
		}
		if !met {
			t.Errorf("no line of the corpus meets %s", p.expr)
		}
	}
}

// The records of a log are what anybody can make a driver print: no line may end the reader.
func FuzzMatch(f *testing.F) {
	lines, _ := corpus(f)
	for _, l := range lines {
		f.Add([]byte("4,1,2,-;" + l))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		rec, text, err := header(b)
		if err != nil {
			return
		}
		line := unescape(text)
		hash(text)
		s, ok := NewMatcher().Match(line)
		if ok && (s.Check == "" || s.Part.Key() == "" || s.Mark == "") {
			t.Errorf("%d: %q means %+v", rec.seq, line, s)
		}
	})
}

func BenchmarkMatch(b *testing.B) {
	m := NewMatcher()
	for _, c := range []struct{ name, line string }{
		{"xid", "NVRM: Xid (PCI:0000:3b:00): 95, pid=7062, name=python3, Uncontained: LTC TAG (0x2, 0x1). RST: Yes, D-RST: No"},
		{"nothing", "systemd[1]: Started Daily apt download activities of this machine, and so on and so forth."},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				m.Match(c.line)
			}
		})
	}
}
