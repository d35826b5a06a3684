package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/agent"
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
			r, err := a.Verify(cmd.Context(), root)
			if err != nil {
				return err
			}
			return c.print("verify", r, func(w io.Writer) { recheckedText(w, r) })
		},
	}
}

func recheckedText(w io.Writer, r agent.Rechecked) {
	fmt.Fprintf(w, "Trusted: %s%s, verified %s.\n", short(r.Root), detail("version", r.Version),
		r.VerifiedAt.Format("2006-01-02 15:04"))
	for _, v := range r.Vouchers {
		fmt.Fprintf(w, "  signed by\t%s\n", voucherText(v))
	}
}
