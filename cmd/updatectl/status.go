package main

import (
	"context"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/cmd/updatectl/report"
	"github.com/updatectl/updatectl/cmd/usage"
	"github.com/updatectl/updatectl/switcher/level"
)

func statusCommand(c *cli) *cobra.Command {
	var kernel, wait bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what runs, what is staged, and how the last switch ended",
		Long: `Show what runs, what is staged, and how the last switch ended.

With --wait, wait first until no switch is under way. The exit code then says
how the last one ended: 0 if its root is good, 40 if it was unhealthy, 1 if the
host did not get there. A switch ends the connection over which "updatectl
apply" was called; a script connects again, as often as it takes, and asks this.`,
		Args: usage.Arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := c.anyway()
			if err != nil {
				return err
			}
			if kernel {
				k, err := a.Kernel(cmd.Context())
				if err != nil {
					return err
				}
				return c.print("status.kernel", k, func(w io.Writer) { report.Kernel(w, k) })
			}
			s, err := a.Status(cmd.Context())
			if err == nil && wait {
				s, err = awaitSwitch(cmd.Context(), a, s)
			}
			if err != nil {
				return err
			}
			err = c.print("status", s, func(w io.Writer) { report.Status(w, s) })
			if code := lastEnded(s); err == nil && wait && code != exitDone {
				return answer(code)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&kernel, "kernel", false, "show how the kernel differs from what the root wants")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until no switch is under way, and end with how the last one did")
	return cmd
}

// awaitSwitch waits until no switch is under way, and returns the status then.
func awaitSwitch(ctx context.Context, a *agent.Agent, s agent.Status) (agent.Status, error) {
	var err error
	for err == nil && s.Switch != nil {
		select {
		case <-ctx.Done():
			return s, ctx.Err()
		case <-time.After(time.Second):
		}
		s, err = a.Status(ctx)
	}
	return s, err
}

// lastEnded returns how the last switch ended, as an exit code; without one, all is well.
func lastEnded(s agent.Status) int {
	switch {
	case s.Last == nil, s.Last.Outcome == level.Switched:
		return exitDone
	case s.Last.Outcome == level.Unhealthy, s.Last.Outcome == level.RolledBack:
		return exitUnhealthy
	}
	return exitError
}
