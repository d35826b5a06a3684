package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/live"
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
			done, err := c.followed(func(a *agent.Agent) (agent.Applied, error) { return a.Stage(cmd.Context(), o) })
			if err != nil {
				return err
			}
			switches, live := done.Root != done.From, live.Waiting(done.LivePatches)
			err = c.print("stage", done, func(w io.Writer) {
				for _, p := range live {
					fmt.Fprintf(w, "The live patch %s is stored and waits for `updatectl apply`.\n", p.Name)
				}
				if !switches && len(live) > 0 {
					return
				}
				if !switches {
					fmt.Fprintf(w, "Nothing to do: %s runs already, version %s.\n", short(done.Root), done.Version)
					return
				}
				added := "nothing new on disk"
				if done.NewBytes > 0 {
					added = bytesText(done.NewBytes) + " new on disk"
				}
				fmt.Fprintf(w, "Staged %s%s%s: %s.\n", short(done.Root), detail("version", done.Version),
					detail("signed by", signedBy(done.Vouchers)), added)
				releaseText(w, "  ", done.Release)
				badText(w, done.Bad)
			})
			if err == nil && (switches || len(live) > 0) {
				return answer(exitAvailable)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&o.From, "from", "", "stage the image at `REF` instead of the configured source")
	cmd.Flags().BoolVar(&o.Wait, "wait", false, "wait for another updatectl that is running")
	allowDowngrade(cmd.Flags(), &o)
	return cmd
}
