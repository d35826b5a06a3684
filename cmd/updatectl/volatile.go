package main

import (
	"errors"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/switcher/level"
)

// volatileFlag adds the flag that has the root run on a copy of the state; checkVolatile looks at it.
func volatileFlag(f *pflag.FlagSet, o *agent.ApplyOptions) {
	f.BoolVar(&o.Volatile, "volatile", false,
		"run the root on a throw-away copy of the state, in memory, which the next switch drops")
}

// checkVolatile returns an error for flags that do not go with --volatile. The level is soft then: the copy lives as
// long as the kernel.
func checkVolatile(cmd *cobra.Command, o *agent.ApplyOptions) error {
	switch {
	case !o.Volatile:
		return nil
	case o.Unattended:
		return usageError{errors.New("--volatile is for a person: it does not go with --unattended"), cmd.CommandPath()}
	case o.Level == level.Full:
		return usageError{errors.New("--volatile takes a soft reboot: it does not go with --level full"), cmd.CommandPath()}
	}
	o.Level = level.Soft
	return nil
}
