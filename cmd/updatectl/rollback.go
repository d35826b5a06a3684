package main

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/cmd/updatectl/report"
	"github.com/updatectl/updatectl/cmd/usage"
)

func rollbackCommand(c *cli) *cobra.Command {
	var wait bool
	cmd := &cobra.Command{
		Use:   "rollback [ROOT]",
		Short: "Roll back to the previous good root, or to ROOT",
		Long: `Roll back to the previous good root, or to ROOT: an identity that "updatectl
status" lists, or its beginning, or "host" for the host root. It runs with the
/etc it had, and the current users and passwords. An unattended apply does not
take the root that is left again.`,
		Args: usage.Arguments("[ROOT]"),
		RunE: func(cmd *cobra.Command, given []string) error {
			a, err := c.anyway()
			if err != nil {
				return err
			}
			to := ""
			if len(given) > 0 {
				to = given[0]
			}
			done, err := a.Rollback(cmd.Context(), to, wait)
			if err != nil {
				return err
			}
			return c.print("rollback", done, func(w io.Writer) { report.Applied(w, done) })
		},
	}
	waitFlag(cmd.Flags(), &wait)
	return cmd
}
