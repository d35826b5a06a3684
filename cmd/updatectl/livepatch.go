package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/switcher"
)

func (c *cli) livepatchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "livepatch",
		Short: "Show the live patches of the running kernel",
		Args:  args(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "list",
		Short: "List the live patches that the kernel has loaded",
		Args:  args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			patches, err := switcher.Machine{Root: c.root}.LivePatches()
			if err != nil {
				return err
			}
			value := struct {
				LivePatches []switcher.LivePatch `json:"live_patches"`
			}{patches}
			return c.print("livepatch.list", value, func(w io.Writer) {
				if len(patches) == 0 {
					fmt.Fprintln(w, "The kernel has no live patches loaded.")
				}
				for _, p := range patches {
					fmt.Fprintln(w, livePatchText(p))
				}
			})
		},
	})
	return cmd
}

func livePatchText(p switcher.LivePatch) string {
	switch {
	case p.Effective():
		return p.Name + "\teffective"
	case p.Enabled:
		return p.Name + "\tin transition: some tasks still run the old code"
	case p.Transition:
		return p.Name + "\tbeing taken back"
	}
	return p.Name + "\tdisabled"
}
