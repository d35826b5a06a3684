package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/spf13/cobra"

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
			if err != nil {
				return err
			}
			if err := a.CheckConfig(); err != nil {
				return err
			}
			return c.print("config.check", a.Config, func(w io.Writer) {
				fmt.Fprintf(w, "The configuration is valid: %s.\n", countText(len(a.Config.Files), "file", "files"))
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
			var text strings.Builder
			for _, f := range a.Config.Files {
				fmt.Fprintf(&text, "# %s\n", f)
			}
			if err := toml.NewEncoder(&text).Encode(a.Config); err != nil {
				return fmt.Errorf("cannot write the configuration: %w", err)
			}
			for line := range strings.Lines(text.String()) { // as it is: broken lines would be no TOML
				if _, err := io.WriteString(printable.Lines(c.stdout), line); err != nil {
					return err
				}
			}
			return nil
		},
	}, &cobra.Command{
		Use:   "example",
		Short: "Print a commented configuration to start with",
		Args:  usage.Arguments(),
		RunE: func(*cobra.Command, []string) error {
			for line := range strings.Lines(configs.Example()) {
				if strings.HasPrefix(line, "# ") {
					line = printable.Wrap(line, "# ")
				}
				if _, err := io.WriteString(c.stdout, line); err != nil {
					return err
				}
			}
			return nil
		},
	})
	return cmd
}
