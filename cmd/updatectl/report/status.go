package report

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/live"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/trial"
	"github.com/updatectl/updatectl/cmd/usage"
	"github.com/updatectl/updatectl/switcher"
	"github.com/updatectl/updatectl/switcher/level"
)

// Status writes what runs, what is staged, and how the last switch ended.
func Status(w io.Writer, s agent.Status) {
	fmt.Fprintf(w, "Booted\t%s\n", rootText(s.Booted))
	volatileText(w, s)
	if s.Booted.Root == switcher.HostRoot && s.Good[0].Root != switcher.HostRoot && s.Switch == nil {
		fmt.Fprintf(w, "\ta full reboot landed here; `updatectl apply` continues from %s\n", short(s.Good[0].Root))
	}
	fmt.Fprintf(w, "Phase\t%s\n", phaseText(s))
	switchText(w, s)
	if staged(s) && (s.Switch == nil || s.Switch.Target != s.Staged.Root) {
		fmt.Fprintf(w, "Staged\t%s\n", rootText(*s.Staged))
	}
	rootsText(w, s)
	for _, id := range s.Pinned {
		fmt.Fprintf(w, "Pinned\t%s\n", short(id))
	}
	fmt.Fprintf(w, "Kernel\t%s, %s%s%s\n", s.Kernel.Release, bootedText(s.Kernel.BootedAt, time.Now()),
		softRebootsText(s.Kernel.SoftReboots), limitText(s.Kernel.RebootBy))
	if s.Kernel.BuildID != "" {
		fmt.Fprintf(w, "\tbuild id %s\n", s.Kernel.BuildID)
	}
	for _, p := range s.Kernel.LivePatches {
		if p.State != live.LiveElsewhere && p.State != live.LiveWithdrawn {
			fmt.Fprintf(w, "Live patch\t%s\n", strings.Replace(livePatchText(p), "\t", "  ", 1))
		}
	}
	fixesText(w, s.Fixes)
	if s.System != "" {
		failed := ""
		if len(s.Failed) > 0 {
			failed = "; failed: " + strings.Join(s.Failed, " ")
		}
		fmt.Fprintf(w, "System\t%s%s\n", s.System, failed)
	}
	holdersText(w, s.Holders)
	if s.Armed != "" {
		fmt.Fprintf(w, "Armed\t%s: the next reboot goes there\n", short(s.Armed))
	}
	if s.Resume != nil {
		fmt.Fprintf(w, "Resume\tresuming %s after a full reboot failed %s\n", short(s.Resume.Root),
			usage.Count(s.Resume.Attempts, "time", "times"))
	}
	for _, kept := range s.KeptRestrictions {
		fmt.Fprintf(w, "Withdrawn\t%s\n", kept)
	}
	if s.Order != "" {
		fmt.Fprintf(w, "Order\t%s\n", s.Order)
	}
	if s.Refused != nil {
		fmt.Fprintf(w, "Last check\t%s: %s\n", s.Refused.At.Format("2006-01-02 15:04:05"), s.Refused.Reason)
	}
	fleetText(w, s)
	if s.Last != nil {
		fmt.Fprintf(w, "Last switch\t%s\n", lastText(*s.Last))
	}
	for _, h := range []*trial.Report{s.Health, s.Unhealthy} {
		if reportMatters(s, h) {
			Health(w, h)
		}
	}
}

// lastText returns how a switch ended: to which root, when, why, and where the host went.
func lastText(r record.Result) string {
	text := fmt.Sprintf("to %s (%s): %s", short(r.Target), r.At.Format("2006-01-02 15:04:05"), r.Outcome)
	if r.Reason != "" {
		text += ": " + r.Reason
	}
	if r.Back != "" {
		text += "; the host rolled back to " + short(r.Back)
	}
	return text
}

// reportMatters reports whether a report of the health gate says something about now: it is about the root that runs,
// or about the one that the last switch was to. While a root is tried, a report from before the switch says nothing.
func reportMatters(s agent.Status, h *trial.Report) bool {
	switch {
	case h == nil:
		return false
	case s.Phase == record.PhaseTrying && s.Switch != nil:
		return h.Root == s.Switch.Target && h.Report.At.After(s.Switch.At)
	case s.Last != nil && s.Last.Outcome == level.Unhealthy && s.Last.Target == h.Root:
		return true
	}
	return h.Root == s.Booted.Root
}

// rootsText writes the roots that the host knows, each in one state: what the operator left or what was given up is not
// listed as good, although it was once.
func rootsText(w io.Writer, s agent.Status) {
	label := "Good"
	for _, r := range s.Good {
		if _, bad := s.Bad[r.Root]; !bad {
			fmt.Fprintf(w, "%s\t%s\n", label, rootText(r))
			label = ""
		}
	}
	for _, id := range slices.Sorted(maps.Keys(s.Bad)) {
		label := "Bad"
		if s.Bad[id].RolledBack {
			label = "Left"
		}
		removed := ""
		if slices.Contains(s.Removed, id) {
			removed = " (removed)"
		}
		fmt.Fprintf(w, "%s\t%s, %s: %s%s\n", label, short(id), s.Bad[id].At.Format("2006-01-02 15:04"),
			s.Bad[id].Reason, removed)
	}
	for _, id := range slices.Sorted(maps.Keys(s.NotReached)) {
		if _, bad := s.Bad[id]; !bad {
			failed := s.NotReached[id]
			fmt.Fprintf(w, "Not reached\t%s, %s: %s\n", short(id), timesText(failed.Times), failed.Reason)
		}
	}
}

// timesText returns how often something failed, to go before the reason of the last time.
func timesText(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times, the last time", n)
}

// staged reports whether a root waits that apply would switch to: one that was given up is shown as bad.
func staged(s agent.Status) bool {
	if s.Staged == nil {
		return false
	}
	_, bad := s.Bad[s.Staged.Root]
	return !bad
}

// phaseText returns the phase for people: a host is not in phase staged when what it staged was given up since.
func phaseText(s agent.Status) string {
	switch {
	case s.Phase != record.PhaseStaged || staged(s):
		return string(s.Phase)
	case s.Booted.Root == switcher.HostRoot:
		return string(record.PhaseIdle)
	}
	return string(record.PhaseGood)
}

// switchText writes a switch under way: where the host goes, and where it ends if that root does not become good.
func switchText(w io.Writer, s agent.Status) {
	if s.Switch == nil {
		return
	}
	const clock = "15:04:05"
	to := short(s.Switch.Target) + detail("version", s.Switch.Version)
	if s.Phase != record.PhaseTrying {
		fmt.Fprintf(w, "Switching\tto %s since %s (%s)\n", to, s.Switch.At.Format(clock), verbText(s.Switch.Verb))
		return
	}
	end := "the host stays"
	if s.Switch.Back != "" {
		end = "the host rolls back to " + short(s.Switch.Back)
	}
	by := ""
	if !s.Switch.Deadline.IsZero() {
		by = " by " + s.Switch.Deadline.Format(clock)
	}
	fmt.Fprintf(w, "Trying\t%s (%s); if it is not good%s, %s\n", to, verbText(s.Switch.Verb), by, end)
	fmt.Fprintf(w, "\tits health is not judged yet\n")
	if len(s.Starting) > 0 {
		fmt.Fprintf(w, "\tstill starting: %s\n", strings.Join(s.Starting, " "))
	}
}

// verbText returns the verb of a switch for people.
func verbText(verb string) string {
	if verb == "back" {
		return "rolling back"
	}
	return verb
}

func rootText(r agent.RootStatus) string {
	words := []string{short(r.Root)}
	if r.Version != "" {
		words = append(words, "version "+r.Version)
	}
	if r.Sequence > 0 {
		words = append(words, fmt.Sprintf("sequence %d", r.Sequence))
	}
	if r.Name != "" && r.Name != r.Root {
		words = append(words, r.Name)
	}
	if len(r.Vouchers) > 0 {
		words = append(words, "signed by "+signedBy(r.Vouchers), "verified "+r.VerifiedAt.Format("2006-01-02 15:04"))
	}
	return strings.Join(words, ", ")
}

// softRebootsText returns how many soft reboots this kernel has seen; systemd before 256 does not count them.
func softRebootsText(n int) string {
	switch {
	case n < 0:
		return "this systemd does not count soft reboots"
	case n == 1:
		return "1 soft reboot since it booted"
	}
	return fmt.Sprintf("%d soft reboots since it booted", n)
}

// bootedText returns when the kernel was booted and how long ago that is.
func bootedText(booted, now time.Time) string {
	const aDay = 24 * time.Hour
	if booted.IsZero() {
		return ""
	}
	date := booted.UTC().Format(dateOnly)
	switch days := now.Sub(booted) / aDay; days {
	case 0:
		return fmt.Sprintf("booted on %s, ", date)
	case 1:
		return fmt.Sprintf("booted on %s, 1 day ago, ", date)
	default:
		return fmt.Sprintf("booted on %s, %d days ago, ", date, days)
	}
}

// limitText returns until when a kernel may go on with soft reboots.
func limitText(rebootBy time.Time) string {
	if rebootBy.IsZero() {
		return ""
	}
	return "; full reboot by " + rebootBy.UTC().Format(dateOnly)
}

const dateOnly = "2006-01-02"
