package report

import (
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/updatectl/updatectl/agent/repair"
	"github.com/updatectl/updatectl/cmd/usage"
)

// Fscked writes what is damaged, and what of it was repaired.
func Fscked(w io.Writer, d repair.Fscked) {
	for _, damage := range d.Damage {
		state := "Damaged"
		if slices.Contains(d.Repaired, damage.Path) {
			state = "Repaired"
		}
		fmt.Fprintf(w, "%s: %s\n  %s\n", state, damage.Path, damage.Reason)
		for _, id := range damage.Roots {
			fmt.Fprintf(w, "  needed by %s\n", short(id))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.Failed)) {
		fmt.Fprintf(w, "Not repaired: %s: %s\n", short(name), d.Failed[name])
	}
	fmt.Fprintf(w, "%s and %s read (%s); the kernel verifies %d of them.\n",
		usage.Count(d.Roots, "root", "roots"), usage.Count(d.Objects, "object", "objects"), usage.Size(d.Bytes),
		d.Verified)
	if len(d.Damage) == 0 {
		fmt.Fprintln(w, "Nothing is damaged.")
	}
}
