package report

import (
	"fmt"
	"io"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/garbage"
	"github.com/updatectl/updatectl/cmd/usage"
)

// Collected writes what gc removed and kept.
func Collected(w io.Writer, d garbage.Collected) {
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

// Pinned writes whether gc keeps a root.
func Pinned(w io.Writer, p agent.Pinned) {
	state := "is pinned: gc keeps it until it is unpinned"
	if !p.Pinned {
		state = "is not pinned: the next good image, or gc, removes it when nothing needs it"
	}
	if !p.Changed {
		state += "; nothing had to be changed"
	}
	fmt.Fprintf(w, "%s %s.\n", short(p.Root), state)
}
