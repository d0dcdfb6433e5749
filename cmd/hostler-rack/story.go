package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/hostler-project/hostler/internal/rack"
	"github.com/hostler-project/hostler/internal/story"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// demo is what make rack runs.
func demo(name *string) *cobra.Command {
	var images string
	c := &cobra.Command{
		Use:   "demo",
		Short: "Show Hostler at work in a rack of its own, until Ctrl-C",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			config := rack.Config{Name: *name}
			if *name == plainName {
				config.Ports = usualPorts
			}
			return tell(c, config, images, "", func(ctx context.Context, s *story.Story) error { return s.Demo(ctx) })
		},
	}
	c.Flags().StringVar(&images, "images", "out/images", "what make images made")
	return c
}

// bench is what make bench-handoff runs.
func bench() *cobra.Command {
	var images string
	c := &cobra.Command{
		Use:   "bench-handoff",
		Short: "Measure a hand-over by kexec against one by reboot, on the same machine, in turn",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return tell(c, rack.Config{Name: randomName()}, images, "-", func(ctx context.Context, s *story.Story) error { return s.BenchHandoff(ctx) })
		},
	}
	c.Flags().StringVar(&images, "images", "out/images", "what make images made")
	return c
}

func randomName() string { return fmt.Sprintf("test%05d", rand.IntN(100000)) }

// storyCommand is what make rack-test runs: in a rack with a name of its own, beside whatever else runs.
func storyCommand(name *string) *cobra.Command {
	var images, stages string
	c := &cobra.Command{
		Use:   "story",
		Short: "Tell the whole story of two servers, asserted; exit 0 only if all of it holds",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			config := rack.Config{Name: *name}
			if !c.Flags().Changed("name") && os.Getenv("RACK") == "" {
				config.Name = randomName()
			}
			return tell(c, config, images, stages, func(ctx context.Context, s *story.Story) error { return s.Test(ctx) })
		},
	}
	c.Flags().StringVar(&images, "images", "out/images", "what make images made")
	c.Flags().StringVar(&stages, "stages", "", "file for the seconds of each stage, JSON")
	return c
}

// tell builds a rack, tells a story in it, and takes the rack down again, whatever happened. Ctrl-C is a good end of a
// demo.
func tell(c *cobra.Command, config rack.Config, images, stages string, f func(context.Context, *story.Story) error) (err error) {
	ctx := c.Context()
	config.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	if config.Glue, err = os.Executable(); err != nil {
		return err
	}
	r, err := rack.Up(ctx, config)
	if err != nil {
		return err
	}
	defer func() {
		keep := ""
		if err != nil && ctx.Err() == nil {
			keep = "; logs are in " + r.Dir
		}
		if down := r.Down(); down != nil {
			err = errors.Join(err, down)
		}
		fmt.Fprintf(c.OutOrStdout(), "rack %s is down%s\n", r.Name, keep)
	}()
	s, err := story.New(ctx, story.Options{Rack: r, Bin: filepath.Dir(config.Glue), Images: images, Out: c.OutOrStdout(), Stages: stages,
		Live: term.IsTerminal(int(os.Stdout.Fd()))})
	if err == nil {
		err = f(ctx, s)
	}
	if ctx.Err() != nil && stages == "" {
		return nil
	}
	return err
}
