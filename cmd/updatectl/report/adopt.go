package report

import (
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/updatectl/updatectl/agent/adoption"
	"github.com/updatectl/updatectl/cmd/usage"
	"github.com/updatectl/updatectl/verify/printable"
)

// Adopt writes what becomes of the host at its first image.
func Adopt(w io.Writer, r adoption.Report) {
	if r.Root == "" {
		fmt.Fprintf(w, "No image is staged. This is what holds for any image; what packages install counts as part of it.\n")
	} else {
		fmt.Fprintf(w, "Compared with %s, which is staged.\n", short(r.Root))
	}
	adoptionText(w, r)
}

// adoptionText writes all of a report: each group with what comes, what is changed and what stays behind.
func adoptionText(w io.Writer, r adoption.Report) {
	for _, g := range r.Groups {
		if len(g.Comes)+len(g.Changes)+len(g.Stays) == 0 {
			fmt.Fprintf(w, "%s\tthe same in the image\n", title(g.Name))
			continue
		}
		fmt.Fprintf(w, "%s\n", title(g.Name))
		if len(g.Comes) > 0 {
			fmt.Fprintf(w, "  comes\t%s\n", byDirectory(g.Comes))
		}
		for _, change := range g.Changes {
			fmt.Fprintf(w, "  note\t%s\n", change)
		}
		staysText(w, g.Stays)
	}
}

// staysText writes what stays behind, with one line for all that stay for the same reason and are kept in the same way.
func staysText(w io.Writer, stays []adoption.Stay) {
	var order []adoption.Stay
	what := map[adoption.Stay][]string{}
	for _, s := range stays {
		key := adoption.Stay{Why: s.Why, Keep: s.Keep, Refuses: s.Refuses}
		if strings.HasPrefix(s.Keep, "[state] adopt ") && !s.Refuses {
			key.Keep = "[state] adopt"
		}
		if what[key] == nil {
			order = append(order, key)
		}
		what[key] = append(what[key], s.What+sizeText(s))
	}
	for _, key := range order {
		word := "stays"
		if key.Refuses {
			word = "lost"
		}
		fmt.Fprintf(w, "  %s\t%s%s\n", word, byDirectory(what[key]), clause("; ", key.Why))
		if key.Keep != "" {
			fmt.Fprintf(w, "    keep\t%s\n", key.Keep)
		}
	}
}

// clause returns a text after a separator, "" for no text.
func clause(separator, text string) string {
	if text == "" {
		return ""
	}
	return separator + text
}

func sizeText(s adoption.Stay) string {
	switch {
	case s.AtLeast:
		return fmt.Sprintf(" (more than %s)", usage.Size(s.Bytes))
	case s.Bytes > 0:
		return fmt.Sprintf(" (%s)", usage.Size(s.Bytes))
	}
	return ""
}

// title returns a word as the head of a line.
func title(word string) string { return strings.ToUpper(word[:1]) + word[1:] }

// byDirectory returns names in a line. Many in one directory come after the directory, which is named once.
func byDirectory(names []string) string {
	const many = 3
	in := map[string][]string{}
	for _, name := range names {
		if path.IsAbs(name) {
			dir := path.Dir(strings.TrimSuffix(name, "/"))
			in[dir] = append(in[dir], strings.TrimPrefix(name, dir+"/"))
		}
	}
	var parts []string
	for _, name := range names {
		dir := path.Dir(strings.TrimSuffix(name, "/"))
		if below := in[dir]; path.IsAbs(name) && dir != "/" && len(below) >= many {
			name = dir + ": " + strings.Join(below, ", ") + ";"
		}
		if !slices.Contains(parts, name) {
			parts = append(parts, name)
		}
	}
	return strings.TrimSuffix(strings.ReplaceAll(strings.Join(parts, ", "), ";,", ";"), ";")
}

// StateTable writes the [state] table that keeps what can be kept. No line is broken, because that would be no TOML.
func StateTable(w io.Writer, table string) error {
	text := "\nIn /etc/updatectl/updatectl.toml, this keeps what can be kept:\n\n" + table
	for line := range strings.Lines(text) {
		if _, err := io.WriteString(printable.Lines(w), line); err != nil {
			return err
		}
	}
	return nil
}

// Fetched writes what was fetched from the host root.
func Fetched(w io.Writer, f adoption.Fetched) {
	for _, p := range f.Paths {
		fmt.Fprintf(w, "Fetched\t%s\n", p)
	}
	if f.Replaced != "" {
		fmt.Fprintf(w, "Before\t%s has what was replaced\n", f.Replaced)
	}
	for _, note := range f.Notes {
		fmt.Fprintf(w, "Note\t%s\n", note)
	}
	if len(f.Paths) == 0 {
		fmt.Fprintf(w, "Nothing to do: it is here already, as on the host root.\n")
	}
}
