package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/agent/repair"
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
			if perr := c.print("fsck", done, func(w io.Writer) { fsckedText(w, done) }); perr != nil {
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

func fsckedText(w io.Writer, d repair.Fscked) {
	for _, damage := range d.Damage {
		state := "Damaged"
		if slices.Contains(d.Repaired, damage.Path) {
			state = "Repaired"
		}
		fmt.Fprintf(w, "%s: %s\n  %s\n", state, damage.Path, damage.Reason)
		for _, id := range damage.Roots {
			fmt.Fprintf(w, "  needed by %s\n", short(id))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.Failed)) {
		fmt.Fprintf(w, "Not repaired: %s: %s\n", short(name), d.Failed[name])
	}
	fmt.Fprintf(w, "%s and %s read (%s); the kernel verifies %d of them.\n",
		usage.Count(d.Roots, "root", "roots"), usage.Count(d.Objects, "object", "objects"), usage.Size(d.Bytes),
		d.Verified)
	if len(d.Damage) == 0 {
		fmt.Fprintln(w, "Nothing is damaged.")
	}
}
