package report

import (
	"fmt"
	"io"

	"github.com/updatectl/updatectl/agent/trial"
	"github.com/updatectl/updatectl/switcher/level"
)

// Confirmed writes the verdict on the running root.
func Confirmed(w io.Writer, c trial.Confirmed) {
	switch {
	case c.Good:
		fmt.Fprintf(w, "%s is good.\n", short(c.Root))
	case c.Healthy:
		fmt.Fprintf(w, "%s is healthy. It is volatile: `updatectl rollback` drops it.\n", short(c.Root))
	default:
		fmt.Fprintf(w, "%s runs and is not the last good root; there was nothing to confirm.\n", short(c.Root))
	}
	if c.Last != nil && c.Last.Outcome != level.Switched {
		fmt.Fprintf(w, "The last switch was %s.\n", lastText(*c.Last))
	}
	Health(w, c.Health)
}
