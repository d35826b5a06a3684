package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/cmd/usage"
)

func gcCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "gc",
		Short: "Remove roots that nothing needs",
		Long: `Remove roots that are not booted, staged, good, pinned or mounted, with what
only they need, and live patches that are no longer published.`,
		Args: usage.Arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := c.agent()
			if err != nil {
				return err
			}
			report, err := a.GC(cmd.Context())
			if err != nil {
				return err
			}
			return c.print("gc", report, func(w io.Writer) {
				for _, warning := range report.Warnings {
					fmt.Fprintf(w, "Warning: %s.\n", warning)
				}
				for _, id := range report.Roots {
					fmt.Fprintf(w, "Removed %s.\n", short(id))
				}
				for _, name := range report.LivePatches {
					fmt.Fprintf(w, "Removed the live patch %s.\n", name)
				}
				fmt.Fprintf(w, "%s and %s removed, %s freed.\n",
					usage.Count(len(report.Roots), "root", "roots"), usage.Count(report.Objects, "object", "objects"),
					usage.Size(report.Bytes))
			})
		},
	}
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
			a, err := c.agent()
			if err != nil {
				return err
			}
			p, err := a.Pin(cmd.Context(), given[0], pinned)
			if err != nil {
				return err
			}
			return c.print(name, p, func(w io.Writer) { pinnedText(w, p) })
		},
	}
}

func pinnedText(w io.Writer, p agent.Pinned) {
	state := "is pinned: gc keeps it until it is unpinned"
	if !p.Pinned {
		state = "is not pinned: gc keeps it only while it is needed"
	}
	if !p.Changed {
		state += "; nothing had to be changed"
	}
	fmt.Fprintf(w, "%s %s.\n", short(p.Root), state)
}
