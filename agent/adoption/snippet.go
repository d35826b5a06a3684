package adoption

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/updatectl/updatectl/switcher/behind"
)

// snippet returns a [state] table with what is configured, and with what keeps more: directories of the host root,
// services that were added here and are missed, and, commented out, other files that were changed here. TOML is UTF-8:
// paths that are not are left out, the report has them.
func (a *Adoption) snippet(found behind.Report) string {
	persist, adopt := slices.Clone(a.Config.State.Persist), slices.Clone(a.Config.State.Adopt)
	add := func(list *[]string, entry string) {
		if entry != "" && utf8.ValidString(entry) && !slices.Contains(*list, entry) {
			*list = append(*list, entry)
		}
	}
	for _, p := range found.Paths {
		if !p.Snap && !p.File {
			add(&persist, persistFor(p.Path))
		}
	}
	for _, s := range found.Services {
		if !s.Local || !s.Missed() || len(forImage(s)) > 0 {
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
	for _, s := range found.Services { // without its program, the unit would fail, and with it the new root
		if programs := forImage(s); s.Local && s.Missed() && len(programs) > 0 {
			fmt.Fprintf(&text, "# %s needs %s in the image; then adopt this, too:\n", s.Name, strings.Join(programs, ", "))
			for _, name := range s.Adopt {
				fmt.Fprintf(&text, "#    %s,\n", quote(name))
			}
		}
	}
	more := slices.DeleteFunc(slices.Clone(found.Changed), func(name string) bool {
		return slices.ContainsFunc(found.Services, func(s behind.Service) bool { return slices.Contains(s.Adopt, name) }) ||
			slices.ContainsFunc(adopt, func(a string) bool { return name == a || strings.HasPrefix(name, a+"/") })
	})
	more = slices.DeleteFunc(more, func(name string) bool { return !utf8.ValidString(name) })
	if len(more) > 0 {
		text.WriteString("# Also changed or added below /etc.\n# Move to adopt what the image should have as it is here:\n")
		for _, name := range more {
			fmt.Fprintf(&text, "#    %s,\n", quote(strings.TrimSuffix(name, "/")))
		}
	}
	return text.String()
}

// forImage returns the programs of a service that no state path can keep.
func forImage(s behind.Service) []string {
	return slices.DeleteFunc(slices.Clone(s.Programs), func(p string) bool {
		return persistFor(p) != "" || strings.HasPrefix(p, "/etc/")
	})
}

// writeList writes a TOML array, one entry on each line.
func writeList(w *strings.Builder, key string, list []string) {
	fmt.Fprintf(w, "%s = [", key)
	for _, entry := range list {
		fmt.Fprintf(w, "\n    %s,", quote(entry))
	}
	if len(list) > 0 {
		w.WriteString("\n")
	}
	w.WriteString("]\n")
}

// quote returns a basic string of TOML: one of JSON, except that DEL is escaped, too.
func quote(s string) string {
	text, _ := json.Marshal(s) // a string always has a JSON form
	return strings.ReplaceAll(string(text), "\x7f", `\u007f`)
}
