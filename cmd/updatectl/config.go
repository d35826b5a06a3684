package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/agent/config"
	"github.com/updatectl/updatectl/cmd/usage"
	"github.com/updatectl/updatectl/configs"
	"github.com/updatectl/updatectl/verify/printable"
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
		RunE: func(*cobra.Command, []string) error {
			a, err := c.agent()
			if err == nil || errors.Is(err, config.ErrConfig) && !errors.Is(err, config.ErrUnreadable) {
				err = errors.Join(err, a.CheckConfig())
			}
			if err != nil {
				return err
			}
			checked := checkedConfig{a.Config, a.Adoption.ConfigWarnings()}
			return c.print("config.check", checked, func(w io.Writer) {
				fmt.Fprintf(w, "The configuration is valid: %s.\n", usage.Count(len(a.Config.Files), "file", "files"))
				for _, warning := range checked.Warnings {
					fmt.Fprintf(w, "warning: %s\n", warning)
				}
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
			return showConfig(c.stdout, a.Config)
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

// showConfig writes a configuration as TOML. No line is broken, because that would be no TOML.
func showConfig(w io.Writer, c config.Config) error {
	var text strings.Builder
	for _, f := range c.Files {
		fmt.Fprintf(&text, "# %s\n", f)
	}
	if err := toml.NewEncoder(&text).Encode(c); err != nil {
		return fmt.Errorf("cannot write the configuration: %w", err)
	}
	if left := c.Verify.Restrictions; len(left) > 0 {
		text.WriteString("\n# A later file left these rules out. They still restrict their keys:\n")
		var rules strings.Builder
		if err := toml.NewEncoder(&rules).Encode(map[string]any{"verify": map[string]any{"key": left}}); err != nil {
			return fmt.Errorf("cannot write the configuration: %w", err)
		}
		for line := range strings.Lines(rules.String()) {
			text.WriteString(strings.TrimRight("# "+line, " \n") + "\n")
		}
	}
	for line := range strings.Lines(text.String()) {
		if _, err := io.WriteString(printable.Lines(w), line); err != nil {
			return err
		}
	}
	return nil
}

// exampleAnswer is the commented configuration in JSON.
type exampleAnswer struct {
	TOML string `json:"toml"`
}
