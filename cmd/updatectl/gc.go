package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/cmd/usage"
)

func gcCommand(c *cli) *cobra.Command {
	var o agent.GCOptions
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
			return c.print("gc", done, func(w io.Writer) { collectedText(w, done) })
		},
	}
	cmd.Flags().BoolVar(&o.All, "all", false, "remove roots that were left, too, with their /etc")
	cmd.Flags().BoolVar(&o.DryRun, "dry-run", false, "show what would be removed, and remove nothing")
	return cmd
}

func collectedText(w io.Writer, d agent.Collected) {
	removed, freed := "Removed", "removed, %s freed.\n"
	if d.DryRun {
		removed, freed = "Would remove", "would be removed, %s freed.\n"
	}
	for _, warning := range d.Warnings {
		fmt.Fprintf(w, "Warning: %s.\n", warning)
	}
	for _, id := range d.Roots {
		fmt.Fprintf(w, "%s %s.\n", removed, short(id))
	}
	for _, name := range d.LivePatches {
		fmt.Fprintf(w, "Removed the live patch %s.\n", name)
	}
	for _, id := range d.Left {
		fmt.Fprintf(w, "Kept %s: it ran here, and its /etc may have changes of yours; `updatectl gc --all` removes it.\n",
			short(id))
	}
	fmt.Fprintf(w, "%s and %s "+freed, usage.Count(len(d.Roots), "root", "roots"),
		usage.Count(d.Objects, "object", "objects"), usage.Size(d.Bytes))
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
			return c.print(name, p, func(w io.Writer) { pinnedText(w, p) })
		},
	}
}

func pinnedText(w io.Writer, p agent.Pinned) {
	state := "is pinned: gc keeps it until it is unpinned"
	if !p.Pinned {
		state = "is not pinned: the next good image, or gc, removes it when nothing needs it"
	}
	if !p.Changed {
		state += "; nothing had to be changed"
	}
	fmt.Fprintf(w, "%s %s.\n", short(p.Root), state)
}
