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
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Show what apply would do, at which level, and why",
		Long: `Show what apply would do: the level with its reasons, and what becomes of /etc.
The image must be staged for that ("updatectl stage"); before, plan shows what
its manifest says.

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
			next := lossAdvice(p.Refusal, agent.ApplyOptions{From: from})
			if err := c.print("plan", p, func(w io.Writer) { report.Plan(w, p, next) }); err != nil {
				return err
			}
			return planned(p)
		},
	}
	fromFlag(cmd.Flags(), &from, "ask for the image")
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
