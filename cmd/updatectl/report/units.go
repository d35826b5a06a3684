package report

import (
	"fmt"
	"io"
	"strings"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/cmd/usage"
	"github.com/updatectl/updatectl/switcher/holding"
	"github.com/updatectl/updatectl/switcher/keep"
)

// unitsText writes what becomes of the units of the host: each that [[keep]] names, and how many others restart, go
// away or are new; in full, each of them with the reason. It says what is held meanwhile, too.
func unitsText(w io.Writer, p agent.Plan, full bool) {
	fates, names := p.Units, map[keep.Fate][]string{}
	for _, u := range fates {
		if u.Named {
			fmt.Fprintf(w, "Keep\t%s %s: %s\n", u.Unit, u.Fate, u.Reason)
			continue
		}
		if u.Fault != "" {
			fmt.Fprintf(w, "Fault\t%s: %s\n", u.Unit, u.Fault)
		}
		names[u.Fate] = append(names[u.Fate], u.Unit)
	}
	holdText(w, p.Hold)
	firewallText(w, p.HoldFirewall)
	if n := len(names[keep.Restarts]); n > 0 {
		fmt.Fprintf(w, "Units\t%s\n", usage.Count(n, "unit restarts", "units restart"))
	}
	if full {
		for _, u := range fates {
			if !u.Named {
				fmt.Fprintf(w, "  %s\t%s\t%s\n", u.Fate, u.Unit, u.Reason)
			}
		}
		return
	}
	for _, f := range []struct {
		fate keep.Fate
		word string
	}{{keep.GoesAway, "gone"}, {keep.IsNew, "new"}} {
		if list := names[f.fate]; len(list) > 0 {
			fmt.Fprintf(w, "  %s\t%s\n", f.word, strings.Join(list, ", "))
		}
	}
}

// holdersText writes the processes that hold a root which the host has left.
func holdersText(w io.Writer, holders []holding.Holder) {
	for _, h := range holders {
		who := fmt.Sprintf("%s (process %d)", h.Name, h.PID)
		if h.Unit != "" {
			who += " of " + h.Unit
		}
		fmt.Fprintf(w, "Held\t%s holds what is not mounted any more, such as a root that was left: %s\n",
			who, strings.Join(h.Holds, ", "))
	}
}
