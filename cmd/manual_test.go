package cmd

import (
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// manual reads every page of the manual.
func manual(t *testing.T) map[string]string {
	t.Helper()
	pages := map[string]string{}
	for _, pattern := range []string{"README.md", "docs/*.md", "docs/*.yaml", "docs/decisions/*.md", "images/README.md"} {
		files, err := fs.Glob(os.DirFS(".."), pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			b, err := os.ReadFile(filepath.Join("..", f))
			if err != nil {
				t.Fatal(err)
			}
			pages[f] = string(b)
		}
	}
	if pages["README.md"] == "" || len(pages) < 10 {
		t.Fatalf("the manual has only %d pages: the test looks in the wrong place", len(pages))
	}
	return pages
}

var (
	link    = regexp.MustCompile(`\]\(([^)#\s]+)(?:#[^)]*)?\)`)
	private = regexp.MustCompile(`/work/|/tmp/w|/home/\w|/root/|\.internal\b|\.local\b|\b10\.0\.2\.\d+:\d+`)
	inCode  = regexp.MustCompile("(?m)`([^`\n]+)`|^    (.+)$")
	aCall   = regexp.MustCompile(`(?:^|[\s;(|/])(hostler|hostlerd|hostler-rack|hostler-agent) ([^|;&]+)`)
	aFlag   = regexp.MustCompile(`(?:^|\s)(--?[a-z][a-z-]*)`)
	aVerb   = regexp.MustCompile(`^[a-z][a-z-]*$`)
	fenced  = regexp.MustCompile("(?ms)^```(\\w+)\n(.*?)^```")
)

func TestManualPointsAtWhatIsThere(t *testing.T) {
	for page, text := range manual(t) {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join("..", path.Dir(page), m[1])); err != nil {
				t.Errorf("%s points at %s, which is not there", page, m[1])
			}
		}
		if p := private.FindString(text); p != "" {
			t.Errorf("%s has %q: the manual is for every machine", page, p)
		}
	}
}

// manualShows: every command that the manual shows exists, with these flags; every configuration in it is good.
func manualShows(t *testing.T, bin string) {
	seen := map[string]string{}
	usage := func(words ...string) string {
		key := strings.Join(words, " ")
		if seen[key] != "" {
			return seen[key]
		}
		out, err := exec.CommandContext(t.Context(), filepath.Join(bin, words[0]), append(words[1:], "--help")...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v --help: %v\n%s", words, err, out)
		}
		seen[key] = string(out)
		return seen[key]
	}
	calls := 0
	for page, text := range manual(t) {
		for _, line := range inCode.FindAllStringSubmatch(text, -1) {
			for _, m := range aCall.FindAllStringSubmatch(line[1]+line[2], -1) {
				said, _, _ := strings.Cut(m[2], " # ")
				calls++
				checkCall(t, page, m[1], said, usage)
			}
		}
		for _, m := range fenced.FindAllStringSubmatch(text, -1) {
			if m[1] == "yaml" {
				checkConfig(t, bin, page, m[2])
			}
		}
		if path.Ext(page) == ".yaml" {
			checkConfig(t, bin, page, text)
		}
	}
	if calls < 40 {
		t.Errorf("only %d commands were found in the manual: the test reads it wrongly", calls)
	}
}

// checkCall holds one command line of the manual against the program's own help.
func checkCall(t *testing.T, page, program, said string, usage func(...string) string) {
	words, known := []string{program}, strings.Fields(said)
	help := usage(program)
	for len(known) > 0 && aVerb.MatchString(known[0]) && strings.Contains(help, "[command]") {
		words, known = append(words, known[0]), known[1:]
		help = usage(words...)
		if !strings.Contains(help, strings.Join(words, " ")) {
			t.Errorf("%s: %q: there is no %s", page, program+" "+said, strings.Join(words, " "))
			return
		}
	}
	for _, f := range aFlag.FindAllStringSubmatch(strings.Join(known, " "), -1) {
		long := f[1]
		if !slices.ContainsFunc([]string{long + " ", long + ",", long + "\n"}, func(s string) bool { return strings.Contains(help, s) }) {
			t.Errorf("%s: %q: %s has no flag %s", page, program+" "+said, strings.Join(words, " "), long)
		}
	}
}

func checkConfig(t *testing.T, bin, page, text string) {
	file := filepath.Join(t.TempDir(), "site.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), filepath.Join(bin, "hostlerd"), "--config", file, "config", "check").CombinedOutput(); err != nil {
		t.Errorf("%s: its configuration is refused: %s", page, out)
	}
}
