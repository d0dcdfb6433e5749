package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/hostler-project/hostler/inventory"
	"github.com/hostler-project/hostler/inventory/client"
)

// waiting are the flags of verbs that can wait for their end.
type waiting struct {
	wait    bool
	timeout time.Duration
}

func (w *waiting) flags(f *pflag.FlagSet, until string) {
	f.BoolVar(&w.wait, "wait", false, "show progress "+until)
	f.DurationVar(&w.timeout, "timeout", time.Hour, "with --wait: how long (exit code 4)")
}

func (w waiting) context(c *cobra.Command) (context.Context, context.CancelFunc) {
	if !w.wait {
		return context.WithCancel(c.Context())
	}
	return context.WithTimeout(c.Context(), w.timeout)
}

// look is the pause between two looks at what is waited for.
const look = time.Second

// poll calls f until it is done, fails, or the time is up. What f says is printed when it changes. A daemon that does
// not answer is waited for: it may have been started anew, and what was asked for goes on.
func (a *app) poll(ctx context.Context, f func() (say string, done bool, err error)) error {
	last := ""
	for {
		say, done, err := f()
		if err != nil && ctx.Err() != nil {
			return tooLong(ctx, last)
		}
		var away *client.Error
		if errors.As(err, &away) && (away.Status == 0 || away.Status >= http.StatusInternalServerError) {
			say, done, err = "no answer yet: "+away.Detail, false, nil
		}
		if say != last && say != "" {
			fmt.Fprintln(a.err, time.Now().Format("15:04:05"), say)
			last = say
		}
		if done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return tooLong(ctx, last)
		case <-time.After(look):
		}
	}
}

// tooLong says why a wait ended before its end: the time was up, or somebody pressed Ctrl-C.
func tooLong(ctx context.Context, last string) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fail(exitTimeout, "hostler why NODE; a longer --timeout", "the time is up, what was asked for goes on; last seen: %s", cmp.Or(last, "nothing"))
	}
	return ctx.Err()
}

// answered waits for the answer of a wish.
func (a *app) answered(ctx context.Context, cl *client.Client, w inventory.Wish) (inventory.Wish, error) {
	err := a.poll(ctx, func() (string, bool, error) {
		now, err := cl.WishAnswer(ctx, w.Node, w.ID)
		if err != nil {
			return "", false, err
		}
		switch w = now; w.Answer {
		case "", inventory.Doing:
			return "", false, nil
		case inventory.DoneOK:
			return "", true, nil
		}
		return "", true, fail(exitRefused, "hostler why "+w.Node, "%s was %s: %s", w.Verb, w.Answer, w.Detail)
	})
	return w, err
}

// until waits for a node to be in a state; quarantine is the end of any other way there.
func (a *app) until(ctx context.Context, cl *client.Client, node string, want inventory.State) error {
	return a.poll(ctx, func() (string, bool, error) {
		w, err := cl.Why(ctx, node)
		if err != nil {
			return "", false, err
		}
		say := fmt.Sprintf("%s %s: %s%s", w.Name, w.State, w.Waits, percent(w.Progress))
		switch w.State {
		case want:
			return say, true, nil
		case inventory.Quarantined:
			return say, true, fail(exitFailed, "hostler why "+w.Name, "%s is quarantined: %s", w.Name, w.Reason)
		}
		return say, false, nil
	})
}

// confirm asks a person. Without one (no terminal) the answer is no.
func (a *app) confirm(format string, v ...any) error {
	what := fmt.Sprintf(format, v...)
	f, ok := a.in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return fail(exitUsage, "--dry-run to look, --yes to do it", "this would %s; nobody is here to confirm it", what)
	}
	fmt.Fprintf(a.err, "This will %s. Go on? [y/N] ", what)
	line, err := bufio.NewReader(a.in).ReadString('\n')
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if s := strings.ToLower(strings.TrimSpace(line)); s != "y" && s != "yes" {
		return &failure{exitFailed, errNotAsked, ""}
	}
	return nil
}
