package main

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/agent/garbage"
	"github.com/updatectl/updatectl/cmd/updatectl/report"
	"github.com/updatectl/updatectl/cmd/usage"
)

func gcCommand(c *cli) *cobra.Command {
	var o garbage.Options
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Remove roots that nothing needs",
		Long: `Remove roots that are not booted, staged, good, pinned or mounted, with what
only they need, and live patches that are no longer published.

The /etc of a root goes with it. So a root that ran here and was left, such as
by "updatectl rollback", is kept until the next image is good; --all removes it
at once.`,
		Args: usage.Arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := c.anyway()
			if err != nil {
				return err
			}
			done, err := a.GC(cmd.Context(), o)
			if err != nil {
				return err
			}
			return c.print("gc", done, func(w io.Writer) { report.Collected(w, done) })
		},
	}
	cmd.Flags().BoolVar(&o.All, "all", false, "remove roots that were left, too, with their /etc")
	cmd.Flags().BoolVar(&o.DryRun, "dry-run", false, "show what would be removed, and remove nothing")
	return cmd
}

func pinCommand(c *cli) *cobra.Command { return pinning(c, "pin", "Keep a root from gc", true) }

func unpinCommand(c *cli) *cobra.Command {
	return pinning(c, "unpin", "Let gc remove a root when nothing needs it", false)
}

func pinning(c *cli, name, what string, pinned bool) *cobra.Command {
	return &cobra.Command{
		Use:   name + " ROOT",
		Short: what,
		Args:  usage.Arguments("the root"),
		RunE: func(cmd *cobra.Command, given []string) error {
			a, err := c.anyway()
			if err != nil {
				return err
			}
			p, err := a.Pin(cmd.Context(), given[0], pinned)
			if err != nil {
				return err
			}
			return c.print(name, p, func(w io.Writer) { report.Pinned(w, p) })
		},
	}
}
