package main

import (
	"errors"
	"io"

	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/agent/config"
	"github.com/updatectl/updatectl/agent/unattended"
	"github.com/updatectl/updatectl/cmd/updatectl/report"
	"github.com/updatectl/updatectl/cmd/usage"
	"github.com/updatectl/updatectl/configs"
)

func configCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check or show the configuration",
	}
	usage.Group(cmd, &cobra.Command{
		Use:   "check",
		Short: "Check the configuration, including its keys",
		Args:  usage.Arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := c.agent()
			if err == nil || errors.Is(err, config.ErrConfig) && !errors.Is(err, config.ErrUnreadable) {
				err = errors.Join(err, a.CheckConfig())
				if a.Machine.Running { // of another tree, neither systemd nor its time zones are here
					err = errors.Join(err, unattended.On(a, reason).CheckWindows(cmd.Context()))
				}
			}
			if err != nil {
				return err
			}
			checked := checkedConfig{a.Config, a.Adoption.ConfigWarnings()}
			return c.print("config.check", checked, func(w io.Writer) {
				report.CheckedConfig(w, checked.Config, checked.Warnings)
			})
		},
	}, &cobra.Command{
		Use:   "show",
		Short: "Show the merged configuration and the files it comes from",
		Args:  usage.Arguments(),
		RunE: func(*cobra.Command, []string) error {
			a, err := c.agent()
			if err != nil {
				return err
			}
			if c.output == "json" {
				return c.printJSON("config.show", a.Config)
			}
			return report.Config(c.stdout, a.Config)
		},
	}, &cobra.Command{
		Use:   "example",
		Short: "Print a commented configuration to start with",
		Args:  usage.Arguments(),
		RunE: func(*cobra.Command, []string) error {
			if c.output == "json" {
				return c.printJSON("config.example", exampleAnswer{configs.Example()})
			}
			_, err := io.WriteString(c.stdout, configs.Example())
			return err
		},
	})
	return cmd
}

// checkedConfig is a valid configuration, with what is most likely a mistake in it.
type checkedConfig struct {
	config.Config
	Warnings []string `json:"warnings"`
}

// exampleAnswer is the commented configuration in JSON.
type exampleAnswer struct {
	TOML string `json:"toml"`
}
