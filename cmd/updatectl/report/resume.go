package report

import (
	"fmt"
	"io"

	"github.com/updatectl/updatectl/agent"
)

// Resumed writes whether the host resumes its last good root.
func Resumed(w io.Writer, r agent.Resumed) {
	if r.Root == "" {
		fmt.Fprintf(w, "The host stays on its host root: %s.\n", r.Reason)
		return
	}
	fmt.Fprintf(w, "The host resumes %s: %s.\n", short(r.Root), r.Reason)
}
