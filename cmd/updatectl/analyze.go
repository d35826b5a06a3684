package main

import (
	"errors"
	"io"

	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/agent/outage"
	"github.com/updatectl/updatectl/agent/record"
	"github.com/updatectl/updatectl/cmd/updatectl/report"
	"github.com/updatectl/updatectl/cmd/usage"
)

func analyzeCommand(c *cli) *cobra.Command {
	last, svg := 1, false
	cmd := &cobra.Command{
		Use:   "analyze",
		Short: "Show how long services were away at the last switches, and why",
		Long: `Show how long each port and service was away at the last switch to another
root, and what the time was spent on: waiting for the shutdown, stopping
services, arming the next root, switching to it, starting services in it, and
checking their health. The last 50 switches are kept.`,
		Args: usage.Arguments(),
		RunE: func(*cobra.Command, []string) error {
			switch {
			case last < 1:
				return usageError{err: errLast}
			case svg && c.output == "json":
				return usageError{err: errBoth}
			}
			a, err := c.anyway()
			if err != nil {
				return err
			}
			list, err := outage.Read(a.Machine.Disk, a.Path(record.StateDir+"/"+outage.File))
			if err != nil {
				return err
			}
			answer := analyzeAnswer{outage.Analyze(list, last)}
			if svg {
				_, err := io.WriteString(c.stdout, report.Drawing(answer.Switches))
				return err
			}
			return c.print("analyze", answer, func(w io.Writer) { report.Analysis(w, answer.Switches) })
		},
	}
	cmd.Flags().IntVar(&last, "last", last, "show the last `N` switches")
	cmd.Flags().BoolVar(&svg, "svg", false, "draw them as a picture, SVG, on standard output")
	return cmd
}

var (
	errLast = errors.New("--last must be at least 1")
	errBoth = errors.New("--svg and --output json exclude each other")
)

// analyzeAnswer is the answer of analyze in JSON.
type analyzeAnswer struct {
	Switches []outage.Analysis `json:"switches"`
}
