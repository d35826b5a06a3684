package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func verifyCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "verify [ROOT]",
		Short: "Check again, offline, who vouches for a root: by the evidence kept when it was staged",
		Long: `Check again, offline, who vouches for a root: by the evidence kept when it was staged and the policy of today.
ROOT is its identity or the beginning of it; without it the staged root is checked, or the one that runs.
Exit code 0 says that today's policy would accept the image, 20 that it would not: a key was revoked or has expired, or
the evidence is missing or changed. What the root holds is not read.`,
		Args: args(cobra.MaximumNArgs(1)),
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
			return c.print("verify", r, func(w io.Writer) {
				fmt.Fprintf(w, "Trusted: %s, version %s, verified %s.\n", short(r.Root), r.Version, r.VerifiedAt.Format("2006-01-02 15:04"))
				for _, v := range r.Vouchers {
					fmt.Fprintf(w, "  signed by\t%s\n", voucherText(v))
				}
			})
		},
	}
}
