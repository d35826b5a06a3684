package main

import (
	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/cmd/usage"
)

func arrivedCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "arrived",
		Short: "Tell hooks, the lock server and monitoring how the switch ended",
		Args:  usage.Arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := c.running()
			if err != nil {
				return err
			}
			defer c.writeMetrics(cmd.Context(), a)
			return a.Turn.Settle(cmd.Context())
		},
	}
}
