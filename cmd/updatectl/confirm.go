package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/trial"
	"github.com/updatectl/updatectl/cmd/usage"
	"github.com/updatectl/updatectl/switcher/level"
	"github.com/updatectl/updatectl/switcher/pid1"
)

func confirmCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "confirm",
		Short: "Wait for the verdict on the running root, and show it",
		Args:  usage.Arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := c.anyway()
			if err != nil {
				return err
			}
			done, err := confirm(cmd.Context(), a)
			if errors.Is(err, record.ErrUnhealthy) && c.output != "json" { // as JSON, the error is the only document
				err = errors.Join(err, c.print("confirm", done, func(w io.Writer) { healthText(w, done.Health) }))
			}
			if err != nil {
				return err
			}
			return c.print("confirm", done, func(w io.Writer) {
				if done.Good {
					fmt.Fprintf(w, "%s is good.\n", short(done.Root))
				} else {
					fmt.Fprintf(w, "%s runs and is not the last good root; there was nothing to confirm.\n", short(done.Root))
				}
				if done.Last != nil && done.Last.Outcome != level.Switched {
					fmt.Fprintf(w, "The last switch was %s.\n", lastText(*done.Last))
				}
				healthText(w, done.Health)
			})
		},
	}
}

// confirm judges the running root as updatectl-confirm.service, and waits for that unit as anybody else: a person who
// gives up waiting must not end the trial.
func confirm(ctx context.Context, a *agent.Agent) (trial.Confirmed, error) {
	if !pid1.IsUnit(pid1.ConfirmUnit) {
		if done, waited, err := a.Trial.Await(ctx); waited || err != nil {
			return done, err
		}
	}
	return a.Confirm(ctx)
}
