package main

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/cmd/updatectl/report"
	"github.com/updatectl/updatectl/cmd/usage"
)

func checkCommand(c *cli) *cobra.Command {
	var from string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Ask the source for a newer image",
		Long: `Ask the source for a newer image, and verify its signature. No layer is fetched,
and nothing is changed.

Exit code 10: another image than the running one is published, or a live patch
for the running kernel that is not effective. Exit code 0: neither.`,
		Args: usage.Arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := c.agent()
			if err != nil {
				return err
			}
			v, err := a.Check(cmd.Context(), from)
			if err != nil {
				return err
			}
			if err := c.print("check", v, func(w io.Writer) { report.Available(w, v) }); err != nil {
				return err
			}
			if v.Newer || v.Live {
				return answer(exitAvailable)
			}
			return nil
		},
	}
	fromFlag(cmd.Flags(), &from, "ask for the image")
	return cmd
}
