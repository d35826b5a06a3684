package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/agent"
)

func (c *cli) stageCommand() *cobra.Command {
	var o agent.ApplyOptions
	cmd := &cobra.Command{
		Use:   "stage",
		Short: "Fetch, verify and stage the published image, without switching to it",
		Long:  "Fetch, verify and stage the published image, without switching to it.\nExit code 10 says that it, or a live patch for the running kernel, waits for `updatectl apply`, 0 that nothing does.",
		Args:  args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			done, err := c.followed(func(a *agent.Agent) (agent.Applied, error) { return a.Stage(cmd.Context(), o) })
			if err != nil {
				return err
			}
			switches, live := done.Root != done.From, agent.Waiting(done.LivePatches)
			err = c.print("stage", done, func(w io.Writer) {
				for _, p := range live {
					fmt.Fprintf(w, "The live patch %s is stored, and waits for `updatectl apply`.\n", p.Name)
				}
				if !switches && len(live) > 0 {
					return
				}
				if !switches {
					fmt.Fprintf(w, "Nothing to do: %s runs already, version %s.\n", short(done.Root), done.Version)
					return
				}
				fmt.Fprintf(w, "Staged %s, version %s, signed by %s: %s new on disk.\n", short(done.Root), done.Version, signedBy(done.Vouchers), bytesText(done.NewBytes))
				releaseText(w, "  ", done.Release)
			})
			if err == nil && (switches || len(live) > 0) {
				return answer(exitAvailable)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&o.From, "from", "", "stage the image `REF` instead of the configured source")
	cmd.Flags().BoolVar(&o.Wait, "wait", false, "wait for another updatectl that is at work")
	allowDowngrade(cmd.Flags(), &o)
	return cmd
}
