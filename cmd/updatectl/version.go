package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/updatectl/updatectl/cmd/usage"
)

// version is set by the build, with -X.
var version = ""

func versionCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of updatectl",
		Args:  usage.Arguments(),
		RunE: func(*cobra.Command, []string) error {
			v := usage.Version(version)
			return c.print("version", versionAnswer{v}, func(w io.Writer) { fmt.Fprintf(w, "updatectl %s\n", v) })
		},
	}
}

// versionAnswer is the answer of version in JSON.
type versionAnswer struct {
	Version string `json:"version"`
}
