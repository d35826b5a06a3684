package report

import (
	"fmt"
	"io"

	"github.com/updatectl/updatectl/agent"
)

// volatileText says that the root runs on a throw-away copy of the state.
func volatileText(w io.Writer, s agent.Status) {
	if !s.Volatile {
		return
	}
	health := "its health is not judged yet"
	if s.Healthy {
		health = "it was found healthy"
	}
	fmt.Fprintf(w, "\tvolatile: it runs on a throw-away copy of the state; %s; `updatectl rollback` drops it\n", health)
}

// volatileWord returns what to add to the verb of a switch.
func volatileWord(volatile bool) string {
	if volatile {
		return ", volatile,"
	}
	return ""
}
