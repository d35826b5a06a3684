package main

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/unattended"
	"github.com/updatectl/updatectl/cmd/updatectl/report"
	"github.com/updatectl/updatectl/cmd/usage"
)

func applyCommand(c *cli) *cobra.Command {
	var o agent.ApplyOptions
	var wish string
	cmd := &cobra.Command{
		Use:   "apply",
		Short: "Bring this host to the published image",
		Long: `Bring this host to the published image: fetch, verify, stage, switch.

The switch restarts userspace and ends this session. The kernel keeps running,
unless the level is full. In the new root, the host confirms that it arrived
and is healthy, or rolls back ("updatectl status" shows which). If anything
fails before services stop, the host stays in its root.

With --volatile, the root runs on a throw-away copy of the state, in memory:
"updatectl rollback" drops all that was changed in it, and so does a full
reboot. Use it to try a migration. It never becomes the last good root.`,
		Args: usage.Arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if o.Level, err = levelOf(cmd, wish); err == nil {
				err = checkVolatile(cmd, &o)
			}
			if err != nil {
				return err
			}
			done, err := c.followed(func(a *agent.Agent) (agent.Applied, error) {
				if o.Unattended {
					defer c.writeMetrics(cmd.Context(), a)
					return unattended.On(a, reason).Apply(cmd.Context(), o)
				}
				return a.Apply(cmd.Context(), o)
			})
			if err != nil {
				return adviseAccept(adviseRetry(err, o), "apply", o)
			}
			return c.print("apply", done, func(w io.Writer) { report.Applied(w, done) })
		},
	}
	f := cmd.Flags()
	fromFlag(f, &o.From, "take the image")
	levelFlag(f, &wish)
	waitFlag(f, &o.Wait)
	f.BoolVar(&o.Retry, "retry", false, "take an image that was given up")
	acceptLosses(f, &o)
	allowDowngrade(f, &o)
	volatileFlag(f, &o)
	f.BoolVar(&o.IgnoreRollout, "ignore-rollout", false,
		"in an emergency: take a release before its rollout reaches this host, or although it is stopped")
	f.BoolVar(&o.Unattended, "unattended", false,
		"for timers: keep to [schedule], leave an image that was given up alone, and resume the last good root after a "+
			"full reboot")
	return cmd
}
