package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/metrics"
	"github.com/updatectl/updatectl/cmd/usage"
)

func metricsCommand(c *cli) *cobra.Command {
	var listen bool
	cmd := &cobra.Command{
		Use:   "metrics",
		Short: "Print the metrics of this host for Prometheus",
		Long: `Print the metrics of this host in the text format of Prometheus. Unattended
runs write the same into the directory of [metrics] textfile, where
node_exporter reads it.

With --listen, answer GET /metrics at the sockets that systemd hands over, and
end after a minute without clients. updatectl-metrics.socket starts that.`,
		Args: usage.Arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if c.output == "json" {
				return usageError{errNoJSON, cmd.CommandPath()}
			}
			if listen {
				return c.serveMetrics(cmd.Context())
			}
			text, err := c.metricsText(cmd.Context())
			if err != nil {
				return err
			}
			_, err = c.stdout.Write(text)
			return err
		},
	}
	cmd.Flags().BoolVar(&listen, "listen", false, "answer at the sockets that systemd hands over")
	return cmd
}

var errNoJSON = errors.New(
	"metrics are in the text format of Prometheus only; `updatectl status --output json` has the same facts")

var errNoSocket = errors.New(
	"systemd has handed over no socket; run: systemctl enable --now updatectl-metrics.socket, which starts this")

// unasked is how long the metrics are served without a client: longer than from one scrape to the next of a server that
// asks often, so that not every scrape starts a process.
const unasked = 90 * time.Second

// metricsText returns the metrics as they are now, by today's configuration.
func (c *cli) metricsText(ctx context.Context) ([]byte, error) {
	a, err := c.anyway()
	if err != nil {
		return nil, err
	}
	h, err := metrics.Of(ctx, a)
	if err != nil {
		return nil, err
	}
	return metrics.Text(h)
}

// serveMetrics serves the metrics at the sockets that systemd hands over.
func (c *cli) serveMetrics(ctx context.Context) error {
	sockets, err := activation.Listeners()
	if err != nil {
		return fmt.Errorf("cannot use the sockets of systemd: %w", err)
	}
	sockets = slices.DeleteFunc(sockets, func(s net.Listener) bool { return s == nil }) // one that is no stream
	if len(sockets) == 0 {
		return usageError{errNoSocket, "updatectl metrics"}
	}
	handler := metrics.Handler(func(ctx context.Context) ([]byte, error) {
		ctx, cancel := context.WithTimeout(ctx, measuring)
		defer cancel()
		return c.metricsText(ctx)
	}, func(err error) { c.log.Warn("cannot measure this host", zap.Error(err)) })
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		return fmt.Errorf("cannot tell systemd that the metrics are served: %w", err)
	}
	return metrics.Serve(ctx, sockets, handler, unasked)
}

// measuring bounds how long the metrics may take, for a scrape or at the end of a run.
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
