package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/agent"
)

func gcCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "gc",
		Short: "Remove roots that are not booted, staged, good or pinned, and what only they need",
		Args:  args(cobra.NoArgs),
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
				for _, id := range report.Roots {
					fmt.Fprintf(w, "Removed %s.\n", short(id))
				}
				for _, name := range report.LivePatches {
					fmt.Fprintf(w, "Removed the live patch %s.\n", name)
				}
				fmt.Fprintf(w, "%d roots and %d objects removed, %s freed.\n", len(report.Roots), report.Objects, bytesText(report.Bytes))
			})
		},
	}
}

func pinCommand(c *cli) *cobra.Command { return pinning(c, "pin", "Keep a root from gc", true) }
func unpinCommand(c *cli) *cobra.Command {
	return pinning(c, "unpin", "Give a root free for gc", false)
}

func pinning(c *cli, name, what string, pinned bool) *cobra.Command {
	return &cobra.Command{
		Use:   name + " ROOT",
		Short: what,
		Args:  args(cobra.ExactArgs(1)),
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
		state += "; nothing had to be done"
	}
	fmt.Fprintf(w, "%s %s.\n", short(p.Root), state)
}
