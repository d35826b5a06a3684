package report

import (
	"fmt"
	"io"
	"strings"

	"github.com/updatectl/updatectl/agent/changes"
	"github.com/updatectl/updatectl/cmd/usage"
	"github.com/updatectl/updatectl/switcher/etc/difference"
	"github.com/updatectl/updatectl/verify/printable"
)

// Differences writes how an /etc differs from its image, without the differences of texts.
func Differences(w io.Writer, d changes.Differences) {
	for _, e := range d.Differences {
		fields := ""
		if len(e.Fields) > 0 {
			fields = ": " + strings.Join(e.Fields, ", ")
		}
		fmt.Fprintf(w, "%s\t/etc/%s%s\n", e.Change, e.Path, fields)
		if e.Beside != "" {
			fmt.Fprintf(w, "  image's\t/etc/%s\n", e.Beside)
		}
	}
	count := usage.Count(len(d.Differences), "difference", "differences")
	fmt.Fprintf(w, "%s from the image of %s.\n", count, short(d.Root))
}

// TextDiffs writes the differences of texts as they are, whatever the width of the terminal: a line that is folded is
// another line.
func TextDiffs(w io.Writer, d changes.Differences) error {
	w = printable.Lines(w)
	for _, e := range d.Differences {
		if e.Diff == "" {
			continue
		}
		for line := range strings.Lines("\n" + e.Diff) {
			if _, err := fmt.Fprintf(w, "%s\n", strings.TrimSuffix(line, "\n")); err != nil {
				return err
			}
		}
	}
	return nil
}

// Taken writes what became of a file that was replaced by the version of the image.
func Taken(w io.Writer, t difference.Taken) {
	switch {
	case t.Removed:
		fmt.Fprintf(w, "%s is removed: the image has no such file.\n", t.Path)
	default:
		fmt.Fprintf(w, "%s is the image's version now.\n", t.Path)
	}
	fmt.Fprintf(w, "Undo\t%s\n", t.Undo)
}

// Derived writes which derived files were made anew.
func Derived(w io.Writer, d changes.Derived) {
	for _, rule := range d.Rules {
		fmt.Fprintf(w, "Made anew: %s.\n", rule)
	}
}
