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
			switches, waits := done.Root != done.From, len(live.Waiting(done.LivePatches)) > 0
			err = c.print("stage", done, func(w io.Writer) { stagedText(w, done) })
			if err == nil && (switches || waits) {
				return answer(exitAvailable)
			}
			return err
		},
	}
	fromFlag(cmd.Flags(), &o.From, "stage the image")
	waitFlag(cmd.Flags(), &o.Wait)
	allowDowngrade(cmd.Flags(), &o)
	return cmd
}

func stagedText(w io.Writer, d agent.Applied) {
	waiting := live.Waiting(d.LivePatches)
	for _, p := range waiting {
		fmt.Fprintf(w, "The live patch %s is stored and waits for `updatectl apply`.\n", p.Name)
	}
	if d.Root == d.From {
		if len(waiting) == 0 {
			fmt.Fprintf(w, "Nothing to do: %s runs already%s.\n", short(d.Root), detail("version", d.Version))
		}
		return
	}
	added := "nothing new on disk"
	if d.NewBytes > 0 {
		added = usage.Size(d.NewBytes) + " new on disk"
	}
	fmt.Fprintf(w, "Staged %s%s%s: %s.\n", short(d.Root), detail("version", d.Version),
		detail("signed by", signedBy(d.Vouchers)), added)
	releaseText(w, "  ", d.Release)
	badText(w, d.Bad)
}
