package adoption

import (
	"fmt"
	"slices"
	"strings"

	"github.com/updatectl/updatectl/switcher/behind"
)

// snippet returns a [state] table with what is configured, and with what keeps more: directories of the host root,
// services that were added here and are missed, and, commented out, other files that were changed here.
func (a *Adoption) snippet(found behind.Report) string {
	persist, adopt := slices.Clone(a.Config.State.Persist), slices.Clone(a.Config.State.Adopt)
	add := func(list *[]string, entry string) {
		if entry != "" && !slices.Contains(*list, entry) {
			*list = append(*list, entry)
		}
	}
	for _, p := range found.Paths {
		if !p.Snap && !p.File {
			add(&persist, persistFor(p.Path))
		}
	}
	for _, s := range found.Services {
		if !s.Local || !s.Missed() {
			continue
		}
		for _, name := range s.Adopt {
			add(&adopt, name)
		}
		for _, p := range s.Programs {
			add(&persist, persistFor(p))
			if name, inEtc := strings.CutPrefix(p, "/etc/"); inEtc {
				add(&adopt, name)
			}
		}
	}
	var text strings.Builder
	text.WriteString("[state]\n")
	writeList(&text, "persist", persist)
	writeList(&text, "adopt", adopt)
	more := slices.DeleteFunc(slices.Clone(found.Changed), func(name string) bool {
		return slices.ContainsFunc(adopt, func(a string) bool { return name == a || strings.HasPrefix(name, a+"/") })
	})
	if len(more) > 0 {
		text.WriteString("# Also changed or added below /etc. Move to adopt what the image should have as it is here:\n")
		for _, name := range more {
			fmt.Fprintf(&text, "#    %q,\n", strings.TrimSuffix(name, "/"))
		}
	}
	return text.String()
}

// writeList writes a TOML array, one entry on each line.
func writeList(w *strings.Builder, key string, list []string) {
	fmt.Fprintf(w, "%s = [", key)
	for _, entry := range list {
		fmt.Fprintf(w, "\n    %q,", entry)
	}
	if len(list) > 0 {
		w.WriteString("\n")
	}
	w.WriteString("]\n")
}
