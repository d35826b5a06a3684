package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/cmd/usage"
)

// version is set by the build, with -X.
var version = ""

func newVersion(out *output) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of releasectl",
		Args:  usage.Arguments(),
		RunE: func(*cobra.Command, []string) error {
			a := struct {
				Version string `json:"version"`
			}{usage.Version(version)}
			return out.answer("version", a, func(w io.Writer) { fmt.Fprintf(w, "releasectl %s\n", a.Version) })
		},
	}
}
