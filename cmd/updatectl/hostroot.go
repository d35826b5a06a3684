package main

import (
	"errors"
	"os"

	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/agent/maintenance"
	"github.com/updatectl/updatectl/cmd/usage"
	"github.com/updatectl/updatectl/switcher/hostroot"
)

func hostRootCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "host-root",
		Short: "Maintain the host root while an image runs",
	}
	run := &cobra.Command{
		Use:   "run -- PROGRAM [ARGUMENT...]",
		Short: "Run a program in the host root, such as apt-get",
		Long: `Run a program in the host root, which every full reboot starts from: with its
own packages, /etc and /boot, and nothing of the image that runs. For example:

  updatectl host-root run -- apt-get update
  updatectl host-root run -- apt-get upgrade

What it changes counts from the next full reboot on. Services of the host root
are not started: the image's run. No switch begins meanwhile. The exit code is
that of the program; if updatectl itself fails, it says so in an error.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if c.output != "text" {
				return usageError{err: errors.New("--output cannot be json: the output is that of the program")}
			}
			a, err := c.running()
			if err != nil {
				return err
			}
			m := maintenance.Maintenance{Host: a.Host, Boot: a.Boot}
			code, err := m.Run(cmd.Context(), hostroot.Program{
				Args: args, Stdin: os.Stdin, Stdout: c.stdout, Stderr: c.stderr,
			})
			if err == nil && code != exitDone {
				err = answer(code)
			}
			return err
		},
	}
	run.Flags().SetInterspersed(false) // what follows the program belongs to it
	return usage.Group(cmd, run)
}
