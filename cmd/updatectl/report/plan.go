package report

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/renew"
	"github.com/updatectl/updatectl/cmd/usage"
	"github.com/updatectl/updatectl/switcher/ending"
	"github.com/updatectl/updatectl/switcher/etc"
	"github.com/updatectl/updatectl/switcher/level"
	"github.com/updatectl/updatectl/switcher/pid1"
)

// Plan writes what apply would do. Next is what to do about a refusal, "" for nothing. Unless full, it fits a screen
// for an ordinary change: lists are cut, and checks with nothing to say are left out. Whatever stands against the
// switch, or ends with it, is always there.
func Plan(w io.Writer, p agent.Plan, next string, full bool) {
	if full || p.Decision == nil || !p.Newer {
		Available(w, p.Available)
	} else {
		planned(w, p.Available)
	}
	if !p.Newer {
		if p.Decision != nil {
			decisionText(w, *p.Decision, true)
		}
		return
	}
	if p.Decision == nil && p.Staged {
		fmt.Fprintf(w, "It is staged. The level, and what becomes of /etc, are only known on the running host.\n")
		return
	}
	if p.Decision == nil {
		fmt.Fprintf(w, "It is not staged. `updatectl stage` fetches it; then plan shows the level "+
			"and what becomes of /etc.\n")
		return
	}
	if full {
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "System\t%s -> %s\n", p.From, p.To)
	contentsText(w, p.Difference, full)
	if p.Decision.Level == level.Full {
		fmt.Fprintf(w, "Kernel\t%s runs until the full reboot, which continues into the root from the host root\n", p.Kernel)
	} else {
		fmt.Fprintf(w, "Kernel\t%s keeps running\n", p.Kernel)
	}
	stay := slices.DeleteFunc(slices.Clone(p.Carried), func(dir string) bool { return slices.Contains(p.Made, dir) })
	if full || len(p.Made) > 0 {
		fmt.Fprintf(w, "State\t%s stay as they are\n", strings.Join(stay, ", "))
	}
	for _, dir := range p.Made {
		fmt.Fprintf(w, "  new\t%s\tis made in the host root, with what the image has there\n", dir)
	}
	decisionText(w, *p.Decision, full)
	if next != "" {
		fmt.Fprintf(w, "Next\t%s\n", next)
	}
	if p.Decision.Level == level.Soft && (full || p.Outage != nil) {
		outageLines(w, p.Outage, full)
	}
	endingText(w, p.Ending)
	slowText(w, p.Blockers)
	ownersText(w, p.Etc.Owners, full)
	stayOldText(w, p.StayOld)
	unitsText(w, p, full)
	if p.Adoption != nil {
		adoptionText(w, *p.Adoption)
	} else {
		etcText(w, *p.Etc, full)
	}
	if !full {
		fmt.Fprintf(w, "More\t`updatectl plan --full` lists every package and check\n")
	}
}

// planned writes in few lines which image a plan is about.
func planned(w io.Writer, v agent.Available) {
	fmt.Fprintf(w, "Another image is published, and staged.\n")
	fmt.Fprintf(w, "  image\t%s\n", v.Reference)
	version := v.Version
	if v.Release != nil {
		version += fmt.Sprintf(" (sequence %d)", v.Release.Sequence)
	}
	versionText(w, strings.TrimSpace(version))
	fmt.Fprintf(w, "  root\t%s%s\n", short(v.Root), detail("signed by", signedBy(v.Vouchers)))
	runningText(w, v)
	publishedLiveText(w, v.LivePatches)
	badText(w, v.Bad)
}

// slowText writes the units that may hold up the shutdown. Those that only have systemd's default timeout are counted:
// in a long list, nobody finds the one that matters.
func slowText(w io.Writer, blockers []pid1.Blocker) {
	ordinary := 0
	for _, b := range blockers {
		if b.Default {
			ordinary++
			continue
		}
		fmt.Fprintf(w, "Slow\t%s: %s\n", b.Unit, b.Reason)
	}
	if ordinary > 0 {
		fmt.Fprintf(w, "Slow\t%s only by systemd's default stop timeout, which is longer than [switch] shutdown-deadline\n",
			usage.Count(ordinary, "unit", "units"))
	}
}

// endingText writes the sessions, machines and containers that a switch ends.
func endingText(w io.Writer, units []ending.Ending) {
	names := map[string][]string{}
	var kinds []string
	for _, e := range units {
		if e.What == ending.PacketFilter {
			fmt.Fprintf(w, "Open\t%s removes its rules when it stops: until it starts in the new root, "+
				"nothing is filtered\n", e.Name)
			continue
		}
		if names[e.What] == nil {
			kinds = append(kinds, e.What)
		}
		names[e.What] = append(names[e.What], e.Name)
	}
	for _, kind := range kinds {
		fmt.Fprintf(w, "Ends\t%s: %s\n", usage.Count(len(names[kind]), kind, kind+"s"), strings.Join(names[kind], ", "))
	}
}

// stayOldText writes the units that the switch leaves as they are.
func stayOldText(w io.Writer, units []renew.Old) {
	for _, u := range units {
		fmt.Fprintf(w, "Old\t%s stays as it is: %s\n", u.Unit, u.Reason)
	}
}

// decisionText writes the level and its reasons. Unless full, checks that found nothing are left out.
func decisionText(w io.Writer, d level.Decision, full bool) {
	fmt.Fprintf(w, "Level\t%s\n", d.Level)
	for _, check := range d.Checks {
		if check.Verdict == level.VerdictOK && !full {
			continue
		}
		fmt.Fprintf(w, "  %s\t%s\t%s\n", check.Verdict, check.Name, check.Reason)
	}
}

// etcText writes what becomes of /etc. Unless full, merged files are cut to a line.
func etcText(w io.Writer, r etc.Report, full bool) {
	fmt.Fprintf(w, "/etc\t%s of this host kept, %s\n",
		usage.Count(len(r.Kept), "change", "changes"), usage.Count(len(r.Conflicts), "conflict", "conflicts"))
	for _, conflict := range r.Conflicts {
		fmt.Fprintf(w, "  conflict\t/etc/%s\t%s\n", conflict.Path, conflict.Reason)
		if conflict.Beside != "" {
			fmt.Fprintf(w, "    beside it\t/etc/%s\tthe image's version, which nothing loads\n", conflict.Beside)
		}
	}
	const few = 2
	if len(r.Merged) > few && !full {
		fmt.Fprintf(w, "  merged\t%s\n", cut(r.Merged, shownWidth, "file", "files"))
		r.Merged = nil
	}
	for _, name := range r.Merged {
		fmt.Fprintf(w, "  merged\t/etc/%s\thas the changes of this host and of the image\n", name)
	}
	for _, note := range r.Notes {
		fmt.Fprintf(w, "  note\t%s\n", note)
	}
	if n := len(r.Renumbered); n > 0 && !full {
		fmt.Fprintf(w, "  numbers\t%s another number here than in the image\n",
			usage.Count(n, "user or group has", "users and groups have"))
		return
	}
	for _, name := range r.Renumbered {
		fmt.Fprintf(w, "  number\t%s\n", name)
	}
}
