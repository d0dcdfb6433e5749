package main

import (
	"fmt"
	"os"

	standin "github.com/hostler-project/hostler/internal/standin/nvml"
	"github.com/spf13/cobra"
)

// gpus writes a folder of stand-in GPUs, to rehearse faults on: docs/rehearse-gpu-faults.md.
func gpus() *cobra.Command {
	var shape string
	var count int
	c := &cobra.Command{
		Use:   "gpus DIR",
		Short: "Build a stand-in for the NVIDIA library, and a new folder with the state of its GPUs",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			dir := args[0]
			if err := os.Mkdir(dir, 0o755); err != nil {
				return fmt.Errorf("a new folder is needed: %w", err)
			}
			library, err := standin.Build(c.Context(), dir)
			if err != nil {
				return err
			}
			m, err := standin.New(dir, shape, count)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "export %s\nhostler-nvml once --library %s\n", m.Env(), library)
			return err
		},
	}
	c.Flags().StringVar(&shape, "shape", "H100", "A100, H100, H200, B200 or H100-PCIe")
	c.Flags().IntVar(&count, "count", 8, "how many GPUs, 1 to 16")
	return c
}
