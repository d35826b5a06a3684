package main

import (
	"cmp"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/agent/record"
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
			return c.print("history", historyAnswer{events}, func(w io.Writer) {
				if len(events) == 0 {
					fmt.Fprintf(w, "Nothing yet.\n")
				}
				for _, e := range events {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", e.At.Format("2006-01-02 15:04:05"), e.Event,
						cmp.Or(short(e.Root), e.LivePatch), e.Version, eventDetail(e))
				}
			})
		},
	}
}

// historyAnswer is the answer of history in JSON.
type historyAnswer struct {
	Events []record.Event `json:"events"`
}

func eventDetail(e record.Event) string {
	switch {
	case e.Reason != "":
		return e.Reason
	case e.Verb != "" && e.From != "":
		return verbText(e.Verb) + " from " + short(e.From)
	case len(e.Vouchers) > 0:
		return "signed by " + signedBy(e.Vouchers)
	case e.From != "":
		return "from " + short(e.From)
	}
	return ""
}
