package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/configs"
)

func configCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check or show the configuration",
		Args:  args(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "check",
		Short: "Tell whether the configuration is valid, its keys included",
		Args:  args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			a, err := c.agent()
			if err != nil {
				return err
			}
			if err := a.CheckConfig(); err != nil {
				return err
			}
			return c.print("config.check", a.Config, func(w io.Writer) {
				fmt.Fprintf(w, "The configuration is valid: %d files.\n", len(a.Config.Files))
			})
		},
	}, &cobra.Command{
		Use:   "show",
		Short: "Show what the configuration comes to, and the files it comes from",
		Args:  args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			a, err := c.agent()
			if err != nil {
				return err
			}
			return c.print("config.show", a.Config, func(w io.Writer) {
				for _, f := range a.Config.Files {
					fmt.Fprintf(w, "# %s\n", f)
				}
				var text strings.Builder
				toml.NewEncoder(&text).Encode(a.Config)
				for line := range strings.Lines(text.String()) {
					io.WriteString(w, line)
				}
			})
		},
	}, &cobra.Command{
		Use:   "example",
		Short: "Print a commented configuration to begin with",
		Args:  args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprint(c.stdout, configs.Example())
			return err
		},
	})
	return cmd
}
