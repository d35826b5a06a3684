package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/live"
	"github.com/updatectl/updatectl/switcher/livepatch"
)

func livepatchCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "livepatch",
		Short: "Show, load and take back the live patches of the running kernel",
		Args:  args(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(livepatchListCommand(c), livepatchApplyCommand(c), livepatchRevertCommand(c))
	return cmd
}

func livepatchListCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the live patches that the kernel has loaded or that are stored, and name the kernel",
		Long: `List the live patches that the kernel has loaded or that are stored, with their state, what they fix and who vouches
for them. The kernel is named as "releasectl livepatch add" wants it. The fixes of a live patch count when it is effective:
switched on, and no task runs the old code any more.`,
		Args: args(cobra.NoArgs),
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
		Short: "Fetch and load the live patches for the running kernel; nothing is restarted",
		Long: `Fetch the published release, keep its live patches for the running kernel, and load what waits, in the order of the
release. NAME loads one only, also one that was taken back or that made the host go down. A transition that has not ended
by [livepatch] deadline is taken back, and the tasks that block it are named: exit code 12.`,
		Args: args(cobra.MaximumNArgs(1)),
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
	f.BoolVar(&o.Stored, "stored", false, "load what is stored, and ask no source")
	f.StringVar(&o.From, "from", "", "take the release `REF` instead of the configured source")
	f.BoolVar(&o.Wait, "wait", false, "wait for another updatectl that is at work")
	f.BoolVar(&o.Unattended, "unattended", false, "for the unit at boot: do nothing where [livepatch] enabled is false")
	return cmd
}

func livepatchRevertCommand(c *cli) *cobra.Command {
	var wait bool
	cmd := &cobra.Command{
		Use:   "revert [NAME]",
		Short: "Take a live patch out of the kernel, or all that are stored; it is not loaded again by itself",
		Long: `Take a live patch out of the kernel, or without NAME all that are stored, the last one first. It is not loaded again,
neither by apply nor at boot, before "updatectl livepatch apply NAME".`,
		Args: args(cobra.MaximumNArgs(1)),
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
					fmt.Fprintln(w, "Nothing to take back.")
				}
				for _, name := range r.Reverted {
					fmt.Fprintf(w, "%s is taken back; `updatectl livepatch apply %s` loads it again.\n", name, name)
				}
				livePatchesText(w, r.Patches)
			})
		},
	}
	cmd.Flags().BoolVar(&wait, "wait", false, "wait for another updatectl that is at work")
	return cmd
}

// kernelFlags names the kernel as releasectl livepatch add wants it, for a publisher to paste.
func kernelFlags(w io.Writer, k agent.LiveKernel) {
	if k.Release == "" {
		return // who is not root is told less
	}
	build := "none: no live patch can be bound to this kernel"
	if k.BuildID != "" {
		build = "--kernel-build-id " + k.BuildID
	}
	fmt.Fprintf(w, "Kernel\t--kernel-release %s --kernel-version '%s'\n", k.Release, k.Version)
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

// blockersText tells what a transition waits for, with the stacks.
func blockersText(w io.Writer, blockers []livepatch.Blocker) {
	for _, b := range blockers {
		fmt.Fprintf(w, "  blocked by\t%s\n", b)
		for _, function := range b.Stack {
			fmt.Fprintf(w, "\t  %s\n", function)
		}
	}
}

// livePatchText is a live patch in a line.
func livePatchText(p live.LivePatch) string {
	words := []string{string(p.State)}
	switch {
	case p.State == live.LiveTransition:
		words = []string{"in transition: some tasks still run the old code"}
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

// fixesText tells of every fix of the kernel.
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
	text := "open: needs another kernel" // a full reboot boots the host's, of which no release tells
	if x.By != "" {
		text += fmt.Sprintf(", or the live patch %s, which is %s", x.By, x.Reason)
	}
	if !x.RebootBy.IsZero() {
		text += "; a full reboot is due by " + x.RebootBy.Format("2006-01-02")
	}
	return text
}
