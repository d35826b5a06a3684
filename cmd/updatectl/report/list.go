package report

import (
	"fmt"
	"io"
	"strings"

	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/cmd/usage"
)

// RootList writes the roots of a host as a table.
func RootList(w io.Writer, l roots.List) {
	for _, warning := range l.Warnings {
		fmt.Fprintf(w, "Warning: %s.\n", warning)
	}
	fmt.Fprintf(w, "ROOT\tVERSION\tSTAGED\tOWN SIZE\tSTATE\n")
	for _, r := range l.Roots {
		staged, own := "-", "-"
		if !r.StagedAt.IsZero() {
			staged = r.StagedAt.UTC().Format(dateOnly)
		}
		if r.OwnBytes != nil {
			own = usage.Size(*r.OwnBytes)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", short(r.Root), orDash(r.Version), staged, own, statesText(r.States))
	}
}

// statesText returns what a root is to its host in words.
func statesText(states []roots.State) string {
	if len(states) == 0 {
		return "not needed"
	}
	var words []string
	for _, s := range states {
		word := string(s)
		if s == roots.Kept {
			word = "kept for its /etc"
		}
		words = append(words, word)
	}
	return strings.Join(words, ", ")
}

// orDash returns a value for the cell of a table.
func orDash(value string) string {
	if value == "" {
		return "-"
	}
	return value
}
