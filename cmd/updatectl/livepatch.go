package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/live"
	"github.com/updatectl/updatectl/cmd/usage"
	"github.com/updatectl/updatectl/switcher/livepatch"
)

func livepatchCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "livepatch",
		Short: "Show, load and revert live patches of the running kernel",
	}
	usage.Group(cmd, livepatchListCommand(c), livepatchApplyCommand(c), livepatchRevertCommand(c))
	return cmd
}

func livepatchListCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List live patches that are loaded or stored",
		Long: `List the live patches that the kernel has loaded or that are stored, with their
state, what they fix and who vouches for them. The kernel is named as
"releasectl livepatch add" takes it. A live patch fixes something once it is
effective: switched on, with no task running the old code.`,
		Args: usage.Arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := c.agent()
			if err != nil {
				return err
			}
			list, err := a.LivePatches(cmd.Context())
			if err != nil {
				return err
			}
			return c.print("livepatch.list", list, func(w io.Writer) {
				kernelFlags(w, list.Kernel)
				livePatchesText(w, list.LivePatches)
			})
		},
	}
}

func livepatchApplyCommand(c *cli) *cobra.Command {
	var o agent.LivePatchOptions
	cmd := &cobra.Command{
		Use:   "apply [NAME]",
		Short: "Fetch and load live patches; nothing is restarted",
		Long: `Fetch the published release, keep its live patches for the running kernel, and
load the one that waits. NAME loads that one, even if it was reverted or the
host went down with it. A transition that has not ended by [livepatch] deadline
is reverted, and the tasks that block it are named: exit code 12.`,
		Args: usage.Arguments("[NAME]"),
		RunE: func(cmd *cobra.Command, given []string) error {
			if len(given) == 1 {
				o.Name = given[0]
			}
			a, err := c.agent()
			if err != nil {
				return err
			}
			r, err := a.LivePatchApply(cmd.Context(), o)
			if err != nil {
				return err
			}
			return c.print("livepatch.apply", r, func(w io.Writer) {
				if len(r.Loaded) == 0 {
					fmt.Fprintln(w, "Nothing to load.")
				}
				for _, name := range r.Loaded {
					fmt.Fprintf(w, "%s is effective.\n", name)
				}
				livePatchesText(w, r.Patches)
			})
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.Stored, "stored", false, "load what is stored; ask no source")
	fromFlag(f, &o.From, "take the release")
	waitFlag(f, &o.Wait)
	f.BoolVar(&o.Unattended, "unattended", false, "for the unit at boot: do nothing if [livepatch] enabled is false")
	return cmd
}

func livepatchRevertCommand(c *cli) *cobra.Command {
	var wait bool
	cmd := &cobra.Command{
		Use:   "revert [NAME]",
		Short: "Take a live patch out of the kernel",
		Long: `Take a live patch out of the kernel; without NAME, all that are stored, the
last one first. It is not loaded again automatically, neither by apply nor at
boot, until "updatectl livepatch apply NAME".`,
		Args: usage.Arguments("[NAME]"),
		RunE: func(cmd *cobra.Command, given []string) error {
			name := strings.Join(given, "")
			a, err := c.agent()
			if err != nil {
				return err
			}
			r, err := a.LivePatchRevert(cmd.Context(), name, wait)
			if err != nil {
				return err
			}
			return c.print("livepatch.revert", r, func(w io.Writer) {
				if len(r.Reverted) == 0 {
					fmt.Fprintln(w, "Nothing to revert.")
				}
				for _, name := range r.Reverted {
					fmt.Fprintf(w, "%s is reverted; `updatectl livepatch apply %s` loads it again.\n", name, name)
				}
				livePatchesText(w, r.Patches)
			})
		},
	}
	waitFlag(cmd.Flags(), &wait)
	return cmd
}

// kernelFlags names the kernel as "releasectl livepatch add" takes it, for a publisher to paste. The version has spaces
// in it, so it gets a line of its own: broken there, it would be pasted as another one.
func kernelFlags(w io.Writer, k agent.LiveKernel) {
	if k.Release == "" {
		return // users other than root see less
	}
	build := "# no build id: no live patch can be bound to this kernel"
	if k.BuildID != "" {
		build = "--kernel-build-id " + k.BuildID
	}
	fmt.Fprintf(w, "Kernel\t--kernel-release %s \\\n", k.Release)
	fmt.Fprintf(w, "\t--kernel-version \\\n")
	fmt.Fprintf(w, "\t  '%s' \\\n", k.Version)
	fmt.Fprintf(w, "\t%s\n", build)
}

func livePatchesText(w io.Writer, list []live.LivePatch) {
	if len(list) == 0 {
		fmt.Fprintln(w, "The kernel has no live patches loaded, and none is stored.")
	}
	for _, p := range list {
		fmt.Fprintf(w, "%s\n", livePatchText(p))
		blockersText(w, p.Blockers)
	}
}

// blockersText writes the tasks that a transition waits for, with their stacks.
func blockersText(w io.Writer, blockers []livepatch.Blocker) {
	for _, b := range blockers {
		fmt.Fprintf(w, "  blocked by\t%s\n", b)
		for _, function := range b.Stack {
			fmt.Fprintf(w, "\t  %s\n", function)
		}
	}
}

// livePatchText returns a live patch in a line of two cells.
func livePatchText(p live.LivePatch) string {
	words := []string{string(p.State)}
	switch {
	case p.State == live.LiveTransition:
		words = []string{"in transition: some tasks still run the old code"}
	case p.State == live.LiveLeaving:
		words = []string{"being reverted: some tasks still run the new code"}
	case p.Reason != "":
		words = []string{string(p.State) + ": " + p.Reason}
	}
	if len(p.Fixes) > 0 {
		words = append(words, "fixes "+strings.Join(p.Fixes, " "))
	}
	if len(p.Vouchers) > 0 {
		words = append(words, "signed by "+signedBy(p.Vouchers))
	} else if p.Stored {
		words = append(words, "nobody vouches for it")
	}
	return p.Name + "\t" + strings.Join(words, ", ")
}

// fixesText writes the state of every fix of the kernel.
func fixesText(w io.Writer, fixes []live.Fix) {
	for _, x := range fixes {
		fmt.Fprintf(w, "Fix\t%s  %s\n", x.CVE, fixText(x))
	}
}

func fixText(x live.Fix) string {
	if x.State != live.FixOpen {
		text := string(x.State)
		if x.By != "" {
			text += " " + x.By
		}
		return text
	}
	text := "open: needs another kernel" // a full reboot boots the host's, which no release describes
	if x.By != "" {
		text += fmt.Sprintf(", or the live patch %s, which is %s", x.By, x.Reason)
	}
	if !x.RebootBy.IsZero() {
		text += "; a full reboot is due by " + x.RebootBy.Format("2006-01-02")
	}
	return text
}
