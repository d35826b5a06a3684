package report

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/updatectl/updatectl/agent/trial"
)

// Health writes the report of the health gate: a line for the root, and one for each check.
func Health(w io.Writer, h *trial.Report) {
	if h == nil {
		return
	}
	word := "healthy"
	if !h.Healthy {
		word = "unhealthy"
	}
	fmt.Fprintf(w, "Health\t%s %s, judged %s in %s\n",
		short(h.Root), word, h.Report.At.Format("2006-01-02 15:04:05"), tookText(h.Report.Took))
	for _, r := range h.Report.Results {
		words := []string{r.Name}
		if r.Took >= worthShowing {
			words = append(words, tookText(r.Took))
		}
		if r.Reason != "" {
			words = append(words, r.Reason)
		}
		fmt.Fprintf(w, "\t%s\t%s\n", r.Verdict, strings.Join(words, ", "))
	}
}

// worthShowing is how long a check takes that somebody may want to make faster.
const worthShowing = 100 * time.Millisecond

// tookText returns how long something took, as precisely as a person cares.
func tookText(d time.Duration) string { return d.Round(worthShowing).String() }
