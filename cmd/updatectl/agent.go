package main

import (
	"fmt"
	"io"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/switcher/pid1"
)

// agentCommand holds what units call and people do not.
func agentCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:    "agent",
		Short:  "What updatectl's own units call",
		Hidden: true,
		Args:   args(cobra.NoArgs),
		RunE:   func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "arm",
		Short: "Arm the root that the record names, when services have stopped (updatectl-arm.service)",
		Args:  args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			// The journal has stopped by now: a word to it must fail, not kill. Go ends a program whose stderr is broken.
			signal.Ignore(syscall.SIGPIPE)
			a, err := c.anyway()
			if err != nil {
				return err
			}
			return a.Transition.Arm(cmd.Context())
		},
	})
	cmd.AddCommand(&cobra.Command{
		Use:   "guard",
		Short: "Watch over the switch that the record announces, and go back when its root does not become good (updatectl-guard.service)",
		Args:  args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			signal.Ignore(syscall.SIGPIPE) // as above: it outlives the journal
			if err := pid1.Unpin(); err != nil {
				return err
			}
			a, err := c.anyway()
			if err != nil {
				return err
			}
			return a.Guards.Run(cmd.Context())
		},
	})
	cmd.AddCommand(&cobra.Command{
		Use:   "resume",
		Short: "Go on from the mutable host to the last good root, once per boot of the kernel (updatectl-resume.service)",
		Args:  args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := c.anyway()
			if err != nil {
				return err
			}
			done, err := a.Resume(cmd.Context())
			if err != nil {
				return err
			}
			return c.print("resume", done, func(w io.Writer) {
				if done.Root == "" {
					fmt.Fprintf(w, "The host stays: %s.\n", done.Reason)
					return
				}
				fmt.Fprintf(w, "The host goes on to %s: %s.\n", short(done.Root), done.Reason)
			})
		},
	})
	return cmd
}
