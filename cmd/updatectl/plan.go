package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/cmd/usage"
	"github.com/updatectl/updatectl/switcher/etc"
	"github.com/updatectl/updatectl/switcher/level"
	"github.com/updatectl/updatectl/switcher/pid1"
)

func planCommand(c *cli) *cobra.Command {
	var from string
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Show what apply would do, at which level, and why",
		Long: `Show what apply would do: the level with its reasons, and what becomes of /etc.
The image must be staged for that ("updatectl stage"); before, plan shows what
its manifest says.

Exit codes are those of check, and 11, 12 or 22 if apply would end with that.`,
		Args: usage.Arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := c.agent()
			if err != nil {
				return err
			}
			p, err := a.Plan(cmd.Context(), from)
			if err != nil {
				return err
			}
			if err := c.print("plan", p, func(w io.Writer) { planText(w, p, from) }); err != nil {
				return err
			}
			return planned(p)
		},
	}
	fromFlag(cmd.Flags(), &from, "ask for the image")
	return cmd
}

// planned returns the answer to a script: the exit code that apply would end with if it does not switch.
func planned(p agent.Plan) error {
	switch {
	case !p.Newer && !p.Live:
		return nil
	case p.Refusal != nil:
		return answer(exitCode(p.Refusal))
	}
	return answer(exitAvailable)
}

// planText writes a plan; from is the reference that was given, "" for the configured one.
func planText(w io.Writer, p agent.Plan, from string) {
	availableText(w, p.Available)
	if !p.Newer {
		if p.Decision != nil {
			decisionText(w, *p.Decision)
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
	fmt.Fprintf(w, "\nSystem\t%s -> %s\n", p.From, p.To)
	if p.Decision.Level == level.Full {
		fmt.Fprintf(w, "Kernel\t%s runs until the full reboot, which boots the host's kernel and "+
			"continues into the root from there\n", p.Kernel)
	} else {
		fmt.Fprintf(w, "Kernel\t%s keeps running\n", p.Kernel)
	}
	stay := slices.DeleteFunc(slices.Clone(p.Carried), func(dir string) bool { return slices.Contains(p.Made, dir) })
	fmt.Fprintf(w, "State\t%s stay as they are\n", strings.Join(stay, ", "))
	for _, dir := range p.Made {
		fmt.Fprintf(w, "  new\t%s\tis made in the host root, with what the image has there\n", dir)
	}
	decisionText(w, *p.Decision)
	var loss roots.Loss
	if errors.As(p.Refusal, &loss) {
		fmt.Fprintf(w, "Next\t%s\n", lossAdvice(loss, agent.ApplyOptions{From: from}))
	}
	endingText(w, p.Ending)
	slowText(w, p.Blockers)
	ownersText(w, p.Etc.Owners)
	stayOldText(w, p.StayOld)
	if p.Adoption != nil {
		adoptionText(w, *p.Adoption)
		return
	}
	etcText(w, *p.Etc)
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

func decisionText(w io.Writer, d level.Decision) {
	fmt.Fprintf(w, "Level\t%s\n", d.Level)
	for _, check := range d.Checks {
		fmt.Fprintf(w, "  %s\t%s\t%s\n", check.Verdict, check.Name, check.Reason)
	}
}

func etcText(w io.Writer, r etc.Report) {
	fmt.Fprintf(w, "/etc\t%s of this host kept, %s\n",
		usage.Count(len(r.Kept), "change", "changes"), usage.Count(len(r.Conflicts), "conflict", "conflicts"))
	for _, conflict := range r.Conflicts {
		fmt.Fprintf(w, "  conflict\t/etc/%s\t%s\n", conflict.Path, conflict.Reason)
		if conflict.Beside != "" {
			fmt.Fprintf(w, "    beside it\t/etc/%s\tthe image's version, which nothing loads\n", conflict.Beside)
		}
	}
	for _, name := range r.Merged {
		fmt.Fprintf(w, "  merged\t/etc/%s\thas the changes of this host and of the image\n", name)
	}
	for _, note := range r.Notes {
		fmt.Fprintf(w, "  note\t%s\n", note)
	}
}
