package main

import (
	"context"
	"errors"
	"io"

	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/agent/trial"
	"github.com/updatectl/updatectl/cmd/updatectl/report"
	"github.com/updatectl/updatectl/cmd/usage"
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
				err = errors.Join(err, c.print("confirm", done, func(w io.Writer) { report.Health(w, done.Health) }))
			}
			if err != nil {
				return err
			}
			return c.print("confirm", done, func(w io.Writer) { report.Confirmed(w, done) })
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
