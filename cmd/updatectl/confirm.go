package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/cmd/usage"
	"github.com/updatectl/updatectl/switcher/level"
)

func confirmCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "confirm",
		Short: "Judge the running root after a switch (updatectl-confirm.service)",
		Args:  usage.Arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := c.anyway()
			if err != nil {
				return err
			}
			done, err := a.Confirm(cmd.Context())
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
