package main

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/live"
	"github.com/updatectl/updatectl/agent/unattended"
	"github.com/updatectl/updatectl/cmd/updatectl/report"
	"github.com/updatectl/updatectl/cmd/usage"
)

func stageCommand(c *cli) *cobra.Command {
	var o agent.ApplyOptions
	cmd := &cobra.Command{
		Use:   "stage",
		Short: "Fetch, verify and stage the published image",
		Long: `Fetch, verify and stage the published image, without switching to it.

Exit code 10: it, or a live patch for the running kernel, waits for "updatectl
apply". Exit code 0: nothing does.`,
		Args: usage.Arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			done, err := c.followed(func(a *agent.Agent) (agent.Applied, error) {
				if o.Unattended {
					defer c.writeMetrics(cmd.Context(), a)
					return unattended.On(a, reason).Fetch(cmd.Context(), o)
				}
				return a.Stage(cmd.Context(), o)
			})
			if err != nil {
				return err
			}
			if done.Skipped != "" {
				return c.print("stage", done, func(w io.Writer) { report.Applied(w, done) })
			}
			switches, waits := done.Root != done.From, len(live.Waiting(done.LivePatches)) > 0
			err = c.print("stage", done, func(w io.Writer) { report.Staged(w, done) })
			if err == nil && (switches || waits) {
				return answer(exitAvailable)
			}
			return err
		},
	}
	fromFlag(cmd.Flags(), &o.From, "stage the image")
	waitFlag(cmd.Flags(), &o.Wait)
	allowDowngrade(cmd.Flags(), &o)
	cmd.Flags().BoolVar(&o.Unattended, "unattended", false,
		"for timers: keep to [schedule] and to the rollout of the release, and do not ask the source every time")
	return cmd
}
