package main

import (
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/cmd/updatectl/report"
	"github.com/updatectl/updatectl/cmd/usage"
	"github.com/updatectl/updatectl/switcher/etc/difference"
)

func etcCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "etc",
		Short: "Show how /etc differs from the image, and take files from it",
	}
	return usage.Group(cmd, etcDiffCommand(c), etcTakeCommand(c))
}

func etcDiffCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "diff [ROOT] [PATH]",
		Short: "Show how the /etc of a root differs from its image",
		Long: `Show how the /etc of the running root, or of ROOT, differs from its image: every
difference, or those at PATH and below, which begins with /etc.

The difference of a text is shown if everybody may read the file, or if PATH is
that file.`,
		Args: usage.Arguments("[ROOT]", "[PATH]"),
		RunE: func(cmd *cobra.Command, given []string) error {
			root := ""
			if len(given) > 0 && !strings.HasPrefix(given[0], "/") {
				root, given = given[0], given[1:]
			}
			paths, err := difference.Relative(given)
			if err != nil {
				return err
			}
			a, err := c.anyway()
			if err != nil {
				return err
			}
			d, err := a.Changes.Diff(cmd.Context(), root, paths)
			if err != nil {
				return err
			}
			if err := c.print("etc.diff", d, func(w io.Writer) { report.Differences(w, d) }); err != nil || c.output == "json" {
				return err
			}
			return report.TextDiffs(c.stdout, d)
		},
	}
}

func etcTakeCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "take PATH",
		Short: "Replace a file in /etc by the image's version",
		Long: `Replace a file or link in the running /etc by the version of the image that
runs. The former version is kept beside it, under a name that nothing loads; the
answer has the command that brings it back.`,
		Args: usage.Arguments("the path"),
		RunE: func(cmd *cobra.Command, given []string) error {
			a, err := c.anyway()
			if err != nil {
				return err
			}
			t, err := a.Changes.Take(cmd.Context(), given[0])
			if err != nil {
				return err
			}
			return c.print("etc.take", t, func(w io.Writer) { report.Taken(w, t) })
		},
	}
}

func deriveCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "derive",
		Short: "Make the derived files in /etc anew",
		Args:  usage.Arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := c.anyway()
			if err != nil {
				return err
			}
			done, err := a.Changes.Derive(cmd.Context())
			if err != nil {
				return err
			}
			return c.print("derive", done, func(w io.Writer) { report.Derived(w, done) })
		},
	}
}
