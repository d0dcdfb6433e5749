package faults

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// fenceVerb makes the test binary a fence program: BINARY fence DIR VERB PORT [INSTANCE].
const fenceVerb = "fence"

// A FenceAct is one act of the fence program, as it noted it.
type FenceAct struct {
	At   time.Time `json:"at"`
	Verb string    `json:"verb"`
	Port string    `json:"port"` // the node's first MAC
	Term string    `json:"term"` // HOSTLER_TERM as it was given
	PPID int       `json:"ppid"`
}

type fencePlace struct {
	Port     string `json:"port"`
	Instance string `json:"instance"`
}

// fenceMain moves a port between places, which are files, and notes every act before it happens.
func fenceMain(args []string) int {
	if len(args) < 3 {
		fmt.Fprintln(os.Stderr, "fence: DIR VERB PORT [INSTANCE]")
		return 2
	}
	dir, verb, port := args[0], args[1], args[2]
	state := filepath.Join(dir, strings.ReplaceAll(port, ":", "-"))
	if verb == "observe" {
		b, err := os.ReadFile(state)
		if err != nil {
			b = []byte(`{"port":"provisioning","instance":""}`)
		}
		fmt.Println(string(b))
		return 0
	}
	line, err := json.Marshal(FenceAct{At: time.Now(), Verb: verb, Port: port, Term: os.Getenv("HOSTLER_TERM"), PPID: os.Getppid()})
	if err == nil {
		err = appendLine(filepath.Join(dir, "acts"), line)
	}
	p := fencePlace{Port: "isolated"}
	if verb == "attach" && len(args) > 3 && args[3] != "" {
		p = fencePlace{Port: "tenant", Instance: args[3]}
	} else if verb == "attach" {
		p = fencePlace{Port: "provisioning"}
	}
	b, merr := json.Marshal(p)
	tmp := state + "." + strconv.Itoa(os.Getpid())
	if err == nil && merr == nil {
		if err = os.WriteFile(tmp, b, 0o600); err == nil {
			err = os.Rename(tmp, state)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "fence:", err)
		return 1
	}
	return 0
}

func appendLine(path string, line []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write(append(line, '\n'))
	return err
}

// fenceActs reads what the fence program noted.
func fenceActs(dir string) ([]FenceAct, error) {
	f, err := os.Open(filepath.Join(dir, "acts"))
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []FenceAct
	for s := bufio.NewScanner(f); s.Scan(); {
		var a FenceAct
		if err := json.Unmarshal(s.Bytes(), &a); err != nil {
			return nil, fmt.Errorf("faults: fence acts: %w", err)
		}
		out = append(out, a)
	}
	return out, nil
}
