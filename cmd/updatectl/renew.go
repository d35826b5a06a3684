package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/cmd/usage"
)

// renewPatience bounds how long systemd may take to accept the jobs: services wait for this unit.
const renewPatience = time.Minute

func renewCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "renew",
		Short: "Renew what the soft reboot left active",
		Args:  usage.Arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := c.anyway()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), renewPatience)
			defer cancel()
			return a.Renewal.Run(ctx)
		},
	}
}
