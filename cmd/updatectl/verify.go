package main

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/agent/recheck"
	"github.com/updatectl/updatectl/cmd/updatectl/report"
	"github.com/updatectl/updatectl/cmd/usage"
)

func verifyCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "verify [ROOT]",
		Short: "Check again, offline, who vouches for a root",
		Long: `Check again, offline, who vouches for a root, by the evidence kept when it was
staged and today's policy. ROOT is its identity or the beginning of it; without
it, the staged root is checked, or the one that runs. The files of the root are
not read.

Exit code 0: today's policy would accept the image. Exit code 20: it would not,
because a key was revoked or has expired, or the evidence is missing or changed.`,
		Args: usage.Arguments("[ROOT]"),
		RunE: func(cmd *cobra.Command, given []string) error {
			a, err := c.agent()
			if err != nil {
				return err
			}
			root := ""
			if len(given) == 1 {
				root = given[0]
			}
			r, err := recheck.Verify(cmd.Context(), &a.Roots, root)
			if err != nil {
				return err
			}
			return c.print("verify", r, func(w io.Writer) { report.Rechecked(w, r) })
		},
	}
}
