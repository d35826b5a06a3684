package main

import (
	"io"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/cmd/updatectl/report"
	"github.com/updatectl/updatectl/cmd/usage"
	"github.com/updatectl/updatectl/switcher/pid1"
)

// agentCommand returns the commands that units call and people do not.
func agentCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:    "agent",
		Short:  "What updatectl's own units call",
		Hidden: true,
	}
	usage.Group(cmd, &cobra.Command{
		Use:   "arm",
		Short: "Arm the root that the record names, once services have stopped",
		Args:  usage.Arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			// The journal has stopped by now. Go ends a program that writes to a broken stderr, unless this is ignored.
			signal.Ignore(syscall.SIGPIPE)
			a, err := c.anyway()
			if err != nil {
				return err
			}
			return a.Transition.Arm(cmd.Context())
		},
	}, &cobra.Command{
		Use:   "guard",
		Short: "Watch the switch, and roll back if its root does not become good",
		Args:  usage.Arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			signal.Ignore(syscall.SIGPIPE) // as above: the guard outlives the journal
			if err := pid1.Unpin(); err != nil {
				return err
			}
			a, err := c.anyway()
			if err != nil {
				return err
			}
			return a.Guards.Run(cmd.Context())
		},
	}, deriveCommand(c), renewCommand(c), arrivedCommand(c), &cobra.Command{
		Use:   "resume",
		Short: "Resume the last good root after a full reboot, once",
		Args:  usage.Arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := c.anyway()
			if err != nil {
				return err
			}
			done, err := a.Resume(cmd.Context())
			if err != nil {
				return err
			}
			return c.print("resume", done, func(w io.Writer) { report.Resumed(w, done) })
		},
	})
	return cmd
}
