package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/updatectl/updatectl/cmd/usage"
	"github.com/updatectl/updatectl/switcher/etc/accounts"
)

// ownersText lists whose files in the image show another number on this host than in the image.
func ownersText(w io.Writer, shown []accounts.Shown) {
	if len(shown) == 0 {
		return
	}
	files, names := 0, map[string][]string{}
	var nobodys []accounts.Shown
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
		if len(names[kind]) > 0 {
			fmt.Fprintf(w, "  %ss\t%s\n", kind, strings.Join(names[kind], ", "))
		}
	}
	for _, s := range nobodys {
		owner := "which has no name in the image"
		if s.Name != "" {
			owner = s.Name + " in the image and not on this host"
		}
		fmt.Fprintf(w, "  nobody's\t%s with the %s %d, %s and %s here, such as %s; here they show %d\n",
			usage.Count(s.Files, "file", "files"), s.Kind, s.Image, owner, s.Other, s.Path, s.Here)
	}
}
