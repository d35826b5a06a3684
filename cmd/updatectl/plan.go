package main

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/cmd/updatectl/report"
	"github.com/updatectl/updatectl/cmd/usage"
)

func planCommand(c *cli) *cobra.Command {
	var from string
	var full bool
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Show what apply would do, at which level, and why",
		Long: `Show what apply would do: which packages and files change, the level with its
reasons, what becomes of /etc, and what of the units of this host
(docs/keep.md). The image must be staged for that ("updatectl stage"); before,
plan shows what its manifest says.

Lists are cut to what fits a screen, and checks that found nothing are left
out; --full shows all. What stands against the switch is always shown.

Exit codes are those of check, and 11, 12 or 22 if apply would end with that.`,
		Args: usage.Arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := c.agent()
			if err != nil {
				return err
			}
			p, err := a.Plan(cmd.Context(), from)
			if err != nil {
				return err
			}
			next := lossAdvice(p.Refusal, "apply", agent.ApplyOptions{From: from})
			if err := c.print("plan", p, func(w io.Writer) { report.Plan(w, p, next, full) }); err != nil {
				return err
			}
			return planned(p)
		},
	}
	fromFlag(cmd.Flags(), &from, "ask for the image")
	cmd.Flags().BoolVar(&full, "full", false, "show every package and check")
	return cmd
}

// planned returns the answer to a script: the exit code that apply would end with if it does not switch.
func planned(p agent.Plan) error {
	switch {
	case !p.Newer && !p.Live:
		return nil
	case p.Refusal != nil:
		return answer(exitCode(p.Refusal))
	}
	return answer(exitAvailable)
}
