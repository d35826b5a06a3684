package main

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/cmd/updatectl/report"
	"github.com/updatectl/updatectl/cmd/usage"
)

func historyCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "history",
		Short: "Show what was staged, switched to and given up, the latest last",
		Args:  usage.Arguments(),
		RunE: func(*cobra.Command, []string) error {
			a, err := c.anyway()
			if err != nil {
				return err
			}
			events, err := a.Records.History()
			if err != nil {
				return err
			}
			return c.print("history", historyAnswer{events}, func(w io.Writer) { report.History(w, events) })
		},
	}
}

// historyAnswer is the answer of history in JSON.
type historyAnswer struct {
	Events []record.Event `json:"events"`
}
