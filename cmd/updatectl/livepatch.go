package main

import (
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/cmd/updatectl/report"
	"github.com/updatectl/updatectl/cmd/usage"
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
			return c.print("livepatch.list", list, func(w io.Writer) { report.LivePatches(w, list) })
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
			return c.print("livepatch.apply", r, func(w io.Writer) { report.LivePatchesLoaded(w, r) })
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
			return c.print("livepatch.revert", r, func(w io.Writer) { report.LivePatchesReverted(w, r) })
		},
	}
	waitFlag(cmd.Flags(), &wait)
	return cmd
}
