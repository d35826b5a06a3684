package main

import (
	"io"

	"github.com/spf13/cobra"
)

func rollbackCommand(c *cli) *cobra.Command {
	var wait bool
	cmd := &cobra.Command{
		Use:   "rollback [ROOT]",
		Short: "Go back to the previous good root, or to the one named",
		Long: `Go back to the previous good root, or to the one named: an identity that "updatectl status" lists, or "host" for the
mutable root that updatectl was installed on. It runs with the /etc it had. The root that is left is not taken again by
an unattended apply.`,
		Args: args(cobra.MaximumNArgs(1)),
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
			return c.print("rollback", done, func(w io.Writer) { appliedText(w, done) })
		},
	}
	cmd.Flags().BoolVar(&wait, "wait", false, "wait for another updatectl that is at work")
	return cmd
}
