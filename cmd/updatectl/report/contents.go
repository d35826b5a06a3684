package report

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/updatectl/updatectl/agent/contents"
	"github.com/updatectl/updatectl/cmd/usage"
	"github.com/updatectl/updatectl/switcher/packages"
)

// shownWidth is how many columns a line has for names beside its label. shownLines is how many such lines name
// packages.
const (
	shownWidth = 64
	shownLines = 2
)

// notable are the beginnings of the names of packages that are shown first.
var notable = []string{"linux-image", "kernel", "systemd", "openssl", "libssl", "openssh", "libc6", "glibc", "sudo"}

// contentsText writes which packages and files change. Unless full, a few packages stand for all.
func contentsText(w io.Writer, d contents.Difference, full bool) {
	if d.Packages != nil {
		packagesText(w, *d.Packages, full)
	}
	if f := d.Files; f != nil {
		fmt.Fprintf(w, "Files\t%d changed, %d added, %d removed; %s of new content\n",
			f.Changed, f.Added, f.Removed, usage.Size(f.Bytes))
	}
	if s := d.Space; s != nil && full { // it is staged, so the space is there
		fmt.Fprintf(w, "Space\t%s written for it, %s free\n", usage.Size(s.Written), usage.Size(s.Free))
	}
	for _, what := range d.Unknown {
		fmt.Fprintf(w, "Unknown\t%s\n", what)
	}
}

func packagesText(w io.Writer, d packages.Difference, full bool) {
	if d.Empty() {
		fmt.Fprintf(w, "Packages\tthe same %d\n", d.Installed)
		return
	}
	var counts []string
	for _, c := range []struct {
		n    int
		what string
	}{
		{len(d.Upgraded), "upgraded"}, {len(d.Downgraded), "downgraded"}, {len(d.Changed), "changed"},
		{len(d.Added), "added"}, {len(d.Removed), "removed"},
	} {
		if c.n > 0 {
			counts = append(counts, fmt.Sprintf("%d %s", c.n, c.what))
		}
	}
	fmt.Fprintf(w, "Packages\t%s, of %d; %s\n", strings.Join(counts, ", "), d.Installed, largerText(d.Bytes))
	if full {
		everyPackage(w, d)
		return
	}
	changes := slices.Concat(d.Upgraded, d.Changed)
	slices.SortStableFunc(changes, func(a, b packages.Change) int { return cmp.Compare(rank(a.Name), rank(b.Name)) })
	var names, removed, older []string
	for _, c := range changes {
		names = append(names, fmt.Sprintf("%s %s", c.Name, c.To))
	}
	for _, c := range d.Downgraded {
		older = append(older, fmt.Sprintf("%s %s", c.Name, c.To))
	}
	for _, p := range d.Removed {
		removed = append(removed, p.Name)
	}
	for _, c := range []struct {
		label string
		names []string
		width int
	}{
		{"new", names, shownLines * shownWidth}, {"older", older, shownWidth},
		{"removed", removed, shownWidth},
	} {
		if len(c.names) > 0 {
			fmt.Fprintf(w, "  %s\t%s\n", c.label, cut(slices.Compact(c.names), c.width, "other", "others"))
		}
	}
}

// everyPackage writes each change on a line of its own.
func everyPackage(w io.Writer, d packages.Difference) {
	for _, list := range []struct {
		what    string
		changes []packages.Change
	}{{"upgraded", d.Upgraded}, {"downgraded", d.Downgraded}, {"changed", d.Changed}} {
		for _, c := range list.changes {
			fmt.Fprintf(w, "  %s\t%s\t%s -> %s\n", list.what, withArchitecture(c.Name, c.Architecture), c.From, c.To)
		}
	}
	for _, list := range []struct {
		what     string
		packages []packages.Package
	}{{"added", d.Added}, {"removed", d.Removed}} {
		for _, p := range list.packages {
			fmt.Fprintf(w, "  %s\t%s\t%s\n", list.what, withArchitecture(p.Name, p.Architecture), p.Version)
		}
	}
}

// withArchitecture returns a package's name as package managers take it.
func withArchitecture(name, architecture string) string {
	if architecture == "" {
		return name
	}
	return name + ":" + architecture
}

// largerText returns by how much the packages grow, as they state it.
func largerText(bytes int64) string {
	if bytes < 0 {
		return usage.Size(-bytes) + " smaller"
	}
	return usage.Size(bytes) + " larger"
}

// rank returns a number by which packages are shown: the notable ones first.
func rank(name string) int {
	place := slices.IndexFunc(notable, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
	if place < 0 {
		return len(notable)
	}
	return place
}

// cut returns as many names as fit a width, and how many more there are.
func cut(names []string, width int, one, many string) string {
	more := func(n int) string { return fmt.Sprintf(" and %s", usage.Count(n, one, many)) }
	text := names[0]
	for i, name := range names[1:] {
		if left := len(names) - i - 1; len(text)+len(", ")+len(name)+len(more(left)) > width {
			return text + more(left)
		}
		text += ", " + name
	}
	return text
}
