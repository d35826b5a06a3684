package report

import (
	"fmt"
	"io"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/live"
	"github.com/updatectl/updatectl/cmd/usage"
)

// Staged writes what stage has put on the disk.
func Staged(w io.Writer, d agent.Applied) {
	waiting := live.Waiting(d.LivePatches)
	for _, p := range waiting {
		fmt.Fprintf(w, "The live patch %s is stored and waits for `updatectl apply`.\n", p.Name)
	}
	if d.Root == d.From {
		if len(waiting) == 0 {
			fmt.Fprintf(w, "Nothing to do: %s runs already%s.\n", short(d.Root), detail("version", d.Version))
		}
		return
	}
	added := "nothing new on disk"
	if d.NewBytes > 0 {
		added = usage.Size(d.NewBytes) + " new on disk"
	}
	fmt.Fprintf(w, "Staged %s%s%s: %s.\n", short(d.Root), detail("version", d.Version),
		detail("signed by", signedBy(d.Vouchers)), added)
	releaseText(w, "  ", d.Release)
	badText(w, d.Bad)
}
