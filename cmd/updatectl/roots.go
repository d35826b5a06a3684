package main

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/cmd/updatectl/report"
	"github.com/updatectl/updatectl/cmd/usage"
)

func rootsCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "roots",
		Short: "List every root, with its version, own size and state",
		Long: `List the host root and every staged root, with its version, when it was
staged, and what it is to this host. "updatectl switch ROOT" goes to any of
them.

OWN SIZE is the disk space of the files that no other root has: what removing
this root alone would free.`,
		Args: usage.Arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := c.anyway()
			if err != nil {
				return err
			}
			list, err := roots.ListAll(cmd.Context(), &a.Roots)
			if err != nil {
				return err
			}
			return c.print("roots", list, func(w io.Writer) { report.RootList(w, list) })
		},
	}
}
