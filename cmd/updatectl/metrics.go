package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/metrics"
	"github.com/updatectl/updatectl/cmd/usage"
)

func metricsCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "metrics",
		Short: "Print the metrics of this host for Prometheus",
		Long: `Print the metrics of this host in the text format of Prometheus. Unattended
runs write the same into the directory of [metrics] textfile, where
node_exporter reads it.`,
		Args: usage.Arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if c.output == "json" {
				return usageError{errNoJSON, cmd.CommandPath()}
			}
			a, err := c.anyway()
			if err != nil {
				return err
			}
			h, err := metrics.Of(cmd.Context(), a)
			if err != nil {
				return err
			}
			text, err := metrics.Text(h)
			if err != nil {
				return err
			}
			_, err = c.stdout.Write(text)
			return err
		},
	}
}

var errNoJSON = errors.New(
	"metrics are in the text format of Prometheus only; `updatectl status --output json` has the same facts")

// measuring bounds how long the metrics may take at the end of a run.
const measuring = 30 * time.Second

// writeMetrics writes the metrics at the end of a run, whatever its result. After a signal it does not: the shutdown of
// a switch must not wait for it, and the next root writes them.
func (c *cli) writeMetrics(ctx context.Context, a *agent.Agent) {
	if ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, measuring)
	defer cancel()
	if err := metrics.Write(ctx, a); err != nil && ctx.Err() != context.Canceled {
		c.log.Warn("monitoring has old metrics of this host", zap.Error(err))
	}
}
