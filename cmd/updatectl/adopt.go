package main

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/cmd/updatectl/report"
	"github.com/updatectl/updatectl/cmd/usage"
)

func adoptCommand(c *cli) *cobra.Command {
	var from string
	cmd := &cobra.Command{
		Use:   "adopt",
		Short: "Show what the first image takes over, or fetch what was forgotten",
		Long: `Show what becomes of this host at its first image: what comes along, what is
translated and what stays behind, with a [state] table that keeps it. No image
has to be configured; one that is staged is compared with.

With --from-host, fetch a file or directory from the host root into the
running image root: below /etc, or below a state path. What it replaces is
kept in /var/lib/updatectl/replaced.`,
		Args: usage.Arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := c.anyway()
			if err != nil {
				return err
			}
			if from != "" {
				fetched, err := a.Adoption.Fetch(cmd.Context(), from)
				if err != nil {
					return err
				}
				return c.print("adopt.fetch", fetched, func(w io.Writer) { report.Fetched(w, fetched) })
			}
			found, err := a.Adoption.Look(cmd.Context())
			if err != nil {
				return err
			}
			if err := c.print("adopt", found, func(w io.Writer) { report.Adopt(w, *found) }); err != nil || c.output == "json" {
				return err
			}
			return report.StateTable(c.stdout, found.TOML)
		},
	}
	cmd.Flags().StringVar(&from, "from-host", "", "fetch `PATH` from the host root")
	return cmd
}
