package report

import (
	"fmt"
	"io"
	"strings"

	"github.com/updatectl/updatectl/cmd/usage"
	"github.com/updatectl/updatectl/switcher/etc/accounts/numbers"
)

// ownersText lists whose files in the image show another number on this host than in the image. Unless full, it only
// counts those of users and groups that this host has.
func ownersText(w io.Writer, shown []numbers.Shown, full bool) {
	if len(shown) == 0 {
		return
	}
	files, names := 0, map[string][]string{}
	var nobodys []numbers.Shown
	for _, s := range shown {
		files += s.Files
		if s.Other != "" {
			nobodys = append(nobodys, s)
			continue
		}
		names[s.Kind] = append(names[s.Kind], fmt.Sprintf("%s (%d, in the image %d)", s.Name, s.Here, s.Image))
	}
	fmt.Fprintf(w, "Owners\t%s of the image with this host's numbers\n", usage.Count(files, "file", "files"))
	for _, kind := range []string{"user", "group"} {
		if len(names[kind]) > 0 && full {
			fmt.Fprintf(w, "  %ss\t%s\n", kind, strings.Join(names[kind], ", "))
		}
	}
	for _, s := range nobodys {
		owner := fmt.Sprintf("the %s %d has no name in the image", s.Kind, s.Image)
		if s.Name != "" {
			owner = fmt.Sprintf("this host has no %s %s, which is %d in the image", s.Kind, s.Name, s.Image)
		}
		fmt.Fprintf(w, "  nobody's\t%s, such as %s, with the number %d: %s; %d is %s here\n",
			usage.Count(s.Files, "file", "files"), s.Path, s.Here, owner, s.Image, s.Other)
	}
}
