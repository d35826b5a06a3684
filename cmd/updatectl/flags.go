package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/updatectl/updatectl/agent"
	"github.com/updatectl/updatectl/switcher/level"
)

// Flags that several commands have.

// waitFlag adds the flag that waits for the lock.
func waitFlag(f *pflag.FlagSet, wait *bool) {
	f.BoolVar(wait, "wait", false, "wait for another updatectl that is running")
}

// levelFlag adds the flag that chooses the level of a switch; levelOf reads it.
func levelFlag(f *pflag.FlagSet, wish *string) {
	f.StringVar(wish, "level", "", "`LEVEL` of the switch: auto, soft or full (default: as configured)")
}

// levelOf returns the level that --level names, "" when it was not given.
func levelOf(cmd *cobra.Command, wish string) (level.Level, error) {
	if wish == "" {
		return "", nil
	}
	l, err := level.ParseLevel(wish)
	if err != nil {
		return "", usageError{fmt.Errorf("--level: %w", err), cmd.CommandPath()}
	}
	return l, nil
}

// fromFlag adds the flag that replaces the configured source; does is what the command does with it.
func fromFlag(f *pflag.FlagSet, from *string, does string) {
	f.StringVar(from, "from", "", does+" at `REF` instead of the configured source")
}

// allowDowngrade adds the flag that waives the order of releases.
func allowDowngrade(f *pflag.FlagSet, o *agent.ApplyOptions) {
	f.BoolVar(&o.AllowDowngrade, "allow-downgrade", false,
		"take a release that is older than the last one accepted; it must be signed and not expired")
}
