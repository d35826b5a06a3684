package main

import (
	"errors"
	"io"

	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/repair"
	"github.com/updatectl/updatectl/cmd/updatectl/report"
	"github.com/updatectl/updatectl/cmd/usage"
)

func fsckCommand(c *cli) *cobra.Command {
	var mend bool
	cmd := &cobra.Command{
		Use:   "fsck",
		Short: "Read all roots and their files, and name what is damaged",
		Long: `Read all roots and their files, and name what is damaged: files that are not
what their names say, an image of a tree that is not what was signed, a
directory that belongs to another root.

--repair fetches what is damaged again, from where the image came from, after
checking the kept evidence against today's policy. Nothing is removed before
its replacement is on the disk. A running root has the repaired files after the
next switch.

Exit code 0: nothing is damaged, or not any more. Exit code 20: something is.`,
		Args: usage.Arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := c.anyway()
			if mend {
				a, err = c.agent()
			}
			if err != nil {
				return err
			}
			done, err := agent.Fsck(cmd.Context(), a, mend)
			if err != nil && !errors.Is(err, repair.ErrDamage) {
				return err
			}
			if perr := c.print("fsck", done, func(w io.Writer) { report.Fscked(w, done) }); perr != nil {
				return perr
			}
			if err != nil {
				return answer(exitNotTrusted)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&mend, "repair", false, "fetch what is damaged again")
	return cmd
}
