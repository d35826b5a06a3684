package main

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/cmd/updatectl/report"
	"github.com/updatectl/updatectl/cmd/usage"
)

func statusCommand(c *cli) *cobra.Command {
	var kernel bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what runs, what is staged, and how the last switch ended",
		Args:  usage.Arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := c.anyway()
			if err != nil {
				return err
			}
			if kernel {
				k, err := a.Kernel(cmd.Context())
				if err != nil {
					return err
				}
				return c.print("status.kernel", k, func(w io.Writer) { report.Kernel(w, k) })
			}
			s, err := a.Status(cmd.Context())
			if err != nil {
				return err
			}
			return c.print("status", s, func(w io.Writer) { report.Status(w, s) })
		},
	}
	cmd.Flags().BoolVar(&kernel, "kernel", false, "show how the kernel differs from what the root wants")
	return cmd
}
