package main

import (
	"errors"
	"io"

	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/recheck"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/roots"
	"github.com/updatectl/updatectl/cmd/updatectl/report"
	"github.com/updatectl/updatectl/cmd/usage"
	"github.com/updatectl/updatectl/switcher"
)

func switchCommand(c *cli) *cobra.Command {
	var o agent.ApplyOptions
	var wish string
	cmd := &cobra.Command{
		Use:   "switch ROOT",
		Short: "Switch to a root that is staged",
		Long: `Switch to a root that is staged: an identity that "updatectl roots" lists, its
beginning, or its version. Nothing is fetched.

As with apply, who signed the root and what is on the disk are checked, the
changes in the running /etc come along (the former /etc of the root is kept
beside it as etc.old), and the root has to become good. The order of releases
is not checked: whoever names a root decides. An unattended apply does not
return to the root that you leave.

"updatectl rollback ROOT" goes to a root that was good, with the /etc that it
had, and so does "updatectl switch host".`,
		Args: usage.Arguments("the root"),
		RunE: func(cmd *cobra.Command, given []string) error {
			if f := cmd.Flags(); given[0] == switcher.HostRoot &&
				(f.Changed("level") || f.Changed("retry") || f.Changed("accept") || f.Changed("volatile")) {
				return usageError{errors.New("the switch to the host root is a rollback: it takes no flag but --wait"),
					cmd.CommandPath()}
			}
			var err error
			if o.Level, err = levelOf(cmd, wish); err == nil {
				err = checkVolatile(cmd, &o)
			}
			if err != nil {
				return err
			}
			a, err := c.agent()
			if err != nil {
				return err
			}
			done, err := a.Switch(cmd.Context(), given[0], o)
			if err != nil {
				return adviseSwitch(err, given[0], o)
			}
			return c.print("switch", done, func(w io.Writer) { report.Applied(w, done) })
		},
	}
	f := cmd.Flags()
	levelFlag(f, &wish)
	waitFlag(f, &o.Wait)
	f.BoolVar(&o.Retry, "retry", false, "take a root that was given up")
	volatileFlag(f, &o)
	acceptLosses(f, &o)
	return cmd
}

// adviseSwitch adds to a refusal how to switch to the root all the same.
func adviseSwitch(err error, root string, o agent.ApplyOptions) error {
	command := "switch " + root
	switch {
	case errors.Is(err, record.ErrGivenUp):
		return advised{err, "`updatectl " + command + flagsOf(o) + " --retry` takes it anyway"}
	case errors.Is(err, recheck.ErrEvidence):
		return advised{err, "have the image signed under today's policy, and `updatectl stage` it again; the host stays " +
			"in its root"}
	case errors.Is(err, roots.ErrFullReboot):
		return advised{err, "`updatectl " + command + " --level full` reboots for it"}
	}
	return adviseAccept(err, command, o)
}
