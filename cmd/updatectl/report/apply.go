package report

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/cmd/usage"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/level"
)

// Applied writes what apply or rollback did.
func Applied(w io.Writer, d agent.Applied) {
	switch {
	case d.Skipped != "" && d.Root == d.From:
		fmt.Fprintf(w, "Nothing was done: %s.\n", d.Skipped)
		return
	case d.Skipped != "":
		fmt.Fprintf(w, "%s%s was left alone: %s.\n", short(d.Root), detail("version", d.Version), d.Skipped)
		return
	case d.Restarting:
		fmt.Fprintf(w, "Level\t%s\n", d.Level)
		fmt.Fprintf(w, "Restarting: services stop now and come back in the same root, "+
			"where the live patch is loaded before they start.\n")
		return
	case !d.Switching && len(d.Loaded) > 0:
		fmt.Fprintf(w, "Level\t%s: nothing was restarted\n", d.Level)
		for _, p := range d.LivePatches {
			if slices.Contains(d.Loaded, p.Name) {
				fmt.Fprintf(w, "Live patch\t%s\n", strings.Replace(livePatchText(p), "\t", "  ", 1))
			}
		}
		return
	case !d.Switching:
		fmt.Fprintf(w, "Nothing to do: %s runs already%s%s.\n", short(d.Root),
			detail("version", d.Version), detail("signed by", signedBy(d.Vouchers)))
		return
	}
	if d.Reference != "" {
		fmt.Fprintf(w, "Image\t%s\n", d.Reference)
	}
	fmt.Fprintf(w, "Root\t%s -> %s\n", short(d.From), short(d.Root))
	if d.Version != "" {
		fmt.Fprintf(w, "Version\t%s\n", d.Version)
	}
	releaseText(w, "", d.Release)
	if len(d.Vouchers) > 0 {
		fmt.Fprintf(w, "Signed by\t%s\n", signedBy(d.Vouchers))
	}
	if d.NewBytes > 0 {
		fmt.Fprintf(w, "New on disk\t%s\n", usage.Size(d.NewBytes))
	}
	if d.Decision != nil {
		decisionText(w, *d.Decision, true)
	}
	for _, name := range d.Loaded {
		fmt.Fprintf(w, "Live patch\t%s is effective\n", name)
	}
	keptText(w, d)
	if d.Decision != nil && d.Decision.Level == level.Full {
		fmt.Fprintf(w, "Rebooting: a full reboot lands on the host root, and the host continues from there "+
			"into the new root. `updatectl status` shows how it went.\n")
		return
	}
	fmt.Fprintf(w, "Switching: services stop now and come back in the new root. "+
		"`updatectl status` shows how it went.\n")
}

// keptText says where /etc comes from, and what becomes of what was changed.
func keptText(w io.Writer, d agent.Applied) {
	if d.Volatile {
		fmt.Fprintf(w, "Volatile\tit runs on a throw-away copy of the state and of /etc, in memory; `updatectl rollback` "+
			"drops it\n")
	}
	if d.Drops {
		fmt.Fprintf(w, "Volatile\twhat was changed in %s goes with it; it is not marked bad, so updatectl.timer may "+
			"apply it\n", short(d.From))
	} else if d.Decision == nil { // a rollback, or an apply that resumes
		fmt.Fprintf(w, "/etc\tas it was in %s, with the current users; later changes stay in %s\n",
			short(d.Root), etcOf(d.From))
		leftText(w, d)
	}
}

// leftText says what in /etc stays behind in the root that a rollback leaves.
func leftText(w io.Writer, d agent.Applied) {
	const most = 5 // they stand for the others
	left := d.LeftInEtc
	if len(left) == 0 {
		return
	}
	more := ""
	if len(left) > most {
		more = " …"
	}
	fmt.Fprintf(w, "  stay behind\t%s: %s%s\n",
		usage.Count(len(left), "file that changed here", "files that changed here"),
		strings.Join(left[:min(most, len(left))], ", "), more)
}

// etcOf returns a pattern for the shell that names the /etc of a root that does not run.
func etcOf(root string) string {
	if root == switcher.HostRoot {
		return roots.HostMount + "/etc"
	}
	return record.StateDir + "/roots/" + short(root) + "*/etc"
}

// detail returns more about a root for the middle of a sentence, "" when the value is not known.
func detail(what, value string) string {
	if value == "" {
		return ""
	}
	return ", " + what + " " + value
}
