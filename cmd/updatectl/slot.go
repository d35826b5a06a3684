package main

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/agent/fleetlock"
	"github.com/updatectl/updatectl/cmd/updatectl/report"
	"github.com/updatectl/updatectl/cmd/usage"
)

func slotCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "slot",
		Short: "Show the slot of the lock server that is held, or give it back",
	}
	usage.Group(cmd, &cobra.Command{
		Use:   "show",
		Short: "Show the slot that this host holds",
		Args:  usage.Arguments(),
		RunE: func(*cobra.Command, []string) error {
			a, err := c.anyway()
			if err != nil {
				return err
			}
			slot, err := a.Turn.Slot()
			if err != nil {
				return err
			}
			return c.print("slot", slotAnswer{Slot: slot}, func(w io.Writer) { report.Slot(w, slot, false) })
		},
	}, &cobra.Command{
		Use:   "give-back",
		Short: "Give the slot back, whatever it was kept for",
		Long: `Give the slot of the lock server back, so that another host can switch. A
host does so automatically when its new root is good. After a switch that
failed it keeps the slot, so that the others do not follow.`,
		Args: usage.Arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := c.running()
			if err != nil {
				return err
			}
			slot, err := a.Turn.GiveBack(cmd.Context())
			if err != nil {
				return err
			}
			return c.print("slot", slotAnswer{slot, slot != nil}, func(w io.Writer) { report.Slot(w, slot, true) })
		},
	})
	return cmd
}

// slotAnswer is the answer of slot: the slot that the host holds, or held; nil for none.
type slotAnswer struct {
	Slot      *fleetlock.Slot `json:"slot,omitempty"`
	GivenBack bool            `json:"given_back"`
}
